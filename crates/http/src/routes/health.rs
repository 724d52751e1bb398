//! The routes of health: liveness, readiness and metrics.
//!
//! They must not need a caller or wait for anything, because orchestrators ask while all else
//! fails.

use crate::problem::{Code, Problem};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota};
use parking_lot::Mutex;
use receipts_query::Readiness;
use serde_json::Value;
use std::num::NonZeroU32;
use std::sync::Arc;

/// How often the metrics are rendered, per second. Rendering takes long, and any client may ask: in
/// a flood of requests most get the last page again.
const PAGES_PER_S: NonZeroU32 = NonZeroU32::new(20).expect("not 0");

/// The parts of the health routes.
#[derive(Clone)]
pub struct Health {
    /// Returns how far the service is behind the log. It runs on an async thread, so it must not
    /// block.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Returns the metrics in the text format of Prometheus.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The metrics as a page.
pub(crate) struct MetricsPage {
    render: Arc<dyn Fn() -> String + Send + Sync>,
    limiter: DefaultDirectRateLimiter,
    /// The last page; empty before the first one.
    last: Mutex<Bytes>,
}

impl MetricsPage {
    fn new(render: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        let limiter = DefaultDirectRateLimiter::direct(Quota::per_second(PAGES_PER_S));
        Self { render, limiter, last: Mutex::default() }
    }

    /// Returns the page as it is now or, beyond [`PAGES_PER_S`], as it was a moment ago.
    fn get(&self) -> Bytes {
        if self.limiter.check().is_ok() {
            let page = Bytes::from((self.render)());
            *self.last.lock() = page.clone();
            return page;
        }
        self.last.lock().clone()
    }
}

/// Returns the routes of health, without the middleware of [`crate::edge`](crate::edge()).
pub(crate) fn router(health: Health) -> Router {
    let page = MetricsPage::new(Arc::clone(&health.render_metrics));
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(page));
    let readiness = Router::new().route("/readyz", get(readyz)).with_state(Arc::new(health));
    readiness.merge(metrics).merge(liveness_router())
}

/// Returns the route of liveness alone.
pub(crate) fn liveness_router() -> Router {
    Router::new().route("/livez", get(livez))
}

/// Returns 200 while the process serves requests.
///
/// It says nothing about the log. Restart a process that does not answer.
#[utoipa::path(
    get, path = "/livez", operation_id = "livez", tag = "health",
    responses((status = 200, description = "The process is alive.", body = String, content_type = "text/plain", example = "alive\n"))
)]
pub(crate) async fn livez() -> &'static str {
    "alive\n"
}

/// Returns whether the service has caught up with the log, within the configured lag.
///
/// While the log cannot be reached, a process that answers reads from its state stays ready, and
/// `stale_seconds` says for how long; one that only writes is not ready. A projector that the group
/// gave no partition is ready as a `spare`. The problem of a process that is not ready has the same
/// members.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "health",
    responses((status = 200, description = "The service has caught up.", body = crate::shapes::ReadinessAnswer))
)]
pub(crate) async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let readiness = (health.readiness)();
    if readiness.caught_up {
        return Json(readiness).into_response();
    }
    let mut problem = Problem::new(Code::NotReady);
    if let Ok(Value::Object(members)) = serde_json::to_value(&readiness) {
        problem = members.into_iter().fold(problem, |problem, (name, value)| problem.with(&name, value));
    }
    match readiness.reason {
        Some(reason) => problem.detail(reason),
        None => problem,
    }
    .into_response()
}

/// Returns the metrics of the service, for Prometheus.
///
/// They count since the start of the process. A flood of requests gets some pages again.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses((status = 200, description = "The text format of Prometheus.", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(page): State<Arc<MetricsPage>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.get()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn flood_of_requests_renders_few_pages() {
        let rendered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&rendered);
        let page = MetricsPage::new(Arc::new(move || count.fetch_add(1, Ordering::Relaxed).to_string()));
        assert_eq!(page.get(), "0");
        for _ in 0..100_000 {
            page.get();
        }
        let rendered = rendered.load(Ordering::Relaxed);
        assert!((20..10_000).contains(&rendered), "{rendered} pages");
        assert_eq!(page.last.lock().clone(), (rendered - 1).to_string());
    }
}
