//! INV-DEADLETTER: a record that cannot be applied becomes a dead letter once, untouched and with
//! its reason, and the fold goes on.

use crate::harness::{EPOCH_MS, Harness, eventually};
use receipts_log::{Entry, Log as _, OwnedRecord, Topic};
use serde_json::{Value, json};

fn header(record: &OwnedRecord, name: &str) -> String {
    let found = record.headers.iter().find(|(header, _)| header == name);
    let value = found.and_then(|(_, value)| value.clone()).unwrap_or_else(|| panic!("no header {name}"));
    String::from_utf8(value.to_vec()).unwrap()
}

/// A bad record: its key and value, the reason code of its dead letter, and a part of the letter's
/// detail.
type Bad<'a> = (&'a str, String, &'a str, &'a str);

#[test]
fn every_bad_record_becomes_one_untouched_dead_letter() {
    let mut harness = Harness::new(1);
    harness.settings.limits.parked_max = 1;
    harness.settings.limits.parked_age_ms = 60_000;
    let read =
        |id: &str| json!({"type": "message.read", "conversation_id": "g1", "reader_id": "b", "message_ids": [id]});
    let text = |event: Value| event.to_string();
    let bad: [Bad<'_>; 9] = [
        ("default/g1", "not JSON".into(), "invalid-json", ""),
        ("default/g1", text(json!({"type": "no.such", "conversation_id": "g1"})), "unknown-type", ""),
        (
            "default/g1",
            text(json!({"type": "message.recalled", "conversation_id": "g1"})),
            "missing-field",
            "message_id",
        ),
        (
            "default/g1",
            text(json!({"type": "message.recalled", "conversation_id": "g1", "message_id": 7})),
            "invalid-field",
            "message_id",
        ),
        ("default/other", text(json!({"type": "members.changed", "conversation_id": "g1"})), "wrong-key", "key"),
        (
            "default/",
            text(json!({"type": "user.erased", "user_id": "x", "partition": 7})),
            "wrong-policy-partition",
            "7",
        ),
        (
            "default/nobody",
            text(json!({"type": "message.sent", "conversation_id": "nobody", "message_id": "m1",
            "sender_id": "a", "sent_at_ms": 1})),
            "no-roster",
            "recipients",
        ),
        // The second record displaces the first, and then expires itself.
        ("default/g1", text(read("first")), "parked-overflow", "first"),
        ("default/g1", text(read("second")), "parked-expired", "second"),
    ];
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    for (index, (key, value, _, _)) in bad.iter().enumerate() {
        let appended = harness.append(Some(0), EPOCH_MS, (*key).into(), value.clone().into_bytes());
        assert_eq!(appended.blocking_recv().unwrap().unwrap().offset, 1 + index as u64);
    }
    // Only time passes.
    harness.post_at(EPOCH_MS + 60_001, &json!({"type": "members.changed", "conversation_id": "g1"}));
    harness.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a",
        "sent_at_ms": EPOCH_MS, "need_read_receipt": true}));
    harness.post(&read("m1"));
    let running = harness.start();
    running.folded();
    assert_eq!(running.receipt("g1", "m1").counts.unwrap().read_count, 1, "the fold went on");
    running.stop().unwrap();
    // The stop has checkpointed everything, so the next start folds nothing again.
    let running = harness.start();
    running.folded();
    running.stop().unwrap();

    let mut dead = harness.records(Topic::DeadLetters);
    let reasons: Vec<String> = dead.iter().map(|record| header(record, "dead-letter-reason")).collect();
    assert_eq!(dead.len(), bad.len(), "each once: {reasons:?}");
    dead.sort_by_key(|record| header(record, "dead-letter-offset").parse::<u64>().unwrap());
    for ((index, (key, value, reason, words)), record) in bad.iter().enumerate().zip(&dead) {
        assert_eq!(header(record, "dead-letter-reason"), *reason, "{value}");
        let detail = header(record, "dead-letter-detail");
        assert!(detail.contains(words), "{detail} says {words:?}");
        assert_eq!(header(record, "dead-letter-topic"), "receipts.events");
        assert_eq!(header(record, "dead-letter-partition"), "0");
        assert_eq!(header(record, "dead-letter-offset"), (1 + index).to_string());
        assert_eq!(header(record, "trace"), "t1", "its own headers are kept");
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
        assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
    }
}

/// The record has the maximum size, most of it in a header, so a dead letter with that header fits
/// nowhere. What is left says where the record stands.
#[test]
fn too_large_dead_letter_says_what_it_lacks() {
    const RECORD_BYTES: usize = 4 << 20;
    let harness = Harness::new(1);
    let append = |value: &'static str, header: usize| {
        let entry = Entry {
            headers: vec![("trace".into(), Some(vec![b'x'; header].into()))],
            ..Entry::event("default/g1", value, Some(0))
        };
        harness.log.writer().append(entry).blocking_recv().unwrap().unwrap();
    };
    append("not JSON", RECORD_BYTES - 100);
    append("not JSON either", 10);
    let running = harness.start();
    running.folded();
    eventually("both letters are written", || harness.records(Topic::DeadLetters).len() == 2);
    running.stop().unwrap();
    let dead = harness.records(Topic::DeadLetters);
    let letter = |offset: &str| dead.iter().find(|record| header(record, "dead-letter-offset") == offset).unwrap();
    assert_eq!(letter("1").value.as_deref(), Some(&b"not JSON either"[..]), "the other one is untouched");
    let shortened = letter("0");
    assert_eq!((&shortened.key, &shortened.value), (&None, &None));
    assert_eq!(header(shortened, "dead-letter-left-out"), "value, headers, key");
    assert_eq!(header(shortened, "dead-letter-reason"), "invalid-json");
    assert!(shortened.headers.iter().all(|(name, _)| name != "trace"));
}
