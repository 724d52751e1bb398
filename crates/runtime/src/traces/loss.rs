//! Counts spans that are lost, and warns of them once a minute at most.

use parking_lot::Mutex;
use receipts_metrics::catalogue;
use std::time::{Duration, Instant};

/// The time between two warnings.
const INTERVAL: Duration = Duration::from_secs(60);

/// What a span is lost for if nothing else is known.
const FULL: &str = "more spans end than can be sent";

#[derive(Debug)]
pub(super) struct Loss {
    url: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lost since the last warning.
    lost: u64,
    warned: Option<Instant>,
    cause: Option<String>,
}

impl State {
    /// Adds lost spans; returns how many a warning is now due for.
    fn add(&mut self, lost: u64, now: Instant) -> Option<u64> {
        self.lost += lost;
        if self.warned.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            return None;
        }
        self.warned = Some(now);
        Some(std::mem::take(&mut self.lost))
    }
}

impl Loss {
    pub(super) fn new(url: String) -> Self {
        catalogue::SPANS_LOST.get().increment(0);
        Self { url, state: Mutex::default() }
    }

    /// Notes why a request failed. It may be tried again, so nothing is lost yet.
    pub(super) fn note_cause(&self, cause: String) {
        self.state.lock().cause = Some(cause);
    }

    /// Counts spans that a failed request held.
    pub(super) fn refused(&self, spans: usize) {
        let mut state = self.state.lock();
        let cause = state.cause.take().unwrap_or_else(|| "for an unknown reason".to_owned());
        let due = state.add(spans as u64, Instant::now());
        drop(state);
        self.count(spans as u64, due, &cause);
    }

    /// Counts a span that found no room.
    pub(super) fn full(&self) {
        let due = self.state.lock().add(1, Instant::now());
        self.count(1, due, FULL);
    }

    fn count(&self, spans: u64, due: Option<u64>, cause: &str) {
        catalogue::SPANS_LOST.get().increment(spans);
        if let Some(lost) = due {
            self.warn(lost, cause);
        }
    }

    /// Warns of what was lost since the last warning.
    pub(super) fn report_rest(&self) {
        let lost = std::mem::take(&mut self.state.lock().lost);
        if lost > 0 {
            self.warn(lost, "for the same reason");
        }
    }

    fn warn(&self, lost: u64, cause: &str) {
        tracing::warn!(
            lost,
            collector = self.url,
            cause,
            "spans are lost: look after the collector, or lower telemetry.trace_ratio; requests are not affected"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_one_warning_of_all_spans() {
        let (start, mut state) = (Instant::now(), State::default());
        let due: Vec<_> = (0..121).map(|second| state.add(2, start + Duration::from_secs(second))).collect();
        assert_eq!([due[0], due[60], due[120]], [Some(2), Some(120), Some(120)]);
        assert_eq!(due.iter().flatten().count(), 3);
    }
}
