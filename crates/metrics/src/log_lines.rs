//! Keeps log lines few and short: a limit for floods of one kind, and partitions by ranges. Writes
//! no line.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The shortest time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// The limit of one kind of line: one at once, and then one a minute with the number of events that
/// it stands for.
#[derive(Debug, Default)]
pub struct LogLimit {
    written: Option<Instant>,
    count: u64,
}

impl LogLimit {
    /// Counts an event. If a line is due, returns the number of events since the last one, with
    /// this one.
    pub fn count(&mut self, now: Instant) -> Option<u64> {
        self.count_of(now, 1)
    }

    /// As [`Self::count`], for several events.
    pub fn count_of(&mut self, now: Instant, events: u64) -> Option<u64> {
        self.count += events;
        if self.written.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            return None;
        }
        self.written = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// Lists partitions by ranges: `0-3, 7`.
pub fn ranges(partitions: impl IntoIterator<Item = u32>) -> String {
    let mut all: Vec<u32> = partitions.into_iter().collect();
    all.sort_unstable();
    all.dedup();
    let mut text = String::new();
    for range in all.chunk_by(|a, b| a + 1 == *b) {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        _ = match range {
            [one] => write!(text, "{separator}{one}"),
            [first, .., last] => write!(text, "{separator}{first}-{last}"),
            [] => Ok(()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_listed_by_ranges() {
        for (partitions, wanted) in
            [(&[][..], ""), (&[7], "7"), (&[3, 0, 1, 2, 7, 9, 8], "0-3, 7-9"), (&[5, 5, 3], "3, 5")]
        {
            assert_eq!(ranges(partitions.iter().copied()), wanted);
        }
    }

    #[test]
    fn a_minute_has_one_line_with_its_count() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        let lines: Vec<_> = (0..121).map(|second| limit.count(start + Duration::from_secs(second))).collect();
        assert_eq!([lines[0], lines[60], lines[120]], [Some(1), Some(60), Some(60)]);
        assert_eq!(lines.iter().flatten().count(), 3);
        assert_eq!(limit.count_of(start + Duration::from_secs(180), 5), Some(5));
    }
}
