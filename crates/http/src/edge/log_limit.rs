//! Keeps floods of one kind out of the log: a line per minute, with the number that it stands for.
//!
//! It must not write the line.

use std::time::{Duration, Instant};

/// The shortest time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// The time of the last line, and the events since then.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: Option<Instant>,
    count: u64,
}

impl LogLimit {
    /// Counts an event. Returns the events since the last line if another line is due.
    pub(crate) fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_has_a_line_per_minute_with_the_count() {
        let (mut limit, began) = (LogLimit::default(), Instant::now());
        let mut at = |seconds| limit.count(began + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59), at(60), at(61), at(121)], [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[test]
    fn log_line_comes_once_a_minute_with_its_count() {
        let (mut limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.count(start), Some(1));
        let within = [1, 30, 59].map(|seconds| limit.count(start + Duration::from_secs(seconds)));
        assert_eq!(within, [None; 3]);
        assert_eq!(limit.count(start + INTERVAL), Some(4));
        assert_eq!(limit.count(start + INTERVAL), None);
    }
}
