//! Internal calls: questions of query edges to a projector, and an operator's request for
//! snapshots.
//!
//! Users must not reach them: they check only that the caller knows the secret, not who the caller
//! is.

use crate::problem::{self, Code, Problem};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::FutureExt as _;
use receipts_cluster::{
    ASK_PATH, Owner, PeerReply, PeerRequest, PeerState, SNAPSHOTS_PATH, STATE_PATH, Secret, SnapshotControl,
    SnapshotReply, SnapshotRequest, answer_request, catch_up,
};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

/// The largest question of an edge, bytes: 100 ids of 128 bytes, escaped, and the other fields.
const QUESTION_BYTES_MAX: usize = 256 << 10;
/// Questions that are answered at once, except those that wait. More are refused immediately.
const QUESTIONS_MAX: usize = 4_096;
/// The largest request for snapshots, bytes: 10,000 partitions by number.
const SNAPSHOT_BYTES_MAX: usize = 128 << 10;

/// A projector that query edges ask.
#[derive(Clone)]
pub struct Peer {
    /// Answers for its partitions.
    pub owner: Arc<dyn Owner>,
    /// The `HOST:PORT` at which edges are to ask it.
    pub advertise: Option<String>,
    /// True for a standby.
    pub standby: bool,
    /// Its own key of cursors, for services without a shared secret.
    pub cursor_key: Option<String>,
    /// Callers must know this secret. With `None`, every caller is answered.
    pub secret: Option<Secret>,
    /// Questions that wait for a position, at once: at most a part of the connections.
    pub waits_max: usize,
}

/// A projector, and the places of the questions that it answers.
struct Asked {
    peer: Peer,
    questions: Semaphore,
    waits: Semaphore,
}

/// Returns the routes that query edges call.
pub(crate) fn router(peer: Peer) -> Router {
    let (questions, waits) = (Semaphore::new(QUESTIONS_MAX), Semaphore::new(peer.waits_max));
    let asked = Arc::new(Asked { peer, questions, waits });
    let of_routes = ServiceBuilder::new()
        .layer(from_fn_with_state(Arc::new(asked.peer.secret.clone()), admit))
        .layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX));
    Router::new().route(STATE_PATH, get(state)).route(ASK_PATH, post(ask)).layer(of_routes).with_state(asked)
}

/// Refuses a caller that does not show the credential of the secret. Without a secret it admits
/// every caller.
async fn admit(State(secret): State<Arc<Option<Secret>>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match &*secret {
        Some(secret) if !secret.is_credential(shown) => StatusCode::UNAUTHORIZED.into_response(),
        _ => next.run(request).await,
    }
}

async fn state(State(asked): State<Arc<Asked>>) -> Json<PeerState> {
    let peer = &asked.peer;
    Json(PeerState {
        advertise: peer.advertise.clone(),
        partition_count: peer.owner.partition_count(),
        standby: peer.standby,
        positions: peer.owner.positions(),
        log: peer.owner.log(),
        partitions: peer.owner.owned_partitions(),
        stale: peer.owner.stale_seconds(),
        cursor_key: peer.cursor_key.clone(),
    })
}

/// Answers a question once its positions are folded, or refuses it where as many wait or are in
/// progress as may. While it waits it takes no place of the questions that are answered, so waits
/// alone never keep questions out.
async fn ask(State(asked): State<Arc<Asked>>, Json(request): Json<PeerRequest>) -> Result<Json<PeerReply>, Problem> {
    let owner = &*asked.peer.owner;
    let mut waited = pin!(catch_up(owner, &request));
    let waited = match waited.as_mut().now_or_never() {
        Some(waited) => waited,
        None => {
            let _place = place(&asked.waits)?;
            waited.await
        }
    };
    if let Err(why) = waited {
        return Ok(Json(Err(why)));
    }
    let _place = place(&asked.questions)?;
    Ok(Json(answer_request(owner, &request).await))
}

fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, Problem> {
    places.try_acquire().map_err(|_| Problem::new(Code::Overloaded))
}

type Control = Option<Arc<dyn SnapshotControl>>;

/// Returns the route by which an operator requests snapshots and looks at their progress. No call
/// waits for a snapshot.
///
/// `control` takes the snapshots; without it the process takes none. The route always asks for the
/// secret, because a caller can fill a bucket.
pub fn snapshot_router(control: Option<Arc<dyn SnapshotControl>>, secret: Secret) -> Router {
    Router::new()
        .route(SNAPSHOTS_PATH, get(snapshot_statuses).post(request_snapshots))
        .layer(DefaultBodyLimit::max(SNAPSHOT_BYTES_MAX))
        .layer(from_fn_with_state(Arc::new(Some(secret)), admit))
        .with_state(control)
        .layer(CatchPanicLayer::custom(problem::panicked))
}

async fn snapshot_statuses(State(control): State<Control>) -> Result<Json<SnapshotReply>, (StatusCode, &'static str)> {
    let control = control.ok_or(NO_SNAPSHOTS)?;
    Ok(Json(SnapshotReply { requested: Vec::new(), statuses: control.statuses() }))
}

async fn request_snapshots(
    State(control): State<Control>,
    Json(request): Json<SnapshotRequest>,
) -> Result<(StatusCode, Json<SnapshotReply>), (StatusCode, &'static str)> {
    let control = control.ok_or(NO_SNAPSHOTS)?;
    // Read before the request, so that the caller can see them change.
    let statuses = control.statuses();
    let requested = control.request(request.partitions.as_deref());
    Ok((StatusCode::ACCEPTED, Json(SnapshotReply { requested, statuses })))
}

const NO_SNAPSHOTS: (StatusCode, &str) =
    (StatusCode::CONFLICT, "this process takes no snapshots: set snapshot.url for it; a standby takes none");
