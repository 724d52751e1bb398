//! Successful answers, and the headers that every answer has: its position token, and that caches
//! must not keep it.
//!
//! It must not know a route's own shapes.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use receipts_query::{LogTag, Positions, Token};

/// Carries a position token: of a read, how far the log was folded for the answer; of a write, the
/// written events.
pub const POSITION_HEADER: HeaderName = HeaderName::from_static("receipts-position");

/// Says of an answer from a state that does not hear from the log for how many whole seconds it
/// has not. The log may hold newer events.
pub const STALE_HEADER: HeaderName = HeaderName::from_static("receipts-stale");

/// The state that an answer was given from.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnsweredFrom {
    /// How far it was folded.
    pub(crate) positions: Positions,
    /// The log that it was folded from, if that is known.
    pub(crate) log: Option<LogTag>,
    /// For how many whole seconds it has not heard from the log, if it does not.
    pub(crate) stale_s: Option<u64>,
}

/// Sets the position token of an answer, and says if its state is stale.
pub(crate) fn put_state(headers: &mut HeaderMap, state: &AnsweredFrom) {
    put_position(headers, &state.token());
    if let Some(seconds) = state.stale_s {
        headers.insert(STALE_HEADER, seconds.into());
    }
}

impl AnsweredFrom {
    pub(crate) fn token(&self) -> Token {
        self.positions.token(self.log)
    }
}

/// Sets the position token of an answer.
pub(crate) fn put_position(headers: &mut HeaderMap, token: &Token) {
    if let Ok(token) = HeaderValue::try_from(token.to_string()) {
        headers.insert(POSITION_HEADER, token);
    }
}

/// Keeps an answer out of every cache unless it says otherwise: answers change, and most belong to
/// one caller. A cache may keep even a 200 or a 404 that says nothing (RFC 9111, section 4.2.2).
pub(crate) fn keep_out_of_caches(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// Returns a 200 with JSON and the positions of its state.
pub(crate) fn answered(json: Vec<u8>, state: &AnsweredFrom) -> Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    put_state(headers, state);
    response
}
