//! What can go wrong: the service's own word for it (RFC 9457), or that none came. Decides nothing: what may be tried again
//! stands in the transport.

use crate::types::Receipt;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Before the code in every problem's `type`.
const TYPE_PREFIX: &str = "urn:receipts:problem:";

/// Whatever a caller's own code may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service refused, with a stable `type` and the offending items. What may be tried again was.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Updates that a stream would have to go on with are not kept any more (410): ask for the receipts on show anew.
    #[error("updates were missed that are not kept any more, ask for the receipts anew: {0}")]
    UpdatesGone(Box<Problem>),
    /// Nobody answered, or not in time, however often it was tried where that does no harm. What a write has done is open.
    #[error("the service did not answer; look at its address, and whether it runs")]
    Unanswered(#[source] BoxError),
    /// What came is not what the service writes: a proxy's page, or a version that this client is too old for.
    #[error("the answer to {what} cannot be read; look at what answers at the base URL")]
    Malformed {
        /// What was asked.
        what: &'static str,
        /// What is wrong with the answer.
        #[source]
        source: serde_json::Error,
    },
    /// The token's source failed, so nothing was asked.
    #[error("no token")]
    Token(#[source] BoxError),
    /// The call cannot be made; nothing was asked.
    #[error("{0}")]
    Usage(String),
    /// Of several requests that a call needed, one failed: what went before it is written.
    #[error("{accepted} events are written, and the ones behind them failed: {source}")]
    PartlyWritten {
        /// Events of the call that are written, counted from its first one. Pointers in `source` count from there.
        accepted: u64,
        /// Why the request behind them failed.
        source: Box<Error>,
    },
}

impl Error {
    /// What the service said, if it was the service.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) | Self::UpdatesGone(problem) => Some(problem),
            Self::PartlyWritten { source, .. } => source.problem(),
            _ => None,
        }
    }

    /// Whether this is the service's problem of a code: `error.is("forbidden")`.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.problem().is_some_and(|problem| problem.is(code))
    }
}

/// An answer that is an error, by RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong, stable: `urn:receipts:problem:forbidden`; `about:blank` where something before the service answered.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The same, for a person.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What exactly went wrong, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Which items are at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemItem>,
    /// With `not-found` and `not-ok` about a message: its receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
    /// When the service asks to come again.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// An offending item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemItem {
    /// A JSON Pointer into the body, empty for all of it; for anything else a slash and the name of the parameter or header.
    pub pointer: String,
    /// What is wrong there, for a person.
    pub detail: String,
}

impl Problem {
    /// Whether this is the problem of a code: `problem.is("forbidden")`.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code() == Some(code)
    }

    /// The code of a problem of the service: `forbidden`. The list of codes is in `schemas/openapi.yaml`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.type_uri.strip_prefix(TYPE_PREFIX)
    }

    /// The problem of an answer whose status is an error, whoever between here and the service wrote it.
    pub(crate) async fn of(response: reqwest::Response) -> Box<Self> {
        let (status, headers) = (response.status(), response.headers());
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let is_problem =
            headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"));
        let body = response.bytes().await.unwrap_or_default();
        // One that was cut off on its way is told by its status, as the answer of a proxy is.
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
