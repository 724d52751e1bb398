//! Why an analysis ended early, and what to do about it.

use receipts_log::ReadError;

/// An analysis's failure. None of them has changed the log or a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be read: see to it and run the command again.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// The store, or the scratch one on the temporary disk, failed.
    #[error(transparent)]
    Store(#[from] receipts_store::Error),
    /// Snapshots cannot be read: see to the destination, or leave them out.
    #[error(transparent)]
    Snapshots(receipts_snapshots::Error),
    /// Files cannot be put where they are to go.
    #[error(transparent)]
    Objects(receipts_objects::Error),
    /// A scratch state cannot go on.
    #[error("partition {partition}: {source}")]
    State {
        /// Which.
        partition: u32,
        /// Why.
        source: receipts_fold::Error<receipts_store::Error>,
    },
    /// A file cannot be written or read.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A position that the log does not hold.
    #[error(
        "the log of partition {partition} ends at offset {end}, before the asked-for {asked}: the position is another log's"
    )]
    Beyond {
        /// Which.
        partition: u32,
        /// Where it ends.
        end: u64,
        /// Where it was asked for.
        asked: u64,
    },
    /// The log lost its beginning, and what is asked needs it.
    #[error(
        "the log of partition {partition} begins at offset {first}, so nothing that stood before can be folded again: \
         verify against a log that is whole"
    )]
    Trimmed {
        /// Which.
        partition: u32,
        /// Where it begins.
        first: u64,
    },
    /// Somebody asked to stop.
    #[error("stopped as asked; nothing is half written: run the same command again for a whole answer")]
    Stopped,
    /// Somebody asked an export to stop.
    #[error(
        "stopped as asked; {done} of {all} partitions are exported and no file is half written: the same command goes on behind \
         them, or begins anew where the log has grown (--as-of or --position hold its end)"
    )]
    ExportStopped {
        /// Partitions that are exported.
        done: usize,
        /// Partitions.
        all: usize,
    },
}

impl From<receipts_snapshots::Error> for Error {
    fn from(error: receipts_snapshots::Error) -> Self {
        match error {
            receipts_snapshots::Error::Stopped => Self::Stopped,
            other => Self::Snapshots(other),
        }
    }
}

impl From<receipts_objects::Error> for Error {
    fn from(error: receipts_objects::Error) -> Self {
        match error {
            receipts_objects::Error::Stopped => Self::Stopped,
            other => Self::Objects(other),
        }
    }
}

impl Error {
    /// Whether somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped | Self::ExportStopped { .. })
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn state(partition: u32) -> impl Fn(receipts_fold::Error<receipts_store::Error>) -> Self {
        move |source| Self::State { partition, source }
    }
}
