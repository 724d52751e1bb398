//! Reads the system clock. No other module of the workspace does, and no code that decides an
//! answer may call it: the fold uses the times of its records.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time of day in Unix milliseconds. A clock before 1970 is broken and reads 0, which
/// is no reason to stop.
#[must_use]
pub fn unix_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the only module that reads the clock")]
    let now = SystemTime::now();
    millis_since_epoch(now)
}

fn millis_since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn milliseconds_count_from_1970() {
        assert_eq!(millis_since_epoch(UNIX_EPOCH + Duration::from_millis(1_780_000_000_123)), 1_780_000_000_123);
    }

    #[test]
    fn a_clock_before_1970_reads_zero() {
        assert_eq!(millis_since_epoch(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }

    #[test]
    fn the_clock_reads_later_than_this_line_was_written() {
        assert!(unix_ms() > 1_700_000_000_000);
    }
}
