//! What the cases stand on: a log of their own, an assignment that remembers, and ways to read a log out.
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

/// Longer than anything here takes, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const PARTITIONS: u32 = 4;

type Trim = Box<dyn Fn(u32, u64)>;

/// A new log of [`PARTITIONS`] partitions, a consumer group of its own, and a way to trim the event topic.
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

    pub(crate) fn kafka() -> Option<Self> {
        let settings = settings(Broker::shared()?);
        let (bootstrap, events) = (settings.bootstrap.clone(), settings.events.clone());
        let log = Arc::new(KafkaLog::connect(settings).unwrap());
        let trim: Trim = Box::new(move |partition, before| trim(&bootstrap, &events, partition, before));
        Some(Fixture { log, group: unique("group"), trim, _dir: None })
    }

    /// A reader that begins every partition at its first offset.
    pub(crate) fn reader(&self) -> Box<dyn Reader> {
        self.log.reader(&self.group, Arc::new(Remembers::default())).unwrap()
    }

    /// Appends and waits for all acknowledgements.
    pub(crate) fn append(&self, entries: impl IntoIterator<Item = Entry>) -> Vec<Location> {
        let writer = self.log.writer();
        let appended: Vec<_> = entries.into_iter().map(|entry| writer.append(entry)).collect();
        appended.into_iter().map(|appended| appended.blocking_recv().unwrap().unwrap()).collect()
    }
}

/// Settings with topics of their own.
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

/// What an assignment was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Assigned { partition: u32, first: u64, end: u64 },
    Revoked(Vec<u32>),
}

/// Remembers its calls; begins where it is told, at the first offset otherwise.
#[derive(Default)]
pub(crate) struct Remembers {
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) starts: BTreeMap<u32, u64>,
    pub(crate) refuses: Option<u32>,
    /// Whether it looks at records.
    pub(crate) looks: bool,
    /// What it saw in each partition at the first offset, at the next, and at the end.
    pub(crate) seen: Mutex<BTreeMap<(u32, u64), Option<OwnedRecord>>>,
}

impl Assignment for Remembers {
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

/// What one or more polls handed over.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) records: Vec<OwnedRecord>,
    /// (partition, next offset), in the order told.
    pub(crate) ends: Vec<(u32, u64)>,
}

impl Heard {
    pub(crate) fn values(&self, partition: u32) -> Vec<String> {
        let of = self.records.iter().filter(|record| record.partition == partition);
        of.map(|record| String::from_utf8(record.value.clone().unwrap().into()).unwrap()).collect()
    }

    pub(crate) fn poll(&mut self, reader: &mut dyn Reader, max: usize, timeout: Duration) -> Result<usize, ReadError> {
        let before = self.records.len();
        let handed = reader.poll(max, timeout, &mut |polled| match polled {
            Polled::Records(records) => {
                assert!(!records.is_empty() && records.len() <= SLICE_RECORDS_MAX, "a slice has its limits");
                assert!(records.iter().all(|record| record.partition == records[0].partition), "of one partition");
                self.records.extend(records.iter().map(OwnedRecord::from));
            }
            Polled::End { partition, next_offset } => self.ends.push((partition, next_offset)),
        })?;
        assert_eq!(handed, self.records.len() - before, "poll returns how many records it handed over");
        Ok(handed)
    }
}

/// Polls until `enough`.
pub(crate) fn hear_until(reader: &mut dyn Reader, mut enough: impl FnMut(&Heard) -> bool) -> Heard {
    let (mut heard, deadline) = (Heard::default(), Instant::now() + PATIENCE);
    while !enough(&heard) {
        assert!(Instant::now() < deadline, "too late, heard only {} records, {:?}", heard.records.len(), heard.ends);
        match heard.poll(reader, 1000, Duration::from_millis(100)) {
            Ok(_) | Err(ReadError::Retry(_)) => {}
            Err(stop) => panic!("{stop}"),
        }
    }
    heard
}

/// Polls until the end of every partition was told.
pub(crate) fn hear_all(reader: &mut dyn Reader) -> Heard {
    hear_until(reader, |heard| {
        heard.ends.iter().map(|(partition, _)| partition).collect::<BTreeSet<_>>().len() == PARTITIONS as usize
    })
}

/// Polls until the reader stops, and says with what sentence.
pub(crate) fn hear_stop(reader: &mut dyn Reader) -> String {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Err(ReadError::Stop(sentence)) = Heard::default().poll(reader, 10, Duration::from_millis(100)) {
            return sentence;
        }
    }
    panic!("the reader did not stop");
}
