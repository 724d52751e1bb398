//! The internal call by which an operator has a running process take snapshots: asked for and looked at, never waited for.
//!
//! Always asks for the secret: whoever may call may fill a bucket.

use crate::peer::admit;
use crate::problem;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Json, Router};
use receipts_cluster::{SNAPSHOTS_PATH, Secret, SnapshotControl, SnapshotReply, SnapshotRequest};
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

/// The largest question: 10,000 partitions by number.
const QUESTION_BYTES_MAX: usize = 128 << 10;

type Control = Option<Arc<dyn SnapshotControl>>;

/// The route of snapshots: `desk` takes them, and where there is none, none are taken. Only who shows the credential of the
/// secret is answered.
pub fn snapshot_router(desk: Option<Arc<dyn SnapshotControl>>, secret: Secret) -> Router {
    Router::new()
        .route(SNAPSHOTS_PATH, get(look).post(ask))
        .layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX))
        .layer(from_fn_with_state(Arc::new(Some(secret)), admit))
        .with_state(desk)
        .layer(CatchPanicLayer::custom(problem::panicked))
}

async fn look(State(desk): State<Control>) -> Result<Json<SnapshotReply>, (StatusCode, &'static str)> {
    let desk = desk.ok_or(NONE_TAKEN)?;
    Ok(Json(SnapshotReply { requested: Vec::new(), statuses: desk.statuses() }))
}

async fn ask(
    State(desk): State<Control>,
    Json(request): Json<SnapshotRequest>,
) -> Result<(StatusCode, Json<SnapshotReply>), (StatusCode, &'static str)> {
    let desk = desk.ok_or(NONE_TAKEN)?;
    // How they stood before, so that the caller sees when something has come of it.
    let statuses = desk.statuses();
    let requested = desk.request(request.partitions.as_deref());
    Ok((StatusCode::ACCEPTED, Json(SnapshotReply { requested, statuses })))
}

const NONE_TAKEN: (StatusCode, &str) =
    (StatusCode::CONFLICT, "this process takes no snapshots: set snapshot.url for it; a standby takes none");
