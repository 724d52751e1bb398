//! Tests a trace across processes on a real Kafka: ingest, projector and query edge, and a producer
//! that is not ours.

use super::end_to_end::{read, sent};
use receipts_tests::collector::Collector;
use receipts_tests::kafka::{Kafka, broker};
use receipts_tests::process::{Service, Stream};
use receipts_tests::receipt_path;
use serde_json::json;

const PARENT: &str = "b7ad6b7169203331";

fn hear(stream: &mut Stream, read_count: u64) {
    while stream.next_update().expect("the update").update["read_count"] != read_count {}
}

/// INV-TRACE
#[test]
fn one_trace_crosses_ingest_projector_and_edge() {
    let Some(broker) = broker() else { return };
    let (kafka, collector) = (Kafka::named(broker, "traces"), Collector::start());
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path().to_str().expect("UTF-8");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let start = |name: &str, own: &[&str]| Service::start_in(&environment, name, &[own, &flags].concat());
    let ingest = start("receipts-ingest", &["--http-listen", "127.0.0.1:0"]);
    let own = ["--listen", "127.0.0.1:0", "--data-dir", data, "--projector-update-window-ms", "20"];
    let projector = start("receipts-projector", &own);
    let query = start("receipts-query", &["--http-listen", "127.0.0.1:0", "--projectors", &projector.address]);
    let mut stream = query.listen("conversation_id=g1", &[]);
    stream.wait_for_id();
    _ = ingest.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]},
        sent("g1", "m1", "alice"),
    ]));
    hear(&mut stream, 0);

    let (posted, produced, asked) = ("1".repeat(32), "2".repeat(32), "3".repeat(32));
    let parent = |trace: &str| format!("00-{trace}-{PARENT}-01");
    let headers = [("Content-Type", "application/json"), ("traceparent", &parent(&posted))];
    let answer = ingest.request("POST", "/v1/events", &headers, &read("g1", "m1", "bob").to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
    hear(&mut stream, 1);
    let from_producer = format!("traceparent={}", parent(&produced));
    kafka.produce(&["-K", "\t", "-H", &from_producer], &format!("default/g1\t{}\n", read("g1", "m1", "carol")));
    hear(&mut stream, 2);
    let receipt = query.request("GET", &receipt_path("g1", "m1"), &[("traceparent", &parent(&asked))], "");
    assert_eq!(receipt.body["read_count"], 2, "{}", receipt.body);

    let Kafka { events, updates, .. } = &kafka;
    let (fold, update, heard) = (format!("process {events}"), format!("send {updates}"), format!("process {updates}"));
    let chain = |trace: &str, spans: &[(&str, &str)]| {
        let mut parent = PARENT.to_owned();
        for (service, name) in spans {
            let span = collector.span(trace, name);
            assert_eq!((&span.parent, span.service.as_str()), (&parent, *service), "{span:?}");
            parent = span.id;
        }
    };
    let (send, question) = (format!("send {events}"), "POST /internal/v1/ask");
    let begins = [("receipts-ingest", "POST /v1/events"), ("receipts-ingest", send.as_str())];
    let goes_on: [(&str, &str); 3] =
        [("receipts-projector", &fold), ("receipts-projector", &update), ("receipts-query", &heard)];
    chain(&posted, &[&begins[..], &goes_on].concat());
    chain(&produced, &goes_on);
    let route = "GET /v1/conversations/{conversation_id}/messages/{message_id}/receipt";
    chain(&asked, &[("receipts-query", route)]);
    // The edge's question and the projector's answer have one name.
    _ = collector.span(&asked, question);
    let asks = || collector.spans().into_iter().filter(|span| span.name == question).collect::<Vec<_>>();
    let asks = receipts_tests::eventually("both sides", asks, |asks| asks.len() == 2);
    let [client, server] = ["SPAN_KIND_CLIENT", "SPAN_KIND_SERVER"]
        .map(|kind| asks.iter().find(|span| span.kind == kind).expect("one of each kind"));
    assert_eq!((client.service.as_str(), server.service.as_str()), ("receipts-query", "receipts-projector"));
    assert_eq!((&server.parent, &client.parent), (&client.id, &collector.span(&asked, route).id));
    assert_eq!(collector.span(&posted, &fold).attributes["messaging.system"], "kafka");
}
