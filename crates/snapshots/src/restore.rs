//! Restores the newest snapshot that is usable into a store. One that is not is named, and the next older one is tried.

use crate::names::Found;
use crate::{Error, Snapshots, Watch};
use receipts_fold::Limits;
use receipts_objects::Download;
use receipts_store::SledStore;
use receipts_store::snapshot::{Header, Reader, Summary};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Which states are wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which partition.
    pub partition: u32,
    /// Of how many; `None` where that is not known.
    pub partition_count: Option<u32>,
    /// The settings that it must have been folded with; `None` takes those of the snapshot.
    pub limits: Option<Limits>,
    /// The offsets at which the log can be read on.
    pub next_offset: RangeInclusive<u64>,
}

/// A snapshot that was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Which one.
    pub found: Found,
    /// Where it was.
    pub place: String,
    /// What it says of itself.
    pub header: Header,
    /// What it held.
    pub summary: Summary,
    /// How long that took.
    pub took: Duration,
}

impl Wanted {
    /// Why a snapshot is none of these states.
    fn refuse(&self, log: &str, header: &Header) -> Option<String> {
        let Self { partition, partition_count, limits, next_offset } = self;
        let count = partition_count.unwrap_or(header.partition_count);
        if header.log != log {
            return Some(format!("it is of the log {}, and not of {log}", header.log));
        }
        if (header.partition, header.partition_count) != (*partition, count) {
            let (of, among) = (header.partition, header.partition_count);
            return Some(format!("it is of partition {of} of {among}, and not of {partition} of {count}"));
        }
        if let Some(limits) = limits.filter(|limits| *limits != header.limits) {
            return Some(format!("it was folded with {:?}, and the settings are {limits:?} now", header.limits));
        }
        if !next_offset.contains(&header.next_offset) {
            let (first, end) = (next_offset.start(), next_offset.end());
            let at = header.next_offset;
            return Some(format!("it is at offset {at}, and the log can be read on from {first} to {end} only"));
        }
        None
    }
}

impl Snapshots {
    /// Restores the newest usable snapshot of a partition in the place of whatever the store holds of it. `None` where there
    /// is none: then the partition is as it was, or, where one broke off on the way, it is known as damaged.
    ///
    /// # Errors
    /// Where the store or the destination fail, or the watch stops it.
    pub fn restore_newest(
        &self,
        store: &SledStore,
        wanted: &Wanted,
        watch: &dyn Watch,
    ) -> Result<Option<Restored>, Error> {
        for found in self.list_of(wanted.partition)?.into_iter().rev() {
            match self.restore(&found, store, wanted, watch) {
                Ok(restored) => return Ok(Some(restored)),
                Err(error @ Error::Unusable { .. }) => {
                    tracing::warn!(partition = wanted.partition, %error, "trying the snapshot before");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Restores one snapshot.
    ///
    /// # Errors
    /// [`Error::Unusable`] where it is damaged or another state than is wanted; else as [`Self::restore_newest`].
    pub fn restore(
        &self,
        found: &Found,
        store: &SledStore,
        wanted: &Wanted,
        watch: &dyn Watch,
    ) -> Result<Restored, Error> {
        let begun = Instant::now();
        let mut failure = None;
        let reader = match self.open(found, watch, &mut failure) {
            Ok(reader) => reader,
            Err(error) => return Err(self.cause(found, error, failure)),
        };
        let header = reader.header().clone();
        if header.next_offset != found.next_offset {
            let why = format!("it is at offset {}, and its name says {}", header.next_offset, found.next_offset);
            return Err(self.unusable(found, &why));
        }
        if let Some(why) = wanted.refuse(self.log(), &header) {
            return Err(self.unusable(found, &why));
        }
        let filled = store.refill(wanted.partition, header.next_offset, |page| reader.read(page));
        let summary = filled.map_err(|error| self.cause(found, error, failure))?;
        let place = self.place_of(found);
        Ok(Restored { found: found.clone(), place, header, summary, took: begun.elapsed() })
    }

    /// Reads a snapshot whole, checks all of it, and keeps none of it.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn check(&self, found: &Found, watch: &dyn Watch) -> Result<(Header, Summary), Error> {
        let mut failure = None;
        let checked = self.open(found, watch, &mut failure).and_then(|reader| {
            let header = reader.header().clone();
            reader.read(|_, _| Ok(())).map(|summary| (header, summary))
        });
        checked.map_err(|error| self.cause(found, error, failure))
    }

    fn open<'w>(
        &self,
        found: &Found,
        watch: &'w dyn Watch,
        failure: &'w mut Option<Error>,
    ) -> Result<Reader<Watched<'w>>, receipts_store::Error> {
        match self.destination.read(&found.name) {
            Ok(download) => Reader::new(Watched { download, watch, failure }),
            Err(error) => {
                *failure = Some(error.into());
                Err(receipts_store::Error::Snapshot { detail: String::new() })
            }
        }
    }

    /// Tells a snapshot that is not usable from a destination or a store that failed.
    fn cause(&self, found: &Found, error: receipts_store::Error, failure: Option<Error>) -> Error {
        use receipts_store::Error as E;
        match (failure, error) {
            // Gone since it was listed, as by retention.
            (Some(Error::Destination(e @ receipts_objects::Error::Missing { .. })), _) => self.unusable(found, &e),
            (Some(failure), _) => failure,
            (None, E::Snapshot { detail }) => self.unusable(found, &detail),
            (None, e @ E::NewerFormat { .. }) => self.unusable(found, &e),
            (None, e) => e.into(),
        }
    }
}

/// A download that tells how far it is, stops when asked to, and remembers why it failed.
struct Watched<'w> {
    download: Download,
    watch: &'w dyn Watch,
    failure: &'w mut Option<Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.watch.is_stopped() {
            *self.failure = Some(Error::Stopped);
            return Err(io::Error::other("stopped"));
        }
        match self.download.read(into) {
            Ok(bytes) => {
                self.watch.advanced(bytes as u64);
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
