//! Tests receipts against the contract: one and many, access, and the freshness of answers.

use crate::common::table::Mood;
use crate::common::{App, Setup};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use receipts_event::token::Content;
use receipts_fold::view::Status;
use receipts_http::{Access, AccessByTenant, AccessRule, Limits};
use receipts_query::{Answers as _, Conversation, Positions, StreamId};
use serde_json::{Value, json};
use std::time::Duration;

const ALICE: (&str, &str) = ("receipts-caller", "alice");
const BOB: (&str, &str) = ("receipts-caller", "bob");
const ONE: &str = "/v1/conversations/g1/messages/m1/receipt";
const MANY: &str = "/v1/receipts/query";

/// Messages of every status, sent by alice, and one of bob's.
fn app() -> App {
    filled(App::new())
}

fn filled(app: App) -> App {
    app.table.put("g1", "m1", "alice", 100, Status::Ok);
    app.table.put("g1", "quiet", "alice", 101, Status::NotRequested);
    app.table.put("g1", "off", "alice", 102, Status::Unsupported);
    app.table.put("g1", "gone", "alice", 103, Status::Recalled);
    app.table.put("g2", "m1", "bob", 200, Status::Ok);
    app
}

fn statuses(answer: &Value) -> Vec<&str> {
    answer["receipts"].as_array().unwrap().iter().map(|receipt| receipt["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn receipt_has_counts_and_a_position() {
    let app = app();
    let answer = app.get(ONE, &[]).await;
    assert_eq!(answer.status, 200);
    let expected = json!({
        "tenant": "default", "conversation_id": "g1", "message_id": "m1", "status": "ok", "kind": "group",
        "sender_id": "alice", "sent_at_ms": 100, "audience_count": 5, "read_count": 2, "unread_count": 2,
        "hidden_count": 0, "departed_count": 1, "all_read": false, "last_read_at_ms": 104, "version": 1234
    });
    assert_eq!(answer.json, expected);
    let partition = Conversation::locate("default", "g1", crate::common::PARTITIONS).partition;
    assert_eq!(answer.header("receipts-position").parse(), Ok(Positions::applied(partition, 10)));
}

#[tokio::test]
async fn receipt_is_404_only_if_not_found() {
    let app = app();
    for (message_id, status) in [("quiet", "not_requested"), ("off", "unsupported"), ("gone", "recalled")] {
        let answer = app.get(&format!("/v1/conversations/g1/messages/{message_id}/receipt"), &[]).await;
        assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &json!(status)));
        assert!(answer.json.get("audience_count").is_none());
    }
    let answer = app.get("/v1/conversations/g1/messages/nope/receipt", &[]).await;
    answer.is_problem(404, "not-found", &[]);
    assert_eq!(answer.json["receipt"]["status"], "not_found");
    assert!(answer.headers.contains_key("receipts-position"));
}

#[tokio::test]
async fn batch_keeps_request_order_and_repetitions() {
    let app = app();
    let ids = ["gone", "m1", "nope", "m1", "off", "quiet"];
    let answer = app.post(MANY, &[], json!({"conversation_id": "g1", "message_ids": ids})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(statuses(&answer.json), ["recalled", "ok", "not_found", "ok", "unsupported", "not_requested"]);
    let answered = answer.json["receipts"].as_array().unwrap().iter().map(|receipt| &receipt["message_id"]);
    assert!(answered.eq(ids.iter()));
    assert_eq!(answer.header("receipts-position"), answer.json["position"]);
}

#[tokio::test]
async fn query_without_conversation_returns_the_latest_sent() {
    let app = app();
    let asked = json!({"message_ids": ["m1", "nope"], "conversation_id": null});
    let answer = app.post(MANY, &[], &asked).await;
    assert_eq!(statuses(&answer.json), ["ok", "not_found"]);
    assert_eq!(answer.json["receipts"][0]["conversation_id"], "g2");
    assert_eq!(answer.json["receipts"][1], json!({"tenant": "default", "message_id": "nope", "status": "not_found"}));
    let positions: Positions = answer.json["position"].as_str().unwrap().parse().unwrap();
    assert_eq!(positions.iter().len(), crate::common::PARTITIONS as usize);
    let foreign = app.post(MANY, &[("receipts-tenant", "acme")], &asked).await;
    assert_eq!(statuses(&foreign.json), ["not_found", "not_found"]);
}

#[tokio::test]
async fn only_sender_and_services_may_ask() {
    let app = app();
    assert_eq!(app.get(ONE, &[]).await.status, 200);
    assert_eq!(app.get(ONE, &[ALICE]).await.status, 200);
    app.get(ONE, &[BOB]).await.is_problem(403, "forbidden", &[]);
}

#[tokio::test]
async fn stranger_cannot_tell_whether_a_message_exists() {
    let app = app();
    let there = app.get("/v1/conversations/g1/messages/gone/receipt", &[BOB]).await;
    let nowhere = app.get("/v1/conversations/g1/messages/nope/receipt", &[BOB]).await;
    there.is_problem(403, "forbidden", &[]);
    assert_eq!((&there.text, there.status), (&nowhere.text, nowhere.status));
    assert_eq!(there.header("receipts-position"), nowhere.header("receipts-position"));

    let asked = json!({"conversation_id": "g1", "message_ids": ["m1", "nope", "gone"]});
    let answer = app.post(MANY, &[BOB], asked).await;
    for (receipt, id) in answer.json["receipts"].as_array().unwrap().iter().zip(["m1", "nope", "gone"]) {
        let bare = json!({"tenant": "default", "conversation_id": "g1", "message_id": id, "status": "forbidden"});
        assert_eq!(*receipt, bare);
    }
    let answer = app.post(MANY, &[("receipts-caller", "carol")], json!({"message_ids": ["m1", "nope"]})).await;
    for (receipt, id) in answer.json["receipts"].as_array().unwrap().iter().zip(["m1", "nope"]) {
        assert_eq!(*receipt, json!({"tenant": "default", "message_id": id, "status": "forbidden"}));
    }
}

#[tokio::test]
async fn batch_decides_access_per_item() {
    let app = app();
    app.table.put("g1", "bobs", "bob", 300, Status::Ok);
    let answer = app.post(MANY, &[BOB], json!({"conversation_id": "g1", "message_ids": ["m1", "bobs", "nope"]})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(statuses(&answer.json), ["forbidden", "ok", "forbidden"]);
}

#[tokio::test]
async fn access_to_counts_is_configured() {
    let access = Access { counts: AccessRule::Scope, ..Access::default() };
    let app = filled(App::with(Setup { access: access.into(), ..Setup::default() }));
    assert_eq!(app.get(ONE, &[]).await.status, 200);
    app.get(ONE, &[ALICE]).await.is_problem(403, "forbidden", &[]);
}

#[tokio::test]
async fn tenant_may_have_its_own_rules() {
    let nobody = Access { counts: AccessRule::Nobody, read: AccessRule::Nobody, ..Access::default() };
    let access = AccessByTenant { tenants: [("default".to_owned(), nobody)].into(), ..AccessByTenant::default() };
    let app = filled(App::with(Setup { access, ..Setup::default() }));
    for caller in [&[][..], &[ALICE]] {
        app.get(ONE, caller).await.is_problem(403, "forbidden", &[]);
        let answer = app.post(MANY, caller, json!({"conversation_id": "g1", "message_ids": ["m1"]})).await;
        let bare = json!({"tenant": "default", "conversation_id": "g1", "message_id": "m1", "status": "forbidden"});
        assert_eq!(answer.json["receipts"], json!([bare]));
        app.get(&ONE.replace("receipt", "members?filter=read"), caller).await.is_problem(403, "forbidden", &[]);
        assert_eq!(app.get(&ONE.replace("receipt", "members?filter=unread"), caller).await.status, 200);
    }
    app.get("/v1/updates?sender_id=alice", &[ALICE]).await.is_problem(403, "forbidden", &[]);
    // Another tenant keeps the default rules.
    app.get(ONE, &[("receipts-tenant", "acme")]).await.is_problem(404, "not-found", &[]);
}

/// INV-STRANGER: the state is not asked for a caller that is refused anyway.
#[tokio::test]
async fn state_is_not_asked_for_refused_callers() {
    let access = Access { counts: AccessRule::Scope, unread: AccessRule::Nobody, ..Access::default() };
    let app = filled(App::with(Setup { access: access.into(), ..Setup::default() }));
    *app.table.mood.lock().unwrap() = Mood::Panicking;
    app.get(ONE, &[ALICE]).await.is_problem(403, "forbidden", &[]);
    let asked = json!({"message_ids": ["m1"]});
    assert_eq!(statuses(&app.post(MANY, &[ALICE], asked).await.json), ["forbidden"]);
    app.get(&ONE.replace("receipt", "members?filter=unread"), &[]).await.is_problem(403, "forbidden", &[]);
}

/// INV-STRANGER: a newer message of another sender with the same id stays hidden.
#[tokio::test]
async fn sender_finds_its_own_message_among_equal_ids() {
    let app = app();
    let of = async |caller: (&str, &str)| app.post(MANY, &[caller], json!({"message_ids": ["m1"]})).await.json;
    assert_eq!(of(ALICE).await["receipts"][0]["conversation_id"], "g1");
    assert_eq!(of(BOB).await["receipts"][0]["conversation_id"], "g2");
}

#[tokio::test]
async fn bad_batch_names_every_bad_item() {
    let app = app();
    let long = "x".repeat(129);
    let cases = [
        (json!({"message_ids": ["ok", "", 7, long]}), vec!["/message_ids/1", "/message_ids/2", "/message_ids/3"]),
        (json!({"message_ids": []}), vec!["/message_ids"]),
        (json!({"message_ids": vec!["m"; 101]}), vec!["/message_ids"]),
        (json!({"message_ids": "m1"}), vec!["/message_ids"]),
        (json!({"conversation_id": ""}), vec!["/conversation_id", "/message_ids"]),
        (json!({"conversation_id": 1, "message_ids": ["m"]}), vec!["/conversation_id"]),
        (json!(["m1"]), vec![""]),
    ];
    for (body, pointers) in cases {
        app.post(MANY, &[], &body).await.is_problem(400, "invalid", &pointers);
    }
    app.post(MANY, &[], "{\"message_ids\":").await.is_problem(400, "invalid", &[""]);
    assert_eq!(app.post(MANY, &[], json!({"message_ids": vec!["m"; 100], "other": 1})).await.status, 200);
}

#[tokio::test]
async fn batch_is_json_of_bounded_size() {
    let app = app();
    for content_type in ["text/plain", "application/x-ndjson"] {
        let answer = app.post(MANY, &[("content-type", content_type)], json!({"message_ids": ["m"]})).await;
        answer.is_problem(415, "unsupported-media-type", &["/Content-Type"]);
    }
    app.post(MANY, &[], " ".repeat((1 << 20) + 1)).await.is_problem(413, "too-large", &[]);
}

#[tokio::test]
async fn ids_in_paths_are_percent_encoded() {
    let app = app();
    app.table.put("g/1 é", "100% m%2F", "zoë", 1, Status::Ok);
    let uri = "/v1/conversations/g%2F1%20%C3%A9/messages/100%25%20m%252F/receipt";
    let answer = app.get(uri, &[]).await;
    assert_eq!((answer.status.as_u16(), &answer.json["message_id"]), (200, &json!("100% m%2F")));
    assert_eq!(answer.json["conversation_id"], "g/1 é");
    assert_eq!(app.get(uri, &[("receipts-caller", "zo%C3%AB")]).await.status, 200);
    app.get(uri, &[("receipts-caller", "zoe")]).await.is_problem(403, "forbidden", &[]);
}

#[tokio::test]
async fn path_without_an_id_is_a_400() {
    let app = app();
    let long = "x".repeat(129);
    app.get("/v1/conversations//messages/m1/receipt", &[]).await.is_problem(400, "invalid", &["/conversation_id"]);
    app.get("/v1/conversations/%ff/messages/m1/receipt", &[]).await.is_problem(400, "invalid", &["/conversation_id"]);
    app.get("/v1/conversations/g1/messages/%zz/receipt", &[]).await.is_problem(400, "invalid", &["/message_id"]);
    let answer = app.get(&format!("/v1/conversations/g1/messages/{long}/receipt"), &[]).await;
    answer.is_problem(400, "invalid", &["/message_id"]);
    assert_eq!(app.get(&format!("/v1/conversations/{}/messages/m/receipt", &long[1..]), &[]).await.status, 404);
}

#[tokio::test]
async fn read_waits_until_its_position_is_folded() {
    let app = app();
    let partition = Conversation::locate("default", "g1", crate::common::PARTITIONS).partition;
    let token = Positions::written(partition, 10).to_string();
    let headers = [("receipts-min-position", token.as_str()), ("receipts-wait-ms", "20000")];
    let fold = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        app.table.put("g1", "m1", "alice", 999, Status::Ok);
        app.table.fold_up_to(partition, 11);
    };
    let (answer, ()) = tokio::join!(app.get(ONE, &headers), fold);
    assert_eq!((answer.status.as_u16(), &answer.json["sent_at_ms"]), (200, &json!(999)));
    let stands_at: Positions = answer.header("receipts-position").parse().unwrap();
    assert!(stands_at.covers(&token.parse().unwrap()));
}

#[tokio::test]
async fn position_not_folded_in_time_is_a_503() {
    let app = app();
    let token = Positions::written(0, 1_000).to_string();
    for wait_ms in ["0", "20"] {
        let headers = [("receipts-min-position", token.as_str()), ("receipts-wait-ms", wait_ms)];
        let answer = app.get(ONE, &headers).await;
        answer.is_problem(503, "behind", &[]);
        assert_eq!(answer.header("retry-after"), "1");
        app.post(MANY, &headers, json!({"message_ids": ["m1"]})).await.is_problem(503, "behind", &[]);
    }
}

#[tokio::test(start_paused = true)]
async fn read_waits_1_s_by_default_30_at_most() {
    let app = app();
    let token = Positions::written(0, 1_000).to_string();
    let began = tokio::time::Instant::now();
    app.get(ONE, &[("receipts-min-position", &token)]).await.is_problem(503, "behind", &[]);
    assert_eq!(began.elapsed().as_secs(), 1);
    let headers = [("receipts-min-position", token.as_str()), ("receipts-wait-ms", "3600000")];
    app.get(ONE, &headers).await.is_problem(503, "behind", &[]);
    assert_eq!(began.elapsed().as_secs(), 31);
}

#[tokio::test(start_paused = true)]
async fn configured_wait_is_the_default() {
    let limits = Limits { wait_default: Duration::from_secs(7), ..Limits::default() };
    let app = App::with(Setup { limits, ..Setup::default() });
    let token = Positions::written(0, 1_000).to_string();
    let began = tokio::time::Instant::now();
    app.get(ONE, &[("receipts-min-position", &token)]).await.is_problem(503, "behind", &[]);
    assert_eq!(began.elapsed().as_secs(), 7);
    let headers = [("receipts-min-position", token.as_str()), ("receipts-wait-ms", "2000")];
    app.get(ONE, &headers).await.is_problem(503, "behind", &[]);
    assert_eq!(began.elapsed().as_secs(), 9);
}

#[tokio::test]
async fn answer_includes_awaited_positions_of_other_partitions() {
    let app = app();
    let all = receipts_query::Answers::positions(&*app.table);
    let answer = app.get(ONE, &[("receipts-min-position", &all.to_string())]).await;
    assert_eq!(answer.header("receipts-position").parse(), Ok(all));
}

#[tokio::test]
async fn several_tokens_are_waited_for_together() {
    let app = app();
    let two = format!("{}, {}", Positions::written(0, 3), Positions::written(1, 99));
    let headers = [("receipts-min-position", two.as_str()), ("receipts-wait-ms", "0")];
    app.get(ONE, &headers).await.is_problem(503, "behind", &[]);
    app.table.fold_up_to(1, 100);
    assert_eq!(app.get(ONE, &headers).await.status, 200);
}

/// Returns the token of a position of all partitions without the last bits of its offsets.
fn rounded(offset: u64, shift: u32) -> String {
    let offsets = (0..crate::common::PARTITIONS).map(|partition| (partition, offset >> shift));
    URL_SAFE_NO_PAD.encode(Content { shift, offsets: offsets.collect(), ..Content::default() }.bytes())
}

/// INV-TOKEN: the log of these tests ends where it is folded.
#[tokio::test]
async fn rounded_token_waits_for_the_logs_end_only() {
    let app = app();
    let token = rounded(1_000, 10);
    let headers = [("receipts-min-position", token.as_str()), ("receipts-wait-ms", "0")];
    let answer = app.get(ONE, &headers).await;
    assert_eq!(answer.status, 200);
    // What was waited for is in the position of the answer.
    let position: Positions = answer.header("receipts-position").parse().unwrap();
    assert!(position.covers(&app.table.positions()));
    // The least offset that it stands for is waited for in any case.
    let beyond = rounded(1 << 40, 10);
    let headers = [("receipts-min-position", beyond.as_str()), ("receipts-wait-ms", "0")];
    app.get(ONE, &headers).await.is_problem(503, "behind", &[]);
}

#[tokio::test]
async fn too_many_tokens_are_a_400() {
    let app = app();
    let many = |count| vec![rounded(1, 10); count].join(",");
    assert_eq!(app.get(ONE, &[("receipts-min-position", &many(100))]).await.status, 200);
    let refused = app.get(ONE, &[("receipts-min-position", &many(101))]).await;
    refused.is_problem(400, "bad-position", &["/Receipts-Min-Position"]);
}

#[tokio::test]
async fn garbled_position_and_bad_wait_are_400() {
    let app = app();
    let beyond = Positions::written(crate::common::PARTITIONS, 1).to_string();
    let cut = Positions::written(1, 1).to_string().split_off(1);
    let offsets = vec![(crate::common::PARTITIONS, 0)];
    let beyond_rounded = URL_SAFE_NO_PAD.encode(Content { shift: 9, offsets, ..Content::default() }.bytes());
    let id = StreamId(Positions::written(1, 1)).to_string();
    for token in ["", "nonsense", &cut, &beyond, &beyond_rounded, &id] {
        let answer = app.get(ONE, &[("receipts-min-position", token)]).await;
        answer.is_problem(400, "bad-position", &["/Receipts-Min-Position"]);
    }
    // A number that does not fit is shortened to the maximum.
    assert_eq!(app.get(ONE, &[("receipts-wait-ms", "99999999999999999999")]).await.status, 200);
    let twice = [("receipts-wait-ms", "1"), ("receipts-wait-ms", "1")];
    app.get(ONE, &twice).await.is_problem(400, "invalid", &["/Receipts-Wait-Ms"]);
    for wait in ["", "-1", "1.5", "soon", "+1"] {
        app.get(ONE, &[("receipts-wait-ms", wait)]).await.is_problem(400, "invalid", &["/Receipts-Wait-Ms"]);
    }
}

#[tokio::test]
async fn every_answer_and_problem_has_a_position() {
    let app = app();
    for (uri, headers) in [(ONE, vec![]), (ONE, vec![BOB]), ("/v1/conversations/g1/messages/%ff/receipt", vec![])] {
        let answer = app.get(uri, &headers).await;
        assert!(answer.header("receipts-position").parse::<Positions>().is_ok());
    }
}

#[tokio::test]
async fn unavailable_state_is_a_503_without_its_cause() {
    let app = app();
    *app.table.mood.lock().unwrap() = Mood::Failing;
    let answer = app.get(ONE, &[]).await;
    answer.is_problem(503, "unavailable", &[]);
    assert!(!answer.text.contains("10.0.0.7"));
    app.post(MANY, &[], json!({"message_ids": ["m1"]})).await.is_problem(503, "unavailable", &[]);
}

#[tokio::test(start_paused = true)]
async fn silent_state_is_a_503_after_the_timeout() {
    let limits = Limits { request_timeout: Duration::from_secs(5), ..Limits::default() };
    let app = filled(App::with(Setup { limits, ..Setup::default() }));
    *app.table.mood.lock().unwrap() = Mood::Silent;
    let began = tokio::time::Instant::now();
    app.get(ONE, &[]).await.is_problem(503, "unavailable", &[]);
    assert_eq!(began.elapsed().as_secs(), 5);
}
