//! What all reads share: the state they ask, the wait for a position, deadlines, and the token on every answer.
//!
//! Must not know a route's own shapes.

use crate::access::AccessByTenant;
use crate::caller::Caller;
use crate::guard::Limits;
use crate::problem::{Code, Problem};
use crate::request::{Freshness, POSITION_HEADER, put_position};
use crate::updates::{Updates, stream_updates};
use crate::{members, receipts};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use receipts_query::{Answer, Answers, Conversation, CursorKey, Positions, Unavailable};
use std::sync::Arc;

/// What the query routes need.
#[derive(Clone)]
pub struct Query {
    /// Who answers.
    pub answers: Arc<dyn Answers>,
    /// Signs the cursors of member lists; the same on every edge, and after a restart.
    pub cursor_key: CursorKey,
    /// Who may ask for counts and lists.
    pub access: AccessByTenant,
    /// How large a body may be, how long the state may take, and how long a read waits by default.
    pub limits: Limits,
}

/// The routes of queries, without what [`crate::edge`] puts around them. Without `updates` there are no streams: the process
/// reaches no log.
pub fn query_router(query: Query, updates: Option<Updates>) -> Router {
    let query = Arc::new(query);
    let stream = move |State(query), caller, parameters, freshness, headers| {
        let updates = updates.clone();
        async move {
            let Some(updates) = updates else {
                let detail = "this edge has no streams, for it reaches no log: it needs --kafka-bootstrap";
                return Err(Problem::new(Code::NoRoute).detail(detail));
            };
            stream_updates(updates, query, caller, parameters, freshness, headers).await
        }
    };
    Router::new()
        .route("/v1/updates", get(stream))
        .route("/v1/receipts/query", post(receipts::query_receipts))
        .route("/v1/conversations/{conversation_id}/messages/{message_id}/receipt", get(receipts::get_receipt))
        .route("/v1/conversations/{conversation_id}/messages/{message_id}/members", get(members::list_members))
        .route("/v1/conversations/{conversation_id}/read-marks/{user_id}", get(members::get_read_mark))
        .layer(map_response_with_state(Arc::clone(&query), stamp))
        .with_state(query)
}

/// Puts a position on the answers that carry none: those that looked at no state.
async fn stamp(State(query): State<Arc<Query>>, mut response: Response) -> Response {
    if !response.headers().contains_key(POSITION_HEADER) {
        put_position(response.headers_mut(), &query.answers.positions());
    }
    response
}

impl Query {
    /// Where a conversation of the caller's tenant stands.
    pub(crate) fn locate<'a>(&self, caller: &'a Caller, conversation_id: &'a str) -> Conversation<'a> {
        Conversation::locate(&caller.tenant, conversation_id, self.answers.partition_count())
    }

    /// Waits until the answer will be as fresh as asked for.
    pub(crate) async fn wait(&self, freshness: &Freshness) -> Result<(), Problem> {
        if freshness.min.is_empty() {
            return Ok(());
        }
        if freshness.min.highest_partition().is_some_and(|highest| highest >= self.answers.partition_count()) {
            return Err(Problem::new(Code::BadPosition).item("/Receipts-Min-Position", "must be a token of this log"));
        }
        let wait = self.answers.wait(&freshness.min, freshness.wait);
        // Whoever answers keeps the time itself; this one is for an owner that is out of reach.
        let deadline = freshness.wait + self.limits.request_timeout;
        tokio::time::timeout(deadline, wait).await.unwrap_or(Err(Unavailable::Behind)).map_err(Problem::from)
    }

    /// Asks, with a deadline.
    pub(crate) async fn ask<T>(
        &self,
        asking: impl Future<Output = Result<Answer<T>, Unavailable>>,
    ) -> Result<Answer<T>, Problem> {
        let answer = tokio::time::timeout(self.limits.request_timeout, asking).await;
        answer.unwrap_or_else(|_| Err(Unavailable::Failed("no answer in time".to_owned()))).map_err(Problem::from)
    }
}

/// A good answer and where it stands. Answers change and are some caller's own: no cache is to keep them.
pub(crate) fn answered(json: Vec<u8>, positions: &Positions) -> Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    put_position(headers, positions);
    response
}
