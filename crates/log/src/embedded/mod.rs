//! The embedded log: all three topics in one redb file, or in memory, for one process.
//!
//! It is for a laptop, a demo, tests and simulations; production uses Kafka. It has no consumer
//! groups: each reader gets all partitions. It keeps all records until [`EmbeddedLog::trim`] is
//! called, with no retention by time or size. It syncs to the disk before it acknowledges.
//!
//! Offsets are contiguous here, but callers must not rely on that, because Kafka's are not.

mod file;
mod reader;
mod row;
mod writer;

use crate::port::{
    Assignment, Ends, Inspect, Log, OwnedRecord, ReadError, Reader, Record, Tail, Topic, Writer, tag_of,
};
use async_trait::async_trait;
use file::File;
use std::num::NonZeroU32;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use writer::EmbeddedWriter;

/// The maximum size of an entry: key, value and headers together. Our Kafka topics have the same
/// limit.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Records that a scan reads per redb transaction.
const SCAN_RECORDS: usize = 4_096;

/// Why the embedded log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the log in {0} is in use by another process: stop it or choose another --data-dir")]
    InUse(PathBuf),
    /// It was created with another number of partitions, which never changes.
    #[error(
        "the log in {dir} was created with {held} partitions and cannot be changed to {asked}: configure {held} or no \
         number, or choose another --data-dir"
    )]
    PartitionCount {
        /// The folder of the log.
        dir: PathBuf,
        /// The number of partitions that it has.
        held: u32,
        /// The configured number.
        asked: u32,
    },
    /// A newer program wrote it.
    #[error("the log in {dir} has format {held}, but this program reads {known}: use a newer program")]
    Format {
        /// The folder of the log.
        dir: PathBuf,
        /// Its format.
        held: u64,
        /// The format of this program.
        known: u64,
    },
    /// The disk or the file failed.
    #[error("the log in {dir} cannot be opened ({cause}): check the disk, its free space and its permissions")]
    Storage {
        /// The folder of the log.
        dir: PathBuf,
        /// The error of redb.
        cause: redb::Error,
    },
}

/// A log in one file, for one process.
///
/// ```
/// use receipts_log::{Entry, Inspect, Log, Topic, Writer, embedded::EmbeddedLog};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dir = tempfile::tempdir()?;
/// let log = EmbeddedLog::open(dir.path(), None)?;
/// let entry = Entry {
///     topic: Topic::Events,
///     partition: Some(0),
///     key: Some("default/g1".into()),
///     value: Some("{}".into()),
///     headers: vec![],
///     timestamp_ms: None,
/// };
/// let written = log.writer().append(entry).blocking_recv()??;
/// assert_eq!(log.read(Topic::Events, 0, written.offset, 1)?.len(), 1);
/// # Ok(())
/// # }
/// ```
pub struct EmbeddedLog {
    file: Arc<File>,
    tag: Option<u32>,
    writer: Arc<EmbeddedWriter>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or creates it with `partitions` ([`PARTITIONS_DEFAULT`] for `None`).
    ///
    /// [`PARTITIONS_DEFAULT`]: crate::PARTITIONS_DEFAULT
    /// An existing log keeps its number of partitions.
    ///
    /// If an earlier process was killed, this reads the whole file once to repair it.
    ///
    /// # Errors
    /// [`OpenError`] says what to do.
    pub fn open(dir: &Path, partitions: Option<NonZeroU32>) -> Result<Self, OpenError> {
        let file = Arc::new(File::open(dir, partitions)?);
        // The caller's file with the id of the log; a log without one has no identity.
        let tag = std::fs::read_to_string(dir.join("id")).ok().map(|id| tag_of(id.trim()));
        let writer = Arc::new(EmbeddedWriter::start(file.clone()));
        Ok(EmbeddedLog { file, tag, writer })
    }

    /// Creates an empty log in memory, which ends with the process and writes no file. `id`
    /// distinguishes it from other logs.
    ///
    /// # Errors
    /// If redb cannot create it.
    pub fn in_memory(partitions: NonZeroU32, id: &str) -> Result<Self, OpenError> {
        let file = Arc::new(File::in_memory(partitions)?);
        let writer = Arc::new(EmbeddedWriter::start(file.clone()));
        Ok(EmbeddedLog { file, tag: Some(tag_of(id)), writer })
    }

    /// Returns true if `dir` holds a log, for callers that must not create one. Also returns true
    /// if the folder cannot be read; then [`EmbeddedLog::open`] reports the cause.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        file::is_in(dir)
    }

    /// Removes the records of a partition below `before`, or all of them if the partition ends
    /// earlier.
    ///
    /// # Errors
    /// If the file cannot be written or has no such partition.
    pub fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), ReadError> {
        self.file.trim(topic, partition, before)
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    fn partition_count(&self) -> u32 {
        self.file.partition_count()
    }

    /// Returns a reader of all partitions for any group, because this process is the only reader.
    fn reader(&self, _group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(reader::EmbeddedReader::new(self.file.clone(), assignment)))
    }

    fn writer(&self) -> Arc<dyn Writer> {
        self.writer.clone()
    }

    fn tag(&self, _: Topic) -> Option<u32> {
        self.tag
    }

    fn ends(&self) -> Option<Arc<dyn Ends>> {
        Some(self.file.clone())
    }
}

impl Inspect for EmbeddedLog {
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError> {
        self.file.bounds(topic, partition)
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, max: usize) -> Result<Vec<OwnedRecord>, ReadError> {
        let bounds = self.file.bounds(topic, partition)?;
        let mut records = Vec::new();
        self.file.snapshot()?.each(topic, partition, from..bounds.end, max, &mut |slice| {
            records.extend(slice.iter().map(OwnedRecord::from));
        })?;
        Ok(records)
    }

    fn scan(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let bounds = self.file.bounds(topic, partition)?;
        let mut offsets = offsets.start.max(bounds.start)..offsets.end.min(bounds.end);
        let mut flow = ControlFlow::Continue(());
        // A transaction per range, because an open redb transaction keeps old pages of the file.
        while !offsets.is_empty() && flow.is_continue() {
            let count = self.file.snapshot()?.each(topic, partition, offsets.clone(), SCAN_RECORDS, &mut |slice| {
                offsets.start = slice.last().map_or(offsets.start, |record| record.offset + 1);
                if flow.is_continue() {
                    flow = each(slice);
                }
            })?;
            if count == 0 {
                break;
            }
        }
        Ok(())
    }

    fn offset_at(&self, topic: Topic, partition: u32, time_ms: u64) -> Result<u64, ReadError> {
        self.file.offset_at(topic, partition, time_ms)
    }

    fn tail(&self, topic: Topic, starts: &[(u32, u64)]) -> Result<Box<dyn Tail>, ReadError> {
        let mut tail = reader::EmbeddedTail::new(self.file.clone(), topic);
        for &(partition, start) in starts {
            tail.add(partition, start)?;
        }
        Ok(Box::new(tail))
    }
}

impl Drop for EmbeddedLog {
    /// Waits for queued appends. A writer or reader that still exists keeps the file open.
    fn drop(&mut self) {
        if let Err(error) = self.writer.flush(Duration::from_secs(30)) {
            tracing::warn!(%error, "the embedded log closes after a failed append");
        }
    }
}
