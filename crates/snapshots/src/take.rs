//! Takes a snapshot: writes it to a local file first, so a slow destination blocks no checkpoint,
//! and then uploads it. Decides neither when nor of which partition.

use crate::names::{self, SnapshotEntry};
use crate::{Error, ProgressMonitor, Snapshots};
use receipts_store::snapshot::{Header, PendingSnapshot, Summary, hex};
use serde::Serialize;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant};

/// The report of a snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotReport {
    /// The location of the snapshot.
    #[serde(rename = "place")]
    pub location: String,
    /// The partition.
    pub partition: u32,
    /// The state holds all records below this offset.
    pub next_offset: u64,
    /// The newest record timestamp in the state, Unix milliseconds.
    pub newest_timestamp_ms: u64,
    /// The number of pages.
    pub pages: u64,
    /// The bytes of the pages before compression.
    pub plain_bytes: u64,
    /// The length, bytes.
    pub bytes: u64,
    /// The digest of the state, hexadecimal.
    pub digest: String,
    /// The durations of the read from the store and of the upload.
    #[serde(skip)]
    pub took: (Duration, Duration),
}

impl Snapshots {
    /// Writes a snapshot that has begun, and uploads it. `spool` is the local directory of the file
    /// in between.
    ///
    /// # Errors
    /// If the store, the disk or the destination fails, or the monitor stops it: then there is
    /// no snapshot.
    pub fn take(
        &self,
        taking: PendingSnapshot,
        spool: &Path,
        monitor: &dyn ProgressMonitor,
    ) -> Result<SnapshotReport, Error> {
        fs::create_dir_all(spool).map_err(Error::io(format!("creating the directory {}", spool.display())))?;
        let file = spool.join(format!("p{}.part", taking.header().partition));
        let taken = self.take_through(taking, &file, monitor);
        match fs::remove_file(&file) {
            Err(error) if taken.is_ok() => Err(Error::io(format!("removing {}", file.display()))(error)),
            _ => taken,
        }
    }

    fn take_through(
        &self,
        taking: PendingSnapshot,
        file: &Path,
        monitor: &dyn ProgressMonitor,
    ) -> Result<SnapshotReport, Error> {
        let begun = Instant::now();
        let header = taking.header().clone();
        let to = File::create(file).map_err(Error::io(format!("writing {}", file.display())))?;
        let mut stopped = false;
        let written = taking.write(BufWriter::with_capacity(1 << 20, to), |bytes| {
            monitor.advanced(bytes);
            stopped = monitor.is_stopped();
            if stopped { Err(receipts_store::Error::Snapshot { detail: "stopped".into() }) } else { Ok(()) }
        });
        if stopped {
            return Err(Error::Stopped);
        }
        let (to, summary, bytes) = written?;
        drop(to);
        let read = begun.elapsed();
        let Header { partition, next_offset, newest_timestamp_ms, .. } = header;
        let name = names::name(self.log(), partition, next_offset);
        self.destination.put_file(&name, file, &mut |_| {})?;
        let Summary { pages, plain_bytes, digest, .. } = summary;
        Ok(SnapshotReport {
            location: self.destination.location(&name),
            partition,
            next_offset,
            newest_timestamp_ms,
            pages,
            plain_bytes,
            bytes,
            digest: hex(&digest),
            took: (read, begun.elapsed() - read),
        })
    }

    /// Removes the files that a process left in a spool when it died.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn clear(spool: &Path) -> Result<(), Error> {
        match fs::remove_dir_all(spool) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", spool.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the newest snapshot of a partition in the listing.
    ///
    /// # Errors
    /// If the destination fails.
    pub fn newest_of(&self, partition: u32) -> Result<Option<SnapshotEntry>, Error> {
        Ok(self.list_of(partition)?.pop())
    }
}
