//! The ports: the calls that the rest of the service makes to a log, and the promises that it may
//! rely on.
//!
//! This file knows neither an implementation nor the meaning of an event.
//!
//! Keeps INV-ACK.

use crate::contact::Contact;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The topics of the contract. Their names are configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Events, the source of truth.
    Events,
    /// Receipt updates for backends.
    Updates,
    /// Records that could not be applied, with the reason.
    DeadLetters,
}

impl Topic {
    /// All topics, in the order of their indexes.
    pub const ALL: [Topic; 3] = [Topic::Events, Topic::Updates, Topic::DeadLetters];

    /// An index for arrays by topic.
    pub(crate) const fn index(self) -> usize {
        match self {
            Topic::Events => 0,
            Topic::Updates => 1,
            Topic::DeadLetters => 2,
        }
    }
}

/// Returns the tag of a log's identity: the low half of its XXH3-64.
pub(crate) fn tag_of(identity: &str) -> u32 {
    xxh3_64_with_seed(identity.as_bytes(), 0) as u32
}

/// One record of the event log, borrowed from the reader for the length of a call.
pub struct Record<'a> {
    /// Its partition.
    pub partition: u32,
    /// Its offset; offsets rise but are not contiguous.
    pub offset: u64,
    /// The broker's or producer's timestamp, Unix milliseconds; 0 where the log has none.
    pub timestamp_ms: u64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, looked at only for dead letters and traces.
    pub headers: &'a dyn Headers,
}

impl Record<'_> {
    /// Returns a hash of timestamp, key and value that identifies the record: XXH3-64 of the key,
    /// seeded with the timestamp, then of the value, seeded with that hash. An absent key or value
    /// flips the lowest bit of its seed. Headers do not count. Stores keep the hash:
    /// `schemas/store/v2.md`.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let seeded = |bytes: Option<&[u8]>, seed: u64| {
            xxh3_64_with_seed(bytes.unwrap_or_default(), seed ^ u64::from(bytes.is_none()))
        };
        seeded(self.value, seeded(self.key, self.timestamp_ms))
    }
}

/// The headers of a record, copied only on demand.
pub trait Headers {
    /// All headers in order.
    fn to_vec(&self) -> Vec<(String, Option<Bytes>)>;

    /// The value of the last header of a name.
    fn last(&self, name: &str) -> Option<Bytes> {
        self.to_vec().into_iter().rev().find(|(found, _)| found == name)?.1
    }
}

/// A record that outlives its reader. For tests and tools, not for the hot path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Its timestamp, Unix milliseconds; 0 where the log has none.
    pub timestamp_ms: u64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Its headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl OwnedRecord {
    /// Returns the same hash as [`Record::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let Self { partition, offset, timestamp_ms, key, value, .. } = self;
        let (partition, offset, timestamp_ms) = (*partition, *offset, *timestamp_ms);
        Record { partition, offset, timestamp_ms, key: key.as_deref(), value: value.as_deref(), headers: &NoHeaders }
            .fingerprint()
    }
}

struct NoHeaders;

impl Headers for NoHeaders {
    fn to_vec(&self) -> Vec<(String, Option<Bytes>)> {
        Vec::new()
    }
}

impl From<&Record<'_>> for OwnedRecord {
    fn from(record: &Record<'_>) -> Self {
        OwnedRecord {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: record.headers.to_vec(),
        }
    }
}

/// The maximum number of records per slice. Records of a slice stay in the log's memory and are not
/// copied.
pub const SLICE_RECORDS_MAX: usize = 32;

/// One item of a poll.
pub enum Polled<'a> {
    /// Records of one partition in offset order: at least one, at most [`SLICE_RECORDS_MAX`].
    Records(&'a [Record<'a>]),
    /// The reader has reached the end of a partition: it has returned everything below
    /// `next_offset`. Reported once each time the end is reached, for an empty partition too.
    End {
        /// The partition.
        partition: u32,
        /// The next record has at least this offset.
        next_offset: u64,
    },
}

impl Polled<'_> {
    /// Returns the partition of the records or of the end.
    pub fn partition(&self) -> u32 {
        match self {
            Self::Records(records) => records[0].partition,
            Self::End { partition, .. } => *partition,
        }
    }
}

/// Reads the event log. One thread owns a reader.
///
/// A dropped reader releases its partitions: it calls [`Assignment::revoked`] for them.
pub trait Reader: Send {
    /// Waits at most `timeout` for the first record or end, then passes all fetched items to `each`
    /// without waiting, up to `max` records. Returns the number of records; ends do not count, and
    /// 0 is not an error.
    ///
    /// Within one poll, no method of [`Assignment`] is called after the first call of `each`. So a
    /// caller may take a lock in `each` and hold it until the poll returns.
    ///
    /// # Errors
    /// [`ReadError`] says whether to retry or to stop.
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError>;

    /// Reports to lag tools how far a partition is durably applied. Advisory: no reader starts from
    /// it.
    fn commit(&mut self, partition: u32, next_offset: u64);
}

/// Follows partitions of one topic without a consumer group. Other readers do not notice it, and it
/// commits nothing. One thread owns a tail.
pub trait Tail: Send {
    /// As [`Reader::poll`]. After [`ReadError::Stop`] it returns no more records, because the next
    /// records are lost or the topic was replaced.
    ///
    /// # Errors
    /// [`ReadError`] says whether to retry or to stop.
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError>;
}

/// Looks at single records of a partition that is being assigned, before the reader returns any
/// record.
pub trait Peek {
    /// Returns the record at an offset; `None` if there is none, because it was trimmed, compacted
    /// away or never written.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError>;
}

/// Opens the state of each partition that a reader gets, and releases the state of each one that it
/// loses. Called on the reader's thread, in `poll` and in drop.
pub trait Assignment: Send + Sync {
    /// Opens the state of a partition that the reader gets, and returns the offset to start at.
    /// `log` shows whether this is the log that the state was folded from.
    ///
    /// # Errors
    /// Any error stops the reader.
    fn assigned(
        &self,
        partition: u32,
        first_offset: u64,
        end_offset: u64,
        log: &dyn Peek,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>>;

    /// Releases partitions that the reader loses. Returns once their state is durable and released.
    fn revoked(&self, partitions: &[u32]);

    /// The group has taken partitions away because the log could not be reached, so nobody may have
    /// them yet. Their state may still be asked, but is neither folded, published nor saved until
    /// [`Assignment::assigned`] gives the partition back or [`Assignment::revoked`] releases it.
    fn lost(&self, partitions: &[u32]) {
        self.revoked(partitions);
    }
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// A transient failure: poll again.
    #[error("the log cannot be read just now: {0}")]
    Retry(String),
    /// A permanent failure: going on would lose or invent records.
    #[error("{0}")]
    Stop(String),
}

/// A record to append.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The topic.
    pub topic: Topic,
    /// The partition; `None` lets the key decide, as all Java clients do.
    pub partition: Option<u32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The timestamp, Unix milliseconds; `None` and 0 stand for the time of the append.
    pub timestamp_ms: Option<u64>,
}

impl Entry {
    /// Returns an entry for an event, with the time of its append. Copies of control events name
    /// their partition; for other events the key decides it.
    pub fn event(key: impl Into<Bytes>, value: impl Into<Bytes>, partition: Option<u32>) -> Self {
        let (key, value) = (Some(key.into()), Some(value.into()));
        Entry { topic: Topic::Events, partition, key, value, headers: Vec::new(), timestamp_ms: None }
    }
}

/// The location of an appended entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The partition.
    pub partition: u32,
    /// The offset of the entry. If a retry hid it from the writer, this is the last offset of the
    /// partition after the acknowledgement: at least the entry's own. A reader that has read
    /// through this offset has read the entry, but the record at this offset may be a later one.
    pub offset: u64,
}

/// Why an append failed. The variants tell "did not happen" from "may have happened".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The entry is not written and will not be.
    #[error("not written: {0}")]
    NotWritten(String),
    /// The entry is not written and never can be: it is larger than the log allows.
    #[error("not written: {0}")]
    TooLarge(String),
    /// The entry may be written, now or later.
    #[error("may have been written: {0}")]
    Unknown(String),
}

/// The receiver of the outcome of one append. A closed channel means the same as
/// [`AppendError::Unknown`].
pub type PendingAppend = tokio::sync::oneshot::Receiver<Result<Location, AppendError>>;

/// Appends to the log. Keeps the order within a partition.
pub trait Writer: Send + Sync {
    /// Queues an entry. The receiver resolves once the log has acknowledged the entry durably or
    /// failed. Blocks for at most the delivery timeout if the queue is full.
    fn append(&self, entry: Entry) -> PendingAppend;

    /// Queues entries in their order, as [`Self::append`] does. If the log knows that one of them
    /// can never be written, it writes none: that one is [`AppendError::TooLarge`], the others are
    /// [`AppendError::NotWritten`].
    fn append_all(&self, entries: Vec<Entry>) -> Vec<PendingAppend> {
        entries.into_iter().map(|entry| self.append(entry)).collect()
    }

    /// Returns once all queued entries are acknowledged.
    ///
    /// # Errors
    /// If an append of any caller failed since the last flush, or the time is over.
    fn flush(&self, timeout: Duration) -> Result<(), AppendError>;
}

/// A log: Kafka, or the embedded one.
#[async_trait]
pub trait Log: Send + Sync {
    /// Returns the number of partitions of the event topic, which never changes.
    fn partition_count(&self) -> u32;

    /// Returns a reader of the event topic. It is a member of `group` and reports its partitions to
    /// `assignment`.
    ///
    /// # Errors
    /// If the log cannot be reached or is not configured as required.
    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError>;

    /// Returns the writer, which all callers share.
    fn writer(&self) -> Arc<dyn Writer>;

    /// Returns a number that tells a topic of this log from that of every other log, as its offsets
    /// do not; `None` if the log has no such identity.
    fn tag(&self, topic: Topic) -> Option<u32> {
        _ = topic;
        None
    }

    /// Returns the contact of this process with the log.
    fn contact(&self) -> Contact {
        Contact::default()
    }

    /// Returns the greatest age of a record that the event topic takes, by the record's timestamp;
    /// `None` if it takes any.
    fn age_max(&self) -> Option<Duration> {
        None
    }

    /// Returns where to ask for the ends of partitions; `None` if they cannot be asked for.
    fn ends(&self) -> Option<Arc<dyn Ends>> {
        None
    }
}

/// Tells how far the event topic is written, outside of any reader.
pub trait Ends: Send + Sync {
    /// Returns the offset after the last record of each partition, acknowledged records of open
    /// transactions included (readers do not get these yet): an append that was acknowledged before
    /// the call is below it. Blocks
    /// until the log answers, for at most a few seconds.
    ///
    /// # Errors
    /// If the log cannot be asked.
    fn ends(&self, partitions: &[u32]) -> Result<Vec<u64>, ReadError>;

    /// Confirms that all records that were read before this call are of the log that this process
    /// began with. Blocks until the log answers, for at most a few seconds; a log that does not
    /// answer confirms nothing and is no error.
    ///
    /// # Errors
    /// [`ReadError::Stop`] if the topic was made anew meanwhile.
    fn confirm_topic(&self) -> Result<(), ReadError> {
        Ok(())
    }
}

/// Reads any topic of a log without joining a group: for streams of updates, operators' tools and
/// tests. The calls block.
pub trait Inspect: Log {
    /// Returns the number of partitions of a topic.
    ///
    /// # Errors
    /// If the log cannot be asked or has no such topic.
    fn partitions(&self, _topic: Topic) -> Result<u32, ReadError> {
        Ok(self.partition_count())
    }

    /// Returns the present offsets: from the first kept record to the offset after the last one.
    ///
    /// # Errors
    /// If the log cannot be read or has no such partition.
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError>;

    /// Returns up to `max` records with offsets of at least `from`, in order; fewer only at the end
    /// of the partition. A `from` below the first kept offset means that offset.
    ///
    /// # Errors
    /// If the log cannot be read or has no such partition.
    fn read(&self, topic: Topic, partition: u32, from: u64, max: usize) -> Result<Vec<OwnedRecord>, ReadError>;

    /// Passes the records with offsets in `offsets` to `each`, in order, uncopied, and in slices of
    /// at most [`SLICE_RECORDS_MAX`]. Ends when `each` breaks or the partition ends. A start below
    /// the first kept offset means that offset. While no records arrive, `each` sometimes gets an
    /// empty slice so that it can break.
    ///
    /// # Errors
    /// If the log cannot be read or has no such partition. Slices passed before the error are
    /// valid.
    fn scan(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<(), ReadError>;

    /// Returns the offset of the first record with a timestamp of at least `time_ms` (Unix
    /// milliseconds), or the end of the partition if there is none.
    ///
    /// # Errors
    /// If the log cannot be read or has no such partition.
    fn offset_at(&self, topic: Topic, partition: u32, time_ms: u64) -> Result<u64, ReadError>;

    /// Follows partitions of a topic; `starts` holds pairs of partition and start offset.
    ///
    /// # Errors
    /// If the log cannot be read or has no such partition. If the log does not hold a start offset,
    /// the first poll reports it at the latest.
    fn tail(&self, topic: Topic, starts: &[(u32, u64)]) -> Result<Box<dyn Tail>, ReadError>;
}
