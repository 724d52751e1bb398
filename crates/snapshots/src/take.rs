//! Takes a snapshot: into a local file first, so that a slow destination holds nothing up, then away.

use crate::names::{self, Found};
use crate::{Error, Snapshots, Watch};
use receipts_store::snapshot::{Header, Summary, Taking, hex};
use serde::Serialize;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant};

/// A snapshot that was taken.
#[derive(Debug, Clone, Serialize)]
pub struct Taken {
    /// Where it is.
    pub place: String,
    /// Of which partition.
    pub partition: u32,
    /// The state after all records below.
    pub next_offset: u64,
    /// The newest record timestamp in it, Unix milliseconds.
    pub newest_timestamp_ms: u64,
    /// Pages in it.
    pub pages: u64,
    /// Bytes of them before they were compressed.
    pub plain_bytes: u64,
    /// How long it is.
    pub bytes: u64,
    /// Digest of the state.
    pub digest: String,
    /// How long the image took, and the way to the destination.
    #[serde(skip)]
    pub took: (Duration, Duration),
}

impl Snapshots {
    /// Writes what was begun and sends it away. `spool` is a local directory for the time in between.
    ///
    /// # Errors
    /// Where store, disk or destination fail, or the watch stops it: then nothing of it counts.
    pub fn take(&self, taking: Taking, spool: &Path, watch: &dyn Watch) -> Result<Taken, Error> {
        fs::create_dir_all(spool).map_err(Error::io(format!("making the directory {}", spool.display())))?;
        let file = spool.join(format!("p{}.part", taking.header().partition));
        let taken = self.take_through(taking, &file, watch);
        match fs::remove_file(&file) {
            Err(error) if taken.is_ok() => Err(Error::io(format!("removing {}", file.display()))(error)),
            _ => taken,
        }
    }

    fn take_through(&self, taking: Taking, file: &Path, watch: &dyn Watch) -> Result<Taken, Error> {
        let begun = Instant::now();
        let header = taking.header().clone();
        let to = File::create(file).map_err(Error::io(format!("writing {}", file.display())))?;
        let mut stopped = false;
        let written = taking.write(BufWriter::with_capacity(1 << 20, to), |bytes| {
            watch.advanced(bytes);
            stopped = watch.is_stopped();
            if stopped { Err(receipts_store::Error::Snapshot { detail: "stopped".into() }) } else { Ok(()) }
        });
        if stopped {
            return Err(Error::Stopped);
        }
        let (to, summary, bytes) = written?;
        drop(to);
        let imaged = begun.elapsed();
        let Header { partition, next_offset, newest_timestamp_ms, .. } = header;
        let name = names::name(self.log(), partition, next_offset);
        self.destination.put_file(&name, file, &mut |_| {})?;
        let Summary { pages, plain_bytes, digest, .. } = summary;
        Ok(Taken {
            place: self.destination.place(&name),
            partition,
            next_offset,
            newest_timestamp_ms,
            pages,
            plain_bytes,
            bytes,
            digest: hex(&digest),
            took: (imaged, begun.elapsed() - imaged),
        })
    }

    /// Removes what a process that died left in a spool.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn clear(spool: &Path) -> Result<(), Error> {
        match fs::remove_dir_all(spool) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", spool.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// The newest one of a partition, as a listing shows it.
    ///
    /// # Errors
    /// Where the destination fails.
    pub fn newest_of(&self, partition: u32) -> Result<Option<Found>, Error> {
        Ok(self.list_of(partition)?.pop())
    }
}
