//! This machine's clock against the records' times. Warns, and makes readiness careful; no answer depends on it.

/// How far ahead of this clock a record may be dated before one of the two clocks is called wrong: more than clocks that
/// are kept by NTP ever differ, less than the hour that Kafka takes by default (`message.timestamp.after.max.ms`).
const AHEAD_MAX_MS: u64 = 5 * 60_000;

/// Whether a record is dated so far ahead of this clock that nothing can be said of its age.
pub(crate) fn is_ahead(timestamp_ms: u64, now_ms: u64) -> bool {
    timestamp_ms.saturating_sub(now_ms) > AHEAD_MAX_MS
}

/// Tells of records from the future, once for each partition until time has caught up with them.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    told: bool,
}

impl ClockWatch {
    /// Looks at the time of a record.
    pub(crate) fn look(&mut self, partition: u32, offset: u64, timestamp_ms: u64, now_ms: u64) {
        let ahead = is_ahead(timestamp_ms, now_ms);
        if ahead && !self.told {
            metrics::counter!("receipts_records_from_the_future_total").increment(1);
            tracing::warn!(
                partition,
                offset,
                ahead_s = timestamp_ms.saturating_sub(now_ms) / 1_000,
                "a record is dated ahead of this machine's clock: that clock is behind, or its producer's ahead. Messages \
                 expire by the times of records, so check the clocks of both; on Kafka, message.timestamp.after.max.ms of the \
                 topic keeps such records out"
            );
        }
        self.told = ahead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_minutes_are_not_the_future() {
        assert!(!is_ahead(AHEAD_MAX_MS, 0) && !is_ahead(0, u64::MAX));
        assert!(is_ahead(AHEAD_MAX_MS + 1, 0));
    }
}
