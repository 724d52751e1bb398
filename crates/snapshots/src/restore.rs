//! Restores the newest usable snapshot into a store (INV-RESTORE). Logs an unusable one and tries
//! the next older one. Opens no partition.

use crate::names::SnapshotEntry;
use crate::{Error, ProgressMonitor, Snapshots};
use receipts_fold::Limits;
use receipts_objects::Download;
use receipts_store::SledStore;
use receipts_store::snapshot::{Header, Reader, Summary};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The requirements that a snapshot must meet to be restored.
#[derive(Debug, Clone)]
pub struct Requirements {
    /// The partition.
    pub partition: u32,
    /// The partition count; `None` if it is unknown.
    pub partition_count: Option<u32>,
    /// The settings of the fold; `None` takes those of the snapshot.
    pub limits: Option<Limits>,
    /// The offsets from which the log can be read.
    pub next_offset: RangeInclusive<u64>,
}

/// The report of a restore.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The restored snapshot.
    pub found: SnapshotEntry,
    /// The location of the snapshot.
    pub location: String,
    /// The header of the snapshot.
    pub header: Header,
    /// The contents of the snapshot.
    pub summary: Summary,
    /// The duration of the restore.
    pub took: Duration,
}

impl Requirements {
    /// Returns why a snapshot does not meet the requirements; `None` if it does.
    fn refuse(&self, log: &str, header: &Header) -> Option<String> {
        let Self { partition, partition_count, limits, next_offset } = self;
        let count = partition_count.unwrap_or(header.partition_count);
        if header.log != log {
            return Some(format!("it is of the log {}, not of {log}", header.log));
        }
        if (header.partition, header.partition_count) != (*partition, count) {
            let (of, among) = (header.partition, header.partition_count);
            return Some(format!("it is of partition {of} of {among}, not of partition {partition} of {count}"));
        }
        if let Some(limits) = limits.filter(|limits| *limits != header.limits) {
            return Some(format!("it was folded with {:?}, but the settings are {limits:?}", header.limits));
        }
        if !next_offset.contains(&header.next_offset) {
            let (first, end) = (next_offset.start(), next_offset.end());
            let at = header.next_offset;
            return Some(format!("it is at offset {at}, but the log can be read on from {first} to {end} only"));
        }
        None
    }
}

impl Snapshots {
    /// Replaces a partition by its newest usable snapshot. Returns `None` if none is usable. Then
    /// the partition is as it was, or, if a snapshot failed halfway, it refuses to open as damaged.
    ///
    /// # Errors
    /// If the store or the destination fails, or the monitor stops the restore.
    pub fn restore_newest(
        &self,
        store: &SledStore,
        wanted: &Requirements,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Option<RestoreReport>, Error> {
        for found in self.list_of(wanted.partition)?.into_iter().rev() {
            match self.restore(&found, store, wanted, monitor) {
                Ok(restored) => return Ok(Some(restored)),
                Err(error @ Error::Unusable { .. }) => {
                    tracing::warn!(partition = wanted.partition, %error, "trying the next older snapshot");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Restores one snapshot.
    ///
    /// # Errors
    /// [`Error::Unusable`] where the snapshot is damaged or does not meet the requirements; others
    /// as [`Self::restore_newest`].
    pub fn restore(
        &self,
        found: &SnapshotEntry,
        store: &SledStore,
        wanted: &Requirements,
        monitor: &dyn ProgressMonitor,
    ) -> Result<RestoreReport, Error> {
        let begun = Instant::now();
        let mut failure = None;
        let reader = match self.open(found, monitor, &mut failure) {
            Ok(reader) => reader,
            Err(error) => return Err(self.cause(found, error, failure)),
        };
        let header = reader.header().clone();
        if header.next_offset != found.next_offset {
            let why = format!("it is at offset {}, but its name says {}", header.next_offset, found.next_offset);
            return Err(self.unusable(found, &why));
        }
        if let Some(why) = wanted.refuse(self.log(), &header) {
            return Err(self.unusable(found, &why));
        }
        let filled = store.refill(wanted.partition, header.next_offset, |page| reader.read(page));
        let summary = filled.map_err(|error| self.cause(found, error, failure))?;
        let location = self.location_of(found);
        Ok(RestoreReport { found: found.clone(), location, header, summary, took: begun.elapsed() })
    }

    /// Reads and checks a whole snapshot, and stores nothing.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn check(&self, found: &SnapshotEntry, monitor: &dyn ProgressMonitor) -> Result<(Header, Summary), Error> {
        let mut failure = None;
        let checked = self.open(found, monitor, &mut failure).and_then(|reader| {
            let header = reader.header().clone();
            reader.read(|_, _| Ok(())).map(|summary| (header, summary))
        });
        checked.map_err(|error| self.cause(found, error, failure))
    }

    fn open<'w>(
        &self,
        found: &SnapshotEntry,
        monitor: &'w dyn ProgressMonitor,
        failure: &'w mut Option<Error>,
    ) -> Result<Reader<MonitoredDownload<'w>>, receipts_store::Error> {
        match self.destination.read(&found.name) {
            Ok(download) => Reader::new(MonitoredDownload { download, monitor, failure }),
            Err(error) => {
                *failure = Some(error.into());
                Err(receipts_store::Error::Snapshot { detail: String::new() })
            }
        }
    }

    /// Returns the cause of a failed read: an unusable snapshot, or a destination or store that
    /// failed.
    fn cause(&self, found: &SnapshotEntry, error: receipts_store::Error, failure: Option<Error>) -> Error {
        use receipts_store::Error as E;
        match (failure, error) {
            // Removed after the listing, for example by retention.
            (Some(Error::Destination(e @ receipts_objects::Error::Missing { .. })), _) => self.unusable(found, &e),
            (Some(failure), _) => failure,
            (None, E::Snapshot { detail }) => self.unusable(found, &detail),
            (None, e @ (E::NewerFormat { .. } | E::OlderFormat { .. })) => self.unusable(found, &e),
            (None, e) => e.into(),
        }
    }
}

/// A download that reports its progress, can be stopped, and remembers why it failed.
struct MonitoredDownload<'w> {
    download: Download,
    monitor: &'w dyn ProgressMonitor,
    failure: &'w mut Option<Error>,
}

impl Read for MonitoredDownload<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.monitor.is_stopped() {
            *self.failure = Some(Error::Stopped);
            return Err(io::Error::other("stopped"));
        }
        match self.download.read(into) {
            Ok(bytes) => {
                self.monitor.advanced(bytes as u64);
                Ok(bytes)
            }
            Err(error) => {
                let detail = error.to_string();
                let doing = "reading a snapshot".to_owned();
                *self.failure = Some(match error.downcast::<receipts_objects::Error>() {
                    Ok(error) => error.into(),
                    Err(source) => Error::Io { doing, source },
                });
                Err(io::Error::other(detail))
            }
        }
    }
}
