//! The inside of a service of many processes: what a projector says to the query edges.
//!
//! Must not be reachable by users: nothing here asks who a caller is, only whether it knows the secret.

use crate::guard;
use crate::health::{Health, health_router};
use crate::observed;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use receipts_cluster::{ASK_PATH, Owner, PeerReply, PeerRequest, PeerState, STATE_PATH, Secret, answer_request};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;

/// The largest question: 100 ids of 128 bytes, escaped, and some.
const QUESTION_BYTES_MAX: usize = 256 << 10;
/// Questions worked on at once; those beyond are refused at once.
const QUESTIONS_MAX: usize = 4_096;

/// A projector among others.
#[derive(Clone)]
pub struct Peer {
    /// Its partitions.
    pub owner: Arc<dyn Owner>,
    /// Under what `HOST:PORT` it wants to be asked.
    pub advertise: Option<String>,
    /// Whether it stands by.
    pub standby: bool,
    /// Its own key of cursors, where no secret is shared.
    pub cursor_key: Option<String>,
    /// Who does not know it is refused; `None`: nobody is.
    pub secret: Option<Secret>,
}

/// The routes of a projector among others: internal calls and health.
pub fn peer_router(peer: Peer, health: Health) -> Router {
    let peer = Arc::new(peer);
    let of_routes = ServiceBuilder::new()
        .layer(from_fn_with_state(Arc::new(Semaphore::new(QUESTIONS_MAX)), guard::shed))
        .layer(from_fn_with_state(Arc::new(peer.secret.clone()), admit))
        .layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX));
    let routes = Router::new().route(STATE_PATH, get(state)).route(ASK_PATH, post(ask)).layer(of_routes);
    observed(routes.with_state(peer).merge(health_router(health)))
}

/// Refuses whoever does not show the credential of the secret; where there is none, nobody.
pub(crate) async fn admit(State(secret): State<Arc<Option<Secret>>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match &*secret {
        Some(secret) if !secret.is_credential(shown) => StatusCode::UNAUTHORIZED.into_response(),
        _ => next.run(request).await,
    }
}

async fn state(State(peer): State<Arc<Peer>>) -> Json<PeerState> {
    Json(PeerState {
        advertise: peer.advertise.clone(),
        partition_count: peer.owner.partition_count(),
        standby: peer.standby,
        positions: peer.owner.positions(),
        partitions: peer.owner.owned_partitions(),
        cursor_key: peer.cursor_key.clone(),
    })
}

async fn ask(State(peer): State<Arc<Peer>>, Json(request): Json<PeerRequest>) -> Json<PeerReply> {
    Json(answer_request(&*peer.owner, &request).await)
}
