//! Follows a long operation for its caller. Starts and stops nothing itself.

/// Follows a long operation: is told of its progress, and decides whether it goes on.
///
/// The operation says what its units are: bytes of a snapshot or a table, or offsets of a log.
pub trait ProgressMonitor {
    /// Adds units that the operation has completed.
    fn advanced(&self, units: u64);

    /// Adds units that the operation need not do, because a snapshot or an earlier run covers them.
    fn skipped(&self, _units: u64) {}

    /// Adds units that the operation has found to do.
    fn added(&self, _units: u64) {}

    /// True once the operation must stop, at the next opportunity.
    fn is_stopped(&self) -> bool;
}

/// Follows nothing and never stops the operation.
impl ProgressMonitor for () {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        false
    }
}

/// Stops an inner operation with the outer one, and leaves its units out of the outer one's
/// progress.
pub struct StopOnly<'a>(pub &'a dyn ProgressMonitor);

impl ProgressMonitor for StopOnly<'_> {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}
