//! Tests member lists and read marks against the contract.

use crate::common::{App, Setup};
use receipts_fold::view::{Member, MemberFilter, ReadMark, Status};
use receipts_http::{Access, AccessRule};
use serde_json::{Value, json};

const ALICE: (&str, &str) = ("receipts-caller", "alice");
const BOB: (&str, &str) = ("receipts-caller", "bob");
const LIST: &str = "/v1/conversations/g1/messages/m1/members";
const MARK: &str = "/v1/conversations/g1/read-marks/bob";

fn member(at: usize) -> Member {
    Member { user_id: format!("u{at}"), read_at_ms: None, left: false }
}

/// A message of alice that 2,500 members have not read, one has read, and one left.
fn app() -> App {
    filled(App::new())
}

fn filled(app: App) -> App {
    app.table.put("g1", "m1", "alice", 100, Status::Ok);
    app.table.put_members("g1", "m1", MemberFilter::Unread, (0..2_500).map(member).collect());
    let reader = Member { read_at_ms: Some(104), left: true, ..member(7_000) };
    app.table.put_members("g1", "m1", MemberFilter::Read, vec![reader]);
    app.table.put_members("g1", "m1", MemberFilter::Departed, vec![Member { left: true, ..member(8_000) }]);
    app.table.put("g1", "m2", "alice", 100, Status::Ok);
    app
}

#[tokio::test]
async fn each_filter_has_its_own_list() {
    let app = app();
    let read = app.get(&format!("{LIST}?filter=read"), &[]).await;
    assert_eq!(read.json["members"], json!([{"user_id": "u7000", "read_at_ms": 104, "left": true}]));
    assert_eq!((&read.json["next_cursor"], &read.json["is_finished"]), (&Value::Null, &json!(true)));
    assert_eq!(read.json["receipt"]["message_id"], "m1");
    assert!(read.json.as_object().unwrap().contains_key("next_cursor"));
    let departed = app.get(&format!("{LIST}?filter=departed"), &[]).await;
    assert_eq!(departed.json["members"], json!([{"user_id": "u8000", "left": true}]));
    let unread = app.get(&format!("{LIST}?filter=unread&limit=1"), &[]).await;
    assert_eq!(unread.json["members"], json!([{"user_id": "u0"}]));
    assert_eq!(unread.json["is_finished"], false);
}

#[tokio::test]
async fn walk_with_cursors_names_every_member_once() {
    let app = app();
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = app.get(&format!("{LIST}?filter=unread&limit=1000{cursor}"), &[ALICE]).await;
        assert_eq!(answer.status, 200);
        assert!(answer.headers.contains_key("receipts-position"));
        for member in answer.json["members"].as_array().unwrap() {
            seen.push(member["user_id"].as_str().unwrap().to_owned());
        }
        pages += 1;
        match answer.json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert!(seen.into_iter().eq((0..2_500).map(|at| format!("u{at}"))));
}

#[tokio::test]
async fn page_has_100_members_by_default_1000_at_most() {
    let app = app();
    let members = async |query: &str| {
        let answer = app.get(&format!("{LIST}?filter=unread{query}"), &[]).await;
        answer.json["members"].as_array().unwrap().len()
    };
    assert_eq!(members("").await, 100);
    assert_eq!(members("&limit=1").await, 1);
    assert_eq!(members("&limit=1000").await, 1_000);
    for limit in ["0", "1001", "-1", "ten", "", "+5", "1.0"] {
        let uri = format!("{LIST}?filter=unread&limit={}", limit.replace('+', "%2B"));
        app.get(&uri, &[]).await.is_problem(400, "invalid", &["/limit"]);
    }
}

#[tokio::test]
async fn filter_must_be_known_and_appear_once() {
    let app = app();
    for query in ["", "?filter=", "?filter=hidden", "?filter=READ", "?filter=read&filter=unread"] {
        app.get(&format!("{LIST}{query}"), &[]).await.is_problem(400, "invalid", &["/filter"]);
    }
    assert_eq!(app.get(&format!("{LIST}?filter=read&colour=blue"), &[]).await.status, 200);
}

#[tokio::test]
async fn forged_or_foreign_cursor_is_a_400() {
    let app = app();
    let page = app.get(&format!("{LIST}?filter=unread&limit=5"), &[]).await;
    let cursor = page.json["next_cursor"].as_str().unwrap();
    let mut forged = cursor.to_owned().into_bytes();
    forged[3] ^= 1;
    let forged = String::from_utf8(forged).unwrap();
    let other_message = "/v1/conversations/g1/messages/m2/members";
    for (list, cursor) in [
        (format!("{LIST}?filter=unread"), forged.as_str()),
        (format!("{LIST}?filter=unread"), ""),
        (format!("{LIST}?filter=unread"), "nonsense"),
        (format!("{LIST}?filter=read"), cursor),
        (format!("{other_message}?filter=unread"), cursor),
    ] {
        app.get(&format!("{list}&cursor={cursor}"), &[]).await.is_problem(400, "bad-cursor", &["/cursor"]);
    }
    let foreign = app.get(&format!("{LIST}?filter=unread&cursor={cursor}"), &[("receipts-tenant", "acme")]).await;
    foreign.is_problem(400, "bad-cursor", &["/cursor"]);
    assert_eq!(app.get(&format!("{LIST}?filter=unread&limit=9&cursor={cursor}"), &[]).await.status, 200);
}

#[tokio::test]
async fn list_tells_strangers_nothing() {
    let app = app();
    assert_eq!(app.get(&format!("{LIST}?filter=read"), &[ALICE]).await.status, 200);
    let there = app.get(&format!("{LIST}?filter=read"), &[BOB]).await;
    there.is_problem(403, "forbidden", &[]);
    let nowhere = app.get("/v1/conversations/g1/messages/nope/members?filter=read", &[BOB]).await;
    assert_eq!((there.text, there.status), (nowhere.text, nowhere.status));
}

#[tokio::test]
async fn access_is_configured_per_list() {
    let access = Access {
        unread: AccessRule::Scope,
        read: AccessRule::Sender,
        departed: AccessRule::Nobody,
        ..Access::default()
    };
    let app = filled(App::with(Setup { access: access.into(), ..Setup::default() }));
    for (filter, service, sender) in [("unread", 200, 403), ("read", 403, 200), ("departed", 403, 403)] {
        let uri = format!("{LIST}?filter={filter}");
        assert_eq!(app.get(&uri, &[]).await.status, service, "{filter}");
        assert_eq!(app.get(&uri, &[ALICE]).await.status, sender, "{filter}");
    }
    assert_eq!(app.get("/v1/conversations/g1/messages/m1/receipt", &[ALICE]).await.status, 200);
}

#[tokio::test]
async fn list_of_bad_message_is_409_or_404() {
    let app = app();
    for (status, name) in
        [(Status::NotRequested, "not_requested"), (Status::Unsupported, "unsupported"), (Status::Recalled, "recalled")]
    {
        app.table.put("g1", name, "alice", 1, status);
        let uri = format!("/v1/conversations/g1/messages/{name}/members?filter=read");
        for headers in [&[][..], &[ALICE]] {
            let answer = app.get(&uri, headers).await;
            answer.is_problem(409, "not-ok", &[]);
            assert_eq!(answer.json["receipt"]["status"], name);
        }
    }
    let answer = app.get("/v1/conversations/g1/messages/nope/members?filter=read", &[]).await;
    answer.is_problem(404, "not-found", &[]);
}

fn mark() -> ReadMark {
    ReadMark {
        reader_id: "bob".to_owned(),
        up_to_message_id: Some("m7".to_owned()),
        up_to_sent_at_ms: 100,
        read_at_ms: 104,
        version: 8,
    }
}

#[tokio::test]
async fn services_members_and_the_reader_get_a_read_mark() {
    let app = app();
    app.table.put_mark("g1", mark());
    app.table.join("g1", "carol");
    let expected =
        json!({"reader_id": "bob", "up_to_message_id": "m7", "up_to_sent_at_ms": 100, "read_at_ms": 104, "version": 8});
    for headers in [&[][..], &[BOB], &[("receipts-caller", "carol")]] {
        let answer = app.get(MARK, headers).await;
        assert_eq!((answer.status.as_u16(), &answer.json), (200, &expected));
        assert!(answer.headers.contains_key("receipts-position"));
    }
}

#[tokio::test]
async fn a_read_mark_moved_by_time_names_no_message() {
    let app = app();
    app.table.put_mark("g1", ReadMark { up_to_message_id: None, ..mark() });
    assert!(app.get(MARK, &[]).await.json.get("up_to_message_id").is_none());
}

#[tokio::test]
async fn strangers_get_no_read_mark_existing_or_not() {
    let app = app();
    app.table.put_mark("g1", mark());
    app.table.join("g1", "carol");
    let stranger = ("receipts-caller", "mallory");
    let there = app.get(MARK, &[stranger]).await;
    there.is_problem(403, "forbidden", &[]);
    let nowhere = app.get("/v1/conversations/g1/read-marks/nobody", &[stranger]).await;
    assert_eq!((there.text, there.status), (nowhere.text, nowhere.status));
    app.get("/v1/conversations/other/read-marks/bob", &[("receipts-caller", "carol")]).await.is_problem(
        403,
        "forbidden",
        &[],
    );
}

#[tokio::test]
async fn missing_read_mark_is_a_404() {
    let app = app();
    app.table.join("g1", "carol");
    for headers in [&[][..], &[BOB], &[("receipts-caller", "carol")]] {
        app.get(MARK, headers).await.is_problem(404, "not-found", &[]);
    }
}

const LIST_BY_BODY: &str = "/v1/members/list";
const MARKS: &str = "/v1/read-marks/query";

fn list(more: &Value) -> Value {
    let mut body = json!({"conversation_id": "g1", "message_id": "m1", "filter": "unread"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn list_by_body_is_the_list_by_path() {
    let app = app();
    for filter in ["read", "unread", "departed"] {
        let by_path = app.get(&format!("{LIST}?filter={filter}&limit=7"), &[ALICE]).await;
        let by_body = app.post(LIST_BY_BODY, &[ALICE], list(&json!({"filter": filter, "limit": 7}))).await;
        assert_eq!((by_body.status, &by_body.json), (by_path.status, &by_path.json));
        assert!(by_body.headers.contains_key("receipts-position"));
    }
    // Each takes the cursors of the other, and null is absence.
    let first = app.post(LIST_BY_BODY, &[], list(&json!({"cursor": null, "limit": null}))).await;
    assert_eq!(first.json["members"].as_array().unwrap().len(), 100);
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let second = app.get(&format!("{LIST}?filter=unread&cursor={cursor}"), &[]).await;
    assert_eq!(second.json["members"][0], json!({"user_id": "u100"}));
    let cursor = second.json["next_cursor"].as_str().unwrap();
    let third = app.post(LIST_BY_BODY, &[], list(&json!({"cursor": cursor, "limit": 1}))).await;
    assert_eq!(third.json["members"], json!([{"user_id": "u200"}]));
    let foreign = list(&json!({"cursor": cursor, "message_id": "m2"}));
    app.post(LIST_BY_BODY, &[], foreign).await.is_problem(400, "bad-cursor", &["/cursor"]);
}

#[tokio::test]
async fn list_by_body_has_the_problems_of_the_list() {
    let app = app();
    app.post(LIST_BY_BODY, &[BOB], list(&json!({}))).await.is_problem(403, "forbidden", &[]);
    app.post(LIST_BY_BODY, &[], list(&json!({"message_id": "no"}))).await.is_problem(404, "not-found", &[]);
    app.table.put("g1", "gone", "alice", 1, Status::Recalled);
    app.post(LIST_BY_BODY, &[], list(&json!({"message_id": "gone"}))).await.is_problem(409, "not-ok", &[]);
    let all = ["/conversation_id", "/message_id", "/filter"];
    app.post(LIST_BY_BODY, &[], json!({})).await.is_problem(400, "invalid", &all);
    for (field, value) in [
        ("conversation_id", json!("")),
        ("message_id", json!("x".repeat(129))),
        ("filter", json!("late")),
        ("filter", json!(1)),
        ("limit", json!(0)),
        ("limit", json!(1_001)),
        ("limit", json!(1.5)),
        ("limit", json!("7")),
        ("cursor", json!(7)),
    ] {
        let answer = app.post(LIST_BY_BODY, &[], list(&json!({field: value}))).await;
        answer.is_problem(400, "invalid", &[&format!("/{field}")]);
    }
    app.post(LIST_BY_BODY, &[], json!(["g1"])).await.is_problem(400, "invalid", &[""]);
    let lines = app.post(LIST_BY_BODY, &[("content-type", "application/x-ndjson")], "{}").await;
    lines.is_problem(415, "unsupported-media-type", &["/Content-Type"]);
}

#[tokio::test]
async fn read_marks_come_in_the_order_of_the_query() {
    let app = app();
    app.table.put_mark("g1", mark());
    app.table.join("g1", "carol");
    let expected = app.get(MARK, &[]).await.json;
    let ids = json!({"conversation_id": "g1", "user_ids": ["nobody", "bob", "carol", "bob"], "thread_id": null});
    for headers in [&[][..], &[("receipts-caller", "carol")]] {
        let answer = app.post(MARKS, headers, ids.clone()).await;
        assert_eq!(answer.json["read_marks"], json!([null, expected, null, expected]));
        assert_eq!(answer.json["position"], answer.header("receipts-position"));
    }
    // Nobody else may ask, but for the own mark.
    let own = json!({"conversation_id": "g1", "user_ids": ["bob"]});
    assert_eq!(app.post(MARKS, &[BOB], own).await.json["read_marks"], json!([expected]));
    app.post(MARKS, &[BOB], ids.clone()).await.is_problem(403, "forbidden", &[]);
    app.post(MARKS, &[("receipts-caller", "mallory")], ids).await.is_problem(403, "forbidden", &[]);
}

#[tokio::test]
async fn bad_query_of_read_marks_is_a_400() {
    let app = app();
    app.post(MARKS, &[], json!({})).await.is_problem(400, "invalid", &["/conversation_id", "/user_ids"]);
    for (ids, pointer) in [
        (json!([]), "/user_ids"),
        (json!(vec!["u"; 101]), "/user_ids"),
        (json!("bob"), "/user_ids"),
        (json!(["bob", ""]), "/user_ids/1"),
        (json!([null]), "/user_ids/0"),
    ] {
        let answer = app.post(MARKS, &[], json!({"conversation_id": "g1", "user_ids": ids})).await;
        answer.is_problem(400, "invalid", &[pointer]);
    }
    let of_thread = json!({"conversation_id": "g1", "user_ids": ["bob"], "thread_id": "t1"});
    app.post(MARKS, &[], of_thread).await.is_problem(400, "invalid", &["/thread_id"]);
}
