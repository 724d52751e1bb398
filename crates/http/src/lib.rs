//! The HTTP edge of ingest and query, and the only home of axum.
//!
//! It must not know a store or Kafka: it writes through [`receipts_log::Writer`] and asks through
//! [`receipts_query::Answers`]. Every error is a [`Problem`]. `schemas/openapi.yaml` is generated
//! from this code.
//!
//! A service composes the parts that it needs: [`router`] for all parts in one process, or [`edge`]
//! around [`ingest_router`] or [`query_router`] with [`health_router`]; then [`serve`].
//!
//! Modules depend on one another in one direction only:
//!
//! ```text
//!                             fetch ← edge
//! response ← problem ← request ← edge ← query_context ← routes ← openapi ← lib
//!                                edge ← body, updates, shapes ← routes
//! ```

mod body;
mod edge;
mod fetch;
mod inspector;
mod json_body;
mod openapi;
mod problem;
mod query_context;
mod request;
mod response;
mod routes;
mod shapes;
mod updates;

pub use edge::access::{Access, AccessByTenant, AccessRule};
pub use edge::audit::AUDIT_TARGET;
pub use edge::budget::{Amounts, Budget, BudgetAmounts, Budgets, Held, Share, UsedUp};
pub use edge::caller::{Authenticate, CALLER_HEADER, Caller, TENANT_HEADER, TrustedHeaders};
pub use edge::cors::Cors;
pub use edge::edge;
pub use edge::guard::Guard;
pub use edge::limits::{Limits, MIN_POSITION_HEADER, Rate, SLOW_BODY_AFTER, WAIT_DEFAULT_MS};
pub use edge::observe::REQUEST_ID_HEADER;
pub use edge::scopes::{Scope, Scopes};
pub use edge::serve::{ConnectionBounds, DrainOutcome, serve};
pub use edge::tickets::Tickets;
pub use edge::tls::{BadPair, Tls};
pub use edge::tokens::{BadKeys, ClaimSettings, KeySource, Signature, TokenSettings, Tokens, TrialKey};
pub use fetch::{FetchError, Fetcher};
pub use json_body::IDS_MAX;
pub use openapi::document as openapi_document;
pub use problem::{Code, Item, Problem, TYPE_PREFIX};
pub use query_context::{QueryContext, WAIT_HEADER, WAIT_MAX_MS};
pub use request::LAST_EVENT_ID_HEADER;
pub use response::{POSITION_HEADER, STALE_HEADER};
pub use routes::cluster::{Peer, snapshot_router};
pub use routes::events::{EVENTS_MAX, Ingest, router as ingest_router};
pub use routes::health::Health;
pub use routes::members::{LIMIT_DEFAULT, LIMIT_MAX};
pub use routes::query_router;
pub use updates::Updates;

/// The router that services compose and serve.
pub use axum::Router;
use std::sync::Arc;

/// All parts of one process.
#[derive(Clone)]
pub struct Parts {
    /// Writes posted events.
    pub ingest: Ingest,
    /// Answers queries.
    pub query: QueryContext,
    /// Feeds streams of updates.
    pub updates: Updates,
    /// Keeps foreign web pages out.
    pub guard: Guard,
    /// The web pages that may read answers.
    pub cors: Cors,
    /// Resolves callers.
    pub authenticate: Arc<dyn Authenticate>,
    /// Bounds what requests may cost.
    pub limits: Limits,
}

/// Returns the router of all parts in one process, with the routes of `open` beside them, as
/// [`edge`](edge()).
pub fn router(parts: Parts, open: Router) -> Router {
    let tickets = parts.query.tickets.clone();
    let routes = ingest_router(parts.ingest).merge(query_router(parts.query, Some(parts.updates)));
    edge(routes, open, parts.guard, parts.cors, parts.authenticate, Some(tickets), &parts.limits)
}

/// Returns the routes of health and the OpenAPI document, without the middleware of
/// [`edge`](edge()).
pub fn health_router(health: Health) -> Router {
    routes::health::router(health).merge(openapi::router())
}

/// Returns the routes that stay at the listener of callers if operators have their own: the
/// liveness for load balancers, and the OpenAPI document.
pub fn liveness_router() -> Router {
    routes::health::liveness_router().merge(openapi::router())
}

/// Returns the routes of the inspector, the web page at `/`, without the middleware of
/// [`edge`](edge()).
pub fn inspector_router() -> Router {
    inspector::router()
}

/// Returns the routes at the listener of operators: those of `operators`, recorded in traces and
/// metrics.
pub fn operators_router(operators: Router, guard: Guard) -> Router {
    edge::observed(operators, guard, Cors::default())
}

/// Returns the routes of a projector that query edges ask: internal calls, and the routes of
/// `open`.
pub fn peer_router(peer: Peer, open: Router) -> Router {
    let guard = match peer.secret {
        Some(_) => Guard::Credentials,
        None => Guard::Browsers { origins: Vec::new() },
    };
    edge::observed(routes::cluster::router(peer).merge(open), guard, Cors::default())
}
