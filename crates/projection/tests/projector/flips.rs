//! INV-CHECKSUM, INV-REFUSE: a flipped bit in any file of a store never causes a wrong answer.
//! Either it changes nothing, or it is found and healed from the log, at the latest by the next
//! start.
//!
//! `RECEIPTS_TEST_FLIPS` sets the number of bits, `RECEIPTS_TEST_SEED` chooses them.

use crate::harness::{EPOCH_MS, Harness, Running};
use receipts_event::Event;
use receipts_fold::view::Receipt;
use receipts_store::{Backend as _, Batch, SledSettings, SledStore};
use receipts_testkit::history::{History, Shape};
use receipts_testkit::property::{Replay, number, scaled};
use receipts_testkit::random::Random;
use receipts_testkit::{At, Limits, Oracle};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const SLED: SledSettings = SledSettings { cache_bytes: 1 << 20, sync: false };

/// A folded log of a random history, and the answers that it must give.
struct Folded {
    harness: Harness,
    wanted: Vec<(String, String, Receipt)>,
}

fn folded() -> Folded {
    let shape = Shape { events: 1_500, tenants: 1, conversations: 12, p_jump: 0.0, p_gap: 0.0, ..Shape::wild() };
    let mut harness = Harness::new(1);
    // Many checkpoints, so that sled's file holds old versions of pages beside new ones, as in
    // production.
    harness.settings.checkpoint_records = 100;
    let mut oracle = Oracle::new(Limits { parked_age_ms: 3_600_000, ..Limits::default() });
    let (mut asked, mut offset) = (BTreeSet::new(), 0);
    let mut running = harness.start();
    for (_, event) in History::generate(11, &shape) {
        let mut json: Value = serde_json::from_slice(&event.to_json()).unwrap();
        if event.conversation_id().is_none() {
            json["partition"] = 0.into();
        }
        // The embedded log's times never decrease.
        let timestamp_ms = EPOCH_MS + offset;
        harness.post_at(timestamp_ms, &json);
        oracle.apply(At { partition: 0, offset, timestamp_ms }, &event);
        add_message(&event, &mut asked);
        offset += 1;
        if offset.is_multiple_of(300) {
            running.folded();
            running.stop().unwrap();
            running = harness.start();
        }
    }
    running.folded();
    running.stop().unwrap();
    let receipt = |(conversation, message): (String, String)| {
        let receipt = oracle.receipt("default", &conversation, &message);
        (conversation, message, receipt)
    };
    assert!(!asked.is_empty());
    Folded { harness, wanted: asked.into_iter().map(receipt).collect() }
}

fn add_message(event: &Event<'_>, asked: &mut BTreeSet<(String, String)>) {
    if let receipts_event::Body::MessageSent(sent) = &event.body {
        assert_eq!(event.tenant, "default");
        asked.insert((sent.conversation_id.to_string(), sent.message_id.to_string()));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { _ = fs::copy(entry.path(), target).unwrap() }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Writes the same state as one journal that is not applied yet.
fn write_journal(harness: &Harness, to: &Path) {
    let store = SledStore::open(harness.dir(), SLED).unwrap();
    let backend = store.partition(0).unwrap();
    let mut batch = Batch::new(0, 1, 0);
    for key in backend.keys(&[]).unwrap() {
        batch.write(&key, &backend.get(&key).unwrap().unwrap());
    }
    batch.seal();
    fs::create_dir_all(to).unwrap();
    fs::write(to.join("p0.1.journal"), batch.bytes()).unwrap();
}

/// Asserts that every answer is right or fails; returns whether any failed.
fn answers(running: &Running, wanted: &[(String, String, Receipt)], context: &str) -> bool {
    let mut failed = false;
    for (conversation, message, wanted) in wanted {
        match running.try_receipt(conversation, message) {
            Ok(receipt) => assert_eq!(receipt, *wanted, "a wrong answer after {context}"),
            Err(_) => failed = true,
        }
    }
    failed
}

#[test]
fn a_flipped_bit_in_any_file_heals() {
    flip(number("RECEIPTS_TEST_FLIPS", scaled(60, 1_000)), number("RECEIPTS_TEST_SEED", 1));
}

fn flip(bits: u64, seed: u64) {
    let Folded { mut harness, wanted } = folded();
    let dirs = tempfile::tempdir().unwrap();
    let journal = dirs.path().join("journal");
    write_journal(&harness, &journal);
    let sources = [harness.dir().to_owned(), journal];
    let mut random = Random::new(seed);
    let (mut harmless, mut healed_at_once, mut healed_later) = (0, 0, 0);
    for flip in 0..bits {
        // The choices of a seed follow one another, so a replay repeats the earlier flips too.
        let _replay = Replay::with(&format!("RECEIPTS_TEST_SEED={seed} RECEIPTS_TEST_FLIPS={}", flip + 1));
        let dir = dirs.path().join("flipped");
        copy(random.pick(&sources).unwrap(), &dir);
        let files = files(&dir);
        // Three times in four a file is chosen by its length, else any file.
        let lengths: Vec<u32> = files.iter().map(|file| fs::metadata(file).unwrap().len() as u32).collect();
        let file = &files[if random.chance(0.25) { random.index(files.len()) } else { random.weighted(&lengths) }];
        let mut bytes = fs::read(file).unwrap();
        // A zero byte may never have been written, and a flip there proves nothing.
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let Some(at) = random.pick(&written).copied() else { continue };
        bytes[at] ^= 1 << random.below(8);
        fs::write(file, bytes).unwrap();
        let context = format!("flip {flip} at {at} of {}", file.strip_prefix(&dir).unwrap().display());
        harness.settings.dir = Some(dir.clone());
        let mut starts = 0;
        loop {
            starts += 1;
            assert!(starts <= 3, "{context} is not healed by another start");
            let running = harness.start();
            if running.try_folded() {
                let failed = answers(&running, &wanted, &context);
                let stopped = running.stop();
                if !failed && stopped.is_ok() {
                    break;
                }
            } else {
                let why = running.stopped().to_string();
                assert!(why.contains("damaged") || why.contains("rebuil"), "{context}: {why}");
            }
        }
        let rebuilt = files_set_aside(&dir);
        match (starts, rebuilt) {
            (1, false) => harmless += 1,
            (1, true) => healed_at_once += 1,
            _ => healed_later += 1,
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!(
        "{harmless} changed nothing or were healed in place, {healed_at_once} stores were set aside and rebuilt, \
         {healed_later} were healed by a later start"
    );
}

fn files_set_aside(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("damaged-"))
}
