//! Compares this machine's clock with the timestamps of records. Readiness ignores the age of
//! records dated ahead, and a warning names one. No answer depends on it.

use receipts_metrics::catalogue;

/// A record may be dated this far ahead before one of the two clocks is called wrong: more than
/// clocks kept by NTP ever differ, less than the hour that Kafka accepts by default
/// (`message.timestamp.after.max.ms`).
const AHEAD_MAX_MS: u64 = 5 * 60_000;

/// Tells whether a record is dated so far ahead of this clock that its age is unknown.
pub(crate) fn is_ahead(timestamp_ms: u64, now_ms: u64) -> bool {
    timestamp_ms.saturating_sub(now_ms) > AHEAD_MAX_MS
}

/// Warns of records dated in the future, once per partition until the clock catches up with them.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    warned: bool,
}

impl ClockWatch {
    pub(crate) fn check(&mut self, partition: u32, offset: u64, timestamp_ms: u64, now_ms: u64) {
        let ahead = is_ahead(timestamp_ms, now_ms);
        if ahead && !self.warned {
            catalogue::FUTURE_RECORDS.get().increment(1);
            tracing::warn!(
                partition,
                offset,
                ahead_s = timestamp_ms.saturating_sub(now_ms) / 1_000,
                "a record is dated ahead of this machine's clock, and messages expire by record times: check this clock and \
                 the producer's; on Kafka, the topic's message.timestamp.after.max.ms keeps such records out"
            );
        }
        self.warned = ahead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_minutes_ahead_is_tolerated() {
        assert!(!is_ahead(AHEAD_MAX_MS, 0) && !is_ahead(0, u64::MAX));
        assert!(is_ahead(AHEAD_MAX_MS + 1, 0));
    }
}
