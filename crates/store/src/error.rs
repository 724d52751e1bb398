//! The errors of a store: why it cannot be used, and what to do. Retries nothing.

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
        "{what} has format version {version}, this program knows up to {known}: run the newer program, or rebuild in another --data-dir"
    )]
    NewerFormat {
        /// The part of that version.
        what: &'static str,
        /// The version found.
        version: u8,
        /// The newest version that this program knows.
        known: u8,
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

    /// Tells whether the disk is full: nothing was written, and the call can be repeated once there
    /// is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    /// Tells whether the store is damaged, so that only a rebuild helps.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn advice(error: &std::io::Error) -> &'static str {
    if is_full(error) { "; durable data still is: make room, or start with a --data-dir that has some" } else { "" }
}
