//! The errors of a store: why it cannot be used, and what to do. Retries nothing.

use crate::format::FormatVersion;
use std::io::ErrorKind;

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed or is full. Durable data is safe. Make room or repair the disk, then start
    /// again.
    #[error("{doing}: {source}{}", advice(.source))]
    Io {
        /// The operation, with the path.
        doing: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The medium is damaged: set the store aside and rebuild it from the log.
    #[error("the store is damaged: {what} {detail}; it must be rebuilt from the log")]
    Corrupt {
        /// The damaged part.
        what: String,
        /// The damage.
        detail: String,
    },
    /// A later version wrote this: run that one, or rebuild in another directory.
    #[error(
        "{what} has format version {found}, this program knows up to {known}: run the newer program, or rebuild in another --data-dir"
    )]
    NewerFormat {
        /// The part of that version.
        what: &'static str,
        /// The version found.
        found: FormatVersion,
        /// The newest version that this program knows.
        known: FormatVersion,
    },
    /// An earlier version wrote this, and this one does not read it: fold the log anew.
    #[error(
        "{what} has format version {found}, this program reads version {known} alone: run `receipts rebuild --even-if-different`, which folds the log anew"
    )]
    OlderFormat {
        /// The part of that version.
        what: &'static str,
        /// The version found.
        found: FormatVersion,
        /// The version that this program reads.
        known: FormatVersion,
    },
    /// A snapshot is damaged or incomplete: take another one.
    #[error("the snapshot cannot be used: {detail}")]
    Snapshot {
        /// The problem.
        detail: String,
    },
    /// Another process has the store open.
    #[error("the store in {path} is in use by another process: stop that one, or choose another --data-dir")]
    InUse {
        /// The directory.
        path: String,
    },
}

impl Error {
    pub(crate) fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), detail: detail.into() }
    }

    pub(crate) fn snapshot(detail: impl Into<String>) -> Self {
        Self::Snapshot { detail: detail.into() }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Tells whether the disk is full, or no file can be opened because the process or the system
    /// has used up its descriptors: nothing was written, and the call can be repeated later.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source) || lacks_descriptors(source))
    }

    /// Tells whether the store is damaged, so that only a rebuild helps.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// EMFILE and ENFILE, which have no kind in the standard library.
fn lacks_descriptors(error: &std::io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

fn advice(error: &std::io::Error) -> &'static str {
    if is_full(error) {
        "; durable data still is: make room, or start with a --data-dir that has some"
    } else if lacks_descriptors(error) {
        "; durable data still is: raise the limit of open files (ulimit -n), or lower http.connections_max"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_and_missing_descriptors_can_be_repeated() {
        let error = |source| Error::io("writing p0.1.part")(source);
        let os = std::io::Error::from_raw_os_error;
        for (source, hint) in [
            (os(24), "ulimit -n"),
            (os(23), "http.connections_max"),
            (ErrorKind::StorageFull.into(), "make room"),
            (ErrorKind::QuotaExceeded.into(), "make room"),
        ] {
            let error = error(source);
            assert!(error.is_exhausted() && error.to_string().contains(hint), "{error}");
        }
        assert!(!error(os(5)).is_exhausted());
    }
}
