//! `GET /v1/updates`: Server-Sent Events of one conversation, or of the messages that one person
//! sent.
//!
//! It must not read the topic itself; [`crate::updates`] does.

use crate::edge::caller::Caller;
use crate::edge::connections::EndsAt;
use crate::edge::scopes::Scope;
use crate::problem::{Code, Problem};
use crate::query_context::{Freshness, QueryContext};
use crate::request::{Parameters, id_problem};
use crate::response::put_position;
use crate::updates::{Interest, Stream, Updates, View};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream::unfold;
use receipts_query::{BadToken, LogTag, Since, Token};
use std::convert::Infallible;
use std::sync::Arc;

/// Says where an interrupted stream resumes. Clients of Server-Sent Events send it on their own.
pub const LAST_EVENT_ID_HEADER: HeaderName = HeaderName::from_static("last-event-id");

/// Returns the route of updates. Without `updates` the process reaches no log, and the route says
/// so.
pub(super) fn router(updates: Option<Updates>) -> Router<Arc<QueryContext>> {
    let stream = move |State(query), caller, parameters, freshness, headers| {
        let updates = updates.clone();
        async move {
            let Some(updates) = updates else {
                let detail = "this edge serves no streams because it has no log: set --kafka-bootstrap";
                return Err(Problem::new(Code::NoRoute).detail(detail));
            };
            stream_updates(updates, query, caller, parameters, freshness, headers).await
        }
    };
    Router::new().route("/v1/updates", get(stream))
}

/// Streams updates of one conversation, or of the messages of one sender, as Server-Sent Events.
///
/// `event` is the `type` of the update, `data` is the update, and `id` is a token. An interrupted
/// stream resumes from it without a gap: in `Last-Event-ID`, which clients of Server-Sent Events
/// send on their own, or in `since`. `since` also takes a position of the event log from an answer;
/// everything that changed since then comes first. Delivery is at least once: an update may come
/// again, even after a newer one of the same message; the higher `version` is the newer.
///
/// The stream begins with an event of the type `position`, which has the `data` `{}` and the `id`
/// to resume from, and has another one whenever it was silent for 4 s by default. The stream ends
/// if the client reads too slowly, the credential expires, or the service stops; the client should
/// then resume it.
///
/// A stream of a conversation is for callers with the scope `receipts:members`. A stream of a
/// sender is for that person, and for callers with the scope. It has the receipts of the person's
/// messages, and the read marks of the other members of the person's direct conversations. Erased
/// people are never named, whenever the update was published.
#[utoipa::path(
    get, path = "/v1/updates", operation_id = "stream_updates", tag = "query",
    params(
        crate::shapes::StreamParameters,
        ("Last-Event-ID" = Option<String>, Header, nullable = false,
         description = "The `id` of the last event that the client has seen on such a stream, or a position of the event log."),
    ),
    responses((
        status = 200, description = "An endless stream.", body = String, content_type = "text/event-stream",
        example = json!("retry: 1000\nevent: position\nid: AgENgEBvmw\ndata: {}\n\nevent: read_mark.updated\nid: AgENgEBvmw\ndata: {\"type\":\"read_mark.updated\",…}\n\n")
    ))
)]
pub(crate) async fn stream_updates(
    updates: Updates,
    query: Arc<QueryContext>,
    caller: Caller,
    parameters: Parameters,
    mut freshness: Freshness,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let interest = interest(&parameters)?;
    let (by_scope, by_sender) = match &interest {
        Interest::Conversation(_) => (caller.scopes.has(Scope::Members), false),
        Interest::Sender(id) => (caller.scopes.has(Scope::Members), caller.is(id)),
    };
    let access = *query.access.of(&caller.tenant);
    if !access.counts.permits(by_scope, by_sender) {
        return Err(Problem::new(Code::Forbidden));
    }
    let logs = Logs { events: query.answers.log(), updates: updates.log() };
    let since = since(&headers, &parameters, query.answers.partition_count(), logs)?;
    query.wait(&caller, &mut freshness).await?;
    let held = query.limits.budgets.streams.acquire(&caller, 1)?;
    // Read before the stream begins, so that every later update is on it.
    let state = freshness.with(query.answers.positions(), None);
    let show_readers = access.read.permits(by_scope, by_sender);
    let view = View { tenant: caller.tenant, interest, show_readers, expires: caller.expires };
    let (answers, timeout) = (Arc::clone(&query.answers), query.limits.request_timeout);
    let ends_at = caller.expires.map(EndsAt);
    let stream = Stream::open(updates, answers, timeout, view, since, held).await?;
    let body = unfold(stream, async |mut stream| {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Without it nginx buffers the stream.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    put_position(headers, &state.token());
    if let Some(ends_at) = ends_at {
        response.extensions_mut().insert(ends_at);
    }
    Ok(response)
}

/// Returns the subject of the stream.
fn interest(parameters: &Parameters) -> Result<Interest, Problem> {
    let id = |name: &str| -> Result<Option<String>, Problem> {
        let Some(id) = parameters.one(name)? else { return Ok(None) };
        match id_problem(id) {
            Some(detail) => Err(Problem::invalid(format!("/{name}"), detail)),
            None => Ok(Some(id.to_owned())),
        }
    };
    match (id("conversation_id")?, id("sender_id")?) {
        (Some(id), None) => Ok(Interest::Conversation(id)),
        (None, Some(id)) => Ok(Interest::Sender(id)),
        (Some(_), Some(_)) => Err(Problem::invalid("/sender_id", "must not be combined with conversation_id")),
        (None, None) => Err(Problem::invalid("/conversation_id", "is missing: send conversation_id or sender_id")),
    }
}

/// The logs of the two kinds of tokens, where they are known.
#[derive(Clone, Copy)]
struct Logs {
    events: Option<LogTag>,
    updates: Option<LogTag>,
}

/// Returns the token from which the stream resumes. The header wins, because a client sends it
/// after it has received events from its URL.
fn since(
    headers: &HeaderMap,
    parameters: &Parameters,
    partition_count: u32,
    logs: Logs,
) -> Result<Option<Since>, Problem> {
    let header = headers.get(&LAST_EVENT_ID_HEADER).map(|id| id.to_str().unwrap_or("\u{fffd}"));
    let (pointer, token) = match (header.filter(|id| !id.is_empty()), parameters.one("since")?) {
        (Some(id), _) => ("/Last-Event-ID", id),
        (None, Some(token)) => ("/since", token),
        (None, None) => return Ok(None),
    };
    let bad = |detail: String| Problem::new(Code::BadPosition).item(pointer, detail);
    let token: Token = token.trim().parse().map_err(|error: BadToken| bad(error.to_string()))?;
    let log = match token.since {
        Since::Events(_) => logs.events,
        Since::Stream(_) => logs.updates,
    };
    if !token.may_be_of(log) {
        let detail = "the token is of another log: drop it, ask for the receipts, and open a new stream";
        return Err(Problem::new(Code::UpdatesGone).detail(detail));
    }
    let since = token.since;
    match since.positions().highest_partition() {
        Some(highest) if highest >= partition_count => Err(bad("must be a token of this log".to_owned())),
        _ => Ok(Some(since)),
    }
}
