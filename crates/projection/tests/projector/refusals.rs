//! INV-REFUSE, INV-SAME-LOG: states that the projector refuses to fold on, with the reason, and
//! similar ones that it must accept.

use crate::harness::{EPOCH_MS, Harness, now};
use receipts_fold::Limits;
use receipts_log::Topic;
use receipts_projection::ProjectError;
use receipts_query::Positions;
use receipts_store::{Backend as _, Batch, SledSettings, SledStore};
use serde_json::{Value, json};
use std::time::Duration;

const SLED: SledSettings = SledSettings { cache_bytes: 1 << 20, sync: false };
/// Table ids of `schemas/store/v2.md`.
const META: u8 = 1;
const ORIGIN: u8 = 14;

fn joined(user: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": "g1", "joined": [user]})
}

/// Makes a closed store that has folded three records.
fn folded() -> Harness {
    let harness = Harness::new(1);
    ["a", "b", "c"].iter().for_each(|user| harness.post(&joined(user)));
    fold(&harness);
    harness
}

fn fold(harness: &Harness) {
    let running = harness.start();
    running.folded();
    running.stop().unwrap();
}

/// Changes the bytes of a closed store.
fn rewrite(harness: &Harness, change: impl FnOnce(&dyn Fn(u8) -> Vec<(Vec<u8>, Vec<u8>)>, &mut Batch)) {
    let store = SledStore::open(harness.dir(), SLED).unwrap();
    let backend = store.partition(0).unwrap();
    let of = |table: u8| {
        let keys = backend.keys(&[table]).unwrap();
        keys.into_iter().map(|key| (key.clone(), backend.get(&key).unwrap().unwrap().to_vec())).collect::<Vec<_>>()
    };
    let mut batch = Batch::new(0, 0, 0);
    change(&of, &mut batch);
    batch.seal();
    backend.commit(batch).unwrap();
    backend.wait().unwrap();
}

fn stored(harness: &Harness, table: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    rewrite(harness, |of, _| found = of(table));
    found
}

#[test]
fn a_recreated_log_is_refused_even_if_longer() {
    let harness = folded();
    let before = stored(&harness, META);
    let recreated = Harness::new(1);
    ["a", "b", "d", "e", "f"].iter().for_each(|user| recreated.post(&joined(user)));
    let sentence = harness.start_over(&*recreated.log).stopped().to_string();
    assert!(sentence.contains("the record at offset 2 is another one"), "{sentence}");
    assert!(sentence.contains("made anew") && sentence.contains("--data-dir"), "{sentence}");
    assert_eq!(stored(&harness, META), before, "the store is unchanged");
    fold(&harness);
}

#[test]
fn a_store_folded_with_other_settings_is_refused() {
    let mut harness = folded();
    let then = std::mem::replace(&mut harness.settings.limits, Limits { retention_ms: 5, ..Limits::default() });
    let sentence = harness.start().stopped().to_string();
    harness.settings.limits = then;
    assert!(sentence.contains("projector.retention_ms was 2592000000 and is 5"), "{sentence}");
    assert!(sentence.contains("Set them back"), "{sentence}");
    fold(&harness);
}

/// Stores of older versions have no page for their origin.
#[test]
fn a_store_without_origin_opens_and_records_it() {
    let harness = folded();
    rewrite(&harness, |of, batch| of(ORIGIN).iter().for_each(|(key, _)| batch.remove(&key[..key.len() - 2])));
    assert_eq!(stored(&harness, ORIGIN), []);
    harness.post(&joined("d"));
    fold(&harness);
    assert_eq!(stored(&harness, ORIGIN).len(), 1);
    fold(&harness);
}

#[test]
fn a_newer_store_format_is_refused_unchanged() {
    let harness = folded();
    rewrite(&harness, |of, batch| {
        for (key, mut value) in of(META) {
            value[0] = 3;
            batch.write(&key, &value);
        }
    });
    let before = stored(&harness, META);
    let sentence = harness.start().stopped().to_string();
    assert!(sentence.contains("has format version 3") && sentence.contains("run the newer program"), "{sentence}");
    assert_eq!(stored(&harness, META), before);
    assert!(!harness.dir().join("p0.damaged").exists(), "a newer format is no damage");
}

#[test]
fn a_log_trimmed_past_the_store_is_refused() {
    let harness = folded();
    harness.log.trim(Topic::Events, 0, 3).unwrap();
    fold(&harness);
    ["d", "e"].iter().for_each(|user| harness.post(&joined(user)));
    harness.log.trim(Topic::Events, 0, 4).unwrap();
    let why = harness.start().stopped();
    assert!(matches!(why, ProjectError::Log(_)), "{why:?}");
    assert!(why.to_string().contains("the log begins at offset 4, the store needs it from 3 on"), "{why}");
}

/// By the clock alone a projector that is behind would be ready, because the record is dated later.
#[test]
fn future_records_do_not_make_a_lagging_projector_ready() {
    let harness = Harness::new(1);
    harness.post_at(EPOCH_MS + 3_600_000, &joined("a"));
    let running = harness.start();
    running.folded();
    now(running.answers().wait(&Positions::default(), Duration::ZERO)).unwrap();
    crate::harness::eventually("it is ready at the end of the log", || running.answers().ready().caught_up);
    running.stop().unwrap();
}
