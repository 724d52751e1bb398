//! Errors as answers: RFC 9457 problems with a stable type, and the offending items by JSON
//! Pointer.
//!
//! A problem must not show internal causes. The log has them, under the request id of the answer.

use crate::response::{AnsweredFrom, put_state};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use receipts_query::Unavailable;
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The prefix of the code in every problem's `type`.
pub const TYPE_PREFIX: &str = "urn:receipts:problem:";

/// The most items that one problem lists. Its detail says if there are more.
const ITEMS_MAX: usize = 100;

/// The kinds of problems. Codes are a public promise: they are never renamed, and a retired code is
/// never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request, or an item of it, violates the contract. Nothing was done.
    Invalid,
    /// `Receipts-Min-Position` is not a token of this log.
    BadPosition,
    /// The cursor is forged, or belongs to another list.
    BadCursor,
    /// The credential is missing or invalid.
    Unauthenticated,
    /// The caller may not ask or do this. Strangers get the same answer for a message that does not
    /// exist.
    Forbidden,
    /// The message or read mark does not exist.
    NotFound,
    /// The route does not exist.
    NoRoute,
    /// The route does not have the method.
    MethodNotAllowed,
    /// The body of the request did not arrive in time.
    RequestTimeout,
    /// A message that is not `ok` has no member lists.
    NotOk,
    /// The body is larger than its limit.
    TooLarge,
    /// The route does not read bodies of this content type.
    UnsupportedMediaType,
    /// The caller sends more requests than it may.
    RateLimited,
    /// The service has a fault.
    Internal,
    /// The requested position is not folded yet.
    Behind,
    /// The state cannot be asked at the moment.
    Unavailable,
    /// Nothing was written. The client should send it again.
    NotWritten,
    /// It is unknown whether everything was written. The client should send it again.
    OutcomeOpen,
    /// The topic no longer keeps the updates at which a stream would resume.
    UpdatesGone,
    /// Too many streams are open.
    TooManyStreams,
    /// Too many requests are in progress.
    Overloaded,
    /// The state is further behind the log than the configured lag.
    NotReady,
}

impl Code {
    /// All codes, for the OpenAPI document.
    pub const ALL: [Self; 22] = [
        Self::Invalid,
        Self::BadPosition,
        Self::BadCursor,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::NotOk,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::Internal,
        Self::Behind,
        Self::Unavailable,
        Self::NotWritten,
        Self::OutcomeOpen,
        Self::UpdatesGone,
        Self::TooManyStreams,
        Self::Overloaded,
        Self::NotReady,
    ];

    /// Returns the code as it appears in `type` after [`TYPE_PREFIX`], its HTTP status, and its
    /// `title`.
    pub const fn spec(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Invalid => ("invalid", StatusCode::BAD_REQUEST, "The request is not valid"),
            Self::BadPosition => ("bad-position", StatusCode::BAD_REQUEST, "The position token is not valid"),
            Self::BadCursor => ("bad-cursor", StatusCode::BAD_REQUEST, "The cursor does not belong to this list"),
            Self::Unauthenticated => {
                ("unauthenticated", StatusCode::UNAUTHORIZED, "The credential is missing or not valid")
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "The caller may not ask this"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "Not found"),
            Self::NoRoute => ("no-route", StatusCode::NOT_FOUND, "No such route"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The route does not have this method")
            }
            Self::RequestTimeout => ("request-timeout", StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            Self::NotOk => ("not-ok", StatusCode::CONFLICT, "The message has no member lists"),
            Self::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The content type is not supported")
            }
            Self::RateLimited => ("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests from this caller"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The service failed"),
            Self::Behind => ("behind", StatusCode::SERVICE_UNAVAILABLE, "The position is not folded yet"),
            Self::Unavailable => {
                ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "The state cannot be asked at the moment")
            }
            Self::NotWritten => ("not-written", StatusCode::SERVICE_UNAVAILABLE, "Nothing was written"),
            Self::OutcomeOpen => ("outcome-open", StatusCode::SERVICE_UNAVAILABLE, "The outcome is unknown"),
            Self::UpdatesGone => ("updates-gone", StatusCode::GONE, "Updates since then are no longer kept"),
            Self::TooManyStreams => ("too-many-streams", StatusCode::SERVICE_UNAVAILABLE, "Too many streams are open"),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too many requests are in progress"),
            Self::NotReady => ("not-ready", StatusCode::SERVICE_UNAVAILABLE, "Not ready"),
        }
    }
}

/// One offending item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ProblemItem)]
pub struct Item {
    /// A JSON Pointer (RFC 6901) into the body (`/3/message_ids/0`), empty for the whole body. In
    /// NDJSON the first number is that of the event; blank lines do not count. For a path
    /// parameter, query parameter or header it is a slash and the name.
    pub pointer: String,
    /// What is wrong with the item, for a human reader.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
}

/// An error that becomes an answer.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    detail: Option<Cow<'static, str>>,
    items: Vec<Item>,
    more: Map<String, Value>,
    retry_after_s: Option<u64>,
    state: Option<AnsweredFrom>,
    challenge: &'static str,
}

impl Problem {
    /// Creates a problem of a kind. One with status 503 or 429 asks the client to retry after a
    /// second.
    pub fn new(code: Code) -> Self {
        let retry_after_s = matches!(code.spec().1.as_u16(), 429 | 503).then_some(1);
        Self(Box::new(Parts {
            code,
            detail: None,
            items: Vec::new(),
            more: Map::new(),
            retry_after_s,
            state: None,
            challenge: "Bearer",
        }))
    }

    /// Creates a 400 that names one offending item.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Invalid).item(pointer, detail)
    }

    /// Says what exactly went wrong, for a human reader. It must not be an internal cause.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds an offending item.
    #[must_use]
    pub fn item(mut self, pointer: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.items.push(Item { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Sets the offending items. Only the first 100 are listed.
    #[must_use]
    pub fn items(mut self, items: Vec<Item>) -> Self {
        let count = items.len();
        self.0.items = items;
        self.0.items.truncate(ITEMS_MAX);
        if count > ITEMS_MAX {
            self.0.detail = Some(format!("{count} items are invalid; the first {ITEMS_MAX} are listed").into());
        }
        self
    }

    /// Adds an extension member (RFC 9457, section 3.2).
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.more.insert(name.to_owned(), value);
        self
    }

    /// Sets when the client may retry, in whole seconds.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// Sets the state that gave this answer.
    #[must_use]
    pub(crate) fn at(mut self, state: AnsweredFrom) -> Self {
        self.0.state = Some(state);
        self
    }

    /// Sets `WWW-Authenticate` for a missing or bad credential; `Bearer` by default (RFC 6750,
    /// section 3).
    #[must_use]
    pub(crate) fn challenge(mut self, challenge: &'static str) -> Self {
        self.0.challenge = challenge;
        self
    }

    /// Returns the kind of the problem.
    pub fn code(&self) -> Code {
        self.0.code
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Behind => Self::new(Code::Behind),
            Unavailable::Held { .. } => Self::new(Code::Behind).detail(unavailable.to_string()),
            Unavailable::NoOwner { .. } => Self::new(Code::Unavailable),
            Unavailable::Stale { .. } => Self::new(Code::Unavailable).detail(unavailable.to_string()),
            Unavailable::Failed(cause) => {
                tracing::warn!(%cause, "the state cannot be asked; the request was answered 503");
                Self::new(Code::Unavailable)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { code, detail, items, more, retry_after_s, state, challenge } = *self.0;
        let (name, status, title) = code.spec();
        let mut body = Map::new();
        body.insert("type".to_owned(), format!("{TYPE_PREFIX}{name}").into());
        body.insert("title".to_owned(), title.into());
        body.insert("status".to_owned(), status.as_u16().into());
        if let Some(detail) = detail {
            body.insert("detail".to_owned(), detail.into_owned().into());
        }
        if !items.is_empty() {
            body.insert("errors".to_owned(), serde_json::to_value(items).unwrap_or_default());
        }
        body.extend(more);
        let mut response = (status, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(state) = state {
            put_state(headers, &state);
        }
        response
    }
}

/// Answers an unknown path.
pub(crate) async fn no_route() -> Problem {
    Problem::new(Code::NoRoute)
}

/// Answers a method that the route does not have. axum adds `Allow`.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed)
}

/// Answers a request whose handler panicked. The text of the panic goes to the log.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let cause = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(cause, "the handler of a request panicked");
    Problem::new(Code::Internal).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_have_distinct_names() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.spec().0).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn transient_problems_say_when_to_retry() {
        for code in Code::ALL {
            let response = Problem::new(code).into_response();
            let is_transient = matches!(response.status().as_u16(), 429 | 503);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), is_transient, "{code:?}");
        }
    }

    #[test]
    fn long_list_of_items_is_cut_and_says_so() {
        let items = (0..150).map(|at| Item { pointer: format!("/{at}"), detail: "bad".into() }).collect();
        let problem = Problem::new(Code::Invalid).items(items);
        assert_eq!(problem.0.items.len(), ITEMS_MAX);
        assert_eq!(problem.0.detail.as_deref(), Some("150 items are invalid; the first 100 are listed"));
    }
}
