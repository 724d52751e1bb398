//! The reasons for which tokens are refused: counted, and told to the operator's log.
//!
//! It must not tell the caller more than [`Reason::detail`], nor the log a value that a token
//! holds. Keeps INV-REFUSED.

use crate::edge::log_limit::LogLimit;
use crate::problem::{Code, Problem};
use metrics::Counter;
use parking_lot::Mutex;
use std::time::Instant;

/// The check that a token failed. Signatures are checked before claims, so only a token that one of
/// our keys has signed is refused for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The request has no token, or several.
    Missing,
    /// The token has not the form of a signed JWT.
    Malformed,
    /// Its `alg` is not accepted, or it has critical extensions.
    Algorithm,
    /// No key has its `kid` and its algorithm.
    Key,
    /// Its signature does not fit the key.
    Signature,
    /// One name stands twice among its claims.
    RepeatedClaim,
    /// `exp`
    Expired,
    /// `nbf`
    NotYetValid,
    /// `iss`
    Issuer,
    /// `aud`
    Audience,
    /// The claim of the tenant.
    Tenant,
    /// `sub`
    Subject,
}

impl Reason {
    const ALL: [Self; 12] = [
        Self::Missing,
        Self::Malformed,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::RepeatedClaim,
        Self::Expired,
        Self::NotYetValid,
        Self::Issuer,
        Self::Audience,
        Self::Tenant,
        Self::Subject,
    ];

    /// Returns the label of the counter, and the sentence for the log: the failed check, and the
    /// setting that it follows.
    const fn spec(self) -> (&'static str, &'static str) {
        match self {
            Self::Missing => ("missing", "the request has no Authorization: Bearer TOKEN, or more than one"),
            Self::Malformed => ("malformed", "it is not a signed JWT: three parts, a header and claims in JSON"),
            Self::Algorithm => ("algorithm", "its alg is not in auth.algorithms, or its header has crit"),
            Self::Key => ("key", "no key of auth.jwks_file or auth.jwks_url has its kid and its alg"),
            Self::Signature => {
                ("signature", "its signature does not fit the key: another issuer's key or secret signed it")
            }
            Self::RepeatedClaim => ("repeated_claim", "a claim stands in it twice"),
            Self::Expired => ("expired", "its exp is over by more than auth.leeway_ms, missing, or not a number"),
            Self::NotYetValid => ("not_yet_valid", "its nbf is ahead by more than auth.leeway_ms, or not a number"),
            Self::Issuer => ("issuer", "its iss is not the text of auth.issuer"),
            Self::Audience => ("audience", "its aud is not auth.audience, nor a list with it"),
            Self::Tenant => ("tenant", "the claim that auth.tenant_claim names is missing, or not a tenant's text"),
            Self::Subject => ("subject", "its sub is not a text of 1 to 128 bytes"),
        }
    }

    /// Returns the detail for the caller. It does not help a forger: all that depends on a key, and
    /// all claims that a forger may guess, have one sentence.
    const fn detail(self) -> &'static str {
        match self {
            Self::Missing => "send Authorization: Bearer TOKEN",
            Self::Malformed => "the token is not a JWT",
            Self::Algorithm => "the token is signed with an algorithm that is not accepted",
            Self::Key
            | Self::Signature
            | Self::RepeatedClaim
            | Self::Expired
            | Self::NotYetValid
            | Self::Issuer
            | Self::Audience => "the token is invalid or expired",
            Self::Tenant => "the token names no tenant",
            Self::Subject => "the sub of the token is not an id",
        }
    }

    /// Returns the answer to a token that is refused for this reason.
    fn problem(self) -> Problem {
        let problem = Problem::new(Code::Unauthenticated).detail(self.detail());
        if self == Self::Missing { problem } else { problem.challenge("Bearer error=\"invalid_token\"") }
    }
}

/// Refused tokens, by reason.
pub(super) struct Refusals([Refused; Reason::ALL.len()]);

struct Refused {
    total: Counter,
    log: Mutex<LogLimit>,
}

impl Refusals {
    /// Shows every reason in `receipts_tokens_refused_total` from now on, as 0.
    pub(super) fn new() -> Self {
        metrics::describe_counter!("receipts_tokens_refused_total", "Refused tokens, by the check that failed");
        Self(Reason::ALL.map(|reason| {
            let total = metrics::counter!("receipts_tokens_refused_total", "reason" => reason.spec().0);
            total.increment(0);
            Refused { total, log: Mutex::default() }
        }))
    }

    /// Counts a refused token, logs the reason at most once a minute, and returns the answer.
    pub(super) fn refuse(&self, reason: Reason) -> Problem {
        let Refused { total, log } = &self.0[reason as usize];
        total.increment(1);
        if let Some(refused) = log.lock().count(Instant::now()) {
            let (label, check) = reason.spec();
            tracing::info!(reason = label, refused, "a token was refused: {check}");
        }
        reason.problem()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn reasons_are_numbered_in_order_and_have_distinct_labels() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert!(Reason::ALL[..at].iter().all(|other| other.spec().0 != reason.spec().0), "{reason:?}");
        }
    }

    /// Counters by their first label.
    #[derive(Default)]
    struct Counters(Mutex<HashMap<String, Arc<AtomicU64>>>);

    impl Recorder for Counters {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            assert_eq!(key.name(), "receipts_tokens_refused_total");
            let label = key.labels().next().expect("a label").value().to_owned();
            Counter::from_arc(Arc::clone(self.0.lock().entry(label).or_default()))
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// INV-REFUSED
    #[test]
    fn every_reason_is_counted_from_the_start() {
        let counters = Counters::default();
        let refusals = metrics::with_local_recorder(&counters, Refusals::new);
        let count = |reason: Reason| counters.0.lock().get(reason.spec().0).map(|total| total.load(Ordering::Relaxed));
        assert!(Reason::ALL.into_iter().all(|reason| count(reason) == Some(0)));
        assert_eq!(refusals.refuse(Reason::Issuer).code(), Code::Unauthenticated);
        _ = refusals.refuse(Reason::Issuer);
        assert_eq!((count(Reason::Issuer), count(Reason::Expired)), (Some(2), Some(0)));
    }
}
