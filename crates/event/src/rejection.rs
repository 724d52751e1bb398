//! Rejections of records: stable reason codes, and problems with JSON pointers. They repeat no id
//! of the record, because details end up in headers, logs and answers, which must not name people.

use std::fmt;

use serde::Serialize;

/// The maximum number of problems of a rejection; further ones are left out.
pub const PROBLEMS_MAX: usize = 100;

/// The maximum length of a rejection's sentence, bytes.
pub const SENTENCE_BYTES_MAX: usize = 1_000;

/// Why a record is a dead letter. The codes are stable: consumers of `receipts.dead-letters` match
/// on them.
///
/// In order of gravity: a rejection with several problems has the reason of the gravest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// `invalid-json`: not one JSON object in UTF-8.
    InvalidJson,
    /// `unknown-type`: an object with an unknown `type`.
    UnknownType,
    /// `missing-field`: a required field is absent.
    MissingField,
    /// `invalid-field`: a field has a wrong type, appears twice, or contradicts another one.
    InvalidField,
    /// `limit-exceeded`: an id is too long, or a list has too many items.
    LimitExceeded,
    /// `no-value`: the record has no value.
    NoValue,
    /// `wrong-key`: the record's key does not match its value.
    WrongKey,
    /// `wrong-partition`: the record is not in the partition of its key.
    WrongPartition,
    /// `wrong-policy-partition`: a control event is not in the partition that it names.
    WrongPolicyPartition,
    /// `no-roster`: a message without `recipients` in a conversation that never had a roster.
    NoRoster,
    /// `parked-expired`: the messages that it names did not come within the parking time.
    ParkedExpired,
    /// `parked-overflow`: the messages that it names had not come, and too many records were
    /// parked.
    ParkedOverflow,
    /// `over-budget`: it would take more of the partition than a budget allows its tenant, or all
    /// tenants.
    OverBudget,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 13] = [
        Self::InvalidJson,
        Self::UnknownType,
        Self::MissingField,
        Self::InvalidField,
        Self::LimitExceeded,
        Self::NoValue,
        Self::WrongKey,
        Self::WrongPartition,
        Self::WrongPolicyPartition,
        Self::NoRoster,
        Self::ParkedExpired,
        Self::ParkedOverflow,
        Self::OverBudget,
    ];

    /// Returns the stable code, the value of the header `dead-letter-reason`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid-json",
            Self::UnknownType => "unknown-type",
            Self::MissingField => "missing-field",
            Self::InvalidField => "invalid-field",
            Self::LimitExceeded => "limit-exceeded",
            Self::NoValue => "no-value",
            Self::WrongKey => "wrong-key",
            Self::WrongPartition => "wrong-partition",
            Self::WrongPolicyPartition => "wrong-policy-partition",
            Self::NoRoster => "no-roster",
            Self::ParkedExpired => "parked-expired",
            Self::ParkedOverflow => "parked-overflow",
            Self::OverBudget => "over-budget",
        }
    }

    /// Returns the reason with that code, or `None` for an unknown code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One mistake of a record's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// JSON Pointer (RFC 6901) to the mistake; empty for the whole value. For a missing field, its
    /// pointer if it were present.
    pub pointer: String,
    /// The mistake, as a sentence about the pointer's target: `must not be empty`.
    pub detail: String,
}

/// Why a record is not an event. Displays as one sentence of at most [`SENTENCE_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Rejection {
    /// The gravest of the problems.
    pub reason: Reason,
    /// The problems, at most [`PROBLEMS_MAX`]; at least one if [`decode`](crate::decode) rejects.
    pub problems: Vec<Problem>,
}

impl Rejection {
    /// Returns a rejection for one problem; `pointer` is a JSON Pointer, empty for the whole value.
    pub fn new(reason: Reason, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason, problems: vec![Problem { pointer: pointer.into(), detail: detail.into() }] }
    }

    fn sentence(&self) -> String {
        const ELLIPSIS: &str = "…";
        let mut sentence = String::new();
        for problem in &self.problems {
            if !sentence.is_empty() {
                sentence.push_str("; ");
            }
            sentence.push_str(if problem.pointer.is_empty() { "the event" } else { &problem.pointer });
            sentence.push(' ');
            sentence.push_str(&problem.detail);
            if sentence.len() > SENTENCE_BYTES_MAX {
                sentence.truncate(sentence.floor_char_boundary(SENTENCE_BYTES_MAX - ELLIPSIS.len()));
                sentence.push_str(ELLIPSIS);
                break;
            }
        }
        if sentence.is_empty() {
            sentence.push_str(self.reason.code());
        }
        sentence
    }
}

/// Collects problems during decoding. Bounded; allocates only with the first problem.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    gravest: Option<Reason>,
    problems: Vec<Problem>,
}

impl Findings {
    pub(crate) fn add(&mut self, reason: Reason, pointer: impl Into<String>, detail: impl Into<String>) {
        self.gravest = Some(self.gravest.map_or(reason, |gravest| gravest.min(reason)));
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { pointer: pointer.into(), detail: detail.into() });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gravest.is_none()
    }

    /// Returns the rejection, or `None` if there is no problem.
    pub(crate) fn into_rejection(self) -> Option<Rejection> {
        self.gravest.map(|reason| Rejection { reason, problems: self.problems })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_code() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
            assert!(reason.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
        assert_eq!(Reason::from_code("no-such-reason"), None);
    }

    #[test]
    fn a_rejection_reads_as_one_sentence() {
        let mut rejection = Rejection::new(Reason::MissingField, "/message_id", "is missing");
        rejection.problems.push(Problem { pointer: String::new(), detail: "is odd".into() });
        assert_eq!(rejection.to_string(), "/message_id is missing; the event is odd");
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        for filler in 0..4 {
            let detail = format!("{}{}", "x".repeat(filler), "🙂".repeat(1_000));
            let sentence = Rejection::new(Reason::InvalidField, "/x", detail).to_string();
            assert!(sentence.len() <= SENTENCE_BYTES_MAX && sentence.len() > SENTENCE_BYTES_MAX - 8);
            assert!(sentence.ends_with("🙂…"));
        }
    }

    #[test]
    fn the_gravest_problem_gives_the_reason() {
        let mut findings = Findings::default();
        for _ in 0..PROBLEMS_MAX {
            findings.add(Reason::LimitExceeded, "/x", "is too long");
        }
        findings.add(Reason::MissingField, "/y", "is missing");
        let rejection = findings.into_rejection().unwrap();
        assert_eq!((rejection.reason, rejection.problems.len()), (Reason::MissingField, PROBLEMS_MAX));
    }
}
