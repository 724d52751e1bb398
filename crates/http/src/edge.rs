//! The middleware around all routes, and the listener that serves them.
//!
//! It must know no route.

pub(crate) mod access;
pub(crate) mod alarm;
pub(crate) mod answering;
pub(crate) mod audit;
pub(crate) mod budget;
pub(crate) mod caller;
pub(crate) mod connections;
pub(crate) mod cors;
pub(crate) mod guard;
pub(crate) mod limits;
pub(crate) mod observe;
pub(crate) mod scopes;
pub(crate) mod serve;
pub(crate) mod tickets;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod transport;

use crate::problem;
use crate::response::keep_out_of_caches;
use axum::Router;
use axum::middleware::{from_fn_with_state, map_request_with_state};
use axum::response::IntoResponse;
use caller::{Authenticate, Callers};
use cors::Cors;
use guard::Guard;
use limits::Limits;
use std::sync::Arc;
use tickets::Tickets;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

/// Wraps routes in the middleware that every edge has.
///
/// It keeps foreign web pages out, shares answers with those of `cors`, resolves the caller,
/// enforces limits, turns panics and unknown routes into problems, and records each request in
/// traces and metrics. The routes of `open` need no caller and have no limits. An edge
/// with streams has `tickets`, which name a stream's caller instead of `authenticate`.
pub fn edge(
    routes: Router,
    open: Router,
    guard: Guard,
    cors: Cors,
    authenticate: Arc<dyn Authenticate>,
    tickets: Option<Tickets>,
    limits: &Limits,
) -> Router {
    tokens::show_refusals();
    // axum boxes every layer of a router and clones the boxes per request, so all middleware is
    // combined into one ServiceBuilder here and one in `observed`. The first layer of a builder is
    // the outermost.
    let rate = limits::RateLimit::new(limits).map(|limit| from_fn_with_state(Arc::new(limit), limits::limit_rate));
    let of_routes = ServiceBuilder::new()
        .layer(map_request_with_state(Arc::new(Callers { authenticate, tickets }), caller::resolve))
        .option_layer(rate)
        .layer(from_fn_with_state(limits.budgets.requests.clone(), limits::take_place));
    observed(routes.layer(of_routes).merge(open), guard, cors)
}

/// Records every request in traces and metrics, keeps answers out of caches, turns panics and
/// unknown routes into problems, and refuses what the guard refuses. Pages of `cors` can read
/// refusals too.
pub(crate) fn observed(routes: Router, guard: Guard, cors: Cors) -> Router {
    let cors = (!cors.origins.is_empty()).then(|| from_fn_with_state(Arc::new(cors), cors::share));
    let of_all = ServiceBuilder::new()
        .map_response(keep_out_of_caches)
        .layer(from_fn_with_state(Arc::<observe::Meters>::default(), observe::observe))
        .option_layer(cors)
        .map_response(IntoResponse::into_response)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(map_request_with_state(Arc::new(guard), guard::admit));
    routes.fallback(problem::no_route).method_not_allowed_fallback(problem::method_not_allowed).layer(of_all)
}
