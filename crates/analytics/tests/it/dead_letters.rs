//! INV-LETTER-REPLAY: the plan of a replay, from letters and events in an embedded log.

use receipts_analytics::dead_letters::{Filter, Harm, Options, Plan, REPLAYED_FROM, spans};
use receipts_event::{Decoder, Unwrap, partition_of};
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Log as _, Topic};
use serde_json::{Value, json};
use std::num::NonZeroU32;

const PARTITIONS: u32 = 3;

struct World {
    log: EmbeddedLog,
    options: Options,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), NonZeroU32::new(PARTITIONS)).unwrap();
        let decoder = Decoder { partition_count: PARTITIONS, unwrap: Unwrap::None };
        Self { log, options: Options { decoder, rekey: false, only_harmless: false }, _dir: dir }
    }

    fn append(&self, topic: Topic, partition: u32, time_ms: u64, key: &str, value: &str, headers: &[(&str, String)]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.clone().into())));
        let appended = self.log.writer().append(Entry {
            topic,
            partition: Some(partition),
            key: Some(key.to_owned().into()),
            value: Some(value.to_owned().into()),
            headers: headers.collect(),
            timestamp_ms: Some(time_ms),
        });
        appended.blocking_recv().unwrap().unwrap();
    }

    fn event(&self, time_ms: u64, conversation: &str, event: &Value) {
        let key = key(conversation);
        let partition = partition_of(key.as_bytes(), PARTITIONS);
        self.append(Topic::Events, partition, time_ms, &key, &event.to_string(), &[]);
    }

    /// Writes the letter of a record that was in a partition, at an offset and a time.
    fn letter(&self, from: (u32, u64, u64), key: &str, value: &str, more: &[(&str, String)]) {
        let (partition, offset, time_ms) = from;
        let about = [
            ("dead-letter-reason", "wrong-partition".to_owned()),
            ("dead-letter-topic", "receipts.events".to_owned()),
            ("dead-letter-partition", partition.to_string()),
            ("dead-letter-offset", offset.to_string()),
            ("dead-letter-timestamp", time_ms.to_string()),
        ];
        let headers = [more, &about[..]].concat();
        self.append(Topic::DeadLetters, partition_of(key.as_bytes(), PARTITIONS), 1_000_000, key, value, &headers);
    }

    fn plan(&self) -> Plan {
        let letters = spans(&self.log, None).unwrap();
        Plan::make(&self.log, &letters, &Filter::default(), self.options, &()).unwrap()
    }
}

fn key(conversation: &str) -> String {
    format!("default/{conversation}")
}

fn joined(conversation: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": ["a", "b"]})
}

fn sent(conversation: &str, message: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": "a", "sent_at_ms": 1})
}

fn read(conversation: &str, message: &str) -> Value {
    json!({"type": "message.read", "conversation_id": conversation, "reader_id": "b", "message_ids": [message]})
}

/// Returns the offsets of the planned letters' records in the order of writing, and their harm.
fn order(plan: &Plan) -> Vec<(u64, Option<Harm>)> {
    plan.planned.iter().map(|planned| (planned.origin.offset, planned.harm)).collect()
}

fn refused(plan: &Plan) -> Vec<(&str, u64)> {
    plan.refused.iter().map(|(reason, refused)| (reason.as_str(), refused.count)).collect()
}

#[test]
fn letters_of_a_key_keep_their_first_order() {
    let world = World::new();
    for (offset, event) in [(9, read("g", "m")), (2, joined("g")), (5, sent("g", "m")), (2, joined("g"))] {
        world.letter((0, offset, 10), &key("g"), &event.to_string(), &[]);
    }
    let plan = world.plan();
    assert_eq!(order(&plan), [(2, None), (5, None), (9, None)]);
    assert_eq!((plan.selected, plan.repeated, plan.replayed), (4, 1, 0));
    let right = partition_of(key("g").as_bytes(), PARTITIONS);
    assert!(plan.planned.iter().all(|planned| planned.partition == right && planned.key == key("g").as_bytes()));
}

#[test]
fn a_replayed_letter_is_not_planned_again() {
    let world = World::new();
    world.letter((0, 2, 10), &key("g"), &joined("g").to_string(), &[]);
    world.letter((0, 5, 10), &key("g"), &sent("g", "m").to_string(), &[]);
    let from = [(REPLAYED_FROM, "receipts.events:0:2".to_owned())];
    let partition = partition_of(key("g").as_bytes(), PARTITIONS);
    // The embedded log gives copies the time of their append; that makes no later letter late.
    world.append(Topic::Events, partition, 999, &key("g"), &joined("g").to_string(), &from);
    let plan = world.plan();
    assert_eq!((order(&plan), plan.replayed), (vec![(5, None)], 1));
}

#[test]
fn letters_that_would_be_wrong_again_are_refused() {
    let world = World::new();
    world.letter((0, 1, 10), &key("alone"), &sent("alone", "m").to_string(), &[]);
    world.letter((0, 2, 10), &key("g"), &read("g", "unknown").to_string(), &[]);
    world.letter((0, 3, 10), &key("g"), "no event", &[]);
    world.letter((0, 4, 10), "\"default/g\"", &joined("g").to_string(), &[]);
    world.letter((0, 5, 10), &key("g"), &joined("g").to_string(), &[("dead-letter-left-out", "value".to_owned())]);
    world.append(Topic::DeadLetters, 0, 1, &key("g"), &joined("g").to_string(), &[]);
    let plan = world.plan();
    let expected = [
        ("invalid-json", 1),
        ("left-out", 1),
        ("no-origin", 1),
        ("no-roster", 1),
        ("parked-expired", 1),
        ("wrong-key", 1),
    ];
    assert_eq!((refused(&plan).as_slice(), plan.planned.len()), (&expected[..], 0));
    let rekeyed = World { options: Options { rekey: true, ..world.options }, ..world };
    let plan = rekeyed.plan();
    assert_eq!(order(&plan), [(4, None)]);
    assert_eq!(plan.planned[0].key, key("g").as_bytes());
}

#[test]
fn harm_is_named_by_its_kind() {
    let world = World::new();
    // Its roster was changed later, so the letters come too late.
    world.event(50, "late", &joined("late"));
    world.letter((0, 1, 10), &key("late"), &joined("late").to_string(), &[]);
    world.letter((0, 2, 10), &key("late"), &sent("late", "m").to_string(), &[]);
    world.letter((0, 3, 60), &key("late"), &sent("late", "n").to_string(), &[]);
    // Its letters come from two partitions.
    world.letter((1, 4, 30), &key("lost"), &sent("lost", "m").to_string(), &[]);
    world.letter((2, 5, 20), &key("lost"), &joined("lost").to_string(), &[]);
    let plan = world.plan();
    let mut found = order(&plan);
    let lost: Vec<u64> = found.extract_if(.., |(_, harm)| *harm == Some(Harm::OrderLost)).map(|(at, _)| at).collect();
    assert_eq!(lost, [5, 4], "by their times");
    assert_eq!(found, [(1, Some(Harm::LateRoster)), (2, Some(Harm::LateSend)), (3, None)]);
    let careful = World { options: Options { only_harmless: true, ..world.options }, ..world };
    let plan = careful.plan();
    assert_eq!(order(&plan), [(3, None)]);
    assert_eq!(refused(&plan), [("late-roster", 1), ("late-send", 1), ("order-lost", 2)]);
}
