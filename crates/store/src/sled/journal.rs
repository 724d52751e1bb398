//! The files of a store beside sled: journals, and the marker of a restore. Knows their names, not
//! their contents.
//!
//! `p{partition}.{number}.part` is a journal that is still being written and never counts. Renamed
//! to `p{partition}.{number}.journal` it counts, until all its entries are in sled.

use super::apply::Shared;
use crate::error::Error;
use std::collections::BTreeMap;

/// The two names of a journal.
pub(super) struct JournalFile {
    /// While it is being written.
    pub(super) part: String,
    /// Once it counts.
    pub(super) journal: String,
}

impl JournalFile {
    pub(super) fn new(partition: u32, number: u64) -> Self {
        Self { part: format!("p{partition}.{number}.part"), journal: format!("p{partition}.{number}.journal") }
    }
}

impl Shared {
    /// Makes a written journal count. With `sync`, the bytes are synced before the file gets its
    /// final name: a journal with lost bytes would be taken for damage.
    pub(super) fn name_journal(&self, file: &JournalFile) -> Result<(), Error> {
        let JournalFile { part, journal } = file;
        let name = || -> std::io::Result<()> {
            if self.sync {
                self.disk.sync(part)?;
            }
            self.disk.rename(part, journal)?;
            if self.sync { self.disk.sync_names() } else { Ok(()) }
        };
        name().map_err(Error::io(format!("writing {}", self.disk.path(journal))))
    }

    /// The journals of a partition, oldest first. Removes files that were still being written.
    pub(super) fn journals(&self, partition: u32) -> Result<BTreeMap<u64, String>, Error> {
        let mut found = BTreeMap::new();
        for name in self.list()? {
            let Some(rest) = name.strip_prefix(&format!("p{partition}.")) else { continue };
            if let Some(number) = rest.strip_suffix(".journal").and_then(|n| n.parse().ok()) {
                found.insert(number, name);
            } else if rest.ends_with(".part") {
                self.disk.remove(&name).map_err(Error::io(format!("removing {}", self.disk.path(&name))))?;
            }
        }
        Ok(found)
    }

    pub(super) fn has_file(&self, name: &str) -> Result<bool, Error> {
        Ok(self.list()?.iter().any(|file| file == name))
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        self.disk.list().map_err(Error::io(format!("listing {}", self.disk.path(""))))
    }

    pub(super) fn sync_names(&self) -> Result<(), Error> {
        self.disk.sync_names().map_err(Error::io(format!("syncing {}", self.disk.path(""))))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        match self.disk.remove(name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", self.disk.path(name)))(e))
            }
            _ => Ok(()),
        }
    }
}
