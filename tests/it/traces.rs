//! Tests traces of a running service over the embedded log, with a collector that takes OTLP.
//! `tests/kafka` tests the same across processes.

use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Inspect as _, Log as _, OwnedRecord, Topic};
use receipts_tests::collector::{Collector, Span};
use receipts_tests::process::{Service, Stream, errors, run_in};
use receipts_tests::{eventually, receipt_path};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::UNIX_EPOCH;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A caller's headers for a trace of its own.
fn traced(trace: &str, sampled: bool) -> [(&'static str, String); 2] {
    [("traceparent", format!("00-{trace}-{PARENT}-0{}", u8::from(sampled))), ("tracestate", "acme=7".to_owned())]
}

/// The service with a collector, without the library's wait of 5 s before it sends.
fn serve(data_dir: &Path, collector: &str, more: &[&str]) -> Service {
    let data_dir = data_dir.to_str().expect("UTF-8");
    let own = ["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data_dir, "--log-partitions", "1"];
    let environment = [("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")];
    Service::start_in(&environment, "receipts", &[&own[..], &["--telemetry-otlp-endpoint", collector], more].concat())
}

fn beginning() -> Value {
    json!([
        {"type": "members.changed", "conversation_id": "private-group", "joined": ["person-alice", "person-bob", "person-carol"]},
        {"type": "message.sent", "conversation_id": "private-group", "message_id": "private-message",
         "sender_id": "person-alice", "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
    ])
}

fn read_by(person: &str) -> Value {
    json!({"type": "message.read", "conversation_id": "private-group", "reader_id": person,
           "message_ids": ["private-message"]})
}

fn post(service: &Service, event: &Value, trace: &[(&'static str, String)]) {
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(trace.iter().map(|(name, value)| (*name, value.as_str())));
    let answer = service.request("POST", "/v1/events", &headers, &event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
}

fn hear(stream: &mut Stream, read_count: u64) {
    while stream.next_update().expect("the update").update["read_count"] != read_count {}
}

/// The records that a service left in its data directory.
fn records(data_dir: &Path, topic: Topic) -> Vec<OwnedRecord> {
    let log = EmbeddedLog::open(&data_dir.join("log"), None).expect("closed in order");
    log.read(topic, 0, 0, 1_000).expect("readable")
}

fn header(record: &OwnedRecord, name: &str) -> Option<String> {
    let value = record.headers.iter().find(|(found, _)| found == name)?.1.as_ref()?;
    Some(String::from_utf8(value.to_vec()).expect("text"))
}

/// INV-TRACE
#[test]
fn one_trace_goes_from_a_post_to_the_stream() {
    let (data, collector) = (tempfile::tempdir().expect("a folder"), Collector::start());
    let service = serve(data.path(), &collector.url, &["--projector-update-window-ms", "20"]);
    let mut stream = service.listen("conversation_id=private-group", &[]);
    stream.wait_for_id();
    post(&service, &beginning(), &[]);
    hear(&mut stream, 0);
    post(&service, &read_by("person-bob"), &traced(TRACE, true));
    hear(&mut stream, 1);
    let (mut parent, mut spans) = (PARENT.to_owned(), Vec::new());
    for (name, kind) in [
        ("POST /v1/events", "SPAN_KIND_SERVER"),
        ("send receipts.events", "SPAN_KIND_PRODUCER"),
        ("process receipts.events", "SPAN_KIND_CONSUMER"),
        ("send receipts.updates", "SPAN_KIND_PRODUCER"),
        ("process receipts.updates", "SPAN_KIND_CONSUMER"),
    ] {
        let span = collector.span(TRACE, name);
        assert_eq!((&span.parent, span.kind, span.state.as_str()), (&parent, kind, "acme=7"), "{span:?}");
        assert_eq!(span.service, "receipts");
        parent.clone_from(&span.id);
        spans.push(span);
    }
    let has = |span: &Span, pairs: &[(&str, &str)]| {
        for (name, value) in pairs {
            assert_eq!(span.attributes.get(*name).map(String::as_str), Some(*value), "{name}: {span:?}");
        }
    };
    has(
        &spans[0],
        &[("http.request.method", "POST"), ("http.route", "/v1/events"), ("http.response.status_code", "202")],
    );
    let read = [("messaging.destination.partition.id", "0"), ("messaging.kafka.offset", "2")];
    has(&spans[2], &read);
    has(&spans[2], &[("messaging.operation.type", "process"), ("messaging.consumer.group.name", "receipts-projector")]);
    has(&spans[3], &[("messaging.destination.name", "receipts.updates"), ("messaging.operation.name", "send")]);
    // Requests without a trace begin one; probes and scrapes do not. No span tells of anybody.
    _ = service.get(&receipt_path("private-group", "private-message"));
    assert_eq!((service.get("/readyz").status, service.get("/metrics").status), (200, 200));
    assert_eq!(service.terminate(), Some(0));
    let all = collector.spans();
    let roots: Vec<&str> = all.iter().filter(|span| span.parent.is_empty()).map(|span| span.name.as_str()).collect();
    let question = "GET /v1/conversations/{conversation_id}/messages/{message_id}/receipt";
    assert_eq!(roots, ["GET /v1/updates", "POST /v1/events", question]);
    let text = format!("{all:?}");
    assert!(!text.contains("private-") && !text.contains("person-"), "{text}");
    assert!(collector.requests().iter().all(|headers| headers["x-key"] == "secret"));
    // The log has the same trace.
    let updates = records(data.path(), Topic::Updates);
    let (event, update) = (&records(data.path(), Topic::Events)[2], updates.last().expect("an update"));
    for (record, span) in [(event, &spans[1]), (update, &spans[3])] {
        assert_eq!(header(record, "traceparent"), Some(format!("00-{TRACE}-{}-01", span.id)));
        assert_eq!(header(record, "tracestate").as_deref(), Some("acme=7"));
    }
}

/// INV-TRACE
#[test]
fn update_of_several_changes_belongs_to_all_their_traces() {
    let (data, collector) = (tempfile::tempdir().expect("a folder"), Collector::start());
    let service = serve(data.path(), &collector.url, &["--projector-update-window-ms", "2000"]);
    let mut stream = service.listen("conversation_id=private-group", &[]);
    stream.wait_for_id();
    post(&service, &beginning(), &traced(TRACE, false));
    let traces = ["1".repeat(32), "2".repeat(32)];
    post(&service, &read_by("person-bob"), &traced(&traces[0], true));
    post(&service, &read_by("person-carol"), &traced(&traces[1], true));
    hear(&mut stream, 2);
    let last = collector.span(&traces[1], "send receipts.updates");
    assert_eq!(last.parent, collector.span(&traces[1], "process receipts.events").id);
    // An update of its own, if this process or the service slept through a whole window.
    let first = collector.span(&traces[0], "process receipts.events");
    let own = |span: &Span| span.name == "send receipts.updates" && span.parent == first.id;
    assert!(last.links == [(traces[0].clone(), first.id.clone())] || collector.spans().iter().any(own), "{last:?}");
}

/// INV-TRACE
#[test]
fn unsampled_trace_is_passed_on_and_not_sent() {
    let (data, collector) = (tempfile::tempdir().expect("a folder"), Collector::start());
    let service = serve(data.path(), &collector.url, &["--telemetry-trace-ratio", "0"]);
    let mut stream = service.listen("conversation_id=private-group", &[]);
    stream.wait_for_id();
    post(&service, &beginning(), &[]);
    post(&service, &read_by("person-bob"), &traced(TRACE, false));
    hear(&mut stream, 1);
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(collector.requests().len(), 0, "{:?}", collector.spans());
    let (events, updates) = (records(data.path(), Topic::Events), records(data.path(), Topic::Updates));
    for record in [&events[2], updates.last().expect("an update")] {
        let parent = header(record, "traceparent").expect("passed on");
        assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-00"), "{parent}");
        assert_eq!(header(record, "tracestate").as_deref(), Some("acme=7"));
    }
}

/// INV-TRACE
#[test]
fn records_of_a_replay_make_no_spans() {
    let (data, collector) = (tempfile::tempdir().expect("a folder"), Collector::start());
    let now_ms = UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    let traces = ["1".repeat(32), "2".repeat(32)];
    {
        // The times of the embedded log never step back, so the old records come first.
        let log = EmbeddedLog::open(&data.path().join("log"), NonZeroU32::new(1)).expect("a new log");
        let append = |event: &Value, age_ms: u64, trace: &str| {
            let mut entry = Entry::event("default/private-group", event.to_string(), None);
            entry.timestamp_ms = Some(now_ms - age_ms);
            let headers = traced(trace, true).into_iter();
            entry.headers = headers.map(|(name, value)| (name.to_owned(), Some(value.into()))).collect();
            log.writer().append(entry).blocking_recv().expect("an outcome").expect("written");
        };
        for event in beginning().as_array().expect("a list") {
            append(event, 7_200_000, &traces[0]);
        }
        append(&read_by("person-bob"), 7_200_000, &traces[0]);
        append(&read_by("person-carol"), 1_000, &traces[1]);
    }
    let service = serve(data.path(), &collector.url, &[]);
    let update = collector.span(&traces[1], "send receipts.updates");
    assert_eq!(update.parent, collector.span(&traces[1], "process receipts.events").id);
    assert_eq!(service.terminate(), Some(0));
    let spans = collector.spans();
    assert!(!spans.iter().any(|span| span.trace == traces[0]), "{spans:?}");
}

/// INV-TRACE
#[test]
fn without_a_collector_no_header_is_added() {
    let (data, collector) = (tempfile::tempdir().expect("a folder"), Collector::start());
    let data_dir = data.path().to_str().expect("UTF-8");
    let arguments = ["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data_dir, "--log-partitions", "1"];
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_SDK_DISABLED", "true")];
    for environment in [&[][..], &disabled] {
        let service = Service::start_in(environment, "receipts", &arguments);
        let mut stream = service.listen("conversation_id=private-group", &[]);
        stream.wait_for_id();
        post(&service, &beginning(), &traced(TRACE, true));
        let person = if environment.is_empty() { "person-bob" } else { "person-carol" };
        post(&service, &read_by(person), &traced(TRACE, true));
        hear(&mut stream, if environment.is_empty() { 1 } else { 2 });
        assert_eq!(service.terminate(), Some(0));
    }
    assert_eq!(collector.requests().len(), 0);
    for topic in [Topic::Events, Topic::Updates] {
        let records = records(data.path(), topic);
        assert!(!records.is_empty() && records.iter().all(|record| header(record, "traceparent").is_none()));
    }
}

#[test]
fn collectors_that_refuse_or_hang_hold_up_nothing() {
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let refusing = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addresses = [&hanging, &refusing].map(|listener| listener.local_addr().expect("bound"));
    drop(refusing);
    for (address, refuses) in addresses.into_iter().zip([false, true]) {
        let data = tempfile::tempdir().expect("a folder");
        let service = serve(data.path(), &format!("http://{address}"), &[]);
        post(&service, &beginning(), &[]);
        if refuses {
            let lost = |metrics: &Value| {
                let text = metrics.as_str().expect("text");
                let count = text.lines().find_map(|line| line.strip_prefix("receipts_trace_spans_lost_total "));
                count.is_some_and(|count| count != "0")
            };
            eventually("spans are lost", || service.get("/metrics").body, lost);
            for person in ["person-bob", "person-carol"] {
                post(&service, &read_by(person), &[]);
            }
            let warnings = || service.errors().lines().filter(|line| line.contains("spans are lost")).count();
            assert_eq!(eventually("a warning", warnings, |count| *count > 0), 1, "{}", service.errors());
        }
        assert_eq!(service.terminate(), Some(0));
    }
}

#[test]
fn wrong_settings_of_traces_are_told() {
    for (variable, value, says) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "environment variable OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("RECEIPTS_TELEMETRY__OTLP_ENDPOINT", "ftp://collector", "http://HOST:PORT"),
        ("RECEIPTS_TELEMETRY__TRACE_RATIO", "1.5", "a number from 0 to 1"),
    ] {
        let output = run_in(&[(variable, value)], "receipts", &["serve"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(errors(&output).contains(says), "{}", errors(&output));
    }
}
