//! Tests `receipts-ingest` and `receipts serve` on a real Kafka: one takes events, the other
//! answers. The test of usage needs no Kafka.

use receipts_log::kafka::{KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, unique};
use receipts_log::{Entry, Inspect, Log, Topic};
use receipts_tests::process::{Service, errors, run};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn ingest_without_a_kafka_is_a_configuration_mistake() {
    let output = run("receipts-ingest", &["--http-listen", "127.0.0.1:0"]);
    let said = errors(&output);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains("--kafka-bootstrap") && said.contains("RECEIPTS_KAFKA__BOOTSTRAP"), "{said}");
}

#[test]
fn serve_answers_ingested_events_through_a_restart() {
    let Some(broker) = Broker::shared() else { return };
    let bootstrap = broker.bootstrap();
    let name = unique("ingest");
    let topics = ["events", "updates", "dead-letters"].map(|topic| format!("{name}.{topic}"));
    let kafka = [
        "--kafka-bootstrap",
        &bootstrap,
        "--log-events-topic",
        &topics[0],
        "--log-updates-topic",
        &topics[1],
        "--log-dead-letters-topic",
        &topics[2],
        "--projector-group",
        &name,
    ];
    let ingest = Service::start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], kafka.as_slice()].concat());
    assert_eq!(ingest.get("/readyz").status, 200);
    let data = tempfile::tempdir().expect("a folder");
    let serve = Service::serve(data.path(), &kafka);
    let token = ingest.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]},
        {"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
        {"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]},
    ]));
    let ask = |serve: &Service| serve.get_after("/v1/conversations/g1/messages/m1/receipt", &token);
    let before = ask(&serve);
    assert_eq!(before.status, 200, "{}", before.body);
    assert_eq!((&before.body["read_count"], &before.body["unread_count"]), (&json!(1), &json!(1)));
    assert_eq!(serve.terminate(), Some(0));
    let serve = Service::serve(data.path(), &kafka);
    assert_eq!(ask(&serve), before);
    assert_eq!((ingest.terminate(), serve.terminate()), (Some(0), Some(0)));

    // The directory's store belongs to that topic alone.
    let output =
        run("receipts", &["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data.path().to_str().expect("UTF-8")]);
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&topics[0]) && said.contains("--data-dir"), "{said}");
}

#[test]
fn bad_record_becomes_a_dead_letter_with_its_reason() {
    let Some(broker) = Broker::shared() else { return };
    let name = unique("dead");
    let [events, updates, dead_letters] = ["events", "updates", "dead-letters"].map(|topic| format!("{name}.{topic}"));
    let bootstrap = broker.bootstrap();
    let data = tempfile::tempdir().expect("a folder");
    let topics =
        ["--log-events-topic", &events, "--log-updates-topic", &updates, "--log-dead-letters-topic", &dead_letters];
    let kafka = ["--kafka-bootstrap", &bootstrap, "--projector-group", &name];
    let serve = Service::serve(data.path(), &[kafka.as_slice(), &topics].concat());
    let log = KafkaLog::connect(KafkaSettings { bootstrap, events, updates, dead_letters, ..KafkaSettings::default() });
    let log = log.expect("the topics are there");
    let value = r#"{"type":"message.read","conversation_id":"g1","message_ids":["m1"]}"#;
    let bad = Entry {
        topic: Topic::Events,
        partition: None,
        key: Some("default/g1".into()),
        value: Some(value.into()),
        headers: vec![("trace".into(), Some("t1".into()))],
        timestamp_ms: None,
    };
    let written = log.writer().append(bad).blocking_recv().expect("an outcome").expect("written");
    let token = serve.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]},
        {"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
    ]));
    assert_eq!(serve.get_after("/v1/conversations/g1/messages/m1/receipt", &token).body["unread_count"], json!(1));
    let deadline = Instant::now() + Duration::from_secs(30);
    let dead = loop {
        let dead = (0..log.partition_count()).flat_map(|p| log.read(Topic::DeadLetters, p, 0, 10).expect("readable"));
        if let Some(dead) = dead.into_iter().next() {
            break dead;
        }
        assert!(Instant::now() < deadline, "no dead letter came");
    };
    assert_eq!((dead.key.as_deref(), dead.value.as_deref()), (Some(&b"default/g1"[..]), Some(value.as_bytes())));
    let header = |name: &str| {
        let found = dead.headers.iter().find(|(held, _)| held == name);
        let value = found.unwrap_or_else(|| panic!("no {name} in {:?}", dead.headers)).1.clone();
        String::from_utf8(value.expect("a value").to_vec()).expect("UTF-8")
    };
    assert_eq!((header("dead-letter-reason"), header("trace")), ("missing-field".into(), "t1".into()));
    assert!(header("dead-letter-detail").contains("/reader_id"), "{}", header("dead-letter-detail"));
    assert_eq!(header("dead-letter-partition"), written.partition.to_string());
    assert_eq!(header("dead-letter-offset"), written.offset.to_string());
    assert_eq!(serve.terminate(), Some(0));
}
