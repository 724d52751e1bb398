//! INV-RESTORE through the projector: it takes snapshots on a schedule, and restores one if its
//! store cannot go on.

use crate::harness::{Harness, eventually};
use receipts_log::Topic;
use receipts_objects::Destination;
use receipts_projection::{SnapshotSchedule, SnapshotSettings};
use receipts_snapshots::{Keep, Snapshots};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;

const LOG: &str = "the log";

/// Makes a harness whose projector takes snapshots into a directory every few milliseconds.
fn harness_with_snapshots(at: &Path) -> Harness {
    let mut harness = Harness::new(1);
    harness.settings.checkpoint_interval = Duration::from_millis(10);
    harness.settings.snapshots = Some(SnapshotSettings {
        destination: Destination::directory(at).unwrap(),
        log: LOG.into(),
        spool: harness.dir().with_extension("spool"),
        schedule: Some(SnapshotSchedule { interval: Duration::from_millis(20), keep: Keep { count: 3, age_ms: 0 } }),
    });
    harness
}

fn snapshots(at: &Path) -> Snapshots {
    Snapshots::new(Destination::directory(at).unwrap(), LOG)
}

fn newest(at: &Path) -> u64 {
    snapshots(at).newest_of(0).unwrap().map_or(0, |found| found.next_offset)
}

fn read_by(harness: &Harness, reader: &str) {
    harness.post(&json!({"type": "message.read", "conversation_id": "g1", "reader_id": reader, "message_ids": ["m1"]}));
}

/// Makes a message for three recipients that one of them reads, and takes a snapshot. Then a second
/// one reads it.
fn harness_with_a_snapshot(at: &Path) -> Harness {
    let harness = harness_with_snapshots(at);
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b", "c", "d"]}));
    harness.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    read_by(&harness, "b");
    let running = harness.start();
    running.folded();
    eventually("a snapshot of all three records", || newest(at) == 3);
    running.stop().unwrap();
    read_by(&harness, "c");
    harness
}

fn reads(harness: &Harness) -> u32 {
    let running = harness.start();
    running.folded();
    let reads = running.receipt("g1", "m1").counts.unwrap().read_count;
    running.stop().unwrap();
    reads
}

#[test]
fn a_lost_store_is_restored_without_the_logs_beginning() {
    let at = tempfile::tempdir().unwrap();
    let mut harness = harness_with_a_snapshot(at.path());
    fs::remove_dir_all(harness.dir()).unwrap();
    harness.log.trim(Topic::Events, 0, 2).unwrap();
    let settings = harness.settings.snapshots.take();
    let why = harness.start().stopped().to_string();
    assert!(why.contains("begins at offset 2"), "without snapshots: {why}");
    harness.settings.snapshots = settings;
    assert_eq!(reads(&harness), 2);
    assert_eq!(reads(&harness), 2, "a further start answers the same");
}

#[test]
fn a_damaged_store_is_restored_from_a_snapshot() {
    let at = tempfile::tempdir().unwrap();
    let harness = harness_with_a_snapshot(at.path());
    fs::write(harness.dir().join("p0.damaged"), "found by a test").unwrap();
    harness.log.trim(Topic::Events, 0, 3).unwrap();
    assert_eq!(reads(&harness), 2);
    assert!(!harness.dir().join("p0.damaged").exists());
}

#[test]
fn a_newer_snapshot_replaces_a_store_behind_the_log() {
    let at = tempfile::tempdir().unwrap();
    let harness = harness_with_a_snapshot(at.path());
    let kept = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(harness.dir()).arg(kept.path()).status().unwrap();
    assert!(copied.success());
    let running = harness.start();
    running.folded();
    eventually("a snapshot of all four records", || newest(at.path()) == 4);
    running.stop().unwrap();
    read_by(&harness, "d");
    fs::remove_dir_all(harness.dir()).unwrap();
    fs::rename(kept.path().join("store"), harness.dir()).unwrap();
    harness.log.trim(Topic::Events, 0, 4).unwrap();
    assert_eq!(reads(&harness), 3);
}

#[test]
fn without_a_usable_snapshot_the_log_is_folded() {
    let at = tempfile::tempdir().unwrap();
    let harness = harness_with_a_snapshot(at.path());
    for found in snapshots(at.path()).list().unwrap() {
        let path = at.path().join(&found.name);
        let mut bytes = fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_dir_all(harness.dir()).unwrap();
    assert_eq!(reads(&harness), 2);
}

#[test]
fn a_store_that_can_go_on_is_kept() {
    let at = tempfile::tempdir().unwrap();
    let harness = harness_with_a_snapshot(at.path());
    // If the projector restored any of these, the answer would differ.
    for found in snapshots(at.path()).list().unwrap() {
        fs::write(at.path().join(&found.name), "nothing").unwrap();
    }
    harness.log.trim(Topic::Events, 0, 3).unwrap();
    assert_eq!(reads(&harness), 2);
}

#[test]
fn a_failing_destination_is_reported_and_retried() {
    let at = tempfile::tempdir().unwrap();
    let blocked = at.path().join("snapshots");
    let harness = harness_with_snapshots(&blocked);
    fs::remove_dir(&blocked).unwrap();
    fs::write(&blocked, "in the way").unwrap();
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    let running = harness.start();
    running.folded();
    let desk = running.snapshots().unwrap();
    let state = || desk.statuses().into_iter().next();
    eventually("a failure is reported", || state().is_some_and(|state| state.failure.is_some()));
    read_by(&harness, "b");
    running.folded();
    fs::remove_file(&blocked).unwrap();
    eventually("it is tried again", || state().is_some_and(|s| s.failure.is_none() && s.newest.is_some()));
    running.stop().unwrap();
}

#[test]
fn snapshots_come_on_request_except_from_a_standby() {
    let at = tempfile::tempdir().unwrap();
    let mut harness = harness_with_snapshots(at.path());
    let settings = harness.settings.snapshots.as_mut().unwrap();
    settings.schedule.as_mut().unwrap().interval = Duration::from_secs(3_600);
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    let running = harness.start();
    running.folded();
    let desk = running.snapshots().unwrap();
    // There may be no checkpoint yet at the first request.
    eventually("one is taken on request", || {
        assert!(desk.request(Some(&[7])).is_empty());
        desk.request(None);
        newest(at.path()) == 1
    });
    running.stop().unwrap();
    harness.settings.snapshots.as_mut().unwrap().schedule = None;
    let running = harness.start();
    assert!(running.snapshots().is_none());
    running.stop().unwrap();
}

#[test]
fn old_snapshots_are_pruned_and_the_newest_kept() {
    let at = tempfile::tempdir().unwrap();
    let harness = harness_with_snapshots(at.path());
    let running = harness.start();
    for number in 1..=8 {
        harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": [format!("u{number}")]}));
        eventually("a snapshot of the newest record", || newest(at.path()) == number);
    }
    eventually("three are left", || {
        let left: Vec<u64> = snapshots(at.path()).list().unwrap().iter().map(|found| found.next_offset).collect();
        left == [6, 7, 8]
    });
    running.stop().unwrap();
}
