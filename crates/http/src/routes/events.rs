//! `POST /v1/events`: checks a whole body, writes all of its events, and answers after the log has
//! acknowledged them.
//!
//! It must not ask the state, and must not say that nothing was written if something may have been.

mod body;

pub use body::EVENTS_MAX;

use crate::body::{ReadBody, read_body};
use crate::edge::audit::{Outcome, RequestId, audit};
use crate::edge::budget::Held;
use crate::edge::caller::Caller;
use crate::edge::limits::Limits;
use crate::problem::{Code, Item, Problem};
use crate::request::format;
use crate::response::put_position;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use body::{PostedEvents, Reading};
use receipts_log::{AppendError, PendingAppend, Writer, outcome};
use receipts_metrics::catalogue;
use receipts_query::{LogTag, Positions};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Bodies whose events are appended at once. While the log's queue is full, each holds a thread of
/// tokio's pool, which has 512 for all blocking work.
const APPENDS_MAX: usize = 256;

/// How to send events that fill more than a body. A send takes the roster as it stands, so all
/// parts of a roster must be in the log before it.
const SPLIT: &str = "send the events in several bodies, in their order, and a members.changed of many people as \
                     several events of some thousand ids each, all of them before the conversation's next message.sent";

/// The parts of ingest.
#[derive(Clone)]
pub struct Ingest {
    /// Writes events to the log.
    pub writer: Arc<dyn Writer>,
    /// Partitions of the event topic, at least 1.
    pub partition_count: u32,
    /// The log, for the tokens of answers; `None` if it has no identity.
    pub log: Option<LogTag>,
    /// Bounds the size of a body and the time that it takes to arrive.
    pub limits: Limits,
    /// How long an answer waits for the log, counted from the first append. It must be longer than
    /// the log's own delivery timeout, so that every outcome is known.
    pub acknowledge_timeout: Duration,
}

/// Returns the route of ingest, without the middleware of [`crate::edge`](crate::edge()).
pub fn router(ingest: Ingest) -> Router {
    let appends = Arc::new(Semaphore::new(APPENDS_MAX));
    catalogue::LOG_PARTITIONS.get().set(f64::from(ingest.partition_count));
    catalogue::INGEST_EVENTS.get().increment(0);
    OUTCOMES.iter().for_each(|outcome| catalogue::INGEST_FAILURES.of([*outcome]).increment(0));
    Router::new().route("/v1/events", post(post_events)).with_state(Arc::new(Posting { ingest, appends }))
}

/// How an append may fail, as labels of `receipts_ingest_failures_total`.
const OUTCOMES: [&str; 3] = ["unknown", "too_large", "not_written"];

/// Ingest, and the permits of its appends.
pub(crate) struct Posting {
    ingest: Ingest,
    appends: Arc<Semaphore>,
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
/// are written into every partition.
///
/// A person's own `message.read` and `conversation.read` need the scope `receipts:own`,
/// `policy.changed` needs `receipts:policy`, `user.erased` `receipts:erase`, and every other event
/// `receipts:write`, which implies the others unless `auth.strict_scopes` is set. One event without
/// its scope refuses the whole body; `errors` then names each such event and the scope.
#[utoipa::path(
    post, path = "/v1/events", operation_id = "post_events", tag = "ingest",
    request_body(description = "The events.", content(
        (serde_json::Value = "application/json"),
        (String = "application/x-ndjson", example = json!("{\"type\":\"message.recalled\",\"conversation_id\":\"g1\",\"message_id\":\"m1\"}\n")),
    )),
    responses((status = 202, description = "The log has acknowledged every event.", body = Accepted))
)]
pub(crate) async fn post_events(
    State(posting): State<Arc<Posting>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let ingest = &posting.ingest;
    let format = format(request.headers())?;
    let request_id = RequestId::of(request.headers());
    let ReadBody { bytes, held } = read_body(request, &caller, &ingest.limits, SPLIT).await?;
    let reading = Reading {
        caller: &caller,
        partition_count: ingest.partition_count,
        control_events_max: ingest.limits.control_events_max,
    };
    let mut batch = PostedEvents::read(&bytes, format, &reading)?;
    let began = Instant::now();
    let span = batch.trace();
    let outcomes = posting.write(&mut batch, held).await;
    match outcomes.label() {
        None => catalogue::APPEND_SECONDS.get().record(began.elapsed()),
        Some(outcome) => {
            catalogue::INGEST_FAILURES.of([outcome]).increment(1);
            if let Some(mut span) = span {
                span.fail(outcome);
            }
        }
    }
    for (at, (index, act)) in batch.acts.iter().enumerate() {
        let (outcome, positions) = outcomes.of_act(at, *index);
        audit(*act, outcome, &caller, &request_id, positions);
    }
    let accepted = batch.event_count;
    let positions = outcomes.into_answer(&batch)?;
    catalogue::INGEST_EVENTS.get().increment(accepted as u64);
    let token = positions.token(ingest.log);
    let answer = Accepted { accepted, position: token.to_string() };
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    put_position(response.headers_mut(), &token);
    Ok(response)
}

impl Posting {
    /// Appends all entries and waits for every outcome. The appends finish even if the client
    /// disconnects, and hold the bytes of the body until then.
    async fn write(&self, batch: &mut PostedEvents, held: Held) -> Outcomes {
        let entries = std::mem::take(&mut batch.entries);
        let writer = Arc::clone(&self.ingest.writer);
        let deadline = Instant::now() + self.ingest.acknowledge_timeout;
        let mut outcomes = Outcomes { of_acts: vec![Positions::new(); batch.acts.len()], ..Outcomes::default() };
        // An append blocks while the log's queue is full. Without a bound, clients that disconnect
        // would leave ever more of them behind, and no thread would be left for other work.
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.appends).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            outcomes.failed = (0..batch.event_count).map(|index| (index, false)).collect();
            return outcomes;
        };
        let appending = tokio::task::spawn_blocking(move || {
            let _guards = (held, permit);
            let (indexes, entries): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            indexes.into_iter().zip(writer.append_all(entries)).collect::<Vec<_>>()
        });
        match tokio::time::timeout_at(deadline, appending).await {
            Ok(Ok(appended)) => {
                for (index, appended) in appended {
                    outcomes.add(index, appended, deadline, batch).await;
                }
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the appends of a request panicked");
                outcomes.is_unknown = true;
            }
            Err(_) => outcomes.is_unknown = true,
        }
        outcomes
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
    /// The written copies of each event that has an audit line.
    of_acts: Vec<Positions>,
    /// The events that are larger than the log takes, by their indexes.
    too_large: BTreeSet<usize>,
    /// True if not every append was even begun in time.
    is_unknown: bool,
}

impl Outcomes {
    async fn add(&mut self, index: usize, appended: PendingAppend, deadline: Instant, batch: &PostedEvents) {
        let error = match outcome(appended, deadline).await {
            Ok(written) => {
                let written = Positions::written(written.partition, written.offset);
                self.positions.merge(&written);
                self.written_count += 1;
                if let Ok(at) = batch.acts.binary_search_by_key(&index, |(index, _)| *index) {
                    self.of_acts[at].merge(&written);
                }
                return;
            }
            Err(error) => error,
        };
        let is_open = error.may_have_happened();
        if matches!(error, AppendError::TooLarge(_)) {
            self.too_large.insert(index);
        }
        self.open_count += usize::from(is_open);
        if self.failed.is_empty() {
            tracing::warn!(cause = %error, is_open, "an event was not acknowledged");
        }
        match self.failed.last_mut() {
            Some((last, was_open)) if *last == index => *was_open |= is_open,
            _ => self.failed.push((index, is_open)),
        }
    }

    /// Returns the outcome of an event that has an audit line, and the written copies.
    fn of_act(&self, at: usize, index: usize) -> (Outcome, &Positions) {
        let positions = &self.of_acts[at];
        let failed = self.failed.iter().find(|(failed, _)| *failed == index);
        let outcome = match failed {
            None if !self.is_unknown => Outcome::Written,
            Some((_, false)) if positions.is_empty() => Outcome::NotWritten,
            _ => Outcome::Open,
        };
        (outcome, positions)
    }

    /// Returns how the append failed, as a label; `None` if it did not.
    fn label(&self) -> Option<&'static str> {
        match () {
            () if self.is_unknown || self.open_count > 0 => Some(OUTCOMES[0]),
            () if !self.too_large.is_empty() => Some(OUTCOMES[1]),
            () if !self.failed.is_empty() => Some(OUTCOMES[2]),
            () => None,
        }
    }

    fn into_answer(self, batch: &PostedEvents) -> Result<Positions, Problem> {
        if self.is_unknown {
            return Err(Problem::new(Code::OutcomeOpen));
        }
        if self.failed.is_empty() {
            return Ok(self.positions);
        }
        let nothing_written = self.written_count == 0 && self.open_count == 0;
        let code = match (self.too_large.is_empty(), nothing_written) {
            // Sent again it fails again, also where the others were written.
            (false, _) => Code::TooLarge,
            (true, true) => Code::NotWritten,
            (true, false) => Code::OutcomeOpen,
        };
        // Where nothing is written, the problem names the events that stand in the way of the
        // others.
        let is_named = |index: usize| code != Code::TooLarge || !nothing_written || self.too_large.contains(&index);
        let items = self.failed.iter().filter(|(index, _)| is_named(*index)).map(|&(index, is_open)| Item {
            pointer: batch.pointer(index),
            detail: match is_open {
                true => "may have been written",
                false if self.too_large.contains(&index) => "was not written, and is larger than the log takes",
                false => "was not written",
            }
            .into(),
        });
        let problem = Problem::new(code).items(items.collect());
        Err(match code {
            Code::TooLarge if nothing_written => problem.detail(
                "nothing was written, because an event is larger than the event topic takes (max.message.bytes): split or \
                 shorten it, or ask the operator to raise that bound",
            ),
            Code::TooLarge => problem.detail(
                "an event is larger than the event topic takes (max.message.bytes); events that are not named here were \
                 written, and may be sent again with the corrected one",
            ),
            _ => problem,
        })
    }
}
