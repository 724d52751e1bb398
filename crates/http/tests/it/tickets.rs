//! Tests `POST /v1/updates/tickets`, and the streams that its tickets open. Keeps INV-TICKET.

use crate::common::{App, Setup};
use crate::updates::{Listener, publish};
use receipts_http::{Access, AccessRule};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const TICKETS: &str = "/v1/updates/tickets";
const ALICE: (&str, &str) = ("receipts-caller", "alice");
const START_MS: u64 = 1_780_000_000_000;

/// Returns the query of a stream that a new ticket opens.
async fn ticket(app: &App, headers: &[(&str, &str)], subject: Value) -> String {
    let answer = app.post(TICKETS, headers, subject).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let expires_at_ms = answer.json["expires_at_ms"].as_u64().unwrap();
    assert_eq!(expires_at_ms, app.now_ms.load(Ordering::Relaxed) + 60_000);
    format!("ticket={}", answer.json["ticket"].as_str().unwrap())
}

fn at(app: &App, after_ms: u64) {
    app.now_ms.store(START_MS + after_ms, Ordering::Relaxed);
}

/// INV-TICKET
#[tokio::test(flavor = "multi_thread")]
async fn ticket_opens_its_stream_and_resumes_it() {
    let app = App::new();
    let query = ticket(&app, &[ALICE], json!({"sender_id": "alice"})).await;
    at(&app, 59_999);
    let mut stream = Listener::open(&app, &query, &[]).await;
    publish(&app, "g1", "m1", 1).await;
    let (message, id) = stream.message().await;
    assert_eq!(message, "m1");
    publish(&app, "g1", "m2", 2).await;
    // A day later it opens no new stream, but resumes its own from any of its ids.
    at(&app, 86_400_000);
    let uri = format!("/v1/updates?{query}");
    app.get(&uri, &[]).await.is_problem(401, "unauthenticated", &[]);
    let unsigned = id.split_once('.').unwrap().0;
    app.get(&uri, &[("last-event-id", unsigned)]).await.is_problem(401, "unauthenticated", &[]);
    for headers in [&[("last-event-id", id.as_str())][..], &[("last-event-id", &id), ("receipts-caller", "eve")]] {
        assert_eq!(Listener::open(&app, &query, headers).await.message().await.0, "m2");
    }
    let mut resumed = Listener::open(&app, &format!("{query}&since={id}"), &[]).await;
    let (_, later) = resumed.message().await;
    app.get(&uri, &[("last-event-id", &later.replace('.', ".A"))]).await.is_problem(401, "unauthenticated", &[]);
    // Its ids resume the same stream with a credential, and no other ticket's stream.
    let by_caller = format!("sender_id=alice&since={id}");
    assert_eq!(Listener::open(&app, &by_caller, &[ALICE]).await.message().await.0, "m2");
    let other = ticket(&app, &[ALICE], json!({"sender_id": "alice"})).await;
    at(&app, 2 * 86_400_000);
    let other = format!("/v1/updates?{other}");
    app.get(&other, &[("last-event-id", &id)]).await.is_problem(401, "unauthenticated", &[]);
}

/// INV-TICKET
#[tokio::test(flavor = "multi_thread")]
async fn ticket_shows_what_its_caller_may_see() {
    let access = Access { read: AccessRule::Scope, ..Access::default() };
    let app = App::with(Setup { access: access.into(), ..Setup::default() });
    let of_sender = json!({"sender_id": "alice", "reader_id": null});
    let mut unnamed = Listener::open(&app, &ticket(&app, &[ALICE], of_sender.clone()).await, &[]).await;
    let mut named = Listener::open(&app, &ticket(&app, &[], of_sender).await, &[ALICE]).await;
    let tenant = ("receipts-tenant", "acme");
    let mut foreign = Listener::open(&app, &ticket(&app, &[tenant], json!({"conversation_id": "g1"})).await, &[]).await;
    publish(&app, "g1", "m1", 1).await;
    assert_eq!(unnamed.next().await.unwrap().data["newly_read"], json!([]));
    assert_eq!(named.next().await.unwrap().data["newly_read"][0]["user_id"], "bob");
    assert!(foreign.next().await.unwrap().is_position());
}

/// INV-STRANGER
#[tokio::test(flavor = "multi_thread")]
async fn ticket_is_refused_like_its_stream() {
    let app = App::new();
    let stream = async |query: &str, headers: &[(&str, &str)]| app.get(&format!("/v1/updates?{query}"), headers).await;
    let long = "x".repeat(129);
    for (query, subject) in [
        (String::new(), json!({})),
        ("conversation_id=a&sender_id=b".to_owned(), json!({"conversation_id": "a", "sender_id": "b"})),
        ("reader_id=bob".to_owned(), json!({"reader_id": "bob"})),
        ("sender_id=bob&reader_id=bob".to_owned(), json!({"sender_id": "bob", "reader_id": "bob"})),
        ("conversation_id=".to_owned(), json!({"conversation_id": ""})),
        (format!("sender_id={long}"), json!({"sender_id": long})),
        ("conversation_id=g1".to_owned(), json!({"conversation_id": "g1"})),
        ("sender_id=bob".to_owned(), json!({"sender_id": "bob"})),
    ] {
        let (asked, refused) = (stream(&query, &[ALICE]).await, app.post(TICKETS, &[ALICE], subject).await);
        assert!(matches!(refused.status.as_u16(), 400 | 403), "{refused:?}");
        assert_eq!((refused.status, &refused.json), (asked.status, &asked.json), "{query}");
    }
    for body in ["[]", "\"alice\"", "{", ""] {
        app.post(TICKETS, &[], body).await.is_problem(400, "invalid", &[""]);
    }
    app.post(TICKETS, &[], json!({"sender_id": 7})).await.is_problem(400, "invalid", &["/sender_id"]);
    let text = [("content-type", "text/plain")];
    app.post(TICKETS, &text, "{}").await.is_problem(415, "unsupported-media-type", &["/Content-Type"]);
    app.get(TICKETS, &[]).await.is_problem(405, "method-not-allowed", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_takes_one_valid_ticket_and_nothing_beside() {
    let app = App::new();
    let query = ticket(&app, &[ALICE], json!({"sender_id": "alice"})).await;
    let get = async |query: &str| app.get(&format!("/v1/updates?{query}"), &[]).await;
    for name in ["conversation_id", "sender_id", "reader_id"] {
        get(&format!("{query}&{name}=alice")).await.is_problem(400, "invalid", &[&format!("/{name}")]);
    }
    get(&format!("{query}&{query}")).await.is_problem(400, "invalid", &["/ticket"]);
    get(&format!("{query}&since=nonsense")).await.is_problem(400, "bad-position", &["/since"]);
    for ticket in ["", "x", "AAAA", "AQ", &"A".repeat(4_000)] {
        get(&format!("ticket={ticket}")).await.is_problem(401, "unauthenticated", &[]);
    }
    // It opens nothing but its stream.
    let list = format!("/v1/conversations/g1/messages/m1/receipt?{query}");
    app.get(&list, &[("receipts-caller", "")]).await.is_problem(400, "invalid", &["/Receipts-Caller"]);
}
