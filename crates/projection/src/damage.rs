//! Records damage of a partition's store in a file beside it, so that the next start rebuilds the
//! partition. Repairs nothing.

use crate::partition::FoldError;
use crate::settings::ProjectError;
use receipts_metrics::catalogue;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Tells whether the error is damage, which only a rebuild repairs.
pub(crate) fn is_damage(e: &FoldError) -> bool {
    match e {
        receipts_fold::Error::Broken(_) => true,
        receipts_fold::Error::Store(e) => e.is_corruption(),
    }
}

/// The damaged partitions of a store. Each has a marker `pN.damaged` in the store's directory,
/// whose text is the reason. A store in memory has no next start, and so no markers.
pub(crate) struct Damage {
    dir: Option<PathBuf>,
}

impl Damage {
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    fn marker(&self, partition: u32) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("p{partition}.damaged")))
    }

    /// Returns the recorded reason, unless the partition was rebuilt since.
    pub(crate) fn recorded(&self, partition: u32) -> Result<Option<String>, ProjectError> {
        let Some(marker) = self.marker(partition) else { return Ok(None) };
        match fs::read(&marker) {
            Ok(why) => Ok(Some(String::from_utf8_lossy(&why).into_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("reading", &marker, e)),
        }
    }

    /// Records damage that a query or the fold found, once. Ignores any other error.
    pub(crate) fn record(&self, partition: u32, e: &FoldError) {
        if !is_damage(e) {
            return;
        }
        let (Some(marker), Some(dir)) = (self.marker(partition), &self.dir) else {
            tracing::error!(partition, error = %e, "the partition's state is damaged");
            return;
        };
        let recorded = File::create_new(&marker).and_then(|mut file| {
            file.write_all(e.to_string().as_bytes())?;
            file.sync_all()?;
            // The name too: without it the next start after a power cut would trust the state.
            File::open(dir)?.sync_all()
        });
        match recorded {
            Ok(()) => {
                catalogue::STORE_DAMAGED.get().increment(1);
                tracing::error!(partition, error = %e, "the partition's state is damaged; the next start rebuilds it from the log");
            }
            Err(known) if known.kind() == ErrorKind::AlreadyExists => {}
            Err(io) => tracing::error!(
                partition,
                error = %e,
                marker = %marker.display(),
                %io,
                "the partition's state is damaged, and its marker cannot be written: create the marker file, and the next \
                 start rebuilds the partition from the log"
            ),
        }
    }

    /// Removes the marker, after the damaged state was dropped or replaced.
    pub(crate) fn clear(&self, partition: u32) -> Result<(), ProjectError> {
        let Some(marker) = self.marker(partition) else { return Ok(()) };
        match fs::remove_file(&marker) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("removing", &marker, e)),
            _ => Ok(()),
        }
    }
}

fn io_error(doing: &str, marker: &Path, source: std::io::Error) -> ProjectError {
    receipts_store::Error::Io { doing: format!("{doing} {}", marker.display()), source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_recorded_once_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let damage = Damage::new(Some(dir.path().to_owned()));
        damage.record(3, &receipts_fold::Error::Broken("a message"));
        damage.record(3, &receipts_fold::Error::Broken("a filter"));
        assert!(damage.recorded(3).unwrap().is_some_and(|why| why.contains("a message")));
        assert_eq!(damage.recorded(30).unwrap(), None);
        damage.clear(3).unwrap();
        damage.clear(3).unwrap();
        assert_eq!(damage.recorded(3).unwrap(), None);
    }

    #[test]
    fn a_full_disk_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let damage = Damage::new(Some(dir.path().to_owned()));
        let full = std::io::Error::from(ErrorKind::StorageFull);
        damage.record(0, &receipts_store::Error::Io { doing: "reading".into(), source: full }.into());
        assert_eq!(damage.recorded(0).unwrap(), None);
    }
}
