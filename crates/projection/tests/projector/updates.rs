//! What is published: in the shape of the schemas, and the last of each message is what the partition answers.

use crate::bench::{Bench, EPOCH_MS, Running};
use crate::faults::{Faulty, UpdateFaults};
use crate::schema;
use receipts_event::{Body, Event};
use receipts_fold::view::{Receipt, Status};
use receipts_query::Conversation;
use receipts_testkit::compare::Questions;
use receipts_testkit::history::{History, Shape, Weights};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const SEEDS: u64 = 6;
const PARTITIONS: u32 = 3;

/// A kind of update that must have been seen.
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
fn every_kind_of_update_is_as_its_schema_says() {
    let mut bench = Bench::new(1);
    // Everything of a stretch is one update, and goes out at the stop.
    bench.settings.update_window = Duration::from_secs(3_600);
    let crowd: Vec<String> = (0..120).map(|n| format!("u{n}")).collect();
    let stretches = [
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
            sent("g", "gone", "a"),
            read("g", "gone", "b"),
            json!({"type": "message.recalled", "conversation_id": "g", "message_id": "gone"}),
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
    for events in stretches {
        events.iter().for_each(|event| bench.post(event));
        let running = bench.start();
        running.folded();
        running.stop().unwrap();
    }
    let validator = schema::validator();
    let updates = bench.updates();
    updates.iter().for_each(|update| schema::check(&validator, update));
    for (kind, is) in KINDS {
        assert!(updates.iter().any(is), "no update is {kind}:\n{updates:#?}");
    }
    // Who read within the window of a recall is not named.
    let gone: Vec<_> = updates.iter().filter(|u| u["message_id"] == "gone").collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0]["newly_read"], json!([]));
}

/// INV-UPDATE-LAST, with an append in seven failing, before or after it had its effect.
#[test]
fn the_last_update_of_every_message_is_what_the_partition_answers() {
    for (seed, window_ms) in (0..SEEDS).zip([0, 0, 1, 5, 20, 3_600_000]) {
        let wild = Shape::wild();
        let weights = Weights { erased: 0, ..wild.weights.clone() };
        // Without leaves the two are equal; with them, a leave alone publishes nothing. Nothing expires.
        let members = if seed % 2 == 0 { 0 } else { weights.members };
        let shape = Shape { weights: Weights { members, ..weights }, p_jump: 0.0, ..wild };
        let (events, questions) = history(seed, &shape);

        let mut bench = Bench::new(PARTITIONS);
        bench.settings.update_window = Duration::from_millis(window_ms);
        bench.settings.checkpoint_records = 50;
        let faulty = Faulty::new(&bench, UpdateFaults::fail_every(7));
        // Stopped and started in the middle.
        let (first, second) = events.split_at(events.len() / 2);
        write(&bench, first);
        let running = bench.start_over(&faulty);
        running.folded();
        running.stop().unwrap();
        let running = bench.start_over(&faulty);
        write(&bench, second);
        running.folded();
        let receipts = receipts(&running, &questions);
        running.stop().unwrap();

        let validator = schema::validator();
        let mut last: BTreeMap<[String; 3], Receipt> = BTreeMap::new();
        for update in bench.updates() {
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

/// Events with their places in the log, and what to ask of them. Control events have a copy in every partition.
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

fn write(bench: &Bench, events: &[(u64, Event<'_>)]) {
    let append = |(timestamp_ms, event): &(u64, Event<'_>)| {
        bench.append(event.partition(), *timestamp_ms, event.key(), event.to_json())
    };
    let appended: Vec<_> = events.iter().map(append).collect();
    appended.into_iter().for_each(|appended| _ = appended.blocking_recv().unwrap().unwrap());
}

/// The receipts of all messages that there are.
fn receipts(running: &Running, questions: &Questions) -> Vec<Receipt> {
    let asked = questions.messages.iter().map(|(tenant, conversation_id, message_id)| {
        let conversation = Conversation::locate(tenant, conversation_id, PARTITIONS);
        let answer =
            crate::bench::now(running.answers().receipts(conversation, None, std::slice::from_ref(message_id)));
        answer.unwrap().value.remove(0)
    });
    asked.filter(|receipt| receipt.status != Status::NotFound).collect()
}

fn name_of(receipt: &Receipt) -> [String; 3] {
    [receipt.tenant.clone(), receipt.conversation_id.clone().unwrap(), receipt.message_id.clone()]
}

/// A receipt without what leaves have changed since an update of a lower version: who departed was unread then.
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
