//! Tests `receipts policy set` and `receipts erase` on a real Kafka beside a running service.
//! `tests/it/operator.rs` tests their usage, the fold's tests the meaning of their events.

use super::end_to_end::{SENT_AT_MS, sent};
use receipts_event::{key, partition_of};
use receipts_log::kafka::{ConnectError, CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::{Inspect, Topic};
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::{Service, errors, run};
use receipts_tests::receipt_path;
use serde_json::{Value, json};

/// INV-COPIES, INV-ERASED: kcat finds one copy per partition, later messages follow the policy, and
/// the erased person is no longer named. A missing topic is not created.
#[test]
fn policy_and_erasure_stand_in_every_partition_at_once() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "operator");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let command = |arguments: &[&str]| run("receipts", &[arguments, &["--json"], &flags].concat());
    let events_only = || KafkaSettings { required: &[Topic::Events], ..kafka.settings() };

    for arguments in [["erase", "bob"].as_slice(), &["policy", "set", "*=on"]] {
        let output = command(arguments);
        let said = errors(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
        for part in [&*kafka.events, &*kafka.bootstrap, "--log-events-topic"] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
    }
    let missing = KafkaLog::connect(events_only()).err().expect("still no topic");
    assert!(matches!(missing, ConnectError::Missing { .. }), "{missing}");
    // The commands need only the topic of events.
    let create_topics = Some(CreateTopics { partitions: PARTITIONS, replication: None });
    let log = KafkaLog::connect(KafkaSettings { create_topics, ..events_only() }).expect("made");
    let write = |arguments: &[&str]| -> Value {
        let output = command(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let shown: Value = serde_json::from_slice(&output.stdout).expect("one object");
        for (partition, place) in (0..PARTITIONS).zip(shown["written"].as_array().expect("a list")) {
            let end = log.bounds(Topic::Events, partition).expect("bounds").end;
            assert_eq!(
                place,
                &json!({"partition": partition, "offset": end - 1}),
                "the newest record of its partition"
            );
        }
        shown
    };
    write(&["policy", "set", "*=on"]);

    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &flags);
    let number_in = |partition| {
        let there = |number: &u32| partition_of(&key("default", &format!("g{number}")), PARTITIONS) == partition;
        (0..).find(there).expect("some conversation is in every partition")
    };
    let groups: Vec<String> = (0..PARTITIONS).map(|partition| format!("g{}", number_in(partition))).collect();
    let group = |id: &String| {
        [
            json!({"type": "conversation.configured", "conversation_id": id, "kind": "group", "group_type": "channel"}),
            json!({"type": "members.changed", "conversation_id": id, "joined": ["alice", "bob"]}),
            sent(id, "before", "alice"),
            json!({"type": "message.read", "conversation_id": id, "reader_id": "bob", "message_ids": ["before"],
                   "read_at_ms": SENT_AT_MS + 4_000}),
        ]
    };
    let token = service.write(&json!(groups.iter().flat_map(group).collect::<Vec<_>>()));
    let all = |token: &str, path: &dyn Fn(&String) -> String| -> Vec<Value> {
        groups.iter().map(|id| service.get_after(&path(id), token).body).collect()
    };
    let readers = |id: &String| format!("/v1/conversations/{id}/messages/before/members?filter=read");
    let named = |lists: &[Value]| lists.iter().filter(|list| list.to_string().contains("\"bob\"")).count();
    assert_eq!(named(&all(&token, &readers)), groups.len());

    write(&["policy", "set", "channel=off", "*=on"]);
    let token = service.write(&json!(groups.iter().map(|id| sent(id, "after", "alice")).collect::<Vec<_>>()));
    for (message, status) in [("before", "ok"), ("after", "unsupported")] {
        let receipts = all(&token, &|id| receipt_path(id, message));
        assert!(receipts.iter().all(|receipt| receipt["status"] == status), "{message}: {receipts:#?}");
    }

    let erasure = write(&["erase", "bob", "--yes"]);
    let lists = all(erasure["position"].as_str().expect("a token"), &readers);
    assert_eq!(named(&lists), 0, "{lists:#?}");
    assert!(lists.iter().all(|list| list["receipt"]["read_count"] == 1), "{lists:#?}");

    let records = kafka.consume(&kafka.events);
    let control: Vec<(&Value, Value)> = records
        .iter()
        .filter(|record| record["key"] == "default/")
        .map(|record| (&record["partition"], serde_json::from_str(record["payload"].as_str().expect("a value"))))
        .map(|(partition, event)| (partition, event.expect("JSON")))
        .collect();
    assert_eq!(control.len(), 3 * PARTITIONS as usize, "three commands, a copy of each in every partition");
    assert!(control.iter().all(|(partition, event)| event["partition"] == **partition), "{control:#?}");
    assert_eq!(kafka.records(Topic::DeadLetters), 0);
    assert_eq!(service.terminate(), Some(0));
}
