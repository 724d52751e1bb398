//! Test support: a new log per case, an assignment that records its calls, and helpers that read a
//! log.
//!
//! It asserts only that time limits hold; the cases assert the rest.

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::kafka::{CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, trim, unique};
use receipts_log::{
    Assignment, Entry, Inspect, Location, OwnedRecord, Peek, Polled, ReadError, Reader, SLICE_RECORDS_MAX, Topic,
};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any step takes on a busy machine.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);
pub(crate) const PARTITIONS: u32 = 4;

type Trim = Box<dyn Fn(u32, u64)>;

/// A new log with [`PARTITIONS`] partitions, its own consumer group, and a way to trim the event
/// topic.
pub(crate) struct Fixture {
    pub(crate) log: Arc<dyn Inspect>,
    pub(crate) group: String,
    pub(crate) trim: Trim,
    _dir: Option<TempDir>,
}

impl Fixture {
    pub(crate) fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(dir.path(), NonZeroU32::new(PARTITIONS)).unwrap());
        let trimmed = log.clone();
        let trim: Trim = Box::new(move |partition, before| trimmed.trim(Topic::Events, partition, before).unwrap());
        Fixture { log, group: "g".into(), trim, _dir: Some(dir) }
    }

    pub(crate) fn in_memory() -> Self {
        let log = Arc::new(EmbeddedLog::in_memory(NonZeroU32::new(PARTITIONS).unwrap(), "id").unwrap());
        let trimmed = log.clone();
        let trim: Trim = Box::new(move |partition, before| trimmed.trim(Topic::Events, partition, before).unwrap());
        Fixture { log, group: "g".into(), trim, _dir: None }
    }

    pub(crate) fn kafka() -> Option<Self> {
        let settings = settings(Broker::shared()?);
        let (bootstrap, events) = (settings.bootstrap.clone(), settings.events.clone());
        let log = Arc::new(KafkaLog::connect(settings).unwrap());
        let trim: Trim = Box::new(move |partition, before| trim(&bootstrap, &events, partition, before));
        Some(Fixture { log, group: unique("group"), trim, _dir: None })
    }

    /// Returns a reader that starts every partition at its first offset.
    pub(crate) fn reader(&self) -> Box<dyn Reader> {
        self.log.reader(&self.group, Arc::new(RecordingAssignment::default())).unwrap()
    }

    /// Appends entries and waits for all acknowledgements.
    pub(crate) fn append(&self, entries: impl IntoIterator<Item = Entry>) -> Vec<Location> {
        let writer = self.log.writer();
        let appended: Vec<_> = entries.into_iter().map(|entry| writer.append(entry)).collect();
        appended.into_iter().map(|appended| appended.blocking_recv().unwrap().unwrap()).collect()
    }
}

/// Returns settings with unused topic names.
pub(crate) fn settings(broker: &Broker) -> KafkaSettings {
    KafkaSettings {
        bootstrap: broker.bootstrap(),
        events: unique("events"),
        updates: unique("updates"),
        dead_letters: unique("dead-letters"),
        create_topics: Some(CreateTopics { partitions: PARTITIONS, replication: None }),
        ..KafkaSettings::default()
    }
}

pub(crate) fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap()
}

pub(crate) fn entry(partition: impl Into<Option<u32>>, key: &str, value: impl ToString) -> Entry {
    Entry {
        topic: Topic::Events,
        partition: partition.into(),
        key: Some(key.to_owned().into()),
        value: Some(value.to_string().into()),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

/// A call of an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Assigned { partition: u32, first: u64, end: u64 },
    Revoked(Vec<u32>),
}

/// Records its calls. Starts partitions at `starts`, or else at their first offset.
#[derive(Default)]
pub(crate) struct RecordingAssignment {
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) starts: BTreeMap<u32, u64>,
    pub(crate) refuses: Option<u32>,
    /// If true, it looks at records.
    pub(crate) looks: bool,
    /// The records that it saw in each partition at the first offset, the next one, and the end.
    pub(crate) seen: Mutex<BTreeMap<(u32, u64), Option<OwnedRecord>>>,
}

impl Assignment for RecordingAssignment {
    fn assigned(
        &self,
        partition: u32,
        first: u64,
        end: u64,
        log: &dyn Peek,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        for offset in [first, first + 1, end].into_iter().filter(|_| self.looks) {
            self.seen.lock().insert((partition, offset), log.record(offset)?);
        }
        if self.refuses == Some(partition) {
            return Err("the disk is full".into());
        }
        self.calls.lock().push(Call::Assigned { partition, first, end });
        Ok(self.starts.get(&partition).copied().unwrap_or(first))
    }

    fn revoked(&self, partitions: &[u32]) {
        self.calls.lock().push(Call::Revoked(partitions.to_vec()));
    }
}

/// The items of one or more polls.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) records: Vec<OwnedRecord>,
    /// (partition, next offset), in the order of the polls.
    pub(crate) ends: Vec<(u32, u64)>,
}

impl Received {
    pub(crate) fn values(&self, partition: u32) -> Vec<String> {
        let of = self.records.iter().filter(|record| record.partition == partition);
        of.map(|record| String::from_utf8(record.value.clone().unwrap().into()).unwrap()).collect()
    }

    pub(crate) fn poll(&mut self, reader: &mut dyn Reader, max: usize, timeout: Duration) -> Result<usize, ReadError> {
        let before = self.records.len();
        let count = reader.poll(max, timeout, &mut |polled| match polled {
            Polled::Records(records) => {
                assert!(!records.is_empty() && records.len() <= SLICE_RECORDS_MAX, "a slice has its limits");
                assert!(records.iter().all(|record| record.partition == records[0].partition), "of one partition");
                self.records.extend(records.iter().map(OwnedRecord::from));
            }
            Polled::End { partition, next_offset } => self.ends.push((partition, next_offset)),
        })?;
        assert_eq!(count, self.records.len() - before, "poll returns its number of records");
        Ok(count)
    }
}

/// Polls until `enough` returns true.
pub(crate) fn read_until(reader: &mut dyn Reader, mut enough: impl FnMut(&Received) -> bool) -> Received {
    let (mut received, deadline) = (Received::default(), Instant::now() + TIME_LIMIT);
    while !enough(&received) {
        assert!(
            Instant::now() < deadline,
            "too late, received only {} records, {:?}",
            received.records.len(),
            received.ends
        );
        match received.poll(reader, 1000, Duration::from_millis(100)) {
            Ok(_) | Err(ReadError::Retry(_)) => {}
            Err(stop) => panic!("{stop}"),
        }
    }
    received
}

/// Polls until the end of every partition was reported.
pub(crate) fn read_all(reader: &mut dyn Reader) -> Received {
    read_until(reader, |received| {
        received.ends.iter().map(|(partition, _)| partition).collect::<BTreeSet<_>>().len() == PARTITIONS as usize
    })
}

/// Polls until the reader stops, and returns the sentence of the error.
pub(crate) fn read_until_stop(reader: &mut dyn Reader) -> String {
    let deadline = Instant::now() + TIME_LIMIT;
    while Instant::now() < deadline {
        if let Err(ReadError::Stop(sentence)) = Received::default().poll(reader, 10, Duration::from_millis(100)) {
            return sentence;
        }
    }
    panic!("the reader did not stop");
}
