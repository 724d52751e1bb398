//! What only the embedded log does: one file, one process, durable after a kill.

use crate::support::{RecordingAssignment, TIME_LIMIT, entry, read_all};
use receipts_log::embedded::{EmbeddedLog, OpenError};
use receipts_log::{Entry, Inspect, Log, Topic};
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Passes the log's folder to the child process of a crash test.
const CHILD_DIR: &str = "RECEIPTS_LOG_CRASH_DIR";

fn open(dir: &Path) -> EmbeddedLog {
    EmbeddedLog::open(dir, NonZeroU32::new(4)).unwrap()
}

fn open_any(dir: &Path) -> EmbeddedLog {
    EmbeddedLog::open(dir, None).unwrap()
}

fn append(log: &EmbeddedLog, entry: Entry) -> u64 {
    log.writer().append(entry).blocking_recv().unwrap().unwrap().offset
}

/// Not a test by itself: appends and prints the acknowledgements until it is killed.
#[test]
fn child_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let log = open(Path::new(&dir));
    let writer = log.writer();
    let mut out = std::io::stderr();
    for round in 0u64.. {
        let appended: Vec<_> = (0..50)
            .map(|number| (round * 50 + number, writer.append(entry(number as u32 % 4, "k", round * 50 + number))))
            .collect();
        for (number, appended) in appended {
            let written = appended.blocking_recv().unwrap().unwrap();
            // One write, so that a kill cannot leave half a line that parses as another offset.
            let line = format!("ack {} {} {number}\n", written.partition, written.offset);
            out.write_all(line.as_bytes()).unwrap();
        }
    }
}

#[test]
fn everything_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for life in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["embedded_only::child_appends_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for (count, line) in lines.map_while(Result::ok).filter(|line| line.starts_with("ack ")).enumerate() {
            let numbers: Vec<u64> = line[4..].split(' ').map(|number| number.parse().unwrap()).collect();
            acknowledged.push((numbers[0] as u32, numbers[1], numbers[2].to_string()));
            // Kills the child between commits and during them; lines printed before still count.
            if count == 150 + 77 * life {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let log = open(dir.path());
        for partition in 0..4 {
            let records = log.read(Topic::Events, partition, 0, usize::MAX).unwrap();
            for (index, record) in records.iter().enumerate() {
                assert_eq!(record.offset, index as u64, "no gap and no duplicate");
            }
            for (_, offset, value) in acknowledged.iter().filter(|(of, ..)| *of == partition) {
                assert_eq!(records[*offset as usize].value.as_deref(), Some(value.as_bytes()), "life {life}");
            }
        }
    }
    assert!(acknowledged.len() > 1000);
}

#[test]
fn a_log_killed_during_creation_can_be_opened() {
    for round in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["embedded_only::child_appends_until_it_is_killed", "--exact"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Kills the child after it has created its first file, a little later each round.
        let deadline = Instant::now() + TIME_LIMIT;
        while std::fs::read_dir(dir.path()).unwrap().next().is_none() {
            assert!(Instant::now() < deadline, "the child creates no log");
        }
        std::thread::sleep(Duration::from_micros(200 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let four = NonZeroU32::new(4);
        let log = EmbeddedLog::open(dir.path(), four).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(log.partition_count(), 4, "round {round}");
    }
}

#[test]
fn leftovers_of_an_unfinished_creation_are_removed() {
    let whole = tempfile::tempdir().unwrap();
    drop(open(whole.path()));
    let whole = std::fs::read(whole.path().join("log.redb")).unwrap();
    for left in [&[][..], &[0; 4096], &whole[..100], &whole[..whole.len() / 2], &whole] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.redb.new");
        std::fs::write(&path, left).unwrap();
        let log = EmbeddedLog::open(dir.path(), NonZeroU32::new(7)).unwrap();
        assert_eq!(log.partition_count(), 7, "{} bytes were left", left.len());
        append(&log, entry(0, "k", "v"));
        drop(log);
        std::fs::write(&path, left).unwrap();
        assert_eq!(open_any(dir.path()).bounds(Topic::Events, 0).unwrap(), 0..1);
        assert!(!path.exists());
    }
}

#[test]
fn one_of_several_concurrent_creators_gets_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let opened: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| EmbeddedLog::open(dir.path(), None))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(opened.iter().filter(|one| one.is_ok()).count(), 1);
    assert!(opened.iter().filter_map(|one| one.as_ref().err()).all(|error| matches!(error, OpenError::InUse(_))));
    append(opened.iter().find_map(|one| one.as_ref().ok()).unwrap(), entry(0, "k", "v"));
    drop(opened);
    assert_eq!(open_any(dir.path()).bounds(Topic::Events, 0).unwrap(), 0..1);
}

#[test]
fn a_reopened_log_continues_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for number in 0..3 {
        assert_eq!(append(&log, entry(1, "k", number)), number);
    }
    log.trim(Topic::Events, 1, 2).unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.bounds(Topic::Events, 1).unwrap(), 2..3);
    assert_eq!(append(&log, entry(1, "k", 3)), 3);
    log.trim(Topic::Events, 1, 99).unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.bounds(Topic::Events, 1).unwrap(), 4..4);
    assert_eq!(append(&log, entry(1, "k", 4)), 4);
}

#[test]
fn queued_entries_are_written_before_the_log_closes() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let writer = log.writer();
    for number in 0..5000 {
        drop(writer.append(entry(0, "k", number)));
    }
    drop((log, writer));
    assert_eq!(open(dir.path()).bounds(Topic::Events, 0).unwrap(), 0..5000);
}

#[test]
fn a_log_in_use_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let error = EmbeddedLog::open(dir.path(), None).err().unwrap();
    assert!(matches!(error, OpenError::InUse(_)));
    assert!(error.to_string().contains("in use by another process: stop it or choose another --data-dir"));
    drop(log);
    open(dir.path());
}

#[test]
fn the_partition_count_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(dir.path(), NonZeroU32::new(7)).unwrap());
    assert_eq!(EmbeddedLog::open(dir.path(), None).unwrap().partition_count(), 7);
    let error = EmbeddedLog::open(dir.path(), NonZeroU32::new(8)).err().unwrap().to_string();
    assert!(error.contains("created with 7 partitions") && error.contains("changed to 8"), "{error}");
}

#[test]
fn timestamps_never_fall_within_a_partition() {
    let dir = tempfile::tempdir().unwrap();
    let at = |time| Entry { timestamp_ms: Some(time), ..entry(0, "k", time) };
    let log = open(dir.path());
    append(&log, at(5000));
    append(&log, at(4000));
    drop(log);
    let log = open(dir.path());
    append(&log, at(3000));
    append(&log, Entry { partition: Some(1), ..at(3000) });
    let times = |partition| {
        let records = log.read(Topic::Events, partition, 0, 9).unwrap();
        records.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>()
    };
    assert_eq!((times(0), times(1)), (vec![5000; 3], vec![3000]));
}

#[test]
fn damaged_row_stops_the_reader_without_being_served() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, entry(0, "k", "a value that is easy to find in the file"));
    drop(log);
    let path = dir.path().join("log.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"easy to find";
    let positions: Vec<usize> = (0..bytes.len() - needle.len()).filter(|&at| bytes[at..].starts_with(needle)).collect();
    assert!(!positions.is_empty());
    for position in positions {
        bytes[position] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    // Opening a log reads the last row of each partition.
    let error = EmbeddedLog::open(dir.path(), None).err().unwrap().to_string();
    assert!(error.contains("events/0 at 0") && error.contains("checksum"), "{error}");
}

#[test]
fn a_waiting_reader_is_woken_by_an_append() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut reader = log.reader("g", Arc::new(RecordingAssignment::default())).unwrap();
    read_all(&mut *reader);
    std::thread::scope(|scope| {
        let acknowledged = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            append(&log, entry(0, "k", "v"));
            Instant::now()
        });
        assert_eq!(reader.poll(1, TIME_LIMIT, &mut |_| {}).unwrap(), 1);
        let woken = Instant::now();
        // The reader does not poll at an interval: it wakes with the acknowledgement, about.
        assert!(woken.saturating_duration_since(acknowledged.join().unwrap()) < Duration::from_secs(5));
    });
}

#[test]
fn looking_for_a_log_creates_none() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("below");
    assert!(!EmbeddedLog::is_in(dir.path()) && !EmbeddedLog::is_in(&below));
    assert_eq!((std::fs::read_dir(dir.path()).unwrap().count(), below.exists()), (0, false));
    drop(open_any(dir.path()));
    assert!(EmbeddedLog::is_in(dir.path()));
}
