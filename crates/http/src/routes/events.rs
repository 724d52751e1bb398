//! `POST /v1/events`: checks a whole body, writes all of its events, and answers after the log has
//! acknowledged them.
//!
//! It must not ask the state, and must not say that nothing was written if something may have been.

mod body;

pub use body::EVENTS_MAX;

use crate::edge::caller::{Caller, Scope};
use crate::edge::limits::Limits;
use crate::problem::{Code, Item, Problem};
use crate::request::{format, read_body};
use crate::response::put_position;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use body::PostedEvents;
use receipts_log::{PendingAppend, Writer, outcome};
use receipts_query::Positions;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The parts of ingest.
#[derive(Clone)]
pub struct Ingest {
    /// Writes events to the log.
    pub writer: Arc<dyn Writer>,
    /// Partitions of the event topic, at least 1.
    pub partition_count: u32,
    /// Bounds the size of a body and the time that it takes to arrive.
    pub limits: Limits,
    /// How long an answer waits for the log, counted from the first append. It must be longer than
    /// the log's own delivery timeout, so that every outcome is known.
    pub acknowledge_timeout: Duration,
}

/// Returns the route of ingest, without the middleware of [`crate::edge`](crate::edge()).
pub fn router(ingest: Ingest) -> Router {
    Router::new().route("/v1/events", post(post_events)).with_state(Arc::new(ingest))
}

/// The answer after events were written.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Accepted {
    /// How many events the body held. Copies in several partitions count once.
    #[schema(minimum = 1, maximum = 1000, example = 2)]
    accepted: usize,
    /// A token. A read that sends it in `Receipts-Min-Position` sees all of these events.
    #[schema(example = "AQMqMCkVDg")]
    position: String,
}

/// Writes events: all of them, or none if any is invalid.
///
/// The body is one event, an array of 1 to 1,000, or NDJSON. Events are written unchanged, but an
/// event without a tenant gets the caller's. `policy.changed` and `user.erased` without `partition`
/// are written into every partition. Only for callers with the scope `receipts:write`.
#[utoipa::path(
    post, path = "/v1/events", operation_id = "post_events", tag = "ingest",
    request_body(description = "The events.", content(
        (serde_json::Value = "application/json"),
        (String = "application/x-ndjson", example = json!("{\"type\":\"message.recalled\",\"conversation_id\":\"g1\",\"message_id\":\"m1\"}\n")),
    )),
    responses((status = 202, description = "The log has acknowledged every event.", body = Accepted))
)]
pub(crate) async fn post_events(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    if !caller.scopes.has(Scope::Write) {
        return Err(Problem::new(Code::Forbidden).detail("only callers with the scope receipts:write may write events"));
    }
    let format = format(request.headers())?;
    let body = read_body(request, ingest.limits.body_bytes_max, ingest.limits.request_timeout).await?;
    let batch = PostedEvents::read(&body, format, &caller.tenant, ingest.partition_count)?;
    let accepted = batch.event_count;
    let positions = ingest.write(batch).await?;
    metrics::counter!("receipts_ingest_events_total").increment(accepted as u64);
    let answer = Accepted { accepted, position: positions.to_string() };
    let mut response = (StatusCode::ACCEPTED, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response();
    put_position(response.headers_mut(), &positions);
    Ok(response)
}

impl Ingest {
    /// Appends all entries and waits for every outcome. The appends finish even if the client
    /// disconnects.
    async fn write(&self, mut batch: PostedEvents) -> Result<Positions, Problem> {
        let entries = std::mem::take(&mut batch.entries);
        let writer = Arc::clone(&self.writer);
        let deadline = Instant::now() + self.acknowledge_timeout;
        // An append blocks while the log's queue is full.
        let appending = tokio::task::spawn_blocking(move || {
            entries.into_iter().map(|(index, entry)| (index, writer.append(entry))).collect::<Vec<_>>()
        });
        let appended = match tokio::time::timeout_at(deadline, appending).await {
            Ok(Ok(appended)) => appended,
            Ok(Err(error)) => {
                tracing::error!(%error, "the appends of a request panicked");
                return Err(Problem::new(Code::OutcomeOpen));
            }
            Err(_) => return Err(Problem::new(Code::OutcomeOpen)),
        };
        let mut outcomes = Outcomes::default();
        for (index, appended) in appended {
            outcomes.add(index, appended, deadline).await;
        }
        outcomes.into_answer(&batch)
    }
}

/// The outcomes of the appends of one body.
#[derive(Default)]
struct Outcomes {
    positions: Positions,
    written_count: usize,
    open_count: usize,
    /// Each failed event once: its index, and whether its outcome is unknown.
    failed: Vec<(usize, bool)>,
}

impl Outcomes {
    async fn add(&mut self, index: usize, appended: PendingAppend, deadline: Instant) {
        let error = match outcome(appended, deadline).await {
            Ok(written) => {
                self.positions.merge(&Positions::written(written.partition, written.offset));
                self.written_count += 1;
                return;
            }
            Err(error) => error,
        };
        let is_open = error.may_have_happened();
        self.open_count += usize::from(is_open);
        if self.failed.is_empty() {
            tracing::warn!(cause = %error, is_open, "an event was not acknowledged");
        }
        match self.failed.last_mut() {
            Some((last, was_open)) if *last == index => *was_open |= is_open,
            _ => self.failed.push((index, is_open)),
        }
    }

    fn into_answer(self, batch: &PostedEvents) -> Result<Positions, Problem> {
        if self.failed.is_empty() {
            return Ok(self.positions);
        }
        let nothing_written = self.written_count == 0 && self.open_count == 0;
        let code = if nothing_written { Code::NotWritten } else { Code::OutcomeOpen };
        let items = self.failed.iter().map(|&(index, is_open)| Item {
            pointer: batch.pointer(index),
            detail: if is_open { "may have been written" } else { "was not written" }.into(),
        });
        Err(Problem::new(code).items(items.collect()))
    }
}
