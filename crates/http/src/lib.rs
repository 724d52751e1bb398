//! How it is asked: the HTTP edge of ingest and query.
//!
//! The only home of axum. Knows no store and no Kafka: it writes through the log's [`receipts_log::Writer`] and asks
//! through [`receipts_query::Answers`]. Every error is a [`Problem`], and `schemas/openapi.yaml` is made from this code.
//!
//! A service composes what it needs: [`router`] for all parts in one process, or [`edge`] around [`ingest_router`] or
//! [`query_router`] with [`health_router`]; then [`serve`].

mod access;
mod batch;
mod caller;
mod guard;
mod health;
mod ingest;
mod members;
mod observe;
mod openapi;
mod peer;
mod problem;
mod reads;
mod receipts;
mod request;
mod serve;
mod snapshots;
mod tokens;
mod updates;

pub use access::{Access, AccessByTenant, Askers};
pub use batch::EVENTS_MAX;
pub use caller::{Authenticate, CALLER_HEADER, Caller, Scope, Scopes, TENANT_HEADER, TrustedHeaders};
pub use guard::{Limits, Rate};
pub use health::{Health, health_router};
pub use ingest::{Ingest, ingest_router};
pub use members::{LIMIT_DEFAULT, LIMIT_MAX};
pub use observe::REQUEST_ID_HEADER;
pub use openapi::document as openapi_document;
pub use peer::{Peer, peer_router};
pub use problem::{Code, Item, Problem, TYPE_PREFIX};
pub use reads::{Query, query_router};
pub use receipts::MESSAGE_IDS_MAX;
pub use request::{MIN_POSITION_HEADER, POSITION_HEADER, WAIT_DEFAULT_MS, WAIT_HEADER, WAIT_MAX_MS};
pub use serve::{Drained, Patience, serve};
pub use snapshots::snapshot_router;
pub use tokens::{BadKeys, KeySource, Signature, TokenSettings, Tokens};
pub use updates::{LAST_EVENT_ID_HEADER, Updates};

use axum::Router;
use axum::middleware::{from_fn_with_state, map_request_with_state};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

/// All parts of one process.
#[derive(Clone)]
pub struct Parts {
    /// Where events go.
    pub ingest: Ingest,
    /// Who answers.
    pub query: Query,
    /// Where streams come from.
    pub updates: Updates,
    /// How the service is.
    pub health: Health,
    /// Who asks.
    pub authenticate: Arc<dyn Authenticate>,
    /// What requests may cost.
    pub limits: Limits,
}

/// The router of all parts in one process.
pub fn router(parts: Parts) -> Router {
    let routes = ingest_router(parts.ingest).merge(query_router(parts.query, Some(parts.updates)));
    edge(routes, health_router(parts.health), parts.authenticate, &parts.limits)
}

/// Puts around routes what every edge has: the caller is resolved, limits hold, panics and unknown routes are problems,
/// and each request is seen in traces and metrics. `open` are routes that need no caller and know no limit.
pub fn edge(routes: Router, open: Router, authenticate: Arc<dyn Authenticate>, limits: &Limits) -> Router {
    // The first layer of a builder is the outermost. A router boxes what each of its own layers holds, and copies the boxes
    // within it for every request: so here is one, and one in `observed`, whatever they are made of.
    let rate = guard::RateLimit::new(limits).map(|limit| from_fn_with_state(Arc::new(limit), guard::limit_rate));
    let places = Arc::new(Semaphore::new(limits.concurrent_requests_max));
    let of_routes = ServiceBuilder::new()
        .layer(from_fn_with_state(places, guard::shed))
        .layer(map_request_with_state(authenticate, caller::resolve))
        .option_layer(rate);
    observed(routes.layer(of_routes).merge(open))
}

/// Routes whose every request is seen in traces and metrics; panics and unknown routes are problems.
fn observed(routes: Router) -> Router {
    let of_all = ServiceBuilder::new()
        .layer(from_fn_with_state(Arc::<observe::Meters>::default(), observe::observe))
        .layer(CatchPanicLayer::custom(problem::panicked));
    routes.fallback(problem::no_route).method_not_allowed_fallback(problem::method_not_allowed).layer(of_all)
}
