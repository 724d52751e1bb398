//! The redb file, or the same in memory: its tables, the bounds of each partition, and reads.
//!
//! It does not queue, batch or acknowledge appends (see `writer`), and it never returns a damaged
//! row.
//!
//! Tables: `meta` (name to number: `format`, `partitions`), `trimmed` (partition to first offset
//! and greatest timestamp, written by a trim), and one table per topic and partition (`events/3`),
//! offset to row.
//!
//! A file named `log.redb` is a complete log: a new log is created under another name and renamed
//! when it is durable.

use super::OpenError;
use super::row::Row;
use crate::PARTITIONS_DEFAULT;
use crate::port::{Ends, ReadError, Record, SLICE_RECORDS_MAX, Topic};
use parking_lot::{Condvar, Mutex};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::{Display, Path, PathBuf};
use std::time::Instant;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TRIMMED: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("trimmed");
const FORMAT: u64 = 1;
const NAME: &str = "log.redb";
/// The name of a log that is being created. A leftover file under this name holds no records.
const NAME_WHILE_MADE: &str = "log.redb.new";
/// The size of redb's page cache. Its default of 1 GiB is too much for a laptop.
const CACHE_BYTES: usize = 64 << 20;

/// Bytes that must be free on the disk per byte of a transaction's entries: redb rounds large rows
/// up to a power of two and rewrites the inner nodes above them.
const SPACE_FACTOR: u64 = 4;
/// Bytes that must stay free for other users of the disk.
const SPACE_SPARE_BYTES: u64 = 4 << 20;

/// The bounds of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    /// The first offset kept.
    pub(super) first: u64,
    /// The offset of the next record.
    pub(super) next: u64,
    /// The greatest timestamp, Unix milliseconds.
    pub(super) last_timestamp_ms: u64,
}

/// An open log file.
pub(super) struct File {
    /// The folder of the file; `None` for a log in memory.
    dir: Option<PathBuf>,
    database: Database,
    partitions: u32,
    /// The bounds by topic, then partition. Changed only after a durable commit.
    bounds: Mutex<[Vec<Bounds>; 3]>,
    /// Notified when a partition grows.
    grown: Condvar,
}

/// Returns the name of a partition's table of records.
fn table_name(topic: Topic, partition: u32) -> String {
    let topic = match topic {
        Topic::Events => "events",
        Topic::Updates => "updates",
        Topic::DeadLetters => "dead-letters",
    };
    format!("{topic}/{partition}")
}

fn rows(name: &str) -> TableDefinition<'_, u64, &'static [u8]> {
    TableDefinition::new(name)
}

impl File {
    /// Opens the file in `dir`, or creates it.
    pub(super) fn open(dir: &Path, asked: Option<NonZeroU32>) -> Result<Self, OpenError> {
        let storage = |cause: redb::Error| OpenError::Storage { dir: dir.into(), cause };
        let database = open_or_make(dir, asked).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => OpenError::InUse(dir.into()),
            other => storage(other),
        })?;
        let (format, held) = init(&database, asked).map_err(storage)?;
        if format != FORMAT {
            return Err(OpenError::Format { dir: dir.into(), held: format, known: FORMAT });
        }
        if let Some(asked) = asked.filter(|asked| asked.get() != held) {
            return Err(OpenError::PartitionCount { dir: dir.into(), held, asked: asked.get() });
        }
        let mut file = Self::of(Some(dir.into()), database, held);
        let bounds = file.load().map_err(|error| match error {
            LoadError::Storage(cause) => storage(cause),
            LoadError::Row(sentence) => storage(redb::Error::Corrupted(sentence)),
        })?;
        *file.bounds.get_mut() = bounds;
        Ok(file)
    }

    /// Creates an empty log in memory.
    pub(super) fn in_memory(partitions: NonZeroU32) -> Result<Self, OpenError> {
        let make = || -> Result<Self, redb::Error> {
            let database = builder().create_with_backend(InMemoryBackend::new())?;
            init(&database, Some(partitions))?;
            Ok(Self::of(None, database, partitions.get()))
        };
        make().map_err(|cause| OpenError::Storage { dir: "memory".into(), cause })
    }

    fn of(dir: Option<PathBuf>, database: Database, partitions: u32) -> Self {
        let bounds = || vec![Bounds::default(); partitions as usize];
        let bounds = Mutex::new(std::array::from_fn(|_| bounds()));
        File { dir, database, partitions, bounds, grown: Condvar::new() }
    }

    /// Returns the folder for people: a path, or `memory`.
    fn folder(&self) -> Display<'_> {
        self.dir.as_deref().unwrap_or(Path::new("memory")).display()
    }

    /// Reads the bounds of all partitions from the file.
    fn load(&self) -> Result<[Vec<Bounds>; 3], LoadError> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let trimmed = read.open_table(TRIMMED).map_err(redb::Error::from)?;
        let mut all = <[Vec<Bounds>; 3]>::default();
        for topic in Topic::ALL {
            for partition in 0..self.partitions {
                let name = table_name(topic, partition);
                let mut bounds = Bounds::default();
                if let Some(row) = trimmed.get(name.as_str()).map_err(redb::Error::from)? {
                    let (first, last_timestamp_ms) = row.value();
                    bounds = Bounds { first, next: first, last_timestamp_ms };
                }
                if let Some(table) = open_rows(&read, &name)?
                    && let Some((offset, row)) = table.last().map_err(redb::Error::from)?
                {
                    bounds.next = offset.value() + 1;
                    let row = Row::decode(row.value())
                        .map_err(|error| LoadError::Row(format!("{name} at {}: {error}", offset.value())))?;
                    bounds.last_timestamp_ms = bounds.last_timestamp_ms.max(row.timestamp_ms);
                }
                all[topic.index()].push(bounds);
            }
        }
        Ok(all)
    }

    pub(super) fn partition_count(&self) -> u32 {
        self.partitions
    }

    /// Checks that the disk has space for a transaction of `bytes` bytes.
    ///
    /// A full disk must be noticed before a write: after a failed write redb refuses to work until
    /// it is opened again, and after a failed sync the content of the disk is unknown.
    ///
    /// # Errors
    /// A sentence that says how many bytes are missing.
    pub(super) fn check_space(&self, bytes: usize) -> Result<(), String> {
        let Some(dir) = &self.dir else { return Ok(()) };
        // If the system does not report the free space, the write goes ahead.
        let Ok(disk) = rustix::fs::statvfs(dir) else { return Ok(()) };
        let (free, needed) =
            (disk.f_bavail.saturating_mul(disk.f_frsize), SPACE_SPARE_BYTES + SPACE_FACTOR * bytes as u64);
        if free >= needed {
            return Ok(());
        }
        Err(format!(
            "No space left: the disk of the log in {} has {free} bytes free, but an append needs {needed}; free some space, \
             and the log takes events again by itself",
            dir.display()
        ))
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Returns the error of a failed read. It stops the reader, because no other copy of the log
    /// exists.
    fn broken(&self, error: impl Into<redb::Error>) -> ReadError {
        ReadError::Stop(format!(
            "the log in {} cannot be read ({}): check the disk and restore the file from a copy",
            self.folder(),
            error.into()
        ))
    }

    fn bounds_of(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError> {
        self.bounds.lock()[topic.index()].get(partition as usize).copied().ok_or_else(|| {
            ReadError::Stop(format!(
                "the log in {} has {} partitions, but partition {partition} was requested",
                self.folder(),
                self.partitions
            ))
        })
    }

    pub(super) fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError> {
        self.bounds_of(topic, partition).map(|bounds| bounds.first..bounds.next)
    }

    /// Waits until `ready` returns true for the partitions of a topic, or until the deadline.
    /// Returns the last result of `ready`.
    pub(super) fn wait_for(&self, topic: Topic, deadline: Instant, ready: impl Fn(&[Bounds]) -> bool) -> bool {
        let mut bounds = self.bounds.lock();
        while !ready(&bounds[topic.index()]) {
            if self.grown.wait_until(&mut bounds, deadline).timed_out() {
                return ready(&bounds[topic.index()]);
            }
        }
        true
    }

    /// Returns the bounds of a partition that exists, for the writer.
    pub(super) fn bounds_for_append(&self, topic: Topic, partition: u32) -> Bounds {
        self.bounds.lock()[topic.index()][partition as usize]
    }

    /// Makes a durable commit visible to readers.
    pub(super) fn grow(&self, ends: &[(Topic, u32, Bounds)]) {
        let mut bounds = self.bounds.lock();
        for (topic, partition, end) in ends {
            let partition = &mut bounds[topic.index()][*partition as usize];
            (partition.next, partition.last_timestamp_ms) = (end.next, end.last_timestamp_ms);
        }
        drop(bounds);
        self.grown.notify_all();
    }

    /// Returns a consistent view of all durable records.
    pub(super) fn snapshot(&self) -> Result<Snapshot<'_>, ReadError> {
        let read = self.database.begin_read().map_err(|error| self.broken(error))?;
        Ok(Snapshot { file: self, read })
    }

    /// See [`EmbeddedLog::trim`](super::EmbeddedLog::trim).
    pub(super) fn trim(&self, topic: Topic, partition: u32, before: u64) -> Result<(), ReadError> {
        self.bounds_of(topic, partition)?;
        let name = table_name(topic, partition);
        let write = self.database.begin_write().map_err(|error| self.broken(error))?;
        // No append commits while this write is open, so the end stays the same.
        let bounds = self.bounds_of(topic, partition)?;
        let first = before.clamp(bounds.first, bounds.next);
        let change = || -> Result<(), redb::Error> {
            write.open_table(rows(&name))?.retain_in(..first, |_, _| false)?;
            write.open_table(TRIMMED)?.insert(name.as_str(), (first, bounds.last_timestamp_ms))?;
            Ok(())
        };
        change().map_err(|error| self.broken(error))?;
        write.commit().map_err(|error| self.broken(error))?;
        self.bounds.lock()[topic.index()][partition as usize].first = first;
        Ok(())
    }

    /// See [`Inspect::offset_at`](crate::Inspect::offset_at). A binary search: timestamps never
    /// fall.
    pub(super) fn offset_at(&self, topic: Topic, partition: u32, time_ms: u64) -> Result<u64, ReadError> {
        let Range { start: mut low, end: mut high } = self.bounds(topic, partition)?;
        let snapshot = self.snapshot()?;
        while low < high {
            let middle = low + (high - low) / 2;
            let mut earlier = false;
            snapshot.each(topic, partition, middle..high, 1, &mut |records| {
                earlier = records.iter().any(|record| record.timestamp_ms < time_ms);
            })?;
            if earlier { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}

impl Ends for File {
    /// From memory: a commit is visible here before it is acknowledged.
    fn ends(&self, partitions: &[u32]) -> Result<Vec<u64>, ReadError> {
        partitions.iter().map(|partition| Ok(self.bounds(Topic::Events, *partition)?.end)).collect()
    }
}

/// A consistent view of the file.
pub(super) struct Snapshot<'a> {
    file: &'a File,
    read: ReadTransaction,
}

impl Snapshot<'_> {
    /// Passes the records of a range of offsets to `each`, in order and in slices, up to `max`
    /// records. Returns the number of records.
    pub(super) fn each(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        max: usize,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<usize, ReadError> {
        let name = table_name(topic, partition);
        let Some(table) = open_rows(&self.read, &name).map_err(|error| self.file.broken(error))? else { return Ok(0) };
        if offsets.is_empty() {
            return Ok(0);
        }
        let mut count = 0;
        let mut entries = table.range(offsets).map_err(|error| self.file.broken(error))?.take(max);
        loop {
            let (mut slice, mut rows, mut failed) = (Vec::with_capacity(SLICE_RECORDS_MAX.min(max)), Vec::new(), None);
            for entry in entries.by_ref().take(SLICE_RECORDS_MAX) {
                match entry {
                    Ok((offset, row)) => slice.push((offset.value(), row)),
                    Err(error) => {
                        failed = Some(self.file.broken(error));
                        break;
                    }
                }
            }
            for (offset, row) in &slice {
                match Row::decode(row.value()) {
                    Ok(row) => rows.push((*offset, row)),
                    Err(error) => {
                        let sentence = format!("{name} at {offset}: {error}");
                        failed = Some(self.file.broken(redb::Error::Corrupted(sentence)));
                        break;
                    }
                }
            }
            // Records before a damaged row are passed on.
            if !rows.is_empty() {
                let records: Vec<_> = rows.iter().map(|(offset, row)| row.record(partition, *offset)).collect();
                each(&records);
                count += records.len();
            }
            match failed {
                Some(error) => return Err(error),
                None if rows.len() < SLICE_RECORDS_MAX => return Ok(count),
                None => {}
            }
        }
    }
}

enum LoadError {
    Storage(redb::Error),
    Row(String),
}

impl From<redb::Error> for LoadError {
    fn from(error: redb::Error) -> Self {
        LoadError::Storage(error)
    }
}

/// Opens the table of a partition; `None` if no record was ever written to it.
fn open_rows(
    read: &ReadTransaction,
    name: &str,
) -> Result<Option<redb::ReadOnlyTable<u64, &'static [u8]>>, redb::Error> {
    match read.open_table(rows(name)) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// See [`EmbeddedLog::is_in`](super::EmbeddedLog::is_in).
pub(super) fn is_in(dir: &Path) -> bool {
    dir.join(NAME).try_exists().unwrap_or(true)
}

/// Opens the file in `dir`, or creates it. After a kill or a power cut at any moment there is a
/// complete log or none.
fn open_or_make(dir: &Path, asked: Option<NonZeroU32>) -> Result<Database, redb::Error> {
    let (path, while_made) = (dir.join(NAME), dir.join(NAME_WHILE_MADE));
    fs::create_dir_all(dir).map_err(redb::Error::Io)?;
    // The lock lets one process at a time create a log here, so a file under the other name is a
    // leftover. The lock ends with the process.
    let making = fs::File::open(dir).map_err(redb::Error::Io)?;
    making.lock().map_err(redb::Error::Io)?;
    match fs::remove_file(&while_made) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(redb::Error::Io(error)),
        _ => {}
    }
    let builder = builder();
    if path.try_exists().map_err(redb::Error::Io)? {
        drop(making);
        return Ok(builder.open(&path)?);
    }
    let database = builder.create(&while_made)?;
    init(&database, asked)?;
    let named = || {
        fs::File::open(&while_made)?.sync_all()?;
        fs::rename(&while_made, &path)?;
        // A rename is durable once its directory is synced.
        making.sync_all()
    };
    named().map_err(redb::Error::Io)?;
    Ok(database)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Reads the format and the partition count, and writes them if the file is new.
fn init(database: &Database, asked: Option<NonZeroU32>) -> Result<(u64, u32), redb::Error> {
    let write = database.begin_write()?;
    let (format, partitions);
    {
        let mut meta = write.open_table(META)?;
        write.open_table(TRIMMED)?;
        let held = meta.get("partitions")?.map(|count| count.value());
        if held.is_none() {
            meta.insert("format", FORMAT)?;
            meta.insert("partitions", u64::from(asked.map_or(PARTITIONS_DEFAULT, NonZeroU32::get)))?;
        }
        format = meta.get("format")?.map_or(0, |format| format.value());
        partitions = meta.get("partitions")?.map_or(0, |count| count.value());
    }
    write.commit()?;
    let partitions = u32::try_from(partitions)
        .map_err(|_| redb::Error::Corrupted(format!("the partition count is {partitions}")))?;
    Ok((format, partitions))
}

/// Runs `body` on the table of a partition within a write transaction, for the writer.
pub(super) fn with_rows<T>(
    write: &redb::WriteTransaction,
    topic: Topic,
    partition: u32,
    body: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    body(&mut write.open_table(rows(&table_name(topic, partition)))?)
}
