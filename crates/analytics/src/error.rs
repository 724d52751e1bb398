//! Why an analysis ended early, and what the operator can do about it.

use receipts_log::ReadError;

/// Why an analysis failed. A failed analysis has changed neither the log nor a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be read. Mend it and run the command again.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// The store, or the scratch store in the temporary directory, failed.
    #[error(transparent)]
    Store(#[from] receipts_store::Error),
    /// Snapshots cannot be read. Mend the destination, or run without snapshots.
    #[error(transparent)]
    Snapshots(receipts_snapshots::Error),
    /// Files cannot be written to their destination.
    #[error(transparent)]
    Objects(receipts_objects::Error),
    /// A scratch state failed.
    #[error("partition {partition}: {source}")]
    State {
        /// The partition.
        partition: u32,
        /// The cause.
        source: receipts_fold::Error<receipts_store::Error>,
    },
    /// A file cannot be written or read.
    #[error("{doing}: {source}")]
    Io {
        /// The action that failed, with the path.
        doing: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The requested position is beyond the end of the log.
    #[error(
        "the log of partition {partition} ends at offset {end}, before the requested {asked}: use a position of this log"
    )]
    Beyond {
        /// The partition.
        partition: u32,
        /// The offset at which the log ends.
        end: u64,
        /// The requested offset.
        asked: u64,
    },
    /// The log has lost its beginning, which the analysis needs.
    #[error(
        "the log of partition {partition} begins at offset {first}, and the earlier records cannot be folded again: use a \
         log that has all records"
    )]
    Trimmed {
        /// The partition.
        partition: u32,
        /// The first offset of the log.
        first: u64,
    },
    /// A live table fails in its library or its destination.
    #[error("{doing}: {detail}")]
    Table {
        /// The action that failed, with the table's path.
        doing: String,
        /// The cause, as the library says it.
        detail: String,
    },
    /// A live table cannot be continued by this command; the sentence says why and what to change.
    #[error("{0}")]
    Refused(String),
    /// The operator stopped the run.
    #[error("stopped as asked; no file is half written: run the same command again for a complete answer")]
    Stopped,
    /// The operator stopped an export.
    #[error(
        "stopped as asked; {done} of {all} partitions are done and no file is half written: the same command continues \
         after them, or starts again if the log has grown (--as-of or --position fix its end)"
    )]
    ExportStopped {
        /// The number of partitions that the same command need not fold again.
        done: usize,
        /// The number of partitions.
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
    /// Returns true if the operator stopped the run.
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
