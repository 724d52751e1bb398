//! Lets web pages of listed origins read answers (CORS, the Fetch standard, section 3.3).
//!
//! It must not refuse anything: [`Guard`](super::guard::Guard) keeps foreign pages out where
//! callers have no tokens. It never permits cookies: a page sends its token itself.

use crate::edge::guard::listed;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

/// The methods of our routes.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
/// The request headers that our routes read and that a page may not send unasked.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, last-event-id, receipts-caller, receipts-min-position, receipts-tenant, \
     receipts-wait-ms, traceparent, tracestate, x-request-id",
);
/// The headers of our answers that a page may read.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("location, receipts-position, receipts-stale, retry-after, x-request-id");
/// For how long a browser may reuse the answer to a preflight, seconds: the most that Chromium
/// takes.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("7200");

/// The origins whose pages may read answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// As browsers write them; `*` for all. Without any, no answer has a header of CORS.
    pub origins: Vec<String>,
}

/// Middleware that answers the preflights of listed origins, and marks every other answer as
/// readable for them. An origin that is not listed gets the answer that it would get anyway, which
/// its browser keeps from the page.
pub(crate) async fn share(State(cors): State<Arc<Cors>>, request: Request, next: Next) -> Response {
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    let origin = origins.next().filter(|_| origins.next().is_none());
    let is_listed = |origin: &&HeaderValue| origin.to_str().is_ok_and(|origin| listed(&cors.origins, origin));
    let origin = origin.filter(is_listed).cloned();
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match origin.is_some() && is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    // The answer depends on the origin, so a shared cache must not give it to another one.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin else { return response };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if is_preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
    response
}
