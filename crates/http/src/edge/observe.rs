//! Records each request: an id, a span, a count and a duration.
//!
//! It must not put values that callers choose into labels or traces: it names routes by their
//! template and methods from a fixed list.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Counter, Histogram};
use parking_lot::RwLock;
use receipts_cluster::ASK_PATH;
use receipts_metrics::catalogue;
use receipts_traces::{Span, TRACEPARENT, TRACESTATE, TraceContext, Traces};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument as _;

/// The id of the request, on every answer: the caller's own if it is printable ASCII of at most 128
/// bytes, or else one of ours.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Tells the ids of this process from those of other processes and earlier runs.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("request id"));

/// Ids given since the process began.
static COUNT: AtomicU64 = AtomicU64::new(0);

fn request_id(request: &Request) -> HeaderValue {
    if let Some(given) = request.headers().get(REQUEST_ID_HEADER) {
        let bytes = given.as_bytes();
        if (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
            return given.clone();
        }
    }
    let id = format!("{:016x}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("-"))
}

/// Returns a method as a label.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Counters and histograms by route. They are kept, because a lookup by freshly made labels costs
/// more than many answers.
#[derive(Default)]
pub(crate) struct Meters(RwLock<HashMap<String, Vec<Meter>>>);

/// The meters of one route, method and status.
struct Meter {
    method: &'static str,
    status: u16,
    requests: Counter,
    seconds: Histogram,
}

impl Meters {
    fn record(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let count = |meter: &Meter| {
            meter.requests.increment(1);
            meter.seconds.record(took.as_secs_f64());
        };
        let is_same = |meter: &&Meter| meter.method == method && meter.status == status;
        if let Some(meter) = self.0.read().get(route).and_then(|meters| meters.iter().find(is_same)) {
            return count(meter);
        }
        let name = || route.to_owned();
        let meter = Meter {
            method,
            status,
            requests: catalogue::HTTP_REQUESTS.of([name(), method.to_owned(), status.to_string()]),
            seconds: catalogue::HTTP_SECONDS.of([name(), method.to_owned()]),
        };
        count(&meter);
        self.0.write().entry(name()).or_default().push(meter);
    }
}

/// Begins the span of a request. Only callers' requests have one, not probes and scrapes; a
/// question of an edge has one if it is part of a trace.
fn trace(traces: &Traces, method: &'static str, route: &str, headers: &HeaderMap) -> Option<Span> {
    let is_question = route == ASK_PATH;
    if !is_question && !route.starts_with("/v1/") {
        return None;
    }
    let mut traceparents = headers.get_all(TRACEPARENT).iter();
    // More than one is as bad as a malformed one.
    let traceparent = traceparents.next().filter(|_| traceparents.next().is_none());
    let tracestates = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes);
    let parent = traceparent.and_then(|value| TraceContext::of_headers(value.as_bytes(), tracestates));
    (parent.is_some() || !is_question).then(|| traces.request(method, route, parent.as_ref()))
}

/// Middleware around all routes. Counts `receipts_http_requests_total{route,method,status}` and
/// measures `receipts_http_request_duration_seconds{route,method}`.
/// Routes find the id of the request in its headers.
pub(crate) async fn observe(State(meters): State<Arc<Meters>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID_HEADER, id.clone());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let (route, method) = (matched.as_ref().map_or("none", MatchedPath::as_str), label(request.method()));
    let trace_id = tracing::field::Empty;
    let span = tracing::info_span!("http", method, route, request_id = id.to_str().unwrap_or_default(), trace_id);
    let traced = receipts_traces::traces().and_then(|traces| trace(traces, method, route, request.headers()));
    let mut response = match traced {
        None => next.run(request).instrument(span.clone()).await,
        Some(mut traced) => {
            span.record("trace_id", traced.context().trace_id());
            let run = next.run(request).instrument(span.clone());
            let response = receipts_traces::within(traced.context(), run).await;
            traced.answered(response.status().as_u16());
            response
        }
    };
    let (status, took) = (response.status().as_u16(), began.elapsed());
    span.in_scope(|| tracing::debug!(status, took_us = took.as_micros() as u64, "answered"));
    meters.record(route, method, status, took);
    response.headers_mut().insert(REQUEST_ID_HEADER, id);
    response
}
