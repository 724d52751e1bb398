//! Errors as answers: RFC 9457 problems with a stable type, and the offending items by JSON Pointer.
//!
//! Must not show causes: what went wrong inside stands in the log, under the request id that the answer carries too.

use crate::response::put_position;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use receipts_query::{Positions, Unavailable};
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Before the code in every problem's `type`.
pub const TYPE_PREFIX: &str = "urn:receipts:problem:";

/// How many items one problem lists at most; its detail says when there are more.
const ITEMS_MAX: usize = 100;

/// What went wrong. The codes are a public promise: they are never renamed, and a retired one is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request, or an item of it, is not what the contract asks for; nothing was done.
    Invalid,
    /// `Receipts-Min-Position` is no token of this log.
    BadPosition,
    /// The cursor is forged, or of another list.
    BadCursor,
    /// The credential is missing, or not valid.
    Unauthenticated,
    /// The caller may not ask or do this. A message that does not exist answers strangers the same.
    Forbidden,
    /// There is no such message or read mark.
    NotFound,
    /// There is no such route.
    NoRoute,
    /// The route does not know the method.
    MethodNotAllowed,
    /// The request's body did not arrive in time.
    RequestTimeout,
    /// A member list of a message that is not `ok`.
    NotOk,
    /// The body is over its limit.
    TooLarge,
    /// The body's content type is none of those that the route reads.
    UnsupportedMediaType,
    /// The caller asks more often than it may.
    RateLimited,
    /// A fault of the service.
    Internal,
    /// The position that was to be waited for is not folded yet.
    Behind,
    /// The state cannot be asked just now.
    Unavailable,
    /// Nothing was written; to be sent again.
    NotWritten,
    /// Whether everything was written is not known; to be sent again.
    OutcomeOpen,
    /// Updates that a stream would have to begin with are not kept any more.
    UpdatesGone,
    /// Too many streams at once.
    TooManyStreams,
    /// Too many requests at once.
    Overloaded,
    /// The state is further behind the log than configured.
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

    /// The code as it stands in `type`, behind [`TYPE_PREFIX`]; its HTTP status; its `title`.
    pub const fn spec(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Invalid => ("invalid", StatusCode::BAD_REQUEST, "The request is not valid"),
            Self::BadPosition => ("bad-position", StatusCode::BAD_REQUEST, "The position token is not valid"),
            Self::BadCursor => ("bad-cursor", StatusCode::BAD_REQUEST, "The cursor is not of this list"),
            Self::Unauthenticated => {
                ("unauthenticated", StatusCode::UNAUTHORIZED, "The credential is missing or not valid")
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "The caller may not ask this"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "Not found"),
            Self::NoRoute => ("no-route", StatusCode::NOT_FOUND, "No such route"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The route does not know this method")
            }
            Self::RequestTimeout => ("request-timeout", StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            Self::NotOk => ("not-ok", StatusCode::CONFLICT, "The message has no member lists"),
            Self::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The content type is not supported")
            }
            Self::RateLimited => ("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests of this caller"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The service failed"),
            Self::Behind => ("behind", StatusCode::SERVICE_UNAVAILABLE, "The position is not folded yet"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "The state cannot be asked just now"),
            Self::NotWritten => ("not-written", StatusCode::SERVICE_UNAVAILABLE, "Nothing was written"),
            Self::OutcomeOpen => ("outcome-open", StatusCode::SERVICE_UNAVAILABLE, "The outcome is open"),
            Self::UpdatesGone => ("updates-gone", StatusCode::GONE, "Updates since then are not kept any more"),
            Self::TooManyStreams => ("too-many-streams", StatusCode::SERVICE_UNAVAILABLE, "Too many streams at once"),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once"),
            Self::NotReady => ("not-ready", StatusCode::SERVICE_UNAVAILABLE, "Not ready"),
        }
    }
}

/// One offending item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Where: a JSON Pointer (RFC 6901) into the body; for anything else the slash and the name of the path
    /// parameter, query parameter or header.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: Cow<'static, str>,
}

/// An error on its way to the caller.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    detail: Option<Cow<'static, str>>,
    items: Vec<Item>,
    more: Map<String, Value>,
    retry_after_s: Option<u64>,
    positions: Option<Positions>,
    challenge: &'static str,
}

impl Problem {
    /// A problem of this kind. What is 503 or 429 asks to come again after a second.
    pub fn new(code: Code) -> Self {
        let retry_after_s = matches!(code.spec().1.as_u16(), 429 | 503).then_some(1);
        Self(Box::new(Parts {
            code,
            detail: None,
            items: Vec::new(),
            more: Map::new(),
            retry_after_s,
            positions: None,
            challenge: "Bearer",
        }))
    }

    /// A 400 that names one offending item.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Invalid).item(pointer, detail)
    }

    /// What exactly went wrong, for a person; never a cause inside the service.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Names an offending item.
    #[must_use]
    pub fn item(mut self, pointer: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.items.push(Item { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Names offending items; of more than 100 the first.
    #[must_use]
    pub fn items(mut self, items: Vec<Item>) -> Self {
        let count = items.len();
        self.0.items = items;
        self.0.items.truncate(ITEMS_MAX);
        if count > ITEMS_MAX {
            self.0.detail = Some(format!("{count} items are concerned; the first {ITEMS_MAX} are listed").into());
        }
        self
    }

    /// Adds an extension member (RFC 9457, section 3.2).
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.more.insert(name.to_owned(), value);
        self
    }

    /// When to come again, whole seconds.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// At which positions this was the answer.
    #[must_use]
    pub fn at(mut self, positions: Positions) -> Self {
        self.0.positions = Some(positions);
        self
    }

    /// What `WWW-Authenticate` says of a missing or bad credential; `Bearer` without this (RFC 6750, section 3).
    #[must_use]
    pub(crate) fn challenge(mut self, challenge: &'static str) -> Self {
        self.0.challenge = challenge;
        self
    }

    /// What went wrong.
    pub fn code(&self) -> Code {
        self.0.code
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Behind => Self::new(Code::Behind),
            Unavailable::NoOwner { .. } => Self::new(Code::Unavailable),
            Unavailable::Failed(cause) => {
                tracing::warn!(%cause, "the state cannot be asked");
                Self::new(Code::Unavailable)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { code, detail, items, more, retry_after_s, positions, challenge } = *self.0;
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
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(positions) = positions {
            put_position(headers, &positions);
        }
        response
    }
}

/// The answer to a path that leads nowhere.
pub(crate) async fn no_route() -> Problem {
    Problem::new(Code::NoRoute)
}

/// The answer to a method that a route does not know; axum adds `Allow`.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed)
}

/// The answer where a handler panicked; the panic's text goes to the log.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let cause = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(cause, "a request panicked");
    Problem::new(Code::Internal).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.spec().0).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn what_may_pass_says_when_to_come_again() {
        for code in Code::ALL {
            let response = Problem::new(code).into_response();
            let passes = matches!(response.status().as_u16(), 429 | 503);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), passes, "{code:?}");
        }
    }

    #[test]
    fn a_long_list_of_items_is_cut_and_says_so() {
        let items = (0..150).map(|at| Item { pointer: format!("/{at}"), detail: "bad".into() }).collect();
        let problem = Problem::new(Code::Invalid).items(items);
        assert_eq!(problem.0.items.len(), ITEMS_MAX);
        assert_eq!(problem.0.detail.as_deref(), Some("150 items are concerned; the first 100 are listed"));
    }
}
