//! Audit lines: one log line for each act that an operator may have to account for.
//!
//! It must not name a person whom the act is about, nor a conversation or a message, because logs
//! outlive an erasure. The request id and the positions lead to the record in the event log, which
//! has the ids for as long as the log keeps them. Keeps INV-AUDIT.

use crate::edge::caller::Caller;
use crate::edge::observe::REQUEST_ID_HEADER;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use receipts_query::Positions;
use std::convert::Infallible;
use std::fmt::Write as _;

/// The tracing target of audit lines, by which a log filter or a collector selects them.
pub const AUDIT_TARGET: &str = "receipts::audit";

/// The most positions that one line lists.
const POSITIONS_MAX: usize = 100;

/// An act that has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// A person is erased. `own`: by themselves; the line must not name that caller either.
    Erasure { own: bool },
    /// A tenant's policy is replaced.
    Policy,
    /// A member list is asked for, by the name of its filter.
    MemberList(&'static str),
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The log has acknowledged the event.
    Written,
    /// The log may have the event.
    Open,
    /// The log does not have the event.
    NotWritten,
    /// The caller got the list.
    Answered,
    /// The message has no such list.
    NoList,
    /// The caller may not ask this.
    Refused,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Open => "open",
            Self::NotWritten => "not written",
            Self::Answered => "answered",
            Self::NoList => "no list",
            Self::Refused => "refused",
        }
    }
}

/// The id of a request, which the middleware has put into its headers.
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id of the request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get(REQUEST_ID_HEADER).cloned().unwrap_or(HeaderValue::from_static("-")))
    }
}

/// Gives handlers the id as an argument.
impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// Writes the line of an act. `positions` are those of the written records, or of the state that
/// answered.
pub(crate) fn audit(act: Act, outcome: Outcome, caller: &Caller, request_id: &RequestId, positions: &Positions) {
    let Caller { tenant, user, service, .. } = caller;
    let request_id = request_id.0.to_str().unwrap_or("-");
    let (user, service) = (user.as_deref(), service.as_deref());
    let (outcome, positions) = (outcome.name(), shown(positions));
    match act {
        Act::Erasure { own } => {
            let user = if own { Some("(the erased person)") } else { user };
            tracing::info!(
                target: AUDIT_TARGET, parent: None,
                act = "erasure", outcome, tenant, user, service, request_id, positions, "a person's erasure was requested"
            );
        }
        Act::Policy => tracing::info!(
            target: AUDIT_TARGET, parent: None,
            act = "policy", outcome, tenant, user, service, request_id, positions, "a change of the policy was requested"
        ),
        Act::MemberList(filter) => tracing::info!(
            target: AUDIT_TARGET, parent: None,
            act = "member_list", filter, outcome, tenant, user, service, request_id, positions,
            "a member list was requested"
        ),
    }
}

/// Returns positions as text: `PARTITION@OFFSET` of the last record of each partition.
fn shown(positions: &Positions) -> String {
    let mut text = String::new();
    for (at, (partition, next_offset)) in positions.iter().enumerate() {
        if at == POSITIONS_MAX {
            // Writing to a string cannot fail.
            _ = write!(text, " and {} more", positions.iter().len() - at);
            break;
        }
        let space = if at == 0 { "" } else { " " };
        _ = write!(text, "{space}{partition}@{}", next_offset.saturating_sub(1));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_shown_by_partition_up_to_a_bound() {
        let positions = |count: u32| (0..count).map(|partition| (partition, u64::from(partition) + 8)).collect();
        assert_eq!(shown(&positions(0)), "");
        assert_eq!(shown(&positions(3)), "0@7 1@8 2@9");
        assert!(shown(&positions(100)).ends_with(" 99@106"));
        assert!(shown(&positions(150)).ends_with(" 99@106 and 50 more"));
    }
}
