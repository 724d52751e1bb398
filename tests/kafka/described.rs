//! `receipts topics create` and `receipts topics describe` on a real Kafka.

use super::end_to_end::{read, sent};
use receipts_log::testing::set_config;
use receipts_tests::eventually;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::{Service, errors, run};
use serde_json::{Value, json};

/// Runs a command of `receipts topics` and returns its exit code and its object.
fn topics(kafka: &Kafka, own: &[&str]) -> Value {
    let flags = kafka.flags();
    let flags = flags.iter().map(String::as_str);
    let output = run("receipts", &["topics"].into_iter().chain(own.iter().copied()).chain(flags).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{own:?}: {}", errors(&output));
    serde_json::from_slice(&output.stdout).expect("one object")
}

#[test]
fn topics_are_created_as_planned_and_described() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "described");
    let presence = |described: &Value| -> Vec<String> {
        let topics = described["topics"].as_array().expect("topics");
        topics.iter().map(|topic| topic["presence"].as_str().expect("a text").to_owned()).collect()
    };
    let planned = topics(&kafka, &["create", "--dry-run", "--json"]);
    assert_eq!(planned["created"][0]["settings"]["retention.ms"], "-1", "{planned}");
    assert_eq!(presence(&topics(&kafka, &["describe", "--json"])), ["missing"; 3], "a dry run creates nothing");
    let created = topics(&kafka, &["create", "--json"]);
    assert_eq!(created["created"], planned["created"]);
    assert_eq!(topics(&kafka, &["create", "--json"])["created"], json!([]), "all exist");

    let folder = tempfile::tempdir().expect("a folder");
    let mut flags = kafka.flags();
    flags.extend(["--projector-checkpoint-interval-ms".to_owned(), "100".to_owned()]);
    let service = Service::serve(folder.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let joined = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]});
    _ = service.write(&json!([joined, sent("g1", "m1", "alice"), read("g1", "m1", "bob")]));
    let described = topics(&kafka, &["describe", "--json"]);
    assert_eq!(presence(&described), ["present"; 3]);
    assert_eq!((&described["group"]["state"], &described["group"]["members"]), (&json!("Stable"), &json!(1)));
    let offsets = |described: &Value| -> u64 {
        let committed = described["group"]["committed"].as_array().expect("offsets");
        committed.iter().map(|one| one["offset"].as_u64().expect("an offset")).sum()
    };
    let describe = || topics(&kafka, &["describe", "--json"]);
    let described = eventually("a checkpoint is committed", describe, |described| offsets(described) == 3);
    let partitions = described["topics"][0]["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len(), PARTITIONS as usize);
    let ends: u64 = partitions.iter().map(|partition| partition["end_offset"].as_u64().expect("an offset")).sum();
    assert_eq!(ends, 3, "{described}");
    let committed = described["group"]["committed"].as_array().expect("offsets");
    assert!(committed.iter().all(|one| one["lag"] == 0), "{described}");
    assert_eq!(described["refused"], Value::Null);
    assert_eq!(service.terminate(), Some(0));

    set_config(&kafka.bootstrap, &kafka.events, &[("cleanup.policy", "compact"), ("retention.ms", "60000")]);
    let described = topics(&kafka, &["describe", "--json"]);
    let judgement = |name: &str| {
        let settings = described["topics"][0]["settings"].as_array().expect("settings");
        settings.iter().find(|setting| setting["name"] == name).expect("listed")["judgement"].clone()
    };
    assert_eq!([judgement("cleanup.policy"), judgement("retention.ms")], ["refused", "warned"]);
    assert!(described["refused"].as_str().is_some_and(|why| why.contains("is compacted")), "{described}");
}
