//! Why a record is no event: stable reason codes, and problems that point into its JSON. Repeats no id of the record:
//! details end up in headers, logs and answers, where a person's id has no business.

use std::fmt;

use serde::Serialize;

/// How many problems a rejection lists at most; those beyond are left out.
pub const PROBLEMS_MAX: usize = 100;

/// How many bytes the one sentence of a rejection takes at most.
pub const SENTENCE_BYTES_MAX: usize = 1_000;

/// Why a record is a dead letter. The codes are stable: consumers of `receipts.dead-letters` match on them.
///
/// Declared from grave to slight: a rejection with several problems carries the gravest one's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// `invalid-json`: not one JSON object in UTF-8.
    InvalidJson,
    /// `unknown-type`: an object whose `type` is none of ours.
    UnknownType,
    /// `missing-field`: a required field is not there.
    MissingField,
    /// `invalid-field`: a field is ill-typed, stands twice, or contradicts another one.
    InvalidField,
    /// `limit-exceeded`: an id too long, or too many of something.
    LimitExceeded,
    /// `no-value`: the record has no value at all.
    NoValue,
    /// `wrong-key`: the record's key is not the one its value asks for.
    WrongKey,
    /// `wrong-partition`: the record does not stand in the partition its key belongs to.
    WrongPartition,
    /// `wrong-policy-partition`: a control event whose `partition` is not the one it stands in.
    WrongPolicyPartition,
    /// `no-roster`: a message without `recipients` in a conversation that never had a roster.
    NoRoster,
    /// `parked-expired`: what it names had not come when the parking time was over.
    ParkedExpired,
    /// `parked-overflow`: what it names had not come, and too much was parked already.
    ParkedOverflow,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 12] = [
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
        }
    }

    /// Returns the reason of a code, or `None` for a code that is none of ours.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One thing that is wrong with a record's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// JSON Pointer (RFC 6901) to the place; empty for the value as a whole. A missing field is pointed to as if it were there.
    pub pointer: String,
    /// What is wrong, said of that place: `must not be empty`.
    pub detail: String,
}

/// Why a record is no event; displays as one sentence of at most [`SENTENCE_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Rejection {
    /// The gravest of the problems.
    pub reason: Reason,
    /// What is wrong where, at most [`PROBLEMS_MAX`], never empty where [`decode`](crate::decode) rejects.
    pub problems: Vec<Problem>,
}

impl Rejection {
    /// Returns a rejection for one problem; `pointer` is a JSON Pointer, empty for the value as a whole.
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

/// Gathers problems while a value is looked through; bounded, and without allocation while there is none.
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

    /// Returns the rejection, or `None` where nothing was found.
    pub(crate) fn into_rejection(self) -> Option<Rejection> {
        self.gravest.map(|reason| Rejection { reason, problems: self.problems })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_again_by_its_code() {
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
    fn the_gravest_problem_gives_the_reason_even_beyond_the_listed_ones() {
        let mut findings = Findings::default();
        for _ in 0..PROBLEMS_MAX {
            findings.add(Reason::LimitExceeded, "/x", "is too long");
        }
        findings.add(Reason::MissingField, "/y", "is missing");
        let rejection = findings.into_rejection().unwrap();
        assert_eq!((rejection.reason, rejection.problems.len()), (Reason::MissingField, PROBLEMS_MAX));
    }
}
