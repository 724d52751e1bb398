//! The routes: a file and a `router()` per resource.
//!
//! Handlers must not resolve callers or enforce limits; the edge does both before it calls them.

pub(crate) mod cluster;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod members;
pub(crate) mod read_marks;
pub(crate) mod receipts;
pub(crate) mod updates;

use crate::query_context::QueryContext;
use crate::response::{POSITION_HEADER, put_position};
use crate::updates::Updates;
use axum::Router;
use axum::extract::State;
use axum::middleware::map_response_with_state;
use axum::response::Response;
use std::sync::Arc;

/// Returns the routes of queries, without the middleware of [`crate::edge`](crate::edge()).
///
/// Without `updates` the process reaches no log and serves no streams.
pub fn query_router(query: QueryContext, updates: Option<Updates>) -> Router {
    let query = Arc::new(query);
    updates::router(updates)
        .merge(receipts::router())
        .merge(members::router())
        .merge(read_marks::router())
        .layer(map_response_with_state(Arc::clone(&query), stamp))
        .with_state(query)
}

/// Sets the current positions on an answer that has none because its handler did not ask the state.
async fn stamp(State(query): State<Arc<QueryContext>>, mut response: Response) -> Response {
    if !response.headers().contains_key(POSITION_HEADER) {
        put_position(response.headers_mut(), &query.answers.positions().token(query.answers.log()));
    }
    response
}
