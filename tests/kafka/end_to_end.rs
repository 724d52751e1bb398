//! Tests the whole path on a real Kafka, with `kcat` as every outside producer and consumer: events
//! in, answers over HTTP, updates and dead letters in their topics, through a restart.

use receipts_event::partition_of;
use receipts_log::Topic;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::{Answer, Service};
use receipts_tests::{eventually, receipt_path};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const SENT_AT_MS: u64 = 1_780_000_000_000;

/// Returns the receipt once it is as expected.
pub(super) fn receipt(service: &Service, conversation: &str, message: &str, shows: &Value) -> Value {
    let path = receipt_path(conversation, message);
    let is = |answer: &Answer| {
        shows.as_object().expect("fields").iter().all(|(field, value)| answer.body.get(field) == Some(value))
    };
    eventually(&format!("{path} must show {shows}"), || service.get(&path), is).body
}

pub(super) fn sent(conversation: &str, message: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": sender,
           "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
}

pub(super) fn read(conversation: &str, message: &str, reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": conversation, "reader_id": reader, "message_ids": [message],
           "read_at_ms": SENT_AT_MS + 4_000})
}

/// INV-KEY, INV-UPDATE-LAST, INV-OFFSET: the topics have their default names here, so only this
/// test may use them.
#[test]
fn events_from_kcat_give_right_answers_through_a_restart() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka {
        bootstrap: broker.bootstrap(),
        events: "receipts.events".into(),
        updates: "receipts.updates".into(),
        dead_letters: "receipts.dead-letters".into(),
        group: "receipts-projector".into(),
    };
    let data = tempfile::tempdir().expect("a folder");
    let count = PARTITIONS.to_string();
    let flags = ["--kafka-bootstrap", &kafka.bootstrap, "--log-partitions", &count];
    let service = Service::serve(data.path(), &flags);

    let hidden = json!({"type": "message.read", "conversation_id": "g1", "reader_id": "carol", "message_ids": ["m1"], "hidden": true});
    let members = json!({"type": "members.changed", "conversation_id": "g1", "observers": ["auditor"],
                         "joined": ["alice", "bob", "carol", "dave", "erin", "frank"]});
    let leave = json!({"type": "members.changed", "conversation_id": "g1", "left": ["dave"]});
    let twice = read("g1", "m1", "bob");
    for event in [members, sent("g1", "m1", "alice"), leave, twice.clone(), twice, read("g1", "m1", "auditor"), hidden]
    {
        kafka.event("default/g1", &event);
    }
    let direct = json!({"type": "conversation.configured", "conversation_id": "d1", "kind": "direct"});
    let pair = json!({"type": "members.changed", "conversation_id": "d1", "joined": ["ann", "ben"]});
    let mark = json!({"type": "conversation.read", "conversation_id": "d1", "reader_id": "ben", "up_to_message_id": "m1",
                      "read_at_ms": SENT_AT_MS + 9_000});
    for event in [direct, pair, sent("d1", "m1", "ann"), mark] {
        kafka.event("default/d1", &event);
    }
    // Control events: one copy into every partition.
    for partition in 0..PARTITIONS {
        let policy =
            json!({"type": "policy.changed", "read_receipts": {"*": true, "channel": false}, "partition": partition});
        let erased = json!({"type": "user.erased", "user_id": "frank", "partition": partition});
        let number = partition.to_string();
        kafka.produce(&["-K", "\t", "-p", &number], &format!("default/\t{policy}\ndefault/\t{erased}\n"));
    }
    let channel =
        json!({"type": "conversation.configured", "conversation_id": "c1", "kind": "group", "group_type": "channel"});
    for event in [
        channel,
        json!({"type": "members.changed", "conversation_id": "c1", "joined": ["ann", "ben"]}),
        sent("c1", "m1", "ann"),
    ] {
        kafka.event("default/c1", &event);
    }

    let counts = json!({"status": "ok", "kind": "group", "sender_id": "alice", "audience_count": 5, "read_count": 1,
                        "unread_count": 1, "hidden_count": 1, "departed_count": 2, "all_read": false,
                        "last_read_at_ms": SENT_AT_MS + 4_000});
    receipt(&service, "g1", "m1", &counts);
    receipt(
        &service,
        "d1",
        "m1",
        &json!({"kind": "direct", "read_count": 1, "all_read": true, "user_id": "ben", "read_at_ms": SENT_AT_MS + 9_000}),
    );
    receipt(&service, "c1", "m1", &json!({"status": "unsupported"}));
    let answers = |service: &Service| {
        let lists = ["read", "unread", "departed"];
        let paths = lists.map(|filter| format!("/v1/conversations/g1/messages/m1/members?filter={filter}"));
        let receipts = [receipt_path("g1", "m1"), receipt_path("d1", "m1"), receipt_path("c1", "m1")];
        let mark = "/v1/conversations/d1/read-marks/ben".to_owned();
        paths.iter().chain(&receipts).chain([&mark]).map(|path| service.get(path)).collect::<Vec<_>>()
    };
    let before = answers(&service);
    let members: Vec<&Value> = before[..3].iter().map(|list| &list.body["members"]).collect();
    assert_eq!(members[0], &json!([{"user_id": "bob", "read_at_ms": SENT_AT_MS + 4_000}]));
    assert_eq!(members[1], &json!([{"user_id": "erin"}]));
    assert_eq!(
        members[2],
        &json!([{"user_id": "dave", "left": true}]),
        "frank is erased, and counted without his name"
    );
    assert_eq!(
        (&before[6].body["up_to_message_id"], &before[6].body["read_at_ms"]),
        (&json!("m1"), &json!(SENT_AT_MS + 9_000))
    );

    assert_eq!(service.terminate(), Some(0));
    let published = kafka.consume(&kafka.updates);
    let last = |conversation: &str, kind: &str| {
        let key = format!("default/{conversation}");
        let payloads = published.iter().filter(|record| record["key"] == key.as_str());
        let mut updates = payloads
            .map(|record| serde_json::from_str::<Value>(record["payload"].as_str().expect("a value")).expect("JSON"));
        updates.rfind(|update| update["type"] == kind).unwrap_or_else(|| panic!("no {kind} of {key}"))
    };
    let update = last("d1", "receipt.updated");
    let receipt_of_d1 = before[4].body.as_object().expect("a receipt");
    assert!(
        receipt_of_d1.iter().all(|(field, value)| update.get(field) == Some(value)),
        "{update} must hold {receipt_of_d1:?}"
    );
    assert_eq!(last("d1", "read_mark.updated")["up_to_message_id"], "m1");
    // Carol's hidden read changed m1 last: it is counted, and its update names no reader.
    let update = last("g1", "receipt.updated");
    assert_eq!((&update["read_count"], &update["hidden_count"]), (&json!(1), &json!(1)));
    assert!(!update["newly_read"].to_string().contains("carol"), "{update}");
    assert_eq!(kafka.consume(&kafka.dead_letters), Vec::<Value>::new());

    let service = Service::serve(data.path(), &flags);
    assert_eq!(answers(&service), before, "the same answers after a restart");
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(kafka.consume(&kafka.updates).len(), published.len(), "what was published is not published again");
}

/// INV-DEADLETTER, INV-KEY
#[test]
fn bad_records_become_dead_letters_and_folding_continues() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "bad");
    let data = tempfile::tempdir().expect("a folder");
    let mut flags = kafka.flags();
    flags.extend(["--projector-parked-count", "1"].map(str::to_owned));
    let service = Service::serve(data.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());

    let key = "default/g1";
    let right = partition_of(key.as_bytes(), PARTITIONS);
    let wrong = ((right + 1) % PARTITIONS).to_string();
    kafka.event(key, &json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]}));
    kafka.event(key, &sent("g1", "m1", "alice"));
    let long = "x".repeat(129);
    let keyed: &[&str] = &["-K", "\t"];
    let at_wrong: &[&str] = &["-K", "\t", "-p", &wrong];
    let traced: &[&str] = &["-K", "\t", "-H", "trace=abc"];
    let bad: Vec<(&str, &[&str], Option<&str>, String)> = vec![
        ("invalid-json", traced, Some(key), "{not json".to_owned()),
        ("unknown-type", keyed, Some(key), json!({"type": "message.liked", "conversation_id": "g1"}).to_string()),
        (
            "missing-field",
            keyed,
            Some(key),
            json!({"type": "message.read", "conversation_id": "g1", "reader_id": "bob"}).to_string(),
        ),
        (
            "invalid-field",
            keyed,
            Some(key),
            json!({"type": "message.read", "conversation_id": "g1", "reader_id": 7, "message_ids": ["m1"]}).to_string(),
        ),
        ("limit-exceeded", keyed, Some(key), read("g1", &long, "bob").to_string()),
        ("wrong-key", keyed, Some("default/g2"), read("g1", "m1", "bob").to_string()),
        ("wrong-key", &[], None, read("g1", "m1", "bob").to_string()),
        ("wrong-partition", at_wrong, Some(key), read("g1", "m1", "bob").to_string()),
        (
            "wrong-policy-partition",
            at_wrong,
            Some("default/"),
            json!({"type": "user.erased", "user_id": "bob", "partition": right}).to_string(),
        ),
        ("no-value", &["-K", "\t", "-Z"], Some(key), String::new()),
        ("no-roster", keyed, Some("default/nobody"), sent("nobody", "m1", "alice").to_string()),
        // One record may be parked: the second one drives the first one out.
        ("parked-overflow", keyed, Some(key), read("g1", "never-1", "bob").to_string()),
    ];
    for (_, arguments, key, value) in &bad {
        let before = key.map_or_else(String::new, |key| format!("{key}\t"));
        kafka.produce(arguments, &format!("{before}{value}\n"));
    }
    kafka.event(key, &read("g1", "never-2", "bob"));
    // None of these records changed m1, and later ones count.
    let unread = receipt(&service, "g1", "m1", &json!({"status": "ok", "sender_id": "alice"}));
    assert_eq!((&unread["read_count"], &unread["user_id"]), (&json!(0), &Value::Null));
    kafka.event(key, &read("g1", "m1", "bob"));
    receipt(&service, "g1", "m1", &json!({"read_count": 1, "unread_count": 0, "all_read": true}));

    eventually("all dead letters must come", || kafka.records(Topic::DeadLetters), |count| *count >= bad.len() as u64);
    assert_eq!(service.terminate(), Some(0));
    let sources = kafka.consume(&kafka.events);
    let mut letters = Vec::new();
    for letter in kafka.consume(&kafka.dead_letters) {
        let names = letter["headers"].as_array().expect("headers").chunks(2);
        let headers: BTreeMap<&str, &str> =
            names.map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value"))).collect();
        let number = |name: &str| headers[name].parse::<u64>().expect("a number");
        let (partition, offset) = (number("dead-letter-partition"), number("dead-letter-offset"));
        let source = sources.iter().find(|source| source["partition"] == partition && source["offset"] == offset);
        let source = source.unwrap_or_else(|| panic!("no record at {partition}, {offset}"));
        assert_eq!((&letter["key"], &letter["payload"]), (&source["key"], &source["payload"]), "untouched");
        assert_eq!(headers["dead-letter-topic"], kafka.events);
        let reason = headers["dead-letter-reason"];
        assert!(!headers["dead-letter-detail"].is_empty(), "{reason}");
        assert_eq!(headers.get("trace").copied(), (reason == "invalid-json").then_some("abc"), "its own headers stay");
        assert!(reason != "parked-overflow" || headers["dead-letter-detail"].contains("never-1"), "{headers:?}");
        letters.push((reason.to_owned(), letter["key"].clone(), letter["payload"].clone()));
    }
    let mut wanted: Vec<_> = bad
        .iter()
        .map(|(reason, _, key, value)| {
            let payload = if *reason == "no-value" { Value::Null } else { json!(value) };
            ((*reason).to_owned(), json!(key), payload)
        })
        .collect();
    let order = |letter: &(String, Value, Value)| (letter.0.clone(), letter.1.to_string());
    letters.sort_by_key(order);
    wanted.sort_by_key(order);
    assert_eq!(letters, wanted);
}
