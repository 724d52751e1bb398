//! The reasons for which tokens are refused: counted, and told to the operator's log.
//!
//! It must not tell the caller more than [`Reason::detail`], nor the log a token, a signature or
//! who a person is. Keeps INV-REFUSED.

use crate::problem::{Code, Problem};
use metrics::Counter;
use parking_lot::Mutex;
use receipts_metrics::catalogue;
use receipts_metrics::log_lines::LogLimit;
use serde_json::Value;
use std::time::Instant;

/// The longest value of a token that the log repeats, characters.
const FOUND_MAX: usize = 200;

/// When a client may come again whose key could not be fetched, seconds.
const UNREAD_RETRY_S: u64 = 5;

/// A refused token: the check that it failed, and the value that stood there instead of the wanted
/// one.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    found: String,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        reason.found("none")
    }
}

/// What a check wants.
pub(super) struct Wanted {
    /// The claim, or the field of the header.
    pub(super) claim: String,
    /// Its allowed values.
    pub(super) value: String,
}

/// Shows a text of a token to the log: not too long, and with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(FOUND_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(FOUND_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Shows a claim to the log. `None` is a claim that is not there.
pub(super) fn shown(claim: Option<&Value>) -> String {
    match claim {
        None => "none".to_owned(),
        Some(Value::String(text)) => quoted(text),
        Some(value) => quoted(&value.to_string()),
    }
}

/// Describes a claim that may say who a person is, without its value.
pub(super) fn shape(claim: Option<&Value>) -> String {
    match claim {
        None => "none".to_owned(),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(_)) => "a boolean".to_owned(),
        Some(Value::Number(_)) => "a number".to_owned(),
        Some(Value::String(text)) if text.contains('/') => format!("a text of {} bytes with a slash", text.len()),
        Some(Value::String(text)) => format!("a text of {} bytes", text.len()),
        Some(Value::Array(items)) => format!("a list of {}", items.len()),
        Some(Value::Object(entries)) => format!("an object of {}", entries.len()),
    }
}

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
    /// No known key has its `kid` and its algorithm, and the keys could not be read in time.
    Unread,
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
    /// The claim of the person.
    Subject,
}

impl Reason {
    const ALL: [Self; 13] = [
        Self::Missing,
        Self::Malformed,
        Self::Algorithm,
        Self::Key,
        Self::Unread,
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
            Self::Key => ("key", "no key of auth.issuer, auth.jwks_url or auth.jwks_file has its kid and its alg"),
            Self::Unread => ("unread", "its key is not known, and the keys could not be read in time"),
            Self::Signature => {
                ("signature", "its signature does not fit the key: another issuer's key or secret signed it")
            }
            Self::RepeatedClaim => ("repeated_claim", "a claim stands in it twice"),
            Self::Expired => ("expired", "its exp is over by more than auth.leeway_ms, missing, or not a number"),
            Self::NotYetValid => ("not_yet_valid", "its nbf is ahead by more than auth.leeway_ms, or not a number"),
            Self::Issuer => ("issuer", "its iss is not the text of auth.issuer"),
            Self::Audience => ("audience", "its aud is not auth.audience, nor a list with it"),
            Self::Tenant => ("tenant", "auth.tenant_claim names no claim with exactly one tenant"),
            Self::Subject => ("subject", "auth.user_claim names a claim that is no text of 1 to 128 bytes"),
        }
    }

    /// Returns a refusal for this reason. `found` must be bounded, as by [`quoted`].
    pub(super) fn found(self, found: impl Into<String>) -> Refusal {
        Refusal { reason: self, found: found.into() }
    }

    /// Returns the detail for the caller. It does not help a forger: all that depends on a key, and
    /// all claims that a forger may guess, have one sentence.
    const fn detail(self) -> &'static str {
        match self {
            Self::Missing => "send Authorization: Bearer TOKEN",
            Self::Malformed => "the token is not a JWT",
            Self::Algorithm => "the token is signed with an algorithm that is not accepted",
            Self::Unread => "the keys of tokens cannot be read at the moment",
            Self::Key
            | Self::Signature
            | Self::RepeatedClaim
            | Self::Expired
            | Self::NotYetValid
            | Self::Issuer
            | Self::Audience => "the token is invalid or expired",
            Self::Tenant => "the token names no tenant",
            Self::Subject => "the token names no valid person",
        }
    }

    /// Returns the answer to a token that is refused for this reason.
    fn problem(self) -> Problem {
        let refused = |code| Problem::new(code).detail(self.detail());
        match self {
            // Clients take a 401 for the end of a session, which this may not be.
            Self::Unread => refused(Code::Unavailable).retry_after_s(UNREAD_RETRY_S),
            Self::Missing => refused(Code::Unauthenticated),
            _ => refused(Code::Unauthenticated).challenge("Bearer error=\"invalid_token\""),
        }
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
        Self(Reason::ALL.map(|reason| {
            let total = catalogue::TOKENS_REFUSED.of([reason.spec().0]);
            total.increment(0);
            Refused { total, log: Mutex::default() }
        }))
    }

    /// Counts a refused token, logs the reason at most once a minute, and returns the answer.
    /// `wanted` says what the check of a reason wants.
    pub(super) fn refuse(&self, refusal: &Refusal, wanted: impl FnOnce(Reason) -> Wanted) -> Problem {
        let Refusal { reason, found } = refusal;
        let Refused { total, log } = &self.0[*reason as usize];
        total.increment(1);
        if let Some(refused) = log.lock().count(Instant::now()) {
            let (label, check) = reason.spec();
            let Wanted { claim, value } = wanted(*reason);
            tracing::info!(reason = label, refused, claim, wanted = value, found, "a token was refused: {check}");
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
        let refuse = |reason: Reason| {
            let wanted = |_| Wanted { claim: String::new(), value: String::new() };
            refusals.refuse(&reason.found(""), wanted).code()
        };
        assert_eq!((refuse(Reason::Issuer), refuse(Reason::Issuer)), (Code::Unauthenticated, Code::Unauthenticated));
        assert_eq!((count(Reason::Issuer), count(Reason::Expired)), (Some(2), Some(0)));
        assert_eq!(refuse(Reason::Unread), Code::Unavailable);
    }

    /// INV-REFUSED
    #[test]
    fn log_shows_bounded_escaped_values_and_no_person() {
        assert_eq!(quoted("a\n\u{1b}[2J\u{202e}"), "a\\n\\u{1b}[2J\\u{202e}");
        let long = quoted(&"x".repeat(10_000));
        assert_eq!((long.chars().count(), long.chars().last()), (FOUND_MAX + 1, Some('…')));
        assert_eq!(shown(Some(&serde_json::json!(["a", "b"]))), r#"[\"a\",\"b\"]"#);
        for claim in [serde_json::json!("alice"), serde_json::json!(["alice"]), serde_json::json!({"alice": "alice"})] {
            assert!(!shape(Some(&claim)).contains("alice"), "{claim}");
        }
    }
}
