//! States of partitions kept elsewhere for a bad day: taken, found again, restored, cleared away. Decides which snapshot is
//! usable; knows neither the log nor the loop, and never removes what it did not write.

mod audit;
mod error;
mod keep;
mod names;
mod restore;
mod take;

pub use audit::{Audit, audit};
pub use error::Error;
pub use keep::Keep;
pub use names::Found;
pub use restore::{Restored, Wanted};
pub use take::Taken;

use receipts_objects::Destination;
use receipts_store::snapshot::{Header, START_BYTES_MAX, Summary, TRAILER_BYTES};

/// Who waits for something long: told how far it is, asked whether to go on.
pub trait Watch {
    /// So many more bytes are through.
    fn advanced(&self, bytes: u64);

    /// Whether to stop at the next opportunity.
    fn is_stopped(&self) -> bool;
}

/// Nobody waits.
impl Watch for () {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        false
    }
}

/// The snapshots of one log at a destination. Cheap to clone. All calls block, and must come from a thread of their own.
#[derive(Debug, Clone)]
pub struct Snapshots {
    destination: Destination,
    log: String,
}

impl Snapshots {
    /// The snapshots of the log of that name: a text that tells it from every other one, and is compared as a whole.
    pub fn new(destination: Destination, log: impl Into<String>) -> Self {
        Self { destination, log: log.into() }
    }

    /// Where they are, for people.
    pub fn place(&self) -> String {
        self.destination.to_string()
    }

    /// The log whose they are.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The logs of which there are snapshots at a destination, by the name that their newest one gives.
    ///
    /// # Errors
    /// Where the destination fails.
    pub fn logs_at(destination: &Destination) -> Result<Vec<String>, Error> {
        let mut folders = std::collections::BTreeMap::new();
        for object in destination.list("")? {
            if let Some(folder) = names::folder_of_snapshot(&object.name) {
                folders.entry(folder.to_owned()).or_insert_with(Vec::new).push(object.name);
            }
        }
        let mut logs = Vec::new();
        for names in folders.into_values() {
            // Any header will do, and a damaged one says nothing.
            let header = names.iter().rev().find_map(|name| {
                let start = destination.read_start(name, START_BYTES_MAX as u64).ok()?;
                Header::parse(&start).ok()
            });
            logs.extend(header.map(|header| header.log));
        }
        Ok(logs)
    }

    /// All snapshots of this log, by partition and offset.
    ///
    /// # Errors
    /// Where the destination fails.
    pub fn list(&self) -> Result<Vec<Found>, Error> {
        self.list_below(&names::folder(&self.log))
    }

    /// Those of one partition, by offset: the newest is the last.
    ///
    /// # Errors
    /// Where the destination fails.
    pub fn list_of(&self, partition: u32) -> Result<Vec<Found>, Error> {
        self.list_below(&names::folder_of(&self.log, partition))
    }

    fn list_below(&self, folder: &str) -> Result<Vec<Found>, Error> {
        let objects = self.destination.list(folder)?;
        let mut found: Vec<Found> = objects.into_iter().filter_map(names::found).collect();
        found.sort_by_key(|found| (found.partition, found.next_offset));
        Ok(found)
    }

    /// What a snapshot says of itself at its beginning and at its end; whether it is true only all of it tells.
    ///
    /// # Errors
    /// Where it cannot be read, or does not begin and end as a whole one does.
    pub fn describe(&self, found: &Found) -> Result<(Header, Summary), Error> {
        let header = self.destination.read_start(&found.name, START_BYTES_MAX as u64)?;
        let header = Header::parse(&header).map_err(|e| self.unusable(found, &e))?;
        let end = self.destination.read_end(&found.name, TRAILER_BYTES as u64)?;
        let trailer = end.as_slice().try_into().map_err(|_| self.unusable(found, &"it breaks off"))?;
        let (summary, _) = Summary::parse(trailer).map_err(|e| self.unusable(found, &e))?;
        Ok((header, summary))
    }

    /// The address of a snapshot, for people.
    pub fn place_of(&self, found: &Found) -> String {
        self.destination.place(&found.name)
    }

    pub(crate) fn unusable(&self, found: &Found, why: &dyn std::fmt::Display) -> Error {
        Error::Unusable { place: self.place_of(found), why: why.to_string() }
    }
}
