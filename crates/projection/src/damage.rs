//! Damage of a partition's store, noted in a file beside it, so that the next start rebuilds the partition from the log.
//! Repairs nothing: that is for whoever opens the partition.

use crate::settings::ProjectError;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

/// Why a state cannot be asked or cannot go on.
pub(crate) type FoldError = receipts_fold::Error<receipts_store::Error>;

/// Whether the state is not what was written, so that only a rebuild from the log helps.
pub(crate) fn is_damage(e: &FoldError) -> bool {
    match e {
        receipts_fold::Error::Broken(_) => true,
        receipts_fold::Error::Store(e) => e.is_corruption(),
    }
}

/// Which partitions of a store are damaged: `pN.damaged` in its directory, with the reason as its text.
pub(crate) struct Damage {
    dir: PathBuf,
}

impl Damage {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn marker(&self, partition: u32) -> PathBuf {
        self.dir.join(format!("p{partition}.damaged"))
    }

    /// What was found earlier, where the partition was not rebuilt since.
    pub(crate) fn noted(&self, partition: u32) -> Result<Option<String>, ProjectError> {
        match fs::read(self.marker(partition)) {
            Ok(why) => Ok(Some(String::from_utf8_lossy(&why).into_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.io("reading", partition, e)),
        }
    }

    /// Notes damage that a reader or the fold met, once. Any other error passes by.
    pub(crate) fn note(&self, partition: u32, e: &FoldError) {
        if !is_damage(e) {
            return;
        }
        let marker = self.marker(partition);
        let noted = File::create_new(&marker).and_then(|mut file| {
            file.write_all(e.to_string().as_bytes())?;
            file.sync_all()
        });
        match noted {
            Ok(()) => {
                metrics::counter!("receipts_store_damaged_total").increment(1);
                tracing::error!(partition, error = %e, "the partition's state is damaged; the next start rebuilds it from the log");
            }
            Err(known) if known.kind() == ErrorKind::AlreadyExists => {}
            Err(io) => tracing::error!(
                partition,
                error = %e,
                marker = %marker.display(),
                %io,
                "the partition's state is damaged and this could not be noted: create the marker, and the next start rebuilds \
                 the partition from the log"
            ),
        }
    }

    /// Forgets what was noted, for what was damaged is gone.
    pub(crate) fn dropped(&self, partition: u32) -> Result<(), ProjectError> {
        match fs::remove_file(self.marker(partition)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.io("removing", partition, e)),
            _ => Ok(()),
        }
    }

    fn io(&self, doing: &str, partition: u32, source: std::io::Error) -> ProjectError {
        let doing = format!("{doing} {}", self.marker(partition).display());
        receipts_store::Error::Io { doing, source }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_noted_once_until_the_partition_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let damage = Damage::new(dir.path().to_owned());
        damage.note(3, &receipts_fold::Error::Broken("a message"));
        damage.note(3, &receipts_fold::Error::Broken("a filter"));
        assert!(damage.noted(3).unwrap().is_some_and(|why| why.contains("a message")));
        assert_eq!(damage.noted(30).unwrap(), None);
        damage.dropped(3).unwrap();
        damage.dropped(3).unwrap();
        assert_eq!(damage.noted(3).unwrap(), None);
    }

    #[test]
    fn a_full_disk_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let damage = Damage::new(dir.path().to_owned());
        let full = std::io::Error::from(ErrorKind::StorageFull);
        damage.note(0, &receipts_store::Error::Io { doing: "reading".into(), source: full }.into());
        assert_eq!(damage.noted(0).unwrap(), None);
    }
}
