//! Damage that shows only when a cold page is needed: noted, and healed by the next start where the log can.

use crate::bench::Bench;
use receipts_event::partition_of;
use receipts_fold::State;
use receipts_log::{Inspect as _, Topic};
use receipts_projection::ProjectError;
use receipts_query::Unavailable;
use receipts_store::{Backend as _, Batch, Paged, SledSettings, SledStore};
use serde_json::{Value, json};

/// The table of conversations, as `schemas/store/v1.md` has it.
const HEADS: u8 = 3;

fn read_of(reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": "g1", "reader_id": reader, "message_ids": ["m1"]})
}

/// A store with one message, read by one of two, and a flipped bit in the page of its conversation: opening does not need it.
fn damaged(partitions: u32) -> Bench {
    let bench = Bench::new(partitions);
    let own = partition_of(b"default/g1", partitions);
    bench.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b", "c"]}));
    bench.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    bench.post(&read_of("b"));
    let running = bench.start();
    running.folded();
    running.stop().unwrap();

    let store = SledStore::open(&bench.settings.dir, SledSettings { cache_bytes: 1 << 20, sync: false }).unwrap();
    let backend = store.partition(own).unwrap();
    let keys = backend.keys(&[HEADS]).unwrap();
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
    bench
}

fn is_noted(bench: &Bench) -> bool {
    bench.settings.dir.join("p0.damaged").exists()
}

fn heals(bench: &Bench, reads: u32) {
    let running = bench.start();
    running.folded();
    assert_eq!(running.receipt("g1", "m1").counts.unwrap().read_count, reads);
    assert!(!is_noted(bench));
    running.stop().unwrap();
    // And it stays so.
    let running = bench.start();
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
fn damage_that_the_fold_meets_stops_it_and_the_next_start_heals_it() {
    let bench = damaged(1);
    bench.post(&read_of("c"));
    let why = bench.start().stopped();
    assert!(matches!(why, ProjectError::Damaged { partition: 0, .. }), "{why}");
    assert!(is_noted(&bench));
    heals(&bench, 2);
}

/// Loops share the partitions out: the end of one is that of all, and what the others have folded is durable.
#[test]
fn damage_in_one_partition_stops_all_and_costs_no_other_one_anything() {
    const PARTITIONS: u32 = 3;
    let bench = damaged(PARTITIONS);
    assert!(bench.settings.fold_threads >= PARTITIONS, "a loop each");
    let own = partition_of(b"default/g1", PARTITIONS);
    for n in 0..20 {
        bench.post(&json!({"type": "members.changed", "conversation_id": format!("h{n}"), "joined": ["a", "b"]}));
    }
    let running = bench.start();
    running.folded();
    bench.post(&read_of("c"));
    let why = running.stopped();
    assert!(matches!(why, ProjectError::Damaged { partition, .. } if partition == own), "{why}");

    let store = SledStore::open(&bench.settings.dir, SledSettings { cache_bytes: 1 << 20, sync: false }).unwrap();
    for partition in (0..PARTITIONS).filter(|partition| *partition != own) {
        let pages = Paged::new(store.partition(partition).unwrap(), partition, 1 << 20);
        let end = bench.log.bounds(Topic::Events, partition).unwrap().end;
        assert!(end > 0);
        assert_eq!(State::open(pages, bench.settings.limits).unwrap().next_offset(), end, "partition {partition}");
    }
}

#[test]
fn damage_that_a_question_meets_is_never_served_and_the_next_start_heals_it() {
    let bench = damaged(1);
    let running = bench.start();
    running.folded();
    assert!(matches!(running.try_receipt("g1", "m1"), Err(Unavailable::Failed(_))));
    assert!(is_noted(&bench));
    running.stop().unwrap();
    heals(&bench, 1);
}

#[test]
fn a_damaged_partition_that_the_log_cannot_rebuild_is_refused_and_kept() {
    let bench = damaged(1);
    let running = bench.start();
    running.folded();
    running.try_receipt("g1", "m1").unwrap_err();
    running.stop().unwrap();
    bench.log.trim(Topic::Events, 0, 1).unwrap();
    let why = bench.start().stopped().to_string();
    assert!(why.contains("is damaged") && why.contains("cannot rebuild it"), "{why}");
    assert!(is_noted(&bench));
}
