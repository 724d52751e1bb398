//! INV-RESTORE through the projector: snapshots taken on a schedule, and what takes the place of a store that cannot go on.

use crate::bench::{Bench, eventually};
use receipts_log::Topic;
use receipts_objects::Destination;
use receipts_projection::{SnapshotSchedule, SnapshotSettings};
use receipts_snapshots::{Keep, Snapshots};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;

const LOG: &str = "the log";

/// A bench whose projector takes snapshots every few milliseconds into a directory.
fn bench_with_snapshots(at: &Path) -> Bench {
    let mut bench = Bench::new(1);
    bench.settings.checkpoint_interval = Duration::from_millis(10);
    bench.settings.snapshots = Some(SnapshotSettings {
        destination: Destination::directory(at).unwrap(),
        log: LOG.into(),
        spool: bench.settings.dir.with_extension("spool"),
        schedule: Some(SnapshotSchedule { interval: Duration::from_millis(20), keep: Keep { count: 3, age_ms: 0 } }),
    });
    bench
}

fn snapshots(at: &Path) -> Snapshots {
    Snapshots::new(Destination::directory(at).unwrap(), LOG)
}

fn newest(at: &Path) -> u64 {
    snapshots(at).newest_of(0).unwrap().map_or(0, |found| found.next_offset)
}

fn read_by(bench: &Bench, reader: &str) {
    bench.post(&json!({"type": "message.read", "conversation_id": "g1", "reader_id": reader, "message_ids": ["m1"]}));
}

/// A message for three, read by one of them; a snapshot holds it all, and then another one reads.
fn told_and_lost(at: &Path) -> Bench {
    let bench = bench_with_snapshots(at);
    bench.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b", "c", "d"]}));
    bench.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    read_by(&bench, "b");
    let running = bench.start();
    running.folded();
    eventually("a snapshot of all three records", || newest(at) == 3);
    running.stop().unwrap();
    read_by(&bench, "c");
    bench
}

fn reads(bench: &Bench) -> u32 {
    let running = bench.start();
    running.folded();
    let reads = running.receipt("g1", "m1").counts.unwrap().read_count;
    running.stop().unwrap();
    reads
}

#[test]
fn a_lost_store_comes_back_from_a_snapshot_where_the_log_has_lost_its_beginning() {
    let at = tempfile::tempdir().unwrap();
    let mut bench = told_and_lost(at.path());
    fs::remove_dir_all(&bench.settings.dir).unwrap();
    bench.log.trim(Topic::Events, 0, 2).unwrap();
    let how = bench.settings.snapshots.take();
    let why = bench.start().stopped().to_string();
    assert!(why.contains("begins at offset 2"), "without snapshots: {why}");
    bench.settings.snapshots = how;
    assert_eq!(reads(&bench), 2);
    assert_eq!(reads(&bench), 2, "and it stays so");
}

#[test]
fn a_damaged_store_comes_back_from_a_snapshot() {
    let at = tempfile::tempdir().unwrap();
    let bench = told_and_lost(at.path());
    fs::write(bench.settings.dir.join("p0.damaged"), "found by a test").unwrap();
    bench.log.trim(Topic::Events, 0, 3).unwrap();
    assert_eq!(reads(&bench), 2);
    assert!(!bench.settings.dir.join("p0.damaged").exists());
}

#[test]
fn a_store_that_the_log_has_gone_on_without_comes_back_from_a_snapshot_that_reaches_further() {
    let at = tempfile::tempdir().unwrap();
    let bench = told_and_lost(at.path());
    let kept = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(&bench.settings.dir).arg(kept.path()).status().unwrap();
    assert!(copied.success());
    let running = bench.start();
    running.folded();
    eventually("a snapshot of all four records", || newest(at.path()) == 4);
    running.stop().unwrap();
    read_by(&bench, "d");
    fs::remove_dir_all(&bench.settings.dir).unwrap();
    fs::rename(kept.path().join("store"), &bench.settings.dir).unwrap();
    bench.log.trim(Topic::Events, 0, 4).unwrap();
    assert_eq!(reads(&bench), 3);
}

#[test]
fn where_no_snapshot_is_usable_the_log_is_folded_from_its_beginning() {
    let at = tempfile::tempdir().unwrap();
    let bench = told_and_lost(at.path());
    for found in snapshots(at.path()).list().unwrap() {
        let path = at.path().join(&found.name);
        let mut bytes = fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_dir_all(&bench.settings.dir).unwrap();
    assert_eq!(reads(&bench), 2);
}

#[test]
fn a_store_that_can_go_on_is_never_replaced() {
    let at = tempfile::tempdir().unwrap();
    let bench = told_and_lost(at.path());
    // Were any of these looked at, the answer would be another one.
    for found in snapshots(at.path()).list().unwrap() {
        fs::write(at.path().join(&found.name), "nothing").unwrap();
    }
    bench.log.trim(Topic::Events, 0, 3).unwrap();
    assert_eq!(reads(&bench), 2);
}

#[test]
fn a_destination_that_fails_is_told_and_tried_again_and_the_fold_goes_on() {
    let at = tempfile::tempdir().unwrap();
    let place = at.path().join("snapshots");
    let bench = bench_with_snapshots(&place);
    fs::remove_dir(&place).unwrap();
    fs::write(&place, "in the way").unwrap();
    bench.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    let running = bench.start();
    running.folded();
    let desk = running.snapshots().unwrap();
    let state = || desk.statuses().into_iter().next();
    eventually("a failure is told", || state().is_some_and(|state| state.failure.is_some()));
    read_by(&bench, "b");
    running.folded();
    fs::remove_file(&place).unwrap();
    eventually("it is tried again", || state().is_some_and(|s| s.failure.is_none() && s.newest.is_some()));
    running.stop().unwrap();
}

#[test]
fn snapshots_come_on_demand_and_a_standby_takes_none() {
    let at = tempfile::tempdir().unwrap();
    let mut bench = bench_with_snapshots(at.path());
    let how = bench.settings.snapshots.as_mut().unwrap();
    how.schedule.as_mut().unwrap().interval = Duration::from_secs(3_600);
    bench.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    let running = bench.start();
    running.folded();
    let desk = running.snapshots().unwrap();
    // Nothing may have been checkpointed when it is asked for the first time.
    eventually("one is taken when asked for", || {
        assert!(desk.request(Some(&[7])).is_empty());
        desk.request(None);
        newest(at.path()) == 1
    });
    running.stop().unwrap();
    bench.settings.snapshots.as_mut().unwrap().schedule = None;
    let running = bench.start();
    assert!(running.snapshots().is_none());
    running.stop().unwrap();
}

#[test]
fn old_snapshots_go_and_the_newest_stay() {
    let at = tempfile::tempdir().unwrap();
    let bench = bench_with_snapshots(at.path());
    let running = bench.start();
    for number in 1..=8 {
        bench.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": [format!("u{number}")]}));
        eventually("a snapshot of it", || newest(at.path()) == number);
    }
    eventually("three are left", || {
        let left: Vec<u64> = snapshots(at.path()).list().unwrap().iter().map(|found| found.next_offset).collect();
        left == [6, 7, 8]
    });
    running.stop().unwrap();
}
