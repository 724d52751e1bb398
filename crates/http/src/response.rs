//! Successful answers, and the position token on every answer.
//!
//! It must not know a route's own shapes.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use receipts_query::Positions;

/// Carries a position token: of a read, how far the log was folded for the answer; of a write, the
/// written events.
pub const POSITION_HEADER: HeaderName = HeaderName::from_static("receipts-position");

/// Sets the position token of an answer.
pub(crate) fn put_position(headers: &mut HeaderMap, positions: &Positions) {
    if let Ok(token) = HeaderValue::try_from(positions.to_string()) {
        headers.insert(POSITION_HEADER, token);
    }
}

/// Returns a 200 with JSON and its positions. Answers change and belong to one caller, so caches
/// must not keep them.
pub(crate) fn answered(json: Vec<u8>, positions: &Positions) -> Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    put_position(headers, positions);
    response
}
