//! Why an import ended early, and what to do about it.

use receipts_log::ReadError;
use std::path::PathBuf;

/// An import's failure. What was written before stays, and the progress file says how far that is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table cannot be read.
    #[error(transparent)]
    Table(receipts_analytics::Error),
    /// A file of our own cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log cannot be read, so what it holds already is not known.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// The log has not acknowledged an event.
    #[error(
        "the log has not acknowledged an event ({0}): see to it and run the same command again, it goes on from there"
    )]
    Append(String),
    /// A table lacks a column that its rows cannot do without.
    #[error("{path}: there is no column {wanted}; it has {held}. --column {name}=THEIRS says what it is called there", path = .path.display())]
    Column {
        /// The table.
        path: PathBuf,
        /// As it was looked for.
        wanted: String,
        /// As it is called here.
        name: &'static str,
        /// The columns that are there.
        held: String,
    },
    /// The progress file is another import's.
    #[error("{path}: the import that it belongs to {differs}: move it away to begin anew, or name another one by --progress", path = .path.display())]
    Progress {
        /// The progress file.
        path: PathBuf,
        /// In what it differs.
        differs: String,
    },
    /// Somebody asked to stop.
    #[error(
        "stopped as asked; what was written is acknowledged and stays: run the same command again, it goes on from there"
    )]
    Stopped,
}

impl From<receipts_analytics::Error> for Error {
    fn from(error: receipts_analytics::Error) -> Self {
        if error.is_stopped() { Self::Stopped } else { Self::Table(error) }
    }
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
