//! Published updates: each matches its schema, and the last one of a message equals the partition's
//! answer.

use crate::faults::{Faulty, UpdateFaults};
use crate::harness::{EPOCH_MS, Harness, Running};
use crate::schema;
use receipts_event::{Body, Event};
use receipts_fold::view::{Receipt, Status};
use receipts_query::Conversation;
use receipts_testkit::compare::Questions;
use receipts_testkit::history::{History, Shape, Weights};
use receipts_testkit::property::{Replay, seeds};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The update window of each seed.
const WINDOWS_MS: [u64; 6] = [0, 0, 1, 5, 20, 3_600_000];
const PARTITIONS: u32 = 3;

/// A kind of update that a test must see.
type Seen = (&'static str, fn(&Value) -> bool);

const KINDS: [Seen; 12] = [
    ("sent", |u| u["status"] == "ok" && u["newly_read"] == json!([])),
    ("read", |u| u["newly_read"].as_array().is_some_and(|readers| readers.len() == 2)),
    ("truncated", |u| u["newly_read_truncated"] == true && u["newly_read"].as_array().unwrap().len() == 100),
    ("hidden", |u| u["hidden_count"] == 1),
    ("recalled", |u| u["status"] == "recalled"),
    ("not requested", |u| u["status"] == "not_requested"),
    ("unsupported", |u| u["status"] == "unsupported"),
    ("direct", |u| u["kind"] == "direct" && u["user_id"] == "b" && u["read_at_ms"].is_null()),
    ("direct, read", |u| u["kind"] == "direct" && u["user_id"] == "b" && u["read_at_ms"].is_u64()),
    ("sender erased", |u| u["type"] == "receipt.updated" && u["sender_id"].is_null()),
    ("mark by message", |u| u["type"] == "read_mark.updated" && u["up_to_message_id"] == "d1" && u["peer_id"] == "a"),
    ("mark by time", |u| u["type"] == "read_mark.updated" && u["up_to_message_id"].is_null()),
];

fn sent(conversation_id: &str, message_id: &str, sender_id: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation_id, "message_id": message_id, "sender_id": sender_id,
        "sent_at_ms": EPOCH_MS, "need_read_receipt": true})
}

fn read(conversation_id: &str, message_id: &str, reader_id: &str) -> Value {
    json!({"type": "message.read", "conversation_id": conversation_id, "reader_id": reader_id, "message_ids": [message_id]})
}

#[test]
fn every_kind_of_update_matches_its_schema() {
    let mut harness = Harness::new(1);
    // The changes of a phase become one update per message, which the stop publishes.
    harness.settings.update_window = Duration::from_secs(3_600);
    let crowd: Vec<String> = (0..120).map(|n| format!("u{n}")).collect();
    let phases = [
        vec![
            json!({"type": "conversation.configured", "conversation_id": "d", "kind": "direct"}),
            json!({"type": "members.changed", "conversation_id": "d", "joined": ["a", "b"]}),
            json!({"type": "members.changed", "conversation_id": "g", "joined": ["a", "b", "c"]}),
            json!({"type": "members.changed", "conversation_id": "crowd", "joined": crowd}),
            sent("g", "g1", "a"),
            sent("d", "d1", "a"),
        ],
        vec![
            read("g", "g1", "b"),
            read("g", "g1", "c"),
            json!({"type": "conversation.read", "conversation_id": "d", "reader_id": "b", "up_to_message_id": "d1"}),
            sent("crowd", "c1", "u0"),
        ],
        crowd.iter().map(|reader| read("crowd", "c1", reader)).collect(),
        vec![
            json!({"type": "conversation.read", "conversation_id": "d", "reader_id": "b", "up_to_sent_at_ms": EPOCH_MS + 1}),
            json!({"type": "message.sent", "conversation_id": "g", "message_id": "plain", "sender_id": "a", "sent_at_ms": 1}),
            sent("g", "g2", "a"),
            json!({"type": "message.read", "conversation_id": "g", "reader_id": "b", "message_ids": ["g2"], "hidden": true}),
            sent("g", "recalled", "a"),
            read("g", "recalled", "b"),
            json!({"type": "message.recalled", "conversation_id": "g", "message_id": "recalled"}),
            json!({"type": "policy.changed", "read_receipts": {"*": false}, "partition": 0}),
            sent("g", "off", "a"),
        ],
        vec![
            json!({"type": "policy.changed", "read_receipts": {}, "partition": 0}),
            json!({"type": "user.erased", "user_id": "c", "partition": 0}),
            sent("g", "g3", "b"),
            json!({"type": "user.erased", "user_id": "b", "partition": 0}),
        ],
    ];
    for events in phases {
        events.iter().for_each(|event| harness.post(event));
        let running = harness.start();
        running.folded();
        running.stop().unwrap();
    }
    let validator = schema::validator();
    let updates = harness.updates();
    updates.iter().for_each(|update| schema::check(&validator, update));
    for (kind, is) in KINDS {
        assert!(updates.iter().any(is), "no update is {kind}:\n{updates:#?}");
    }
    // An update names no reader if the message was recalled within its window.
    let recalled: Vec<_> = updates.iter().filter(|u| u["message_id"] == "recalled").collect();
    assert_eq!(recalled.len(), 1);
    assert_eq!(recalled[0]["newly_read"], json!([]));
}

/// INV-UPDATE-LAST, while one append in seven fails, before or after its effect.
#[test]
fn the_last_update_equals_the_partitions_answer() {
    for seed in seeds(0..WINDOWS_MS.len() as u64) {
        let _replay = Replay::with(&format!("RECEIPTS_TEST_SEEDS={seed}..{}", seed + 1));
        let window_ms = WINDOWS_MS[seed as usize % WINDOWS_MS.len()];
        let wild = Shape::wild();
        let weights = Weights { erased: 0, ..wild.weights.clone() };
        // Without departures, update and answer are equal. A departure publishes nothing. Nothing
        // expires.
        let members = if seed % 2 == 0 { 0 } else { weights.members };
        let shape = Shape { weights: Weights { members, ..weights }, p_jump: 0.0, ..wild };
        let (events, questions) = history(seed, &shape);

        let mut harness = Harness::new(PARTITIONS);
        harness.settings.update_window = Duration::from_millis(window_ms);
        harness.settings.checkpoint_records = 50;
        let faulty = Faulty::new(&harness, UpdateFaults::fail_every(7));
        // The projector is restarted in the middle.
        let (first, second) = events.split_at(events.len() / 2);
        write(&harness, first);
        let running = harness.start_over(&faulty);
        running.folded();
        running.stop().unwrap();
        let running = harness.start_over(&faulty);
        write(&harness, second);
        running.folded();
        let receipts = receipts(&running, &questions);
        running.stop().unwrap();

        let validator = schema::validator();
        let mut last: BTreeMap<[String; 3], Receipt> = BTreeMap::new();
        for update in harness.updates() {
            schema::check(&validator, &update);
            if update["type"] == "receipt.updated" {
                let receipt: Receipt = serde_json::from_value(update).unwrap();
                last.insert(name_of(&receipt), receipt);
            }
        }
        assert!(receipts.len() > 10, "seed {seed}: {}", receipts.len());
        for receipt in receipts {
            let update =
                last.get(&name_of(&receipt)).unwrap_or_else(|| panic!("seed {seed}: no update of {receipt:?}"));
            let expected = if members == 0 { receipt } else { as_of(update, receipt) };
            assert_eq!(*update, expected, "seed {seed}");
        }
    }
}

/// Generates events with their times, and questions about them. Control events have a copy per
/// partition.
fn history(seed: u64, shape: &Shape) -> (Vec<(u64, Event<'static>)>, Questions) {
    let made = History::generate(seed, shape);
    let questions = Questions::of(made.iter().map(|(_, event)| event));
    let mut events = Vec::new();
    for (at, event) in made {
        let copies = if event.conversation_id().is_some() { 1 } else { PARTITIONS };
        for copy in 0..copies {
            let mut event = event.clone();
            match &mut event.body {
                Body::PolicyChanged(body) => body.partition = Some(copy),
                Body::UserErased(body) => body.partition = Some(copy),
                _ => {}
            }
            events.push((at.timestamp_ms, event));
        }
    }
    (events, questions)
}

fn write(harness: &Harness, events: &[(u64, Event<'_>)]) {
    let append = |(timestamp_ms, event): &(u64, Event<'_>)| {
        harness.append(event.partition(), *timestamp_ms, event.key(), event.to_json())
    };
    let appended: Vec<_> = events.iter().map(append).collect();
    appended.into_iter().for_each(|appended| _ = appended.blocking_recv().unwrap().unwrap());
}

/// Returns the receipts of all messages that exist.
fn receipts(running: &Running, questions: &Questions) -> Vec<Receipt> {
    let asked = questions.messages.iter().map(|(tenant, conversation_id, message_id)| {
        let conversation = Conversation::locate(tenant, conversation_id, PARTITIONS);
        let answer =
            crate::harness::now(running.answers().receipts(conversation, None, std::slice::from_ref(message_id)));
        answer.unwrap().value.remove(0)
    });
    asked.filter(|receipt| receipt.status != Status::NotFound).collect()
}

fn name_of(receipt: &Receipt) -> [String; 3] {
    [receipt.tenant.clone(), receipt.conversation_id.clone().unwrap(), receipt.message_id.clone()]
}

/// Reverts the changes by departures since an update of a lower version: departed members counted
/// as unread then.
fn as_of(update: &Receipt, mut receipt: Receipt) -> Receipt {
    if update.version < receipt.version {
        receipt.version = update.version;
        if let (Some(then), Some(now)) = (update.counts, &mut receipt.counts) {
            assert!(then.departed_count <= now.departed_count);
            assert_eq!(then.unread_count + then.departed_count, now.unread_count + now.departed_count);
            (now.unread_count, now.departed_count, now.all_read) =
                (then.unread_count, then.departed_count, then.all_read);
        }
    }
    receipt
}
