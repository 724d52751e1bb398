//! Snapshots of partitions at another location, for disaster recovery: takes, lists, restores and
//! prunes them. Decides which snapshot is usable. Knows neither the log nor the projector, and
//! never removes a file that it did not write.

mod audit;
mod error;
mod keep;
mod monitor;
mod names;
mod restore;
mod take;

pub use audit::{Audit, audit};
pub use error::Error;
pub use keep::Keep;
pub use monitor::{ProgressMonitor, StopOnly};
pub use names::SnapshotEntry;
pub use restore::{Requirements, RestoreReport};
pub use take::SnapshotReport;

use receipts_objects::Destination;
use receipts_store::snapshot::{Header, START_BYTES_MAX, Summary, TRAILER_BYTES};

/// The snapshots of one log at a destination. Cheap to clone. All calls block, so they must not run
/// on an async thread.
#[derive(Debug, Clone)]
pub struct Snapshots {
    destination: Destination,
    log: String,
}

impl Snapshots {
    /// Opens the snapshots of a log. `log` is its unique name, which is compared as a whole.
    pub fn new(destination: Destination, log: impl Into<String>) -> Self {
        Self { destination, log: log.into() }
    }

    /// Returns the location of the snapshots, for messages.
    pub fn location(&self) -> String {
        self.destination.to_string()
    }

    /// Returns the name of the log.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Returns the names of the logs that have snapshots at a destination, from their newest
    /// readable headers.
    ///
    /// # Errors
    /// If the destination fails.
    pub fn logs_at(destination: &Destination) -> Result<Vec<String>, Error> {
        let mut folders = std::collections::BTreeMap::new();
        for object in destination.list("")? {
            if let Some(folder) = names::folder_of_snapshot(&object.name) {
                folders.entry(folder.to_owned()).or_insert_with(Vec::new).push(object.name);
            }
        }
        let mut logs = Vec::new();
        for names in folders.into_values() {
            // Every header of a folder names the log. One that is damaged or cannot be read is
            // skipped.
            let mut failure = None;
            let header = names.iter().rev().find_map(|name| {
                let start = destination.read_start(name, START_BYTES_MAX as u64);
                Header::parse(&start.map_err(|error| failure = Some(error)).ok()?).ok()
            });
            match (header, failure) {
                (Some(header), _) => logs.push(header.log),
                // Otherwise a destination that cannot be read would look empty.
                (None, Some(error)) => return Err(error.into()),
                (None, None) => {}
            }
        }
        Ok(logs)
    }

    /// Lists all snapshots of this log, by partition and offset.
    ///
    /// # Errors
    /// If the destination fails.
    pub fn list(&self) -> Result<Vec<SnapshotEntry>, Error> {
        self.list_below(&names::folder(&self.log))
    }

    /// Lists the snapshots of one partition by offset: the newest is the last.
    ///
    /// # Errors
    /// If the destination fails.
    pub fn list_of(&self, partition: u32) -> Result<Vec<SnapshotEntry>, Error> {
        self.list_below(&names::folder_of(&self.log, partition))
    }

    fn list_below(&self, folder: &str) -> Result<Vec<SnapshotEntry>, Error> {
        let objects = self.destination.list(folder)?;
        let mut found: Vec<SnapshotEntry> = objects.into_iter().filter_map(names::found).collect();
        found.sort_by_key(|found| (found.partition, found.next_offset));
        Ok(found)
    }

    /// Reads the header and the trailer of a snapshot. Only [`Self::check`] proves that they are
    /// right.
    ///
    /// # Errors
    /// If the snapshot cannot be read, or its header or trailer is damaged.
    pub fn describe(&self, found: &SnapshotEntry) -> Result<(Header, Summary), Error> {
        let header = self.destination.read_start(&found.name, START_BYTES_MAX as u64)?;
        let header = Header::parse(&header).map_err(|e| self.unusable(found, &e))?;
        let end = self.destination.read_end(&found.name, found.bytes, TRAILER_BYTES as u64)?;
        let trailer = end.as_slice().try_into().map_err(|_| self.unusable(found, &"it is cut short"))?;
        let (summary, _) = Summary::parse(trailer).map_err(|e| self.unusable(found, &e))?;
        Ok((header, summary))
    }

    /// Returns the location of a snapshot, for messages.
    pub fn location_of(&self, found: &SnapshotEntry) -> String {
        self.destination.location(&found.name)
    }

    pub(crate) fn unusable(&self, found: &SnapshotEntry, why: &dyn std::fmt::Display) -> Error {
        Error::Unusable { location: self.location_of(found), why: why.to_string() }
    }
}
