//! Tests `GET /v1/updates` against the contract, over a real topic of updates and answers from a
//! table.

use crate::common::table::Mood;
use crate::common::{App, PARTITIONS, Setup};
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::StreamExt as _;
use receipts_event::{key, partition_of};
use receipts_http::{Access, AccessRule, Amounts, BudgetAmounts, Budgets, Limits};
use receipts_log::{Entry, Log as _, Topic};
use receipts_query::{Positions, StreamId};
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt as _;

const ALICE: (&str, &str) = ("receipts-caller", "alice");

/// The client of an open stream.
pub(crate) struct Listener {
    headers: HeaderMap,
    body: BodyDataStream,
    text: String,
    retry: String,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    event: String,
    id: String,
    pub(crate) data: Value,
}

impl Heard {
    /// Whether it only has the id to resume from.
    pub(crate) fn is_position(&self) -> bool {
        self.event == "position" && self.data == json!({})
    }
}

impl Listener {
    pub(crate) async fn open(app: &App, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = Request::get(format!("/v1/updates?{query}")).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = app.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        assert_eq!(parts.headers["content-type"], "text/event-stream");
        assert_eq!(parts.headers["cache-control"], "no-store");
        let mut listener =
            Self { headers: parts.headers, body: body.into_data_stream(), text: String::new(), retry: String::new() };
        let first = listener.next().await.unwrap();
        assert!(first.is_position() && listener.retry == "1000", "{first:?}");
        listener
    }

    /// Returns the next event, or `None` at the end. Each has all three fields.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    block.lines().find_map(|line| line.strip_prefix(prefix.as_str())).map(str::to_owned)
                };
                let whole = |name: &str| field(name).unwrap_or_else(|| panic!("no {name} in {block}"));
                let data = serde_json::from_str(&whole("data")).unwrap();
                let heard = Heard { event: whole("event"), id: whole("id"), data };
                self.retry = field("retry").unwrap_or(std::mem::take(&mut self.retry));
                self.text = rest.to_owned();
                return Some(heard);
            }
            let bytes = tokio::time::timeout(Duration::from_secs(30), self.body.next()).await.expect("in time")?;
            self.text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
    }

    /// Returns message and id of the next update.
    pub(crate) async fn message(&mut self) -> (String, String) {
        loop {
            let heard = self.next().await.expect("an update");
            if !heard.is_position() {
                return (heard.data["message_id"].as_str().unwrap().to_owned(), heard.id);
            }
        }
    }
}

/// Publishes the update of a message of `alice` that `bob` has read, rendered at a position of its
/// partition.
pub(crate) async fn publish(app: &App, conversation_id: &str, message_id: &str, position: u64) -> u64 {
    let update = json!({"type": "receipt.updated", "tenant": "default", "conversation_id": conversation_id,
        "message_id": message_id, "status": "ok", "sender_id": "alice", "read_count": 1, "version": position,
        "newly_read": [{"user_id": "bob", "read_at_ms": 5}]});
    let entry = Entry {
        topic: Topic::Updates,
        headers: vec![("receipts-position".to_owned(), Some(position.to_string().into()))],
        ..Entry::event(key("default", conversation_id), update.to_string(), None)
    };
    app.log.writer().append(entry).await.unwrap().unwrap().offset
}

fn partition(conversation_id: &str) -> u32 {
    partition_of(&key("default", conversation_id), PARTITIONS)
}

/// INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn stream_resumes_from_any_event_id_without_gap() {
    let app = App::new();
    // A new stream begins where the service has read the topic, which is shortly before its end.
    // The earlier stream shows that the service has read this update.
    let mut earlier = Listener::open(&app, "conversation_id=g1", &[]).await;
    publish(&app, "g1", "before", 1).await;
    assert_eq!(earlier.message().await.0, "before");
    let mut live = Listener::open(&app, "conversation_id=g1", &[]).await;
    assert!(live.headers.contains_key("receipts-position"));
    for number in 0..100 {
        publish(&app, "g1", &format!("m{number}"), 2 + number).await;
        publish(&app, "g2", "another's", 2 + number).await;
    }
    let mut ids = Vec::new();
    for number in 0..100 {
        let (message, id) = live.message().await;
        assert_eq!(message, format!("m{number}"));
        ids.push(id);
    }
    for at in [0, 50, 98] {
        let mut resumed =
            Listener::open(&app, "conversation_id=g1&since=ignored", &[("last-event-id", &ids[at])]).await;
        for (number, id) in ids.iter().enumerate().skip(at + 1) {
            assert_eq!(resumed.message().await, (format!("m{number}"), id.clone()));
        }
        let by_parameter = format!("conversation_id=g1&since={}", ids[at]);
        assert_eq!(Listener::open(&app, &by_parameter, &[]).await.message().await.0, format!("m{}", at + 1));
    }
}

/// INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn stream_resumes_from_a_position_of_the_log() {
    let app = App::new();
    for position in 10..60 {
        publish(&app, "g1", &format!("at {position}"), position).await;
    }
    let since = Positions::applied(partition("g1"), 40);
    let mut stream = Listener::open(&app, &format!("conversation_id=g1&since={since}"), &[]).await;
    assert_eq!(stream.message().await.0, "at 41");
    // A stream of a sender reads every partition.
    let all: Positions = (0..PARTITIONS).map(|partition| (partition, 58)).collect();
    let mut stream = Listener::open(&app, &format!("sender_id=alice&since={all}"), &[ALICE]).await;
    assert_eq!(stream.message().await.0, "at 59");
}

/// INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn resume_after_trimming_is_410_unless_nothing_happened() {
    let app = App::new();
    let at = partition("g1");
    for position in 10..60 {
        publish(&app, "g1", "m", position).await;
    }
    app.table.fold_up_to(at, 59);
    let ask = async |since: String| app.get(&format!("/v1/updates?conversation_id=g1&since={since}"), &[]).await;
    app.log.trim(Topic::Updates, at, 30).unwrap();
    ask(StreamId(Positions::applied(at, 29)).to_string()).await.is_problem(410, "updates-gone", &[]);
    ask(Positions::applied(at, 20).to_string()).await.is_problem(410, "updates-gone", &[]);
    // An id beyond the end is from another topic of the same name.
    ask(StreamId(Positions::applied(at, 51)).to_string()).await.is_problem(410, "updates-gone", &[]);
    app.log.trim(Topic::Updates, at, 50).unwrap();
    ask(Positions::applied(at, 58).to_string()).await.is_problem(410, "updates-gone", &[]);
    let quiet = format!("conversation_id=g1&since={}", Positions::applied(at, 59));
    let mut stream = Listener::open(&app, &quiet, &[]).await;
    publish(&app, "g1", "new", 60).await;
    assert_eq!(stream.message().await.0, "new");
}

#[tokio::test]
async fn stream_needs_one_subject_and_a_valid_token() {
    let app = App::new();
    let get = async |query: &str| app.get(&format!("/v1/updates{query}"), &[]).await;
    get("").await.is_problem(400, "invalid", &["/conversation_id"]);
    get("?conversation_id=a&sender_id=b").await.is_problem(400, "invalid", &["/sender_id"]);
    get("?conversation_id=").await.is_problem(400, "invalid", &["/conversation_id"]);
    get(&format!("?sender_id={}", "x".repeat(129))).await.is_problem(400, "invalid", &["/sender_id"]);
    get("?sender_id=a&since=nonsense").await.is_problem(400, "bad-position", &["/since"]);
    let foreign = Positions::applied(PARTITIONS, 1);
    get(&format!("?sender_id=a&since={foreign}")).await.is_problem(400, "bad-position", &["/since"]);
    let answer = app.get("/v1/updates?sender_id=a", &[("last-event-id", "nonsense")]).await;
    answer.is_problem(400, "bad-position", &["/Last-Event-ID"]);
}

/// INV-STRANGER
#[tokio::test(flavor = "multi_thread")]
async fn streams_admit_services_and_the_sender_only() {
    let app = App::new();
    app.get("/v1/updates?conversation_id=g1", &[ALICE]).await.is_problem(403, "forbidden", &[]);
    app.get("/v1/updates?sender_id=bob", &[ALICE]).await.is_problem(403, "forbidden", &[]);
    Listener::open(&app, "sender_id=alice", &[ALICE]).await;
    Listener::open(&app, "sender_id=alice", &[]).await;
    let access = Access { read: AccessRule::Scope, ..Access::default() };
    let app = App::with(Setup { access: access.into(), ..Setup::default() });
    let mut named = Listener::open(&app, "sender_id=alice", &[]).await;
    let mut unnamed = Listener::open(&app, "sender_id=alice", &[ALICE]).await;
    publish(&app, "g1", "m1", 1).await;
    assert_eq!(named.next().await.unwrap().data["newly_read"][0]["user_id"], "bob");
    assert_eq!(unnamed.next().await.unwrap().data["newly_read"], json!([]));
    let access = Access { counts: AccessRule::Sender, ..Access::default() };
    let app = App::with(Setup { access: access.into(), ..Setup::default() });
    app.get("/v1/updates?conversation_id=g1", &[]).await.is_problem(403, "forbidden", &[]);
}

/// INV-STREAM, INV-TENANT
#[tokio::test(flavor = "multi_thread")]
async fn stream_has_updates_of_its_own_tenant_only() {
    let app = App::with(Setup { heartbeat: Duration::from_millis(50), ..Setup::default() });
    let start = StreamId::default().to_string();
    publish(&app, "g1", "default's", 1).await;
    let headers = [("receipts-tenant", "acme"), ("last-event-id", start.as_str())];
    let mut acme = Listener::open(&app, "sender_id=alice", &headers).await;
    publish(&app, "g1", "default's", 2).await;
    for _ in 0..3 {
        assert!(acme.next().await.unwrap().is_position(), "a heartbeat, and no update");
    }
}

/// INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn later_updates_never_name_an_erased_person() {
    let app = App::new();
    publish(&app, "g1", "m1", 1).await;
    app.table.erased.lock().unwrap().insert("bob".to_owned());
    let start = StreamId::default().to_string();
    let mut replayed = Listener::open(&app, "conversation_id=g1", &[("last-event-id", &start)]).await;
    publish(&app, "g1", "m2", 2).await;
    for message in ["m1", "m2"] {
        let update = replayed.next().await.unwrap().data;
        assert_eq!((&update["message_id"], &update["read_count"]), (&json!(message), &json!(1)));
        assert!(!update.to_string().contains("bob"), "{update}");
    }
    let app = App::with(Setup { heartbeat: Duration::from_millis(50), ..Setup::default() });
    publish(&app, "g1", "m1", 1).await;
    app.table.erased.lock().unwrap().insert("alice".to_owned());
    let mut of_sender = Listener::open(&app, "sender_id=alice", &[("last-event-id", &start)]).await;
    for _ in 0..3 {
        assert!(of_sender.next().await.unwrap().is_position(), "an erased sender gets no update");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_waits_for_the_state_without_losing_updates() {
    let app = App::with(Setup { heartbeat: Duration::from_millis(50), ..Setup::default() });
    let mut stream = Listener::open(&app, "conversation_id=g1", &[]).await;
    *app.table.mood.lock().unwrap() = Mood::Failing;
    let before = Positions::applied(partition("g1"), publish(&app, "g1", "m1", 1).await);
    // Heartbeats go on meanwhile, and none is the position after the update.
    for _ in 0..5 {
        let waiting = stream.next().await.unwrap();
        assert!(waiting.is_position(), "{waiting:?}");
        assert_eq!(waiting.id, StreamId(before.clone()).to_string());
    }
    *app.table.mood.lock().unwrap() = Mood::Well;
    assert_eq!(stream.message().await.0, "m1");
}

/// INV-STREAM: one batch of a sender's stream holds updates of two partitions, and only one of them
/// has an owner. Both partitions take both parts, because the order within the batch is the log's.
#[tokio::test(flavor = "multi_thread")]
async fn partition_without_owner_costs_no_update_of_another() {
    let other = (0..).map(|n| format!("h{n}")).find(|id| partition(id) != partition("g1")).unwrap();
    for (owned, ownerless) in [("g1", other.as_str()), (other.as_str(), "g1")] {
        let app = App::with(Setup { heartbeat: Duration::from_millis(50), ..Setup::default() });
        let mut stream = Listener::open(&app, "sender_id=alice", &[ALICE]).await;
        // While the stream waits for the first update, the next two gather in one batch.
        *app.table.mood.lock().unwrap() = Mood::Failing;
        publish(&app, owned, "first", 1).await;
        for _ in 0..5 {
            assert!(stream.next().await.unwrap().is_position());
        }
        publish(&app, owned, "second", 2).await;
        publish(&app, ownerless, "third", 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        *app.table.mood.lock().unwrap() = Mood::Ownerless(partition(ownerless));
        let (first, id) = stream.message().await;
        assert_eq!(first, "first");
        for _ in 0..5 {
            let waiting = stream.next().await.unwrap();
            assert!(waiting.is_position() && waiting.id == id, "{waiting:?}");
        }
        *app.table.mood.lock().unwrap() = Mood::Well;
        let mut rest = [stream.message().await.0, stream.message().await.0];
        rest.sort();
        assert_eq!(rest, ["second", "third"]);
    }
}

/// INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_of_a_quiet_stream_move_its_id() {
    let app = App::with(Setup { heartbeat: Duration::from_millis(50), ..Setup::default() });
    let mut stream = Listener::open(&app, "conversation_id=quiet", &[]).await;
    let first = stream.next().await.unwrap();
    assert!(first.is_position(), "{first:?}");
    let neighbour = (0..).map(|n| format!("g{n}")).find(|id| partition(id) == partition("quiet")).unwrap();
    let offset = publish(&app, &neighbour, "m", 1).await;
    let moved = StreamId(Positions::written(partition("quiet"), offset)).to_string();
    while stream.next().await.unwrap().id != moved {}
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_refused() {
    let amounts = BudgetAmounts { streams: Amounts::new(2, Some(2), Some(2)), ..BudgetAmounts::default() };
    let limits = Limits { budgets: Budgets::new(&amounts), ..Limits::default() };
    let app = App::with(Setup { limits, ..Setup::default() });
    let one = Listener::open(&app, "sender_id=alice", &[]).await;
    let _two = Listener::open(&app, "sender_id=alice", &[]).await;
    app.get("/v1/updates?sender_id=alice", &[]).await.is_problem(503, "too-many-streams", &[]);
    drop(one);
    Listener::open(&app, "sender_id=alice", &[]).await;
}
