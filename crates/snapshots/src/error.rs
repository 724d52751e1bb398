//! The errors of snapshots: why one cannot be taken or used. Retries nothing.

/// An error of a snapshot operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or is damaged.
    #[error("{0}")]
    Store(#[from] receipts_store::Error),
    /// The destination failed.
    #[error("{0}")]
    Destination(#[from] receipts_objects::Error),
    /// A local file failed: make room, or repair the disk.
    #[error("{doing}: {source}")]
    Io {
        /// The operation, with the path.
        doing: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A snapshot is damaged or does not meet the requirements. An older one may be usable.
    #[error("the snapshot {location} is not usable: {why}")]
    Unusable {
        /// The location of the snapshot.
        location: String,
        /// The problem.
        why: String,
    },
    /// The caller stopped the operation.
    #[error("stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
