//! The outcome of one append, for callers that must tell "did not happen" from "may have happened".
//! Retries nothing.

use crate::port::{AppendError, Location, PendingAppend};
use tokio::time::{Instant, timeout_at};

/// Waits for the outcome of an append until a deadline. An append without an answer may have
/// happened.
///
/// # Errors
/// The log's error; [`AppendError::Unknown`] if the log drops the append or does not answer in
/// time.
pub async fn outcome(appended: PendingAppend, deadline: Instant) -> Result<Location, AppendError> {
    match timeout_at(deadline, appended).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(AppendError::Unknown("the log dropped the append".to_owned())),
        Err(_) => Err(AppendError::Unknown("the log did not answer in time".to_owned())),
    }
}

impl AppendError {
    /// Returns whether the entry may be in the log, or may yet be written.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Returns the cause, without a word about whether the append happened.
    #[must_use]
    pub fn cause(&self) -> &str {
        let (Self::NotWritten(cause) | Self::TooLarge(cause) | Self::Unknown(cause)) = self;
        cause
    }
}
