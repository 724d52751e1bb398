//! Why a store cannot be used, and what to do about it.

/// A store's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed or is full: what was durable before still is. Make room or mend it, then start again.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The medium holds something else than was written: set the store aside and rebuild it from the log.
    #[error("the store is damaged: {what} {detail}; it must be rebuilt from the log")]
    Corrupt {
        /// Which part.
        what: String,
        /// How.
        detail: String,
    },
    /// Written by a later version: run that one, or rebuild in another directory.
    #[error(
        "{what} has format version {version}, this program knows up to {known}: run the newer program, or rebuild in another --data-dir"
    )]
    NewerFormat {
        /// Which part.
        what: &'static str,
        /// Its version.
        version: u8,
        /// The newest known.
        known: u8,
    },
    /// A snapshot is not what was written, or breaks off: take another one.
    #[error("the snapshot cannot be used: {detail}")]
    Snapshot {
        /// What is wrong with it.
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

    /// Whether setting the store aside and rebuilding it would heal this.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}
