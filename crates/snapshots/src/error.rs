//! Why a snapshot cannot be taken or used.

/// A failure, which says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or is damaged.
    #[error("{0}")]
    Store(#[from] receipts_store::Error),
    /// The destination failed.
    #[error("{0}")]
    Destination(#[from] receipts_objects::Error),
    /// A local file failed: make room, or mend the disk.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A snapshot is damaged, or is another state than is wanted: an older one may do.
    #[error("the snapshot {place} is not usable: {why}")]
    Unusable {
        /// Its address.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// Given up because it was asked to.
    #[error("stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
