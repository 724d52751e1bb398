//! The bounds of an edge as settings and descriptors decide them: its connections, its limits, and
//! its budgets. Enforces none of them.

use receipts_http::{Amounts, BudgetAmounts, Budgets, ConnectionBounds, Limits, Rate};
use receipts_runtime::config::{Settings, Shares};
use receipts_runtime::descriptors;
use receipts_runtime::exit::Failure;
use std::num::NonZeroU32;
use std::time::Duration;

/// Connections of the listener for operators.
const ADMIN_CONNECTIONS: u64 = 64;

/// What answers the questions of a process's callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswersFrom {
    /// This process itself.
    Itself,
    /// Other processes, each over a connection of its own.
    Peers,
}

/// Returns how many connections the process may accept from callers or edges.
///
/// # Errors
/// A usage failure if the descriptor limit leaves too few.
pub fn connections(settings: &Settings, answers: AnswersFrom) -> Result<u64, Failure> {
    let own = if settings.http.admin_listen.is_some() { ADMIN_CONNECTIONS } else { 0 };
    let (limit, wanted) = (descriptors::raise_limit(), settings.http.connections_max);
    descriptors::connections(limit, wanted, own, answers == AnswersFrom::Peers)
        .map_err(|error| Failure::usage(error.to_string()))
}

/// Returns the limits of HTTP requests, with budgets of which nothing is held. A process makes them
/// once.
pub fn limits(settings: &Settings, connections: u64) -> Limits {
    let http = &settings.http;
    let rate =
        |per_s: Option<u32>| per_s.and_then(NonZeroU32::new).map(|per_second| Rate { per_second, burst: per_second });
    let mut body_bytes = amounts(http.bodies_bytes, u64::MAX);
    // Each caller may at least post one body of the largest size.
    let largest = http.body_bytes_max as u64;
    body_bytes.tenant = http.bodies_bytes.tenant.unwrap_or(body_bytes.tenant.max(largest));
    body_bytes.caller = http.bodies_bytes.caller.unwrap_or(body_bytes.caller.max(largest));
    Limits {
        body_bytes_max: http.body_bytes_max,
        body_bytes_per_s_min: http.body_bytes_per_s_min,
        control_events_max: http.control_events_max,
        request_timeout: Duration::from_millis(http.timeout_ms),
        wait_default: Duration::from_millis(http.wait_ms_default),
        budgets: Budgets::new(&BudgetAmounts {
            // Together they are no more than the connections, and a tenant's shares of them fewer:
            // so no tenant has a request, a wait or a stream on every connection.
            requests: amounts(http.requests, (connections / 4).max(1)),
            waits: amounts(http.waits, waits_max(connections)),
            streams: amounts(http.streams, (connections / 2).max(1)),
            body_bytes,
        }),
        rate: rate(http.rate_per_s),
        tenant_rate: rate(http.tenant_rate_per_s),
    }
}

/// Returns how many connections may have a request that waits.
pub fn waits_max(connections: u64) -> u64 {
    (connections / 4).max(1)
}

/// Returns the amounts of a budget that may have at most a part of the connections.
fn amounts(shares: Shares, at_most: u64) -> Amounts {
    let is_bounded = shares.total > at_most;
    let amounts = Amounts::new(shares.total.min(at_most), shares.tenant, shares.caller);
    Amounts { bounded_by: is_bounded.then_some("http.connections_max"), ..amounts }
}

/// Returns the bounds of a listener for callers or edges.
pub(crate) fn listener(settings: &Settings, connections: u64, drain: Duration) -> ConnectionBounds {
    ConnectionBounds {
        connections_max: usize::try_from(connections).unwrap_or(usize::MAX),
        budget: "connections",
        setting: "http.connections_max",
        head_bytes_max: settings.http.head_bytes_max,
        head_timeout: Duration::from_millis(settings.http.head_timeout_ms),
        keep_alive: Duration::from_millis(settings.http.keep_alive_ms),
        write_timeout: Duration::from_millis(settings.http.write_timeout_ms),
        drain,
    }
}

/// Returns the bounds of the listener for operators.
pub(crate) fn admin_listener(settings: &Settings, drain: Duration) -> ConnectionBounds {
    let setting = "http.admin_listen has 64 connections";
    ConnectionBounds { budget: "admin_connections", setting, ..listener(settings, ADMIN_CONNECTIONS, drain) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_runtime::config::{Override, load};

    fn limits_of(flags: &[(&str, &str)], connections: u64) -> String {
        let flag = |(key, value): &(&str, &str)| Override {
            key: (*key).into(),
            value: (*value).into(),
            flag: key.replace(['.', '_'], "-"),
        };
        let settings = load(None, [], &flags.iter().map(flag).collect::<Vec<_>>()).expect("no mistake");
        format!("{:?}", limits(&settings, connections).budgets)
    }

    /// INV-DESCRIPTORS
    #[test]
    fn requests_waits_and_streams_fit_into_the_connections() {
        let few = limits_of(&[], 128);
        let bounded = |budget: &str, total: u64| format!("name: \"{budget}\", amounts: Amounts {{ total: {total},");
        assert!(few.contains(&bounded("streams", 64)) && few.contains(&bounded("waits", 32)), "{few}");
        assert!(few.contains(&bounded("requests", 32)), "{few}");
        let many = limits_of(&[("http.streams_max", "7")], 20_000);
        assert!(many.contains(&bounded("streams", 7)) && many.contains(&bounded("waits", 5_000)), "{many}");
        assert!(many.contains(&bounded("requests", 1_024)), "{many}");
    }

    #[test]
    fn largest_body_fits_into_default_shares() {
        let shown = limits_of(&[("http.body_bytes_max", "60000000")], 128);
        assert!(shown.contains("tenant: 60000000, caller: 60000000"), "{shown}");
    }
}
