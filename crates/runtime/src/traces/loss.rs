//! Counts spans that are lost, and warns of them once a minute at most.

use parking_lot::Mutex;
use receipts_metrics::catalogue;
use receipts_metrics::log_lines::LogLimit;
use std::time::Instant;

/// The cause of a loss without a failed request.
const FULL: &str = "more spans end than can be sent";

#[derive(Debug)]
pub(super) struct Loss {
    url: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    warnings: LogLimit,
    /// Why the last request failed.
    cause: Option<String>,
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
        let cause = self.state.lock().cause.take();
        self.count(spans as u64, cause.as_deref().unwrap_or("unknown"));
    }

    /// Counts a span that found no room.
    pub(super) fn full(&self) {
        self.count(1, FULL);
    }

    fn count(&self, spans: u64, cause: &str) {
        catalogue::SPANS_LOST.get().increment(spans);
        let due = self.state.lock().warnings.count_of(Instant::now(), spans);
        if let Some(lost) = due {
            tracing::warn!(
                lost,
                collector = self.url,
                cause,
                "spans are lost: look after the collector, or lower telemetry.trace_ratio; requests are not affected"
            );
        }
    }
}
