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
use receipts_query::Readiness;
use serde_json::Value;
use std::sync::Arc;

/// The parts of the health routes.
#[derive(Clone)]
pub struct Health {
    /// Returns how far the service is behind the log. It runs on an async thread, so it must not
    /// block.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Returns the metrics in the text format of Prometheus.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Returns the routes of health, without the middleware of [`crate::edge`](crate::edge()).
pub(crate) fn router(health: Health) -> Router {
    Router::new()
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(health))
        .merge(liveness_router())
}

/// Returns the route of liveness alone.
pub(crate) fn liveness_router() -> Router {
    Router::new().route("/livez", get(livez))
}

/// Returns 200 while the process serves requests.
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
        return ([(header::CACHE_CONTROL, "no-store")], Json(readiness)).into_response();
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
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses((status = 200, description = "The text format of Prometheus.", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(health): State<Arc<Health>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (health.render_metrics)()).into_response()
}
