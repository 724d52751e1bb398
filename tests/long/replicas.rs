//! A topic that asks for more replicas in sync than there are brokers, on three nodes.

use receipts_log::testing::{Broker, enabled, set_config};
use receipts_testkit::property::scaled;
use receipts_tests::kafka::Kafka;
use receipts_tests::process::Service;
use receipts_tests::{eventually, receipt_path};
use serde_json::json;

/// Readiness and the log name partition, replicas and setting while they are missing, and writes
/// go on when they are back. The three nodes cost half a minute: only in the long tier.
#[test]
fn too_few_replicas_are_told_until_they_return() {
    if !enabled() || scaled(0, 1) == 0 {
        return;
    }
    let broker = Broker::start(3).unwrap_or_else(|error| panic!("{error}"));
    let kafka = Kafka::named(&broker, "replicas");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &flags);
    let joined = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]});
    let sent = json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
        "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true});
    let token = service.write(&json!([joined, sent]));
    assert_eq!(service.get_after(&receipt_path("g1", "m1"), &token).status, 200);
    let bound = ("message.timestamp.after.max.ms", "3600000");
    set_config(&kafka.bootstrap, &kafka.events, &[("min.insync.replicas", "3"), bound]);
    broker.kill(3).expect("killed");
    let told = "has 2 replicas in sync, and min.insync.replicas asks for 3";
    let ready = || service.get("/readyz");
    let down = eventually("readiness names the replicas", ready, |ready| ready.body.to_string().contains(told));
    assert_eq!(down.status, 503, "{}", down.body);
    assert!(service.errors().contains(told), "{}", service.errors());
    assert_eq!(service.get(&receipt_path("g1", "m1")).status, 200, "reads go on");
    assert_eq!(service.post("/v1/events", &joined).status, 503);
    broker.restart(3).expect("started");
    eventually("it is ready again", ready, |ready| ready.status == 200);
    assert_eq!(service.post("/v1/events", &joined).status, 202);
    assert_eq!(service.terminate(), Some(0));
}
