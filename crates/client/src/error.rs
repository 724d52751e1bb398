//! Errors: problems that the service reports (RFC 9457), and missing or unreadable answers. The
//! transport decides about retries.

use crate::types::Receipt;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The prefix of the code in every problem's `type`.
const TYPE_PREFIX: &str = "urn:receipts:problem:";

/// Any error of the caller's own code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service refused, with a stable `type` and the offending items. Retryable problems were
    /// retried.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The service no longer keeps updates that the stream would have to continue with (410). Query
    /// the shown receipts again.
    #[error("the stream missed updates that the service no longer keeps: query the receipts again ({0})")]
    UpdatesGone(Box<Problem>),
    /// The service did not answer in time, even after harmless retries. The outcome of a write is
    /// unknown.
    #[error("the service did not answer: check its address and whether it runs")]
    Unanswered(#[source] BoxError),
    /// The answer is not in the service's format: it is a proxy's page, or from a version that this
    /// client does not know.
    #[error("the answer to {what} cannot be read: check which program answers at the base URL")]
    Malformed {
        /// The request.
        what: &'static str,
        /// The error in the answer.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is about another message or person than the request: a proxy decodes or shortens
    /// encoded ids in paths.
    #[error(
        "the answer to {what} has other ids than the request: set the proxy in front of the service to pass paths unchanged"
    )]
    OtherIds {
        /// The request.
        what: &'static str,
    },
    /// The token source failed, so no request was sent.
    #[error("the token source returned no token")]
    Token(#[source] BoxError),
    /// The call is invalid, so no request was sent.
    #[error("{0}")]
    Usage(String),
    /// One of several requests of a call failed. The earlier ones are written.
    #[error("{accepted} events are written, and the request after them failed")]
    PartlyWritten {
        /// Events of the call that are written, counted from the first. Pointers in `source` count
        /// from there.
        accepted: u64,
        /// Why the next request failed.
        source: Box<Error>,
    },
}

impl Error {
    /// Returns the service's problem, if the service answered.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) | Self::UpdatesGone(problem) => Some(problem),
            Self::PartlyWritten { source, .. } => source.problem(),
            _ => None,
        }
    }

    /// Returns true if this is the service's problem with that code: `error.is("forbidden")`.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.problem().is_some_and(|problem| problem.is(code))
    }
}

/// A problem report of the service (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable type: `urn:receipts:problem:forbidden`; `about:blank` if a proxy answered.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The type in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The details in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The offending items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemItem>,
    /// The message's receipt, with `not-found` and `not-ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
    /// When the service allows a retry.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// An offending item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemItem {
    /// A JSON Pointer into the body, empty for the whole body; else a slash and the name of the
    /// parameter or header.
    pub pointer: String,
    /// What is wrong with the item, in words.
    pub detail: String,
}

impl Problem {
    /// Returns true if this problem has that code: `problem.is("forbidden")`.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code() == Some(code)
    }

    /// Returns the code of a problem of the service: `forbidden`. `schemas/openapi.yaml` lists the
    /// codes.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.type_uri.strip_prefix(TYPE_PREFIX)
    }

    /// Reads the problem of an error response, which the service or a proxy may have written.
    pub(crate) async fn of(response: reqwest::Response) -> Box<Self> {
        let (status, headers) = (response.status(), response.headers());
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let is_problem =
            headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"));
        let body = response.bytes().await.unwrap_or_default();
        // A truncated body is reported by its status, like a proxy's answer.
        let read = is_problem.then(|| serde_json::from_slice(&body).ok()).flatten();
        let mut problem: Self = read.unwrap_or_else(|| Self {
            type_uri: "about:blank".to_owned(),
            title: status.canonical_reason().map_or_else(|| format!("HTTP {}", status.as_u16()), str::to_owned),
            status: status.as_u16(),
            detail: None,
            errors: Vec::new(),
            receipt: None,
            retry_after: None,
        });
        problem.retry_after = retry_after.map(Duration::from_secs);
        Box::new(problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        for ProblemItem { pointer, detail } in &self.errors {
            write!(f, "; {} {detail}", if pointer.is_empty() { "body" } else { pointer })?;
        }
        Ok(())
    }
}
