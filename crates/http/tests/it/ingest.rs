//! Tests `POST /v1/events` against the contract, over a real embedded log.

use crate::common::{App, PARTITIONS, Setup, event_of};
use receipts_event::partition_of;
use receipts_http::Limits;
use receipts_log::{AppendError, Entry, Location, PendingAppend, Writer};
use receipts_query::Positions;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const ACME: (&str, &str) = ("receipts-tenant", "acme");

fn read(conversation_id: &str) -> Value {
    json!({"type": "message.read", "conversation_id": conversation_id, "reader_id": "bob", "message_ids": ["m1"]})
}

#[tokio::test]
async fn event_is_written_unchanged_under_its_key() {
    let app = App::new();
    let body =
        "{ \"type\": \"message.recalled\",\n\"conversation_id\":\"g\\u0031/x\", \"message_id\":\"m\", \"mine\": 1.50 }";
    let answer = app.post("/v1/events", &[], format!(" {body}\n")).await;
    assert_eq!((answer.status.as_u16(), &answer.json["accepted"]), (202, &json!(1)));
    let records = app.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value.as_deref(), Some(body.as_bytes()));
    assert_eq!(records[0].key.as_deref(), Some(&b"default/g1/x"[..]));
    assert_eq!(records[0].partition, partition_of(b"default/g1/x", PARTITIONS));
}

#[tokio::test]
async fn position_covers_every_event_in_body_and_header() {
    let app = App::new();
    let events: Vec<_> = (0..20).map(|at| read(&format!("g{at}"))).collect();
    let answer = app.post("/v1/events", &[], json!(events)).await;
    assert_eq!(answer.json["accepted"], 20);
    let token = answer.json["position"].as_str().unwrap();
    assert_eq!(answer.header("receipts-position"), token);
    let positions: Positions = token.parse().unwrap();
    let mut expected = Positions::new();
    for record in app.records() {
        expected.raise(record.partition, record.offset + 1);
    }
    assert_eq!(positions, expected);
}

#[tokio::test]
async fn events_of_a_conversation_keep_their_order() {
    let app = App::new();
    let events: Vec<_> = (0..50)
        .map(|at| json!({"type": "message.recalled", "conversation_id": "g", "message_id": format!("m{at}")}))
        .collect();
    assert_eq!(app.post("/v1/events", &[], json!(events)).await.status, 202);
    let written: Vec<Value> =
        app.records().iter().map(|record| serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()).collect();
    assert_eq!(written, events);
}

#[tokio::test]
async fn ndjson_is_read_by_line_and_blanks_skipped() {
    let app = App::new();
    let body = format!("\n{}\r\n   \n{}", read("a"), read("b"));
    let answer = app.post("/v1/events", &[NDJSON], body).await;
    assert_eq!((answer.status.as_u16(), &answer.json["accepted"]), (202, &json!(2)));
    assert_eq!(app.records().len(), 2);
}

#[tokio::test]
async fn one_bad_event_stops_the_whole_body() {
    let app = App::new();
    let mut bad = read("g");
    bad["message_ids"] = json!([]);
    let unknown = json!({"type": "message.eaten", "conversation_id": "g"});
    let events = json!([read("a"), bad, read("b"), unknown]);
    app.post("/v1/events", &[], &events).await.is_problem(400, "invalid", &["/1/message_ids", "/3/type"]);
    let lines = format!("{}\n\n{}\n{}\n", read("a"), bad, "{oops");
    app.post("/v1/events", &[NDJSON], lines).await.is_problem(400, "invalid", &["/1/message_ids", "/2"]);
    app.post("/v1/events", &[], &bad).await.is_problem(400, "invalid", &["/message_ids"]);
    assert!(app.records().is_empty());
}

#[tokio::test]
async fn body_without_events_is_a_400() {
    let app = App::new();
    app.post("/v1/events", &[], "{").await.is_problem(400, "invalid", &[""]);
    app.post("/v1/events", &[], "").await.is_problem(400, "invalid", &[""]);
    app.post("/v1/events", &[], "[]").await.is_problem(400, "invalid", &[""]);
    app.post("/v1/events", &[NDJSON], " \n\n").await.is_problem(400, "invalid", &[""]);
    app.post("/v1/events", &[], format!("[{}, nope]", read("a"))).await.is_problem(400, "invalid", &["/1"]);
    app.post("/v1/events", &[], format!("{} {}", read("a"), read("b"))).await.is_problem(400, "invalid", &[""]);
    assert!(app.records().is_empty());
}

#[tokio::test]
async fn body_takes_1000_events_and_no_more() {
    let app = App::new();
    let events = |count: usize| vec![read("g").to_string(); count];
    let taken = app.post("/v1/events", &[], format!("[{}]", events(1_000).join(","))).await;
    assert_eq!((taken.status.as_u16(), &taken.json["accepted"]), (202, &json!(1_000)));
    let refused = app.post("/v1/events", &[], format!("[{}]", events(1_001).join(","))).await;
    refused.is_problem(400, "invalid", &[""]);
    app.post("/v1/events", &[NDJSON], events(1_001).join("\n")).await.is_problem(400, "invalid", &[""]);
    assert_eq!(app.post("/v1/events", &[NDJSON], events(1_000).join("\n") + "\n\n").await.status, 202);
    assert_eq!(app.records().len(), 2_000);
}

#[tokio::test]
async fn invalid_times_and_double_marks_are_refused() {
    let app = App::new();
    for time in ["1.78e12", "-1", "9007199254740993", "\"1\"", "1.0"] {
        let body = format!(
            r#"{{"type":"message.sent","conversation_id":"g","message_id":"m","sender_id":"a","sent_at_ms":{time}}}"#
        );
        app.post("/v1/events", &[], body).await.is_problem(400, "invalid", &["/sent_at_ms"]);
    }
    let both = json!({"type": "conversation.read", "conversation_id": "g", "reader_id": "b",
        "up_to_message_id": "m", "up_to_sent_at_ms": 1});
    assert_eq!(app.post("/v1/events", &[], &both).await.status, 400);
    let empty = json!({"type": "conversation.configured", "conversation_id": "g", "kind": "group", "group_type": ""});
    app.post("/v1/events", &[], &empty).await.is_problem(400, "invalid", &["/group_type"]);
    let nothing = json!({"type": "members.changed", "conversation_id": "g", "joined": null});
    assert_eq!(app.post("/v1/events", &[], &nothing).await.status, 202);
}

#[tokio::test]
async fn event_is_written_under_the_callers_tenant() {
    let app = App::new();
    let mut named = read("g");
    named["tenant"] = "acme".into();
    let mut hollow = read("g");
    hollow["tenant"] = Value::Null;
    let answer = app.post("/v1/events", &[ACME], json!([read("g"), named, hollow])).await;
    assert_eq!(answer.status, 202);
    for record in app.records() {
        assert_eq!(event_of(&record).tenant, "acme");
        assert_eq!(record.key.as_deref(), Some(&b"acme/g"[..]));
    }
    assert_eq!(app.records()[1].value.as_deref(), Some(named.to_string().as_bytes()));
}

#[tokio::test]
async fn foreign_tenant_in_an_event_is_a_400() {
    let app = App::new();
    let mut foreign = read("g");
    foreign["tenant"] = "other".into();
    app.post("/v1/events", &[], &foreign).await.is_problem(400, "invalid", &["/tenant"]);
    app.post("/v1/events", &[ACME], &foreign).await.is_problem(400, "invalid", &["/tenant"]);
    let mut default = read("g");
    default["tenant"] = "default".into();
    let answer = app.post("/v1/events", &[ACME], json!([read("g"), default])).await;
    answer.is_problem(400, "invalid", &["/1/tenant"]);
    let lines = format!("{}\n{foreign}", read("g"));
    app.post("/v1/events", &[ACME, NDJSON], lines).await.is_problem(400, "invalid", &["/1/tenant"]);
    assert!(app.records().is_empty());
    assert_eq!(app.post("/v1/events", &[], &default).await.status, 202);
}

#[tokio::test]
async fn control_events_reach_every_partition_and_count_once() {
    let app = App::new();
    let policy = json!({"type": "policy.changed", "read_receipts": {"meeting": false, "*": true}});
    let erased = json!({"type": "user.erased", "user_id": "bob", "partition": null});
    let answer = app.post("/v1/events", &[ACME], json!([policy, erased])).await;
    assert_eq!((answer.status.as_u16(), &answer.json["accepted"]), (202, &json!(2)));
    let records = app.records();
    assert_eq!(records.len(), 2 * PARTITIONS as usize);
    for record in &records {
        let event = event_of(record);
        assert_eq!(event.partition(), Some(record.partition));
        assert_eq!(record.key.as_deref(), Some(&b"acme/"[..]));
    }
    let positions: Positions = answer.json["position"].as_str().unwrap().parse().unwrap();
    assert_eq!(positions.iter().len(), PARTITIONS as usize);
}

#[tokio::test]
async fn control_event_with_partition_is_written_only_there() {
    let app = App::new();
    let erased = |partition: u32| json!({"type": "user.erased", "user_id": "bob", "partition": partition});
    assert_eq!(app.post("/v1/events", &[], erased(2)).await.status, 202);
    let records = app.records();
    assert_eq!((records.len(), records[0].partition), (1, 2));
    app.post("/v1/events", &[], erased(PARTITIONS)).await.is_problem(400, "invalid", &["/partition"]);
    let answer = app.post("/v1/events", &[], json!([erased(0), erased(99)])).await;
    answer.is_problem(400, "invalid", &["/1/partition"]);
    assert_eq!(app.records().len(), 1);
}

#[tokio::test]
async fn unknown_content_type_is_a_415() {
    let app = App::new();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml"] {
        let answer = app.post("/v1/events", &[("content-type", content_type)], read("g")).await;
        answer.is_problem(415, "unsupported-media-type", &["/Content-Type"]);
    }
    for content_type in ["application/json; charset=utf-8", "application/cloudevents+json"] {
        assert_eq!(app.post("/v1/events", &[("content-type", content_type)], read("g")).await.status, 202);
    }
}

#[tokio::test]
async fn body_may_have_one_mebibyte_and_no_more() {
    let app = App::new();
    let event = read("g").to_string();
    let padded = |bytes: usize| event.clone() + &" ".repeat(bytes - event.len());
    assert_eq!(app.post("/v1/events", &[], padded(1 << 20)).await.status, 202);
    app.post("/v1/events", &[], padded((1 << 20) + 1)).await.is_problem(413, "too-large", &[]);
    assert_eq!(app.records().len(), 1);
}

/// The largest event of the topic does not fit into a body. The problem says how to split it, and
/// its parts fit.
#[tokio::test]
async fn largest_roster_is_refused_with_the_way_out() {
    let app = App::new();
    let people: Vec<String> = (0..10_000).map(|number| format!("{number:0>128}")).collect();
    let joining = |some: &[String]| json!({"type": "members.changed", "conversation_id": "g", "joined": some});
    let whole = app.post("/v1/events", &[], joining(&people).to_string()).await;
    whole.is_problem(413, "too-large", &[]);
    let detail = whole.json["detail"].as_str().unwrap();
    for part in ["1048576 bytes", "several bodies, in their order", "members.changed", "some thousand ids", "before"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    for some in people.chunks(5_000) {
        assert_eq!(app.post("/v1/events", &[], joining(some).to_string()).await.status, 202);
    }
    assert_eq!(app.records().len(), 2);
}

/// A log whose odd and even appends end with the given errors.
struct Shaky {
    calls: AtomicUsize,
    odd: Option<AppendError>,
    even: Option<AppendError>,
}

impl Shaky {
    fn app(even: Option<AppendError>, odd: Option<AppendError>) -> App {
        let writer = Arc::new(Self { calls: AtomicUsize::new(0), odd, even });
        App::with(Setup { writer: Some(writer), ..Setup::default() })
    }
}

impl Writer for Shaky {
    fn append(&self, _: Entry) -> PendingAppend {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let error = if call.is_multiple_of(2) { self.even.clone() } else { self.odd.clone() };
        let _ = sender.send(error.map_or(Ok(Location { partition: 0, offset: call as u64 }), Err));
        receiver
    }

    fn flush(&self, _: Duration) -> Result<(), AppendError> {
        Ok(())
    }
}

#[tokio::test]
async fn open_outcome_names_events_and_hides_the_cause() {
    let unknown = Some(AppendError::Unknown("broker 10.0.0.7 hung up".to_owned()));
    let app = Shaky::app(None, unknown.clone());
    let answer = app.post("/v1/events", &[], json!([read("a"), read("b"), read("c"), read("d")])).await;
    answer.is_problem(503, "outcome-open", &["/1", "/3"]);
    assert!(!answer.text.contains("10.0.0.7"));
    Shaky::app(unknown, None).post("/v1/events", &[], read("a")).await.is_problem(503, "outcome-open", &[""]);
}

#[tokio::test]
async fn nothing_written_differs_from_an_open_outcome() {
    let not = Some(AppendError::NotWritten("queue full".to_owned()));
    let app = Shaky::app(not.clone(), not.clone());
    app.post("/v1/events", &[], json!([read("a"), read("b")])).await.is_problem(503, "not-written", &["/0", "/1"]);
    let app = Shaky::app(None, not);
    app.post("/v1/events", &[], json!([read("a"), read("b")])).await.is_problem(503, "outcome-open", &["/1"]);
}

/// A log that never answers.
struct Mute(std::sync::Mutex<Vec<tokio::sync::oneshot::Sender<Result<Location, AppendError>>>>);

impl Writer for Mute {
    fn append(&self, _: Entry) -> PendingAppend {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.0.lock().unwrap().push(sender);
        receiver
    }

    fn flush(&self, _: Duration) -> Result<(), AppendError> {
        Ok(())
    }
}

#[tokio::test]
async fn silent_log_leaves_the_outcome_open() {
    let writer = Arc::new(Mute(std::sync::Mutex::default()));
    let setup = Setup { writer: Some(writer), acknowledge_timeout: Duration::from_millis(50), ..Setup::default() };
    App::with(setup).post("/v1/events", &[], read("a")).await.is_problem(503, "outcome-open", &[""]);
}

/// INV-SCOPE
#[tokio::test]
async fn person_writes_own_reads_and_nothing_else() {
    let app = App::new();
    let bob = [("receipts-caller", "bob")];
    let mark = json!({"type": "conversation.read", "conversation_id": "g", "reader_id": "bob", "up_to_sent_at_ms": 1});
    assert_eq!(app.post("/v1/events", &bob, json!([read("g"), mark])).await.status, 202);
    let mut others = read("g");
    others["reader_id"] = json!("eve");
    let sent =
        json!({"type": "message.sent", "conversation_id": "g", "message_id": "m", "sender_id": "bob", "sent_at_ms": 1});
    let policy = json!({"type": "policy.changed", "read_receipts": {"*": true}});
    let erased = json!({"type": "user.erased", "user_id": "bob"});
    let refused = app.post("/v1/events", &bob, json!([read("g"), others, sent, mark, policy, erased])).await;
    refused.is_problem(403, "forbidden", &["/1", "/2", "/4", "/5"]);
    let details: Vec<_> =
        refused.json["errors"].as_array().unwrap().iter().map(|item| item["detail"].as_str().unwrap()).collect();
    let scopes = ["receipts:write", "receipts:write", "receipts:policy", "receipts:erase"];
    assert_eq!(details, scopes.map(|scope| format!("needs the scope {scope}")));
    app.post("/v1/events", &bob, &others).await.is_problem(403, "forbidden", &[""]);
    let unknown = json!({"type": "message.eaten", "conversation_id": "g"});
    app.post("/v1/events", &bob, json!([others, unknown])).await.is_problem(400, "invalid", &["/1/type"]);
    assert_eq!(app.records().len(), 2, "nothing of a refused body is written");
    assert_eq!(app.post("/v1/events", &[], json!([others, sent, policy, erased])).await.status, 202);
}

#[tokio::test]
async fn body_without_a_content_type_is_a_415() {
    let app = App::new();
    for uri in ["/v1/events", "/v1/receipts/query"] {
        let request = axum::http::Request::post(uri).body(read("g").to_string().into()).unwrap();
        app.send(request).await.is_problem(415, "unsupported-media-type", &["/Content-Type"]);
    }
    assert!(app.records().is_empty());
}

/// INV-AUDIT
#[tokio::test]
async fn acts_leave_one_audit_line_without_the_persons_id() {
    let lines = audit::Lines::default();
    let _logs = lines.collect();
    let app = App::new();
    app.table.put("g1", "m1", "alice", 1, receipts_fold::view::Status::Ok);
    let erased = json!({"type": "user.erased", "user_id": "zoe-4711"});
    let policy = json!({"type": "policy.changed", "read_receipts": {"work": false}});
    app.post("/v1/events", &[("x-request-id", "req-1"), ACME], json!([read("g"), erased, policy])).await;
    app.post("/v1/events", &[("x-request-id", "req-2"), ("receipts-caller", "bob")], &erased).await;
    let list = "/v1/conversations/g1/messages/m1/members?filter=unread";
    app.get(list, &[("x-request-id", "req-3"), ("receipts-caller", "alice")]).await;
    app.get(list, &[("x-request-id", "req-4"), ("receipts-caller", "bob")]).await;
    let lines = lines.audited();
    let parts: Vec<[&str; 4]> = lines
        .iter()
        .map(|line| ["act", "outcome", "tenant", "request_id"].map(|field| line[field].as_str().unwrap_or_default()))
        .collect();
    let wanted = [
        ["erasure", "written", "acme", "req-1"],
        ["policy", "written", "acme", "req-1"],
        ["member_list", "answered", "default", "req-3"],
        ["member_list", "refused", "default", "req-4"],
    ];
    assert_eq!(parts, wanted);
    assert_eq!((&lines[2]["user"], &lines[2]["filter"]), (&json!("alice"), &json!("unread")));
    assert_eq!(lines[3]["user"], "bob");
    let of_partitions = lines[0]["positions"].as_str().unwrap();
    assert_eq!(of_partitions.split(' ').count() as u32, PARTITIONS, "{of_partitions}");
    assert!(!json!(lines).to_string().contains("zoe-4711"), "{lines:?}");
}

#[tokio::test]
async fn control_events_beyond_their_limit_are_a_400() {
    let limits = Limits { control_events_max: 2, ..Limits::default() };
    let app = App::with(Setup { limits, ..Setup::default() });
    let erased = |user: &str| json!({"type": "user.erased", "user_id": user});
    let policy = json!({"type": "policy.changed", "read_receipts": {"*": true}});
    let read = json!({"type": "message.read", "conversation_id": "g1", "reader_id": "b", "message_ids": ["m1"]});
    let answer = app.post("/v1/events", &[], json!([erased("a"), read, policy, erased("b")])).await;
    answer.is_problem(400, "invalid", &["/3"]);
    assert!(answer.text.contains("http.control_events_max"), "{answer:?}");
    assert!(app.records().is_empty(), "nothing is written");
    assert_eq!(app.post("/v1/events", &[], json!([erased("a"), read, policy])).await.status, 202);
}

/// Collects the log lines of this thread.
mod audit {
    use serde_json::{Map, Value};
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    #[derive(Clone, Default)]
    pub(super) struct Lines(Arc<Mutex<Vec<Value>>>);

    impl Lines {
        /// Collects until the guard is dropped.
        pub(super) fn collect(&self) -> tracing::subscriber::DefaultGuard {
            tracing::subscriber::set_default(self.clone())
        }

        /// Returns the audit lines.
        pub(super) fn audited(&self) -> Vec<Value> {
            let lines = self.0.lock().unwrap();
            lines.iter().filter(|line| line["target"] == receipts_http::AUDIT_TARGET).cloned().collect()
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut fields = Fields(Map::from_iter([("target".to_owned(), event.metadata().target().into())]));
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0.into());
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    struct Fields(Map<String, Value>);

    impl Visit for Fields {
        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.insert(field.name().to_owned(), value.into());
        }
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }
}
