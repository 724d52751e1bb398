//! Why an import ended early, and what the operator can do about it.

use receipts_log::ReadError;
use std::path::PathBuf;

/// Why an import failed. Written events stay, and the progress file records them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table cannot be read.
    #[error(transparent)]
    Table(receipts_analytics::Error),
    /// A file of the import cannot be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// The action that failed, with the path.
        doing: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The log cannot be read, so its present events are unknown.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// The state that judges an import cannot be asked.
    #[error("the events cannot be judged: {0}")]
    Judge(String),
    /// The log did not acknowledge an event.
    #[error(
        "the log did not acknowledge an event ({0}): mend the log and run the same command again, which resumes the import"
    )]
    Append(String),
    /// A table lacks a required column.
    #[error("{path} has no column {wanted}, only {held}: name the column with --column {name}=THEIRS, or all columns of a text file without a header line with --header", path = .path.display())]
    Column {
        /// The table.
        path: PathBuf,
        /// The name that was looked for.
        wanted: String,
        /// The column's own name in this project.
        name: &'static str,
        /// The columns of the table.
        held: String,
    },
    /// The progress file belongs to another import.
    #[error("{path} belongs to an import that {difference}: move the file away to start anew, or name another one by --progress", path = .path.display())]
    Progress {
        /// The progress file.
        path: PathBuf,
        /// How that import differs.
        difference: String,
    },
    /// The operator stopped the run.
    #[error(
        "stopped as asked; all written events are acknowledged and stay: run the same command again to resume the import"
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
