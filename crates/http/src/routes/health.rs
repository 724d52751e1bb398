//! How the service is: alive, ready, its figures, and its own description.
//!
//! Must not need a caller, nor wait for anything: orchestrators ask while everything else fails.

use crate::problem::{Code, Problem};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use receipts_query::Readiness;
use std::sync::Arc;

/// What the health routes need.
#[derive(Clone)]
pub struct Health {
    /// How far behind the service is. Called on a runtime thread: it must not block.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// The metrics in Prometheus' text format.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The routes of health, without what [`crate::edge`] puts around them.
pub(crate) fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(health))
}

/// Says that the process serves requests.
#[utoipa::path(
    get, path = "/livez", operation_id = "livez", tag = "health",
    responses((status = 200, description = "The process is alive.", body = String, content_type = "text/plain", example = "alive\n"))
)]
pub(crate) async fn livez() -> &'static str {
    "alive\n"
}

/// Says whether the service is caught up with the log, within the configured lag.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "health",
    responses((status = 200, description = "Caught up.", body = crate::shapes::ReadinessAnswer))
)]
pub(crate) async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let readiness = (health.readiness)();
    if readiness.caught_up {
        return ([(header::CACHE_CONTROL, "no-store")], Json(readiness)).into_response();
    }
    let problem = Problem::new(Code::NotReady).with("caught_up", false.into());
    let problem = problem.with("partitions", readiness.partitions.into());
    let problem = problem.with("partitions_caught_up", readiness.partitions_caught_up.into());
    match readiness.lag_records {
        Some(lag) => problem.with("lag_records", lag.into()),
        None => problem,
    }
    .into_response()
}

/// The service's metrics, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses((status = 200, description = "Prometheus' text format.", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(health): State<Arc<Health>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (health.render_metrics)()).into_response()
}
