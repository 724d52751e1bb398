//! The ports: what the rest of the service asks of a log, and what it may rely on.
//!
//! Nothing here knows Kafka or the embedded log, and nothing here knows what an event means.

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The topics of the contract; their names are configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What happened; the truth.
    Events,
    /// Receipt updates for backends.
    Updates,
    /// Records that could not be applied, with their reason.
    DeadLetters,
}

impl Topic {
    /// All topics, in the order of their indexes.
    pub const ALL: [Topic; 3] = [Topic::Events, Topic::Updates, Topic::DeadLetters];

    /// A small number to keep things by topic in an array.
    pub(crate) const fn index(self) -> usize {
        match self {
            Topic::Events => 0,
            Topic::Updates => 1,
            Topic::DeadLetters => 2,
        }
    }
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
    /// Its headers, looked at only for dead letters.
    pub headers: &'a dyn Headers,
}

impl Record<'_> {
    /// A hash of timestamp, key and value, by which a record is known again: XXH3-64 of the key with the timestamp as its
    /// seed, then of the value with that; a key or value that is not there flips the lowest bit of its seed. Headers do
    /// not count. Stores keep it: `schemas/store/v1.md`.
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
}

/// A record that outlives its reader: for tests and tools, not for the hot path.
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
    /// As [`Record::fingerprint`].
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

/// Records handed over together, at most. Each is still as the log has it in memory, so that a slice costs no copy.
pub const SLICE_RECORDS_MAX: usize = 32;

/// What a poll hands over.
pub enum Polled<'a> {
    /// Records of one partition in offset order: at least one, at most [`SLICE_RECORDS_MAX`].
    Records(&'a [Record<'a>]),
    /// The reader stands at the end of a partition: everything below `next_offset` was handed over. Told once for
    /// every time that the end is reached, for an empty partition too.
    End {
        /// The partition.
        partition: u32,
        /// The offset that the next record has at least.
        next_offset: u64,
    },
}

impl Polled<'_> {
    /// Which partition it is of.
    pub fn partition(&self) -> u32 {
        match self {
            Self::Records(records) => records[0].partition,
            Self::End { partition, .. } => *partition,
        }
    }
}

/// Reads the event log. One thread owns a reader.
///
/// Dropping it gives its partitions back: [`Assignment::revoked`] is called for those that are held.
pub trait Reader: Send {
    /// Waits at most `timeout` for the first record or end, then hands over what is at hand without waiting, up to
    /// `max` records. Returns how many records were handed over; none is no error, and ends are not counted.
    ///
    /// [`Assignment`] is never called after the first call of `each` within one poll, so a caller may take a lock
    /// there and hold it until the poll returns.
    ///
    /// # Errors
    /// [`ReadError`] says whether to go on or to stop.
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError>;

    /// Tells lag tools how far a partition is durably applied; advisory.
    fn commit(&mut self, partition: u32, next_offset: u64);
}

/// Follows partitions of one topic without a group: no other reader notices it, and nothing is committed. One thread owns
/// it.
pub trait Tail: Send {
    /// As [`Reader::poll`]. After [`ReadError::Stop`] it hands nothing over any more: the records that come next are gone,
    /// or the topic is another one.
    ///
    /// # Errors
    /// [`ReadError`] says whether to go on or to stop.
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError>;
}

/// Looks at single records of the partition that is being assigned, before any is handed over.
pub trait Peek {
    /// The record that stands at an offset; `None` where none does: it was trimmed, compacted away, or never there.
    ///
    /// # Errors
    /// Where the log cannot be read.
    fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError>;
}

/// Who is told of partitions that come and go. Called on the reader's thread, inside `poll` and inside its drop.
pub trait Assignment: Send + Sync {
    /// A partition is ours: opens its state and says at which offset to start. `log` shows whether it is the log that the
    /// state was folded from.
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

    /// Partitions are taken away: returns once their state is durable and released.
    fn revoked(&self, partitions: &[u32]);
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Passing; poll again.
    #[error("the log cannot be read just now: {0}")]
    Retry(String),
    /// Going on would lose or invent something.
    #[error("{0}")]
    Stop(String),
}

/// What is to be appended.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where to.
    pub topic: Topic,
    /// The partition; `None` lets the key decide, as every Java client does.
    pub partition: Option<u32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Unix milliseconds; `None` and 0 take the time of the append.
    pub timestamp_ms: Option<u64>,
}

impl Entry {
    /// An event, at the time of its append. A control event's copy names its partition, all others leave it to the key.
    pub fn event(key: impl Into<Bytes>, value: impl Into<Bytes>, partition: Option<u32>) -> Self {
        let (key, value) = (Some(key.into()), Some(value.into()));
        Entry { topic: Topic::Events, partition, key, value, headers: Vec::new(), timestamp_ms: None }
    }
}

/// Where an entry was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The partition.
    pub partition: u32,
    /// The entry's own offset; where a retry hid that from the writer, one that it does not exceed: the last of the
    /// partition once the entry was acknowledged. So whoever has read through it has read the entry, but the record
    /// that stands there may be a later one.
    pub offset: u64,
}

/// Why an append failed; the difference decides what a caller may say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Did not happen and will not.
    #[error("not written: {0}")]
    NotWritten(String),
    /// Did not happen and never will: the entry is larger than the log takes.
    #[error("not written: {0}")]
    TooLarge(String),
    /// May have happened, or may yet happen.
    #[error("may have been written: {0}")]
    Unknown(String),
}

/// The receiving end of one append. A sender that is gone (a closed channel) means the same as
/// [`AppendError::Unknown`].
pub type PendingAppend = tokio::sync::oneshot::Receiver<Result<Location, AppendError>>;

/// Appends to the log. Order is kept within a partition.
pub trait Writer: Send + Sync {
    /// Queues an entry; the receiver resolves once the log has acknowledged it durably, or failed to.
    /// Blocks for at most the delivery timeout where the queue is full.
    fn append(&self, entry: Entry) -> PendingAppend;

    /// Returns once everything queued has been acknowledged.
    ///
    /// # Errors
    /// Where something failed since the last flush, by whomever it was queued, or the time is over.
    fn flush(&self, timeout: Duration) -> Result<(), AppendError>;
}

/// A log: Kafka, or the embedded one.
#[async_trait]
pub trait Log: Send + Sync {
    /// Partitions of the event topic; never changes in place.
    fn partition_count(&self) -> u32;

    /// A reader of the event topic: as a member of `group`, told of its partitions through `assignment`.
    ///
    /// # Errors
    /// Where the log cannot be reached or is not configured as it must be.
    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError>;

    /// The writer; all callers share one.
    fn writer(&self) -> Arc<dyn Writer>;
}

/// Looks into any topic of a log without taking part in it: for streams of updates, operators' tools and tests. The calls
/// block.
pub trait Inspect: Log {
    /// The offsets at hand: from the first one kept to the one that the next record has at least.
    ///
    /// # Errors
    /// Where the log cannot be read or has no such partition.
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError>;

    /// Up to `max` records with an offset of at least `from`, in order; fewer only where the partition ends. A `from`
    /// below the first offset kept starts there.
    ///
    /// # Errors
    /// Where the log cannot be read or has no such partition.
    fn read(&self, topic: Topic, partition: u32, from: u64, max: usize) -> Result<Vec<OwnedRecord>, ReadError>;

    /// Hands over the records with an offset in `offsets`, in order and in slices of at most [`SLICE_RECORDS_MAX`], without
    /// copying them, until `each` breaks or the partition ends. A start below the first offset kept begins there. While none
    /// come, an empty slice now and then lets `each` break.
    ///
    /// # Errors
    /// Where the log cannot be read or has no such partition: what was handed over before stands.
    fn scan(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<(), ReadError>;

    /// The offset of the first record whose timestamp is at least `time_ms` (Unix milliseconds); the end of the
    /// partition where there is none.
    ///
    /// # Errors
    /// Where the log cannot be read or has no such partition.
    fn offset_at(&self, topic: Topic, partition: u32, time_ms: u64) -> Result<u64, ReadError>;

    /// Follows partitions of a topic, each from the offset named beside it on.
    ///
    /// # Errors
    /// Where the log cannot be read, or has no such partition. An offset that the log does not hold is told by the first
    /// poll at the latest.
    fn tail(&self, topic: Topic, starts: &[(u32, u64)]) -> Result<Box<dyn Tail>, ReadError>;
}
