//! The parts that both logs share: the check of start offsets, and the append failures since the
//! last flush.
//!
//! It does no IO.
//!
//! Keeps INV-REFUSE.

use crate::port::AppendError;
use parking_lot::Mutex;

/// Checks that the log holds the start offset that an [`Assignment`](crate::Assignment) returned.
///
/// # Errors
/// A sentence that says what happened and what to do. Reading on would skip or invent records.
pub(crate) fn start_is_held(topic: &str, partition: u32, start: u64, first: u64, end: u64) -> Result<(), String> {
    if start > end {
        return Err(format!(
            "partition {partition} of {topic} ends at offset {end}, but its state stands at {start}, ahead of it, because \
             the log was created anew or lost records: put the right log back, or move the state away and rebuild it \
             from this log"
        ));
    }
    if start < first {
        return Err(format!(
            "partition {partition} of {topic} begins at offset {first}, but its state needs {start}, because the log was \
             trimmed past it: restore a snapshot that reaches {first} or further; a rebuild from this log would miss {} \
             offsets",
            first - start
        ));
    }
    Ok(())
}

/// The worst failure since the last flush. An unknown outcome is worse than a certain failure.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Option<AppendError>>);

impl Failures {
    /// Stores a failure unless a failure at least as bad is stored.
    pub(crate) fn note(&self, error: &AppendError) {
        let mut worst = self.0.lock();
        if worst.as_ref().is_none_or(|worst| !worst.may_have_happened() && error.may_have_happened()) {
            *worst = Some(error.clone());
        }
    }

    /// Returns the worst failure and forgets it.
    pub(crate) fn take(&self) -> Result<(), AppendError> {
        self.0.lock().take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_between_first_and_end_is_held() {
        for start in [5, 7, 9] {
            start_is_held("t", 0, start, 5, 9).unwrap();
        }
    }

    #[test]
    fn a_start_ahead_of_the_log_is_refused() {
        let sentence = start_is_held("t", 3, 10, 5, 9).unwrap_err();
        assert!(sentence.contains("partition 3 of t") && sentence.contains("ahead of it"), "{sentence}");
    }

    #[test]
    fn a_start_that_was_trimmed_is_refused() {
        let sentence = start_is_held("t", 3, 4, 5, 9).unwrap_err();
        assert!(sentence.contains("trimmed past it") && sentence.contains("miss 1 offsets"), "{sentence}");
    }

    #[test]
    fn an_unknown_outcome_outweighs_a_failure_and_returns_once() {
        let failures = Failures::default();
        failures.note(&AppendError::NotWritten("a".into()));
        failures.note(&AppendError::Unknown("b".into()));
        failures.note(&AppendError::NotWritten("c".into()));
        assert_eq!(failures.take(), Err(AppendError::Unknown("b".into())));
        assert_eq!(failures.take(), Ok(()));
    }
}
