//! INV-REFUSE, INV-SAME-LOG: what the projector does not fold on, and says why; and what looks like it and is none.

use crate::bench::{Bench, EPOCH_MS, now};
use receipts_fold::Limits;
use receipts_log::Topic;
use receipts_projection::ProjectError;
use receipts_query::Positions;
use receipts_store::{Backend as _, Batch, SledSettings, SledStore};
use serde_json::{Value, json};
use std::time::Duration;

const SLED: SledSettings = SledSettings { cache_bytes: 1 << 20, sync: false };
/// Tables, as `schemas/store/v1.md` has them.
const META: u8 = 1;
const ORIGIN: u8 = 14;

fn joined(user: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": "g1", "joined": [user]})
}

/// A store that has folded three records, closed.
fn folded() -> Bench {
    let bench = Bench::new(1);
    ["a", "b", "c"].iter().for_each(|user| bench.post(&joined(user)));
    fold(&bench);
    bench
}

fn fold(bench: &Bench) {
    let running = bench.start();
    running.folded();
    running.stop().unwrap();
}

/// Changes the bytes of a closed store.
fn rewrite(bench: &Bench, change: impl FnOnce(&dyn Fn(u8) -> Vec<(Vec<u8>, Vec<u8>)>, &mut Batch)) {
    let store = SledStore::open(&bench.settings.dir, SLED).unwrap();
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

fn stored(bench: &Bench, table: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    rewrite(bench, |of, _| found = of(table));
    found
}

#[test]
fn a_log_made_anew_is_refused_though_it_is_longer_than_the_store() {
    let bench = folded();
    let before = stored(&bench, META);
    let anew = Bench::new(1);
    ["a", "b", "d", "e", "f"].iter().for_each(|user| anew.post(&joined(user)));
    let sentence = bench.start_over(&*anew.log).stopped().to_string();
    assert!(sentence.contains("the record at offset 2 is another one"), "{sentence}");
    assert!(sentence.contains("made anew") && sentence.contains("--data-dir"), "{sentence}");
    assert_eq!(stored(&bench, META), before, "the store is as it was");
    fold(&bench);
}

#[test]
fn settings_that_decide_answers_are_refused_where_the_store_was_folded_with_others() {
    let bench = folded();
    let mut bench = bench;
    let then = std::mem::replace(&mut bench.settings.limits, Limits { retention_ms: 5, ..Limits::default() });
    let sentence = bench.start().stopped().to_string();
    bench.settings.limits = then;
    assert!(sentence.contains("projector.retention_ms was 2592000000 and is 5"), "{sentence}");
    assert!(sentence.contains("Set them back"), "{sentence}");
    fold(&bench);
}

/// Stores of before this was recorded have no such page.
#[test]
fn a_store_that_does_not_say_what_it_was_folded_from_opens_and_says_so_from_then_on() {
    let bench = folded();
    rewrite(&bench, |of, batch| of(ORIGIN).iter().for_each(|(key, _)| batch.remove(&key[..key.len() - 2])));
    assert_eq!(stored(&bench, ORIGIN), []);
    bench.post(&joined("d"));
    fold(&bench);
    assert_eq!(stored(&bench, ORIGIN).len(), 1);
    fold(&bench);
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_left_as_it_was() {
    let bench = folded();
    rewrite(&bench, |of, batch| {
        for (key, mut value) in of(META) {
            value[0] = 2;
            batch.write(&key, &value);
        }
    });
    let before = stored(&bench, META);
    let sentence = bench.start().stopped().to_string();
    assert!(sentence.contains("has format version 2") && sentence.contains("run the newer program"), "{sentence}");
    assert_eq!(stored(&bench, META), before);
    assert!(!bench.settings.dir.join("p0.damaged").exists(), "a newer format is no damage");
}

#[test]
fn a_log_trimmed_up_to_the_store_goes_on_and_one_trimmed_past_it_is_refused() {
    let bench = folded();
    bench.log.trim(Topic::Events, 0, 3).unwrap();
    fold(&bench);
    ["d", "e"].iter().for_each(|user| bench.post(&joined(user)));
    bench.log.trim(Topic::Events, 0, 4).unwrap();
    let why = bench.start().stopped();
    assert!(matches!(why, ProjectError::Log(_)), "{why:?}");
    assert!(why.to_string().contains("the log begins at offset 4, the store needs it from 3 on"), "{why}");
}

/// By its clock a projector that is behind would be ready: only the end of the log says that it is not.
#[test]
fn a_record_from_the_future_makes_nobody_ready_that_is_behind() {
    let bench = Bench::new(1);
    bench.post_at(EPOCH_MS + 3_600_000, &joined("a"));
    let running = bench.start();
    running.folded();
    now(running.answers().wait(&Positions::default(), Duration::ZERO)).unwrap();
    crate::bench::eventually("at the end of the log it is ready", || running.answers().ready().caught_up);
    running.stop().unwrap();
}
