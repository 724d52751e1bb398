//! Damage that is found only when a page is read from disk: it is recorded, and the next start
//! rebuilds the partition from the log if it can.

use crate::harness::Harness;
use receipts_event::partition_of;
use receipts_fold::State;
use receipts_log::{Inspect as _, Topic};
use receipts_projection::ProjectError;
use receipts_query::Unavailable;
use receipts_store::{Backend as _, Batch, Paged, SledSettings, SledStore};
use serde_json::{Value, json};

/// The table of the names of conversations, as `schemas/store/v2.md` has it.
const NAMES: u8 = 2;

fn read_of(reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": "g1", "reader_id": reader, "message_ids": ["m1"]})
}

/// Makes a store with one message, read by one of two recipients, and flips a bit of its
/// conversation's number. Opening the store does not read that.
fn damaged(partitions: u32) -> Harness {
    let harness = Harness::new(partitions);
    let own = partition_of(b"default/g1", partitions);
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b", "c"]}));
    harness.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    harness.post(&read_of("b"));
    let running = harness.start();
    running.folded();
    running.stop().unwrap();

    let store = SledStore::open(harness.dir(), SledSettings { cache_bytes: 1 << 20, sync: false }).unwrap();
    let backend = store.partition(own).unwrap();
    let keys = backend.keys(&[NAMES]).unwrap();
    assert!(!keys.is_empty());
    let mut batch = Batch::new(own, 0, 0);
    for key in keys {
        let mut value = backend.get(&key).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        batch.write(&key, &value);
    }
    batch.seal();
    backend.commit(batch).unwrap();
    backend.wait().unwrap();
    drop(backend);
    drop(store);
    harness
}

fn is_recorded(harness: &Harness) -> bool {
    harness.dir().join("p0.damaged").exists()
}

fn assert_healed(harness: &Harness, reads: u32) {
    let running = harness.start();
    running.folded();
    assert_eq!(running.receipt("g1", "m1").counts.unwrap().read_count, reads);
    assert!(!is_recorded(harness));
    running.stop().unwrap();
    // A further start gives the same answer.
    let running = harness.start();
    assert_eq!(
        {
            running.folded();
            running.receipt("g1", "m1").counts.unwrap().read_count
        },
        reads
    );
    running.stop().unwrap();
}

#[test]
fn damage_found_by_the_fold_heals_at_restart() {
    let harness = damaged(1);
    harness.post(&read_of("c"));
    let why = harness.start().stopped();
    assert!(matches!(why, ProjectError::Damaged { partition: 0, .. }), "{why}");
    assert!(is_recorded(&harness));
    assert_healed(&harness, 2);
}

/// The end of one worker ends all of them, and the records that the others have folded are durable.
#[test]
fn damage_in_one_partition_stops_all_and_spares_others() {
    const PARTITIONS: u32 = 3;
    let harness = damaged(PARTITIONS);
    assert!(harness.settings.fold_threads >= PARTITIONS, "a worker per partition");
    let own = partition_of(b"default/g1", PARTITIONS);
    for n in 0..20 {
        harness.post(&json!({"type": "members.changed", "conversation_id": format!("h{n}"), "joined": ["a", "b"]}));
    }
    let running = harness.start();
    running.folded();
    harness.post(&read_of("c"));
    let why = running.stopped();
    assert!(matches!(why, ProjectError::Damaged { partition, .. } if partition == own), "{why}");

    let store = SledStore::open(harness.dir(), SledSettings { cache_bytes: 1 << 20, sync: false }).unwrap();
    for partition in (0..PARTITIONS).filter(|partition| *partition != own) {
        let pages = Paged::new(store.partition(partition).unwrap(), partition, 1 << 20);
        let end = harness.log.bounds(Topic::Events, partition).unwrap().end;
        assert!(end > 0);
        assert_eq!(State::open(pages, harness.settings.limits).unwrap().next_offset(), end, "partition {partition}");
    }
}

#[test]
fn damage_found_by_a_query_is_not_served() {
    let harness = damaged(1);
    let running = harness.start();
    running.folded();
    assert!(matches!(running.try_receipt("g1", "m1"), Err(Unavailable::Failed(_))));
    assert!(is_recorded(&harness));
    running.stop().unwrap();
    assert_healed(&harness, 1);
}

#[test]
fn damage_that_the_log_cannot_rebuild_is_refused() {
    let harness = damaged(1);
    let running = harness.start();
    running.folded();
    running.try_receipt("g1", "m1").unwrap_err();
    running.stop().unwrap();
    harness.log.trim(Topic::Events, 0, 1).unwrap();
    let why = harness.start().stopped().to_string();
    assert!(why.contains("is damaged") && why.contains("cannot rebuild it"), "{why}");
    assert!(is_recorded(&harness));
}
