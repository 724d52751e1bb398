//! The metrics of a budget, and its line in the log when it is met.
//!
//! It must not decide anything.

use super::Share;
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use receipts_metrics::catalogue;
use receipts_metrics::log_lines::LogLimit;
use std::time::Instant;

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
    log: Mutex<LogLimit>,
}

impl Meter {
    /// Registers the metrics of a budget with these shares.
    pub(crate) fn new(budget: &'static str, limit: u64, shares: &[Share]) -> Self {
        catalogue::BUDGET_LIMIT.of([budget]).set(limit as f64);
        let used = catalogue::BUDGET_USED.of([budget]);
        used.set(0.0);
        let refused = [Share::Total, Share::Tenant, Share::Caller].map(|share| {
            if !shares.contains(&share) {
                return Counter::noop();
            }
            let counter = catalogue::BUDGET_REFUSED.of([budget, share.label()]);
            counter.increment(0);
            counter
        });
        Self { budget, used, refused, log: Mutex::default() }
    }

    /// Shows how much is held now.
    pub(crate) fn set_used(&self, amount: u64) {
        self.used.set(amount as f64);
    }

    /// Counts a refusal. The log has one line per minute, with the number of refusals since the
    /// last one.
    pub(crate) fn refused(&self, share: Share, setting: &'static str) {
        self.refused[share as usize].increment(1);
        let Some(refused) = self.log.lock().count(Instant::now()) else { return };
        tracing::warn!(
            budget = self.budget,
            share = share.label(),
            setting,
            refused,
            "a budget is used up and requests are refused: raise its setting, or find the callers that use it up"
        );
    }
}
