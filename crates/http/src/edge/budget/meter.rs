//! The metrics of a budget, and its line in the log when it is met.
//!
//! It must not decide anything.

use super::Share;
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The shortest time between two lines about one budget.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Share {
    const fn label(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Tenant => "tenant",
            Self::Caller => "caller",
        }
    }
}

/// The metrics of one budget, which exist from its start.
pub(crate) struct Meter {
    budget: &'static str,
    used: Gauge,
    /// By share; counters of shares that the budget does not have are not registered.
    refused: [Counter; 3],
    refusals: Mutex<Refusals>,
}

/// The refusals that no line in the log has told yet.
#[derive(Default)]
struct Refusals {
    count: u64,
    logged: Option<Instant>,
}

impl Meter {
    /// Registers the metrics of a budget with these shares.
    pub(crate) fn new(budget: &'static str, limit: u64, shares: &[Share]) -> Self {
        metrics::describe_gauge!("receipts_budget_used", "The part of a budget that is held now");
        metrics::describe_gauge!("receipts_budget_limit", "The amount that may be held of a budget at once");
        metrics::describe_counter!("receipts_budget_refused_total", "Refusals, by the share that was used up");
        metrics::gauge!("receipts_budget_limit", "budget" => budget).set(limit as f64);
        let used = metrics::gauge!("receipts_budget_used", "budget" => budget);
        used.set(0.0);
        let refused = [Share::Total, Share::Tenant, Share::Caller].map(|share| {
            if !shares.contains(&share) {
                return Counter::noop();
            }
            let counter =
                metrics::counter!("receipts_budget_refused_total", "budget" => budget, "share" => share.label());
            counter.increment(0);
            counter
        });
        Self { budget, used, refused, refusals: Mutex::default() }
    }

    /// Shows how much is held now.
    pub(crate) fn set_used(&self, amount: u64) {
        self.used.set(amount as f64);
    }

    /// Counts a refusal. The log has one line per minute, with the number of refusals since the
    /// last one.
    pub(crate) fn refused(&self, share: Share, setting: &'static str) {
        self.refused[share as usize].increment(1);
        let Some(refused) = self.refusals.lock().due(Instant::now()) else { return };
        tracing::warn!(
            budget = self.budget,
            share = share.label(),
            setting,
            refused,
            "a budget is used up and requests are refused: raise its setting, or find the callers that use it up"
        );
    }
}

impl Refusals {
    /// Counts one more. Returns the count if a line about it is due.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.logged.is_some_and(|logged| now.duration_since(logged) < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_has_a_line_per_minute_with_the_count() {
        let (mut refusals, began) = (Refusals::default(), Instant::now());
        let mut at = |seconds| refusals.due(began + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59), at(60), at(61), at(121)], [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
