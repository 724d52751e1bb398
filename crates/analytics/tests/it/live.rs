//! INV-LIVE: every version of a live table has the rows of an export of its position, at any rounds
//! and after any number of restarts.

use crate::common::{LoggedHistory, PARTITIONS, scratch};
use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use receipts_analytics::export::{Dataset, Format, Layout, Target, export};
use receipts_analytics::live::{Committed, DATASETS, Plan, follow};
use receipts_analytics::{Error, ProgressMonitor, Scratch, Span};
use receipts_event::{copies, partition_of};
use receipts_fold::Limits;
use receipts_log::{Assignment, Entry, Inspect, Log, OwnedRecord, ReadError, Reader, Record, Tail, Topic, Writer};
use receipts_objects::Destination;
use receipts_testkit::property::{Replay, scaled, seeds};
use receipts_testkit::random::Random;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A log that seems to end earlier.
struct Growing<'a> {
    history: &'a LoggedHistory,
    ends: Mutex<Vec<u64>>,
}

impl Growing<'_> {
    fn grow(&self, random: &mut Random) {
        for (partition, end) in (0u32..).zip(self.ends.lock().unwrap().iter_mut()) {
            let whole = self.history.log.bounds(Topic::Events, partition).unwrap().end;
            *end = (*end + random.below(40)).min(whole);
        }
    }
}

impl Log for Growing<'_> {
    fn partition_count(&self) -> u32 {
        self.history.log.partition_count()
    }

    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        self.history.log.reader(group, assignment)
    }

    fn writer(&self) -> Arc<dyn Writer> {
        self.history.log.writer()
    }
}

impl Inspect for Growing<'_> {
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError> {
        let end = self.ends.lock().unwrap()[partition as usize];
        Ok(self.history.log.bounds(topic, partition)?.start..end)
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, max: usize) -> Result<Vec<OwnedRecord>, ReadError> {
        self.history.log.read(topic, partition, from, max)
    }

    fn tail(&self, topic: Topic, starts: &[(u32, u64)]) -> Result<Box<dyn Tail>, ReadError> {
        self.history.log.tail(topic, starts)
    }

    fn offset_at(&self, topic: Topic, partition: u32, ms: u64) -> Result<u64, ReadError> {
        self.history.log.offset_at(topic, partition, ms)
    }

    fn scan(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.history.log.scan(topic, partition, offsets, each)
    }
}

struct Stop(AtomicBool);

impl ProgressMonitor for Stop {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn token(offsets: &[(u32, u64)]) -> String {
    offsets.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect::<Vec<_>>().join(",")
}

fn plan<'a>(out: &Path, now_ms: &'a dyn Fn() -> u64, once: bool) -> Plan<'a> {
    Plan {
        out: Destination::directory(out).unwrap(),
        log: "a log".to_owned(),
        datasets: DATASETS.to_vec(),
        every: Duration::ZERO,
        keep_versions_ms: u64::MAX,
        erase_within_ms: u64::MAX,
        file_bytes: 1 << 20,
        once,
        token: &token,
        now_ms,
    }
}

fn rows_of(path: &Path) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let rows =
        |batch: RecordBatch| -> Vec<String> { (0..batch.num_rows()).map(|at| shown(&batch.slice(at, 1))).collect() };
    reader.flat_map(|batch| rows(batch.unwrap())).collect()
}

/// A row without the unit of its times.
fn shown(row: &RecordBatch) -> String {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{TimestampMicrosecondType, TimestampMillisecondType};
    let column = |array: &arrow_array::ArrayRef| {
        let ms = array.as_primitive_opt::<TimestampMillisecondType>().map(|times| times.iter().next().unwrap());
        let us = array.as_primitive_opt::<TimestampMicrosecondType>().map(|times| times.iter().next().unwrap());
        match ms.or(us.map(|us| us.map(|us| us / 1_000))) {
            Some(time) => format!("{time:?}"),
            None => format!("{array:?}"),
        }
    };
    row.columns().iter().map(column).collect::<Vec<_>>().join(";")
}

/// Returns the position and the files of each version.
fn versions(table: &Path) -> Vec<(String, BTreeSet<String>)> {
    let mut commits: Vec<_> =
        fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    commits.retain(|path| path.extension().is_some_and(|end| end == "json"));
    commits.sort();
    let (mut files, mut versions) = (BTreeSet::new(), Vec::new());
    for commit in commits {
        let mut position = None;
        for line in fs::read_to_string(commit).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["remove"]["path"].as_str() {
                assert!(files.remove(path), "{path} was not there");
            }
            if let Some(told) = action["commitInfo"]["userMetadata"].as_str() {
                let told: Value = serde_json::from_str(told).unwrap();
                position = told["position"].as_str().map(str::to_owned);
            }
        }
        // Adds and removes of one commit have no order.
        for line in
            fs::read_to_string(table.join("_delta_log").join(format!("{:020}.json", versions.len()))).unwrap().lines()
        {
            let action: Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                assert!(files.insert(path.to_owned()), "{path} was there before");
            }
        }
        versions.push((position.unwrap(), files.clone()));
    }
    versions
}

fn exported(history: &LoggedHistory, position: &str, scratch: &Scratch) -> BTreeMap<Dataset, Vec<String>> {
    let spans: Vec<Span> = position
        .split(',')
        .map(|part| {
            let (partition, offset) = part.split_once(':').unwrap();
            Span { partition: partition.parse().unwrap(), first_offset: 0, end_offset: offset.parse().unwrap() }
        })
        .collect();
    let out = tempfile::tempdir().unwrap();
    let plan = receipts_analytics::export::Plan {
        out: Target::Directory(out.path().to_owned()),
        log: "a log".to_owned(),
        position: position.to_owned(),
        format: Format::Parquet,
        layout: Layout::V2,
        file_bytes: 1 << 30,
        datasets: DATASETS.to_vec(),
    };
    export(&history.log, &spans, scratch, &plan, &()).unwrap();
    let rows = |dataset: &Dataset| {
        let files = fs::read_dir(out.path().join(dataset.name())).unwrap();
        let mut rows: Vec<String> = files.flat_map(|file| rows_of(&file.unwrap().path())).collect();
        rows.sort();
        (*dataset, rows)
    };
    DATASETS.iter().map(rows).collect()
}

#[test]
fn every_version_equals_an_export_of_its_position() {
    for seed in seeds(0..scaled(6, 60)) {
        let _replay = Replay::with(&format!("RECEIPTS_TEST_SEEDS={seed}..{}", seed + 1));
        let mut random = Random::new(seed);
        let history = LoggedHistory::new(seed);
        let own = scratch();
        // A short retention lets messages expire between versions.
        let retention_ms = if seed % 2 == 0 { own.limits.retention_ms } else { 40_000 };
        let scratch = Scratch { limits: Limits { retention_ms, ..own.limits }, ..own };
        let log = Growing { history: &history, ends: Mutex::new(vec![0; PARTITIONS as usize]) };
        let out = tempfile::tempdir().unwrap();
        let clock = Mutex::new(1_780_000_000_000u64);
        let now = || {
            let mut clock = clock.lock().unwrap();
            // Files become cold now and then, so that merges happen.
            *clock += 60_000;
            *clock
        };
        for _ in 0..4 {
            let (stop, rounds) = (Stop(AtomicBool::new(false)), 1 + random.below(4));
            let mut told = 0;
            log.grow(&mut random);
            follow(&log, &scratch, &plan(out.path(), &now, false), &stop, &mut |committed: &Committed| {
                told += u64::from(committed.dataset == DATASETS[DATASETS.len() - 1]);
                if committed.dataset == DATASETS[DATASETS.len() - 1] {
                    log.grow(&mut random);
                }
                stop.0.store(told >= rounds || *log.ends.lock().unwrap() == ends(&history), Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
        }
        *log.ends.lock().unwrap() = ends(&history);
        follow(&log, &scratch, &plan(out.path(), &now, true), &(), &mut |_| Ok(())).unwrap();
        assert!(check_versions(out.path(), &history, &scratch) > 3, "seed {seed}");
    }
}

/// Compares every version of every table with an export of its position; returns the number of
/// versions of the table that has the fewest.
fn check_versions(tables: &Path, history: &LoggedHistory, scratch: &Scratch) -> usize {
    let mut exports = BTreeMap::new();
    let check = |dataset: Dataset| {
        let table = tables.join(dataset.name());
        let versions = versions(&table);
        for (number, (position, files)) in versions.iter().enumerate() {
            let wanted = exports.entry(position.clone()).or_insert_with(|| exported(history, position, scratch));
            let mut rows: Vec<String> = files.iter().flat_map(|file| rows_of(&table.join(file))).collect();
            rows.sort();
            assert!(rows == wanted[&dataset], "version {number} of {} at {position}", dataset.name());
        }
        versions.len()
    };
    DATASETS.into_iter().map(check).min().unwrap()
}

/// A bucket has the same tables as a directory: no renames, no folders, listings by prefix.
#[test]
fn a_bucket_has_the_same_versions() {
    const ROUNDS: u64 = 6;
    let (history, scratch) = (LoggedHistory::new(5), scratch());
    let log = Growing { history: &history, ends: Mutex::new(vec![0; PARTITIONS as usize]) };
    let (bucket, now) = (Destination::memory().unwrap(), || 1_780_000_000_000);
    let round = |keep_versions_ms| {
        // Each is a process of its own, which goes on from the bucket alone.
        let plan = Plan { out: bucket.clone(), keep_versions_ms, ..plan(Path::new("/tmp"), &now, true) };
        follow(&log, &scratch, &plan, &(), &mut |_| Ok(())).unwrap();
    };
    for number in 1..=ROUNDS {
        *log.ends.lock().unwrap() = ends(&history).iter().map(|end| end * number / ROUNDS).collect();
        round(u64::MAX);
    }
    let copy = tempfile::tempdir().unwrap();
    for object in bucket.list("").unwrap() {
        let to = copy.path().join(&object.name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::io::copy(&mut bucket.read(&object.name).unwrap(), &mut File::create(to).unwrap()).unwrap();
    }
    assert_eq!(check_versions(copy.path(), &history, &scratch), ROUNDS as usize);

    // The newest alone is kept, by a checkpoint, and the table is continued.
    round(0);
    let named =
        |end: &str| bucket.list("messages/_delta_log").unwrap().iter().filter(|o| o.name.ends_with(end)).count();
    assert_eq!((named(".json"), named(".checkpoint.parquet")), (1, 1));
    round(0);
}

/// A process that has removed the commits which it began from goes on, round after round, and ends
/// by a stop although no round waits.
#[test]
fn one_process_goes_on_after_removing_versions() {
    const ROUNDS: u64 = 4;
    const SENDS: u64 = 10;
    let (history, scratch) = (LoggedHistory::of_sends((ROUNDS * SENDS) as usize), scratch());
    let log = Growing { history: &history, ends: Mutex::new(vec![0; PARTITIONS as usize]) };
    // The roster and the sends are all in partition 0.
    let grow = |round: u64| log.ends.lock().unwrap()[0] = 1 + round.min(ROUNDS) * SENDS;
    grow(1);
    let (out, now) = (tempfile::tempdir().unwrap(), || 1_780_000_000_000);
    let plan = Plan { keep_versions_ms: 0, datasets: vec![Dataset::Messages], ..plan(out.path(), &now, false) };
    let (stop, mut round) = (Stop(AtomicBool::new(false)), 1);
    follow(&log, &scratch, &plan, &stop, &mut |_| {
        round += 1;
        stop.0.store(round > ROUNDS, Ordering::Relaxed);
        grow(round);
        Ok(())
    })
    .unwrap();
    assert_eq!(round, ROUNDS + 1);
}

/// Small files of past rounds become few, none is larger than the limit by more than a batch, and
/// the files that were merged are gone with the versions that named them.
#[test]
fn cold_files_are_merged_and_old_ones_removed() {
    const FILE_BYTES: u64 = 60_000;
    const ROUNDS: u64 = 30;
    // Whole pages of 64 messages, so that no round changes a file of the round before.
    const SENDS: u64 = 3 * 64;
    let history = LoggedHistory::of_sends((ROUNDS * SENDS) as usize);
    let (out, scratch) = (tempfile::tempdir().unwrap(), scratch());
    let log = Growing { history: &history, ends: Mutex::new(vec![0; PARTITIONS as usize]) };
    let round = |now_ms: u64, keep_versions_ms: u64| {
        let now = move || now_ms;
        let keep = Plan { file_bytes: FILE_BYTES, keep_versions_ms, ..plan(out.path(), &now, true) };
        let keep = Plan { datasets: vec![Dataset::Messages], ..keep };
        let mut told = Vec::new();
        follow(&log, &scratch, &keep, &(), &mut |committed: &Committed| {
            told.push(committed.clone());
            Ok(())
        })
        .unwrap();
        told
    };
    for number in 1..=ROUNDS {
        // The roster and the sends are all in partition 0.
        log.ends.lock().unwrap()[0] = 1 + number * SENDS;
        round(number, u64::MAX);
    }
    let table = out.path().join("messages");
    let bytes_of = |files: &BTreeSet<String>| -> Vec<u64> {
        files.iter().map(|file| fs::metadata(table.join(file)).unwrap().len()).collect()
    };
    let scattered = versions(&table).pop().unwrap().1;
    assert_eq!(scattered.len() as u64, ROUNDS);
    // Files are removed by the system's clock, so that this one is far ahead of it.
    let mut cold_ms = u64::MAX / 4;
    let merged = loop {
        cold_ms += 3_600_000;
        // A round merges once, until there is nothing to merge.
        if round(cold_ms, u64::MAX).is_empty() {
            break versions(&table).pop().unwrap().1;
        }
    };
    assert!(scattered.len() > 4 * merged.len(), "{} files of {}", merged.len(), scattered.len());
    let sizes = bytes_of(&merged);
    assert!(sizes.iter().all(|bytes| *bytes <= FILE_BYTES * 3 / 2), "{sizes:?}");
    assert!(sizes.len() > 1 && sizes.iter().any(|bytes| *bytes > FILE_BYTES / 2), "{sizes:?}");
    check_newest(&table, &history, &scratch);

    let parts = || fs::read_dir(&table).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file());
    assert!(parts().count() > merged.len(), "old versions still have their files");
    round(u64::MAX / 2, 0);
    let left: BTreeSet<String> = parts().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left, merged, "the files of the newest version alone");
}

/// Compares the newest version of `messages`, whose first commits may be gone, with an export.
fn check_newest(table: &Path, history: &LoggedHistory, scratch: &Scratch) {
    let (position, files) = versions(table).pop().unwrap();
    let mut rows: Vec<String> = files.iter().flat_map(|file| rows_of(&table.join(file))).collect();
    rows.sort();
    assert!(rows == exported(history, &position, scratch)[&Dataset::Messages]);
}

fn ends(history: &LoggedHistory) -> Vec<u64> {
    (0..PARTITIONS).map(|partition| history.log.bounds(Topic::Events, partition).unwrap().end).collect()
}

/// No file of the folder names an erased person once the time for erasures is over.
#[test]
fn erased_people_are_in_no_file() {
    const ERASED: &str = "erased-person";
    let history = LoggedHistory::new(3);
    let newest = history.records.iter().flatten().map(|(at, _)| at.timestamp_ms).max().unwrap();
    let writer = history.log.writer();
    let append = |partition, key: Vec<u8>, value: Vec<u8>| {
        let entry = Entry { timestamp_ms: Some(newest), ..Entry::event(key, value, Some(partition)) };
        writer.append(entry).blocking_recv().unwrap().unwrap();
    };
    let key = receipts_event::key("default", "last");
    for event in [
        json!({"type": "members.changed", "conversation_id": "last", "joined": ["a", ERASED]}),
        json!({"type": "message.sent", "conversation_id": "last", "message_id": "m", "sender_id": "a",
               "sent_at_ms": newest, "need_read_receipt": true}),
        json!({"type": "conversation.read", "conversation_id": "last", "reader_id": ERASED, "up_to_message_id": "m"}),
    ] {
        append(partition_of(&key, PARTITIONS), key.clone(), event.to_string().into_bytes());
    }
    let before = ends(&history);
    let erased = json!({"type": "user.erased", "user_id": ERASED}).to_string();
    for (partition, copy) in copies(erased.as_bytes(), PARTITIONS) {
        append(partition, receipts_event::key("default", ""), copy);
    }
    let out = tempfile::tempdir().unwrap();
    let log = Growing { history: &history, ends: Mutex::new(before) };
    let scratch = scratch();
    let round = |erase_within_ms, now_ms: u64| {
        let now = move || now_ms;
        let plan = Plan { erase_within_ms, ..plan(out.path(), &now, true) };
        follow(&log, &scratch, &plan, &(), &mut |_| Ok(())).unwrap();
    };
    round(u64::MAX, 1);
    for dataset in [Dataset::Reads, Dataset::Members, Dataset::Rosters, Dataset::ReadMarks] {
        assert!(!naming(&out.path().join(dataset.name()), ERASED).is_empty(), "{} names the person", dataset.name());
    }
    *log.ends.lock().unwrap() = ends(&history);
    round(u64::MAX, 2);
    assert!(!naming(out.path(), ERASED).is_empty(), "old versions still name the person");
    // The clock of the files is the system's.
    round(0, u64::MAX / 2);
    assert_eq!(naming(out.path(), ERASED), Vec::<PathBuf>::new());
    assert!(!out.path().join("messages/_delta_log/00000000000000000000.json").exists());
    // The table is whole without its first versions, and is continued.
    round(0, u64::MAX / 2);
}

/// Returns the files below a folder that hold a text. Pages of Parquet are compressed, so their
/// rows are searched as well.
fn naming(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut naming = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            naming.extend(self::naming(&path, text));
            continue;
        }
        let is_part = path.file_name().unwrap().to_str().unwrap().starts_with("part-");
        let in_rows = is_part && rows_of(&path).iter().any(|row| row.contains(text));
        if in_rows || fs::read(&path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes()) {
            naming.push(path);
        }
    }
    naming
}

#[test]
fn another_log_or_other_settings_are_refused() {
    let history = LoggedHistory::of_sends(10);
    let out = tempfile::tempdir().unwrap();
    let now = || 1;
    follow(&history.log, &scratch(), &plan(out.path(), &now, true), &(), &mut |_| Ok(())).unwrap();
    let other = Plan { log: "another".to_owned(), ..plan(out.path(), &now, true) };
    let refused = follow(&history.log, &scratch(), &other, &(), &mut |_| Ok(()));
    assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("another")), "{refused:?}");
    let limits = Limits { read_times: false, ..scratch().limits };
    let refused =
        follow(&history.log, &Scratch { limits, ..scratch() }, &plan(out.path(), &now, true), &(), &mut |_| Ok(()));
    assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("settings")), "{refused:?}");
}
