//! `GET /v1/updates`: Server-Sent Events of one conversation, or of the messages that one person
//! sent. `POST /v1/updates/tickets`: a ticket that opens such a stream.
//!
//! They must not read the topic themselves; [`crate::updates`] does.

use crate::edge::caller::Caller;
use crate::edge::connections::EndsAt;
use crate::edge::scopes::Scope;
use crate::edge::tickets::{Subject, Ticket, without_mac};
use crate::json_body::{Fields, read_json};
use crate::problem::{Code, Problem};
use crate::query_context::{Freshness, QueryContext};
use crate::request::{Parameters, STREAM_PATH, id_problem, resume_id};
use crate::response::{AnsweredFrom, answered, put_position};
use crate::updates::{Interest, Stream, Updates, View};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::stream::unfold;
use receipts_query::{BadToken, LogTag, Since, Token};
use serde::Serialize;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;

/// Returns the routes of updates. Without `updates` the process reaches no log, and the routes say
/// so.
pub(super) fn router(updates: Option<Updates>) -> Router<Arc<QueryContext>> {
    let has_streams = updates.is_some();
    let stream = move |State(query), caller, ticket, parameters, freshness, headers| {
        let updates = updates.clone();
        async move {
            let updates = updates.ok_or_else(no_streams)?;
            stream_updates(updates, query, caller, ticket, parameters, freshness, headers).await
        }
    };
    let ticket = move |State(query): State<Arc<QueryContext>>, caller, request| async move {
        if has_streams { create_stream_ticket(&query, caller, request).await } else { Err(no_streams()) }
    };
    Router::new().route(STREAM_PATH, get(stream)).route("/v1/updates/tickets", post(ticket))
}

fn no_streams() -> Problem {
    Problem::new(Code::NoRoute).detail("this edge serves no streams because it has no log: set --kafka-bootstrap")
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
///
/// A client that can send no credential sends a `ticket` instead. It opens the stream within a
/// minute, and later resumes it from its ids, which end in a signature for this ticket. A ticket
/// that is not valid, or not any more, is a 401: ask for another one.
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
    ticket: Option<Extension<Ticket>>,
    parameters: Parameters,
    mut freshness: Freshness,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ticket = ticket.map(|Extension(ticket)| ticket);
    let subject = subject(|name| Ok(parameters.one(name)?.map(str::to_owned)), ticket.as_ref().map(Ticket::subject))?;
    let interest = interest(&subject);
    let show_readers = permitted(&query, &caller, &interest)?;
    let logs = Logs { events: query.answers.log(), updates: updates.log() };
    let since = since(&headers, &parameters, query.answers.partition_count(), logs)?;
    query.wait(&caller, &mut freshness).await?;
    let held = query.limits.budgets.streams.acquire(&caller, 1)?;
    // Read before the stream begins, so that every later update is on it.
    let state = freshness.with(query.answers.positions(), None);
    let view = View { tenant: caller.tenant, interest, show_readers, expires: caller.expires, ticket };
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

/// The subject of a stream. Exactly one of its fields is there.
#[derive(utoipa::ToSchema)]
#[schema(as = StreamSubject, example = json!({"sender_id": "alice"}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct SubjectFields {
    /// The conversation.
    #[schema(min_length = 1, max_length = 128)]
    conversation_id: Option<String>,
    /// The sender.
    #[schema(min_length = 1, max_length = 128)]
    sender_id: Option<String>,
}

/// A ticket for a stream.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct StreamTicket {
    /// Goes into the query of the stream: `GET /v1/updates?ticket=`.
    ticket: String,
    /// Until when it opens the stream, Unix milliseconds.
    expires_at_ms: u64,
}

/// Returns a ticket for a stream of the caller, for clients that cannot send a credential with it,
/// such as a browser's `EventSource`.
///
/// A request with the ticket opens the stream that it names, as this caller, within a minute. The
/// client of that stream can resume it until the caller's credential expires.
#[utoipa::path(
    post, path = "/v1/updates/tickets", operation_id = "create_stream_ticket", tag = "query",
    request_body(description = "What the stream follows: exactly one of the fields.", content = SubjectFields),
    responses((status = 200, description = "The ticket.", body = StreamTicket))
)]
pub(crate) async fn create_stream_ticket(
    query: &QueryContext,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&read_json(request, &caller, &query.limits, "name one id").await?)?;
    let field = |name: &str| match fields.take(name) {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(_) => Err(Problem::invalid(format!("/{name}"), "must be a string")),
    };
    let subject = subject(field, None)?;
    permitted(query, &caller, &interest(&subject))?;
    let (ticket, expires_at_ms) = query.tickets.issue(&caller, subject)?;
    let json = serde_json::to_vec(&StreamTicket { ticket, expires_at_ms }).unwrap_or_default();
    let state = AnsweredFrom { positions: query.answers.positions(), log: query.answers.log(), stale_s: None };
    Ok(answered(json, &state))
}

const SENDER: &str = "sender_id";

/// Returns the subject of the stream: of its ticket, or of the parameter or field that is there.
fn subject(
    mut field: impl FnMut(&str) -> Result<Option<String>, Problem>,
    of_ticket: Option<&Subject>,
) -> Result<Subject, Problem> {
    let mut found = of_ticket.cloned();
    // Streams of a reader are not served; such a name beside another one is a mistake all the same.
    for name in ["conversation_id", SENDER, "reader_id"] {
        let Some(id) = field(name)? else { continue };
        if let Some(detail) = id_problem(&id) {
            return Err(Problem::invalid(format!("/{name}"), detail));
        }
        if let Some(other) = found.replace(Subject { parameter: name.to_owned(), id }) {
            let other = if of_ticket.is_some() { "ticket" } else { &other.parameter };
            return Err(Problem::invalid(format!("/{name}"), format!("must not be combined with {other}")));
        }
    }
    found
        .filter(|subject| subject.parameter != "reader_id")
        .ok_or_else(|| Problem::invalid("/conversation_id", "is missing: send conversation_id or sender_id"))
}

fn interest(subject: &Subject) -> Interest {
    let id = subject.id.clone();
    if subject.parameter == SENDER { Interest::Sender(id) } else { Interest::Conversation(id) }
}

/// Returns whether a caller's stream names new readers.
///
/// # Errors
/// A 403 if the caller may not have the stream.
fn permitted(query: &QueryContext, caller: &Caller, interest: &Interest) -> Result<bool, Problem> {
    let by_scope = caller.scopes.has(Scope::Members);
    let by_sender = matches!(interest, Interest::Sender(id) if caller.is(id));
    let access = query.access.of(&caller.tenant);
    if access.counts.permits(by_scope, by_sender) {
        Ok(access.read.permits(by_scope, by_sender))
    } else {
        Err(Problem::new(Code::Forbidden))
    }
}

/// The logs of the two kinds of tokens, where they are known.
#[derive(Clone, Copy)]
struct Logs {
    events: Option<LogTag>,
    updates: Option<LogTag>,
}

/// Returns the token from which the stream resumes.
fn since(
    headers: &HeaderMap,
    parameters: &Parameters,
    partition_count: u32,
    logs: Logs,
) -> Result<Option<Since>, Problem> {
    let Some((pointer, token)) = resume_id(headers, parameters)? else { return Ok(None) };
    let bad = |detail: String| Problem::new(Code::BadPosition).item(pointer, detail);
    let token: Token = without_mac(token.trim()).parse().map_err(|error: BadToken| bad(error.to_string()))?;
    let log = match token.since {
        Since::Events(_) | Since::Rounded(_) => logs.events,
        Since::Stream(_) | Since::Remainders(_) => logs.updates,
    };
    if !token.may_be_of(log) {
        let detail = "the token is of another log: drop it, ask for the receipts, and open a new stream";
        return Err(Problem::new(Code::UpdatesGone).detail(detail));
    }
    let since = token.since;
    match since.highest_partition() {
        Some(highest) if highest >= partition_count => Err(bad("must be a token of this log".to_owned())),
        _ => Ok(Some(since)),
    }
}
