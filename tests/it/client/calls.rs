//! Tests calls of the client: events, receipts, lists, read marks, callers and repeated requests.

use super::{SENT_AT_MS, client, conversation, free_address, serve_at};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::TryStreamExt as _;
use hmac::{Hmac, Mac as _};
use receipts_client::event::{self, Kind, UpTo};
use receipts_client::{
    Client, Error, Filter, MembersPage, Problem, ReadMark, ReadMarksAnswer, Receipt, ReceiptsAnswer, Status,
};
use receipts_tests::TIMEOUT;
use receipts_tests::process::{Answer, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn serve() -> (tempfile::TempDir, Service) {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &[]);
    (data, service)
}

fn read_count(receipt: &Receipt) -> Option<u32> {
    receipt.counts.map(|counts| counts.read_count)
}

/// INV-CLIENT, INV-POSITION
#[tokio::test(flavor = "multi_thread")]
async fn writer_and_holder_of_the_position_see_the_write() {
    let (_data, service) = serve();
    let backend = client(&service.address, None);
    backend.post_events(&conversation("g1", &["bob", "carol"], &["m1", "m2"])).await.expect("written");
    backend.post_events(&conversation("g2", &["bob"], &["n1"])).await.expect("written");
    let reads = [event::message_read("g1", "bob", ["m2"]).build(), event::message_read("g2", "bob", ["n1"]).build()];
    let accepted = backend.post_events(&reads).await.expect("written");
    assert_eq!(accepted.accepted, 2);
    let told = |receipts: Vec<Receipt>| -> Vec<(String, Status, Option<u32>)> {
        let told = |receipt: Receipt| (receipt.message_id.clone(), receipt.status, read_count(&receipt));
        receipts.into_iter().map(told).collect()
    };
    let row = |id: &str, status, read| (id.to_owned(), status, read);
    let within = backend.receipts(Some("g1"), &["m2", "m9", "m1", "m2"]).await.expect("answered");
    let m2 = row("m2", Status::Ok, Some(1));
    let m9 = row("m9", Status::NotFound, None);
    assert_eq!(told(within), [m2.clone(), m9.clone(), row("m1", Status::Ok, Some(0)), m2.clone()]);
    let anywhere = backend.receipts(None, &["n1", "m9", "m2"]).await.expect("answered");
    assert_eq!(told(anywhere), [row("n1", Status::Ok, Some(1)), m9, m2]);
    assert!(backend.receipts(None, &[] as &[&str]).await.expect("answered").is_empty());
    assert_eq!(read_count(&backend.receipt("g2", "n1").await.expect("answered")), Some(1));
    assert_eq!(backend.receipt("g2", "m9").await.expect("answered").status, Status::NotFound);

    let alice = client(&service.address, Some("alice"));
    assert_eq!(alice.position(), "");
    let read = event::message_read("g1", "carol", ["m2"]).read_at_ms(SENT_AT_MS + 5).build();
    alice.observe_position(&backend.post_events(&[read]).await.expect("written").position);
    let receipt = alice.receipt("g1", "m2").await.expect("answered");
    let counts = receipt.counts.expect("ok");
    assert_eq!((counts.all_read, receipt.sender_id.as_deref()), (true, Some("alice")));
    // The answer's position is all that has to be kept.
    assert_eq!(alice.position().split(',').count(), 1);
}

/// INV-CLIENT: the client's types lose nothing of a running service's answers.
#[tokio::test(flavor = "multi_thread")]
async fn client_types_keep_every_answer_whole() {
    fn keeps<T: DeserializeOwned + Serialize>(answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{}", answer.body);
        let read: T = serde_json::from_value(answer.body.clone()).expect("the type");
        assert_eq!(serde_json::to_value(read).expect("JSON"), answer.body);
    }
    let (_data, service) = serve();
    let backend = client(&service.address, None);
    let direct = [
        event::conversation_configured("d1", Kind::Direct).build(),
        event::members_changed("d1").joined(["alice", "bob"]).build(),
        super::sent("d1", "m1").build(),
        event::conversation_read("d1", "bob", UpTo::Message("m1".into())).build(),
    ];
    let mut group = conversation("g1", &["bob", "carol", "dave", "erin"], &["m1", "m2", "m3"]);
    group.extend([
        event::message_read("g1", "bob", ["m1"]).build(),
        event::message_read("g1", "carol", ["m1"]).hidden().build(),
        event::members_changed("g1").left(["bob", "dave"]).build(),
        event::message_recalled("g1", "m2").build(),
        event::message_sent("g1", "m4", "alice", SENT_AT_MS).build(),
    ]);
    let position = backend.post_events(&[&direct[..], &group].concat()).await.expect("written").position;
    let after = |path: &str| service.get_after(path, &position);
    for (conversation, message, status) in [("d1", "m1", 200), ("g1", "m1", 200), ("g1", "m2", 200), ("g1", "m4", 200)]
    {
        keeps::<Receipt>(&after(&format!("/v1/conversations/{conversation}/messages/{message}/receipt")), status);
    }
    for filter in ["read", "unread", "departed"] {
        keeps::<MembersPage>(&after(&format!("/v1/conversations/g1/messages/m1/members?filter={filter}&limit=1")), 200);
    }
    keeps::<ReadMark>(&after("/v1/conversations/d1/read-marks/bob"), 200);
    let both = json!({"conversation_id": "d1", "user_ids": ["bob", "alice"]});
    keeps::<ReadMarksAnswer>(&service.post("/v1/read-marks/query", &both), 200);
    let list = json!({"conversation_id": "g1", "message_id": "m1", "filter": "read"});
    keeps::<MembersPage>(&service.post("/v1/members/list", &list), 200);
    let ids = ["m1", "m2", "m4", "m9"];
    keeps::<ReceiptsAnswer>(&service.post("/v1/receipts/query", &json!({"message_ids": ids})), 200);
    keeps::<Problem>(&after("/v1/conversations/g1/messages/m9/receipt"), 404);
    keeps::<Problem>(&after("/v1/conversations/g1/messages/m2/members?filter=read"), 409);
    keeps::<Problem>(&service.post("/v1/events", &json!([{"type": "message.read"}])), 400);
    keeps::<Problem>(&service.get("/v1/updates"), 400);
}

/// INV-CLIENT, INV-PAGING
#[tokio::test(flavor = "multi_thread")]
async fn client_walk_names_each_member_once() {
    let (_data, service) = serve();
    let backend = client(&service.address, None);
    let people: Vec<String> = (0..2_500).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = people.iter().map(String::as_str).collect();
    backend.post_events(&conversation("g1", &names, &["m1"])).await.expect("written");
    let read: Vec<_> = names.iter().take(3).map(|reader| event::message_read("g1", *reader, ["m1"]).build()).collect();
    backend.post_events(&read).await.expect("written");
    let mut walk = std::pin::pin!(backend.members("g1", "m1", Filter::Unread));
    let mut walked = Vec::new();
    while let Some(member) = walk.try_next().await.expect("a page") {
        walked.push(member.user_id);
    }
    assert_eq!(walked.len(), 2_497);
    assert_eq!(walked.iter().map(String::as_str).collect::<BTreeSet<_>>(), names[3..].iter().copied().collect());
    let first = backend.members_page("g1", "m1", Filter::Read, 2, None).await.expect("a page");
    assert_eq!((first.members.len(), first.is_finished), (2, false));
    let cursor = first.next_cursor.expect("one more");
    let last = backend.members_page("g1", "m1", Filter::Read, 2, Some(&cursor)).await.expect("a page");
    assert_eq!((last.members.len(), last.is_finished, last.next_cursor), (1, true, None));
    let foreign = backend.members_page("g1", "m1", Filter::Unread, 2, Some(&cursor)).await.expect_err("another list's");
    assert!(foreign.is("bad-cursor"), "{foreign}");
}

/// INV-CLIENT
#[tokio::test(flavor = "multi_thread")]
async fn read_mark_moves_to_a_message_or_time() {
    let (_data, service) = serve();
    let backend = client(&service.address, None);
    backend.post_events(&[event::conversation_configured("d1", Kind::Direct).build()]).await.expect("written");
    backend.post_events(&conversation("d1", &["bob"], &["m1"])).await.expect("written");
    assert_eq!(backend.read_mark("d1", "bob").await.expect("answered"), None);
    for (up_to, message, time) in
        [(UpTo::Message("m1".into()), Some("m1"), SENT_AT_MS), (UpTo::SentAt(SENT_AT_MS + 1), None, SENT_AT_MS + 1)]
    {
        backend.post_events(&[event::conversation_read("d1", "bob", up_to).build()]).await.expect("written");
        let mark = backend.read_mark("d1", "bob").await.expect("answered").expect("a mark");
        assert_eq!((mark.up_to_message_id.as_deref(), mark.up_to_sent_at_ms), (message, time));
    }
}

/// INV-CLIENT
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_any_characters_reach_the_service_unchanged() {
    let (_data, service) = serve();
    let builder = || {
        let builder = Client::builder(format!("http://{}/", service.address)).tenant("ténant 漢").wait(TIMEOUT / 2);
        builder.http(|http| http.no_proxy())
    };
    let backend = builder().build().expect("a client");
    let (conversation_id, message, user) = ("a/b?c#d %", "m&=\u{1f600}", "böb,%41+ x");
    backend.post_events(&conversation(conversation_id, &[user], &[message])).await.expect("written");
    let mark = event::conversation_read(conversation_id, user, UpTo::Message(message.into())).build();
    backend.post_events(&[mark]).await.expect("written");
    let page = backend.members_page(conversation_id, message, Filter::Read, 10, None).await.expect("a page");
    assert_eq!((page.members[0].user_id.as_str(), page.receipt.tenant.as_str()), (user, "ténant 漢"));
    assert_eq!(backend.receipt(conversation_id, message).await.expect("answered").message_id, message);
    let self_ = builder().caller(user).build().expect("a client");
    self_.observe_position(&backend.position());
    assert!(self_.read_mark(conversation_id, user).await.expect("answered").is_some());
    drop(backend.updates_of_conversation(conversation_id).open().await.expect("opened"));
    drop(self_.updates_of_sender(user).open().await.expect("opened"));
    // Paths would mangle these, so they go in bodies.
    let (conversation_id, message, user) = ("..", "m/..%2F\u{1}", ".");
    backend.post_events(&conversation(conversation_id, &[user, "b"], &[message])).await.expect("written");
    let mark = event::conversation_read(conversation_id, user, UpTo::Message(message.into())).build();
    backend.post_events(&[mark]).await.expect("written");
    assert_eq!(backend.receipt(conversation_id, message).await.expect("answered").message_id, message);
    let list = |limit, cursor| backend.members_page(conversation_id, message, Filter::Unread, limit, cursor);
    assert_eq!(list(1, None).await.expect("a page").members[0].user_id, "b");
    let mark = backend.read_mark(conversation_id, user).await.expect("answered").expect("a mark");
    let marks = backend.read_marks(conversation_id, &["b", user, "nobody", user]).await.expect("answered");
    assert_eq!(marks, [None, Some(mark.clone()), None, Some(mark)]);
    let mallory = builder().caller("mallory").build().expect("a client");
    assert!(mallory.receipt(conversation_id, message).await.expect_err("not hers").is("forbidden"));
    let broken = Client::builder(format!("http://{}", service.address)).tenant("a\nb").build().expect("a client");
    assert!(matches!(broken.receipt("g", "m").await, Err(Error::Usage(why)) if why.contains("tenant")));
}

/// INV-CLIENT
#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_type_status_and_offending_items() {
    let (_data, service) = serve();
    let backend = client(&service.address, None);
    let invalid = backend.post_events(&[event::message_read("g1", "", ["m1"]).build()]).await.expect_err("no reader");
    let problem = invalid.problem().expect("a problem");
    assert_eq!((problem.type_uri.as_str(), problem.status), ("urn:receipts:problem:invalid", 400));
    assert_eq!((problem.errors.len(), problem.errors[0].pointer.as_str()), (1, "/0/reader_id"));
    assert!(invalid.to_string().contains("/0/reader_id"), "{invalid}");
    backend.post_events(&conversation("g1", &["bob"], &["m1"])).await.expect("written");
    backend.post_events(&[event::message_recalled("g1", "m1").build()]).await.expect("written");
    let recalled = backend.members_page("g1", "m1", Filter::Read, 10, None).await.expect_err("no list");
    let receipt = recalled.problem().and_then(|problem| problem.receipt.clone()).expect("its receipt");
    assert_eq!((recalled.is("not-ok"), receipt.status), (true, Status::Recalled));
    let mallory = client(&service.address, Some("mallory"));
    assert!(mallory.receipt("g1", "m1").await.expect_err("not hers").is("forbidden"));
    assert!(mallory.post_events(&[event::user_erased("bob").build()]).await.expect_err("a person").is("forbidden"));
    // The first of several requests are written.
    let mut many: Vec<_> = (0..1_500).map(|_| event::message_read("g1", "bob", ["m1"]).build()).collect();
    many[1_200] = event::message_read("g1", "", ["m1"]).build();
    match backend.post_events(&many).await {
        Err(Error::PartlyWritten { accepted: 1_000, source }) => {
            assert_eq!(source.problem().expect("a problem").errors[0].pointer, "/200/reader_id");
        }
        other => panic!("{other:?}"),
    }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Returns a token that the service accepts for a minute.
fn token(claims: serde_json::Value) -> String {
    let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let now_s = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let mut whole = json!({"iss": "test", "aud": "receipts", "tenant": "default", "exp": now_s + 60});
    whole.as_object_mut().expect("claims").extend(claims.as_object().expect("claims").clone());
    let text = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(&whole));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// INV-CLIENT, INV-CALLER
#[tokio::test(flavor = "multi_thread")]
async fn token_is_fetched_before_every_request() {
    let data = tempfile::tempdir().expect("a folder");
    let secret = data.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let secret = secret.to_str().expect("UTF-8");
    let flags = ["--auth-secret-file", secret, "--auth-issuer", "test", "--auth-audience", "receipts"];
    let service = Service::serve(data.path(), &flags);
    let builder = || {
        let builder = Client::builder(format!("http://{}", service.address)).wait(TIMEOUT / 2);
        builder.http(|http| http.no_proxy())
    };
    let backend =
        builder().token(token(json!({"scope": "receipts:members receipts:write"}))).build().expect("a client");
    backend.post_events(&conversation("g1", &["bob"], &["m1"])).await.expect("written");
    let asked = Arc::new(AtomicUsize::new(0));
    let source = {
        let asked = Arc::clone(&asked);
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, std::io::Error>(token(json!({"sub": "alice"}))) }
        }
    };
    let alice = builder().token_from(source).build().expect("a client");
    alice.observe_position(&backend.position());
    assert_eq!(read_count(&alice.receipt("g1", "m1").await.expect("hers")), Some(0));
    drop(alice.updates_of_sender("alice").open().await.expect("hers"));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // The ticket opens her stream without a token, and nobody else's.
    let ticket = alice.updates_of_sender("alice").ticket().await.expect("hers");
    let query = format!("ticket={}", ticket.ticket);
    assert_eq!(ticket.url, format!("http://{}/v1/updates?{query}", service.address));
    service.listen(&query, &[]).wait_for_id();
    let others = alice.updates_of_sender("bob").ticket().await.expect_err("bob's");
    assert!(others.is("forbidden"), "{others}");
    assert!(alice.updates_of_conversation("g1").ticket().await.expect_err("no scope").is("forbidden"));
    let forged = builder().token(format!("{}x", token(json!({"sub": "alice"})))).build().expect("a client");
    let refused = forged.receipt("g1", "m1").await.expect_err("forged");
    assert_eq!((refused.is("unauthenticated"), refused.problem().map(|problem| problem.status)), (true, Some(401)));
    let none = builder().token_from(async || Err::<String, _>("the login is down")).build().expect("a client");
    assert!(matches!(none.receipt("g1", "m1").await, Err(Error::Token(why)) if why.to_string().contains("login")));
}

/// INV-CLIENT
#[tokio::test(flavor = "multi_thread")]
async fn unanswered_reads_are_repeated_and_roster_changes_are_not() {
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let service = serve_at(address, data.path());
    let client = Client::builder(format!("http://{address}")).retries(20).wait(TIMEOUT / 2);
    let client = client.http(|http| http.no_proxy()).build().expect("a client");
    let roster = conversation("g1", &["bob"], &["m1"]);
    client.post_events(&roster).await.expect("written");
    service.kill();
    assert!(matches!(client.post_events(&roster).await, Err(Error::Unanswered(_))));
    let read = [event::message_read("g1", "bob", ["m1"]).build()];
    let (written, service) = tokio::join!(client.post_events(&read), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::spawn_blocking({
            let data = data.path().to_owned();
            move || serve_at(address, &data)
        })
        .await
        .expect("started")
    });
    written.expect("in the end");
    assert_eq!(read_count(&client.receipt("g1", "m1").await.expect("answered")), Some(1));
    drop(service);
}

/// INV-CLIENT: a request that comes too often, or too early, succeeds after the wait that the
/// service names.
#[tokio::test(flavor = "multi_thread")]
async fn client_retries_after_the_stated_wait() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &["--http-rate-per-s", "1"]);
    let backend = client(&service.address, None);
    // A roster is sent again too: a refusal by the rate says that nothing was written.
    for _ in 0..3 {
        backend.post_events(&conversation("g1", &["bob"], &["m1"])).await.expect("after a while");
    }
    let metrics = service.get("/metrics").body;
    let refused = metrics.as_str().expect("text").lines().filter(|line| line.contains("status=\"429\""));
    assert!(refused.count() > 0, "nobody was refused: {metrics}");
}

/// INV-CLIENT, INV-POSITION
#[tokio::test(flavor = "multi_thread")]
async fn position_of_another_log_fails_one_read_only() {
    let (data, service) = serve();
    assert_eq!(service.terminate(), Some(0));
    // The copy has the log's id, so its positions are those of the same log, and beyond its end.
    let copy = tempfile::tempdir().expect("a folder");
    let copied = Command::new("cp").arg("-r").arg(data.path().join(".")).arg(copy.path()).status();
    assert!(copied.expect("cp").success());
    let (service, ahead_of_it) = (Service::serve(data.path(), &[]), Service::serve(copy.path(), &[]));
    let events = conversation("g1", &["bob"], &["m1"]);
    let mut ahead = String::new();
    for _ in 0..3 {
        ahead = client(&ahead_of_it.address, None).post_events(&events).await.expect("written").position;
    }
    let builder = |retries| {
        let builder = Client::builder(format!("http://{}", service.address)).http(|http| http.no_proxy());
        builder.wait(Duration::from_millis(10)).retries(retries).build().expect("a client")
    };
    let impatient = builder(1);
    impatient.observe_position(&ahead);
    let behind = impatient.receipt("g1", "m1").await.expect_err("never folded");
    assert!(behind.is("behind"), "{behind}");
    assert_eq!(behind.problem().and_then(|problem| problem.retry_after), Some(Duration::from_secs(1)));
    let patient = builder(30);
    patient.observe_position(&ahead);
    let writer = client(&service.address, None);
    let (asked, ()) = tokio::join!(patient.receipt("g1", "m1"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..4 {
            writer.post_events(&events).await.expect("written");
        }
    });
    assert_eq!(asked.expect("in the end").status, Status::Ok);
    let (_data, other) = serve();
    let foreign = client(&other.address, None).post_events(&events).await.expect("written").position;
    for refused in ["nonsense", &foreign] {
        writer.observe_position(refused);
        assert!(writer.receipt("g1", "m1").await.expect_err(refused).is("bad-position"));
        assert_eq!(writer.receipt("g1", "m1").await.expect("forgotten").status, Status::Ok);
    }
}
