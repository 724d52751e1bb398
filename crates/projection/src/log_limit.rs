//! Keeps floods out of the log file: one line a minute, with the number of lines left out.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(60);

/// Limits one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    written: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// Tells whether the line is due. Returns the number of lines that were left out since the last
    /// one.
    pub(crate) fn is_due(&mut self, now: Instant) -> Option<u64> {
        self.is_due_for(now, 1)
    }

    /// As [`Self::is_due`], for a line that stands for `events`.
    pub(crate) fn is_due_for(&mut self, now: Instant, events: u64) -> Option<u64> {
        if self.written.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            self.left_out += events;
            return None;
        }
        self.written = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_one_line() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        let lines: Vec<_> = (0..121).map(|second| limit.is_due(start + Duration::from_secs(second))).collect();
        assert_eq!([lines[0], lines[60], lines[120]], [Some(0), Some(59), Some(59)]);
        assert_eq!(lines.iter().flatten().count(), 3);
    }
}
