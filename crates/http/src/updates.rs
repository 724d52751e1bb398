//! Updates as they happen: `GET /v1/updates`, Server-Sent Events fed from the topic of updates.
//!
//! Must not know who published an update: any process that reaches the log and can ask the state may serve streams.

mod hub;
mod shown;
mod since;
mod stream;

use crate::caller::{Caller, Scope};
use crate::problem::{Code, Problem};
use crate::reads::Query;
use crate::request::{Freshness, Parameters, id_problem, put_position};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::unfold;
use hub::Hub;
use receipts_log::{Inspect, ReadError};
use receipts_query::Since;
use shown::Interest;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use stream::{Stream, View};
use tokio::sync::Semaphore;

/// Where a stream goes on after it broke off; clients of Server-Sent Events send it by themselves.
pub const LAST_EVENT_ID_HEADER: HeaderName = HeaderName::from_static("last-event-id");

/// Looks into the topic at once, of all streams together: each holds a thread, and on Kafka a connection.
const LOOKS_AT_ONCE: usize = 4;

/// The source of all streams of a process. Cheap to clone.
#[derive(Clone)]
pub struct Updates(Arc<Feed>);

/// What streams share.
struct Feed {
    hub: Hub,
    /// Streams that may be opened yet.
    room: Arc<Semaphore>,
    looks: Semaphore,
    heartbeat: Duration,
}

impl Updates {
    /// Begins to follow the topic of updates. At most `streams_max` streams are open at once, and each says something at
    /// least once a `heartbeat`. Blocks until the log has answered.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn start(log: Arc<dyn Inspect>, streams_max: usize, heartbeat: Duration) -> Result<Self, ReadError> {
        Ok(Self(Arc::new(Feed {
            hub: Hub::start(log)?,
            room: Arc::new(Semaphore::new(streams_max)),
            looks: Semaphore::new(LOOKS_AT_ONCE),
            heartbeat,
        })))
    }

    /// Ends every stream, refuses new ones, and lets the log go. Blocks for as long as one poll may take, 100 ms.
    pub fn close(&self) {
        self.0.hub.close();
    }
}

impl Feed {
    /// Looks into the log on a thread that may block.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Inspect) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let _turn = self.looks.acquire().await;
        let log = Arc::clone(self.hub.log());
        let looked = tokio::task::spawn_blocking(move || look(&*log)).await;
        looked.unwrap_or_else(|error| Err(ReadError::Stop(error.to_string())))
    }
}

/// Streams updates as Server-Sent Events, of one conversation or of the messages that one person sent.
///
/// `event` is the update's `type`, `data` the update, and `id` a token with which a stream that broke off goes on without
/// a gap: in `Last-Event-ID`, as clients of Server-Sent Events do by themselves, or in `since`. A position of the event log,
/// as answers carry it, does as well: everything that changed since comes first. At least once: an update may come again,
/// also after a newer one of the same message; the higher `version` holds. A comment with the newest `id` comes at least
/// every 15 s by default. The stream ends, and is to be resumed, where the client reads too slowly, the credential expires,
/// or the service stops.
///
/// Of a conversation: for callers with the scope `receipts:members`. Of a sender: for that person, and for callers with the
/// scope; it has the receipts of the person's messages, and the read marks of those who share a direct conversation with the
/// person. Who was erased is not named, whenever the update was published.
#[utoipa::path(
    get, path = "/v1/updates", operation_id = "stream_updates", tag = "query",
    params(
        crate::openapi::StreamParameters,
        ("Last-Event-ID" = Option<String>, Header, nullable = false,
         description = "The `id` of the last event that the client has seen of such a stream, or a position of the event log."),
    ),
    responses((
        status = 200, description = "A stream without end.", body = String, content_type = "text/event-stream",
        example = json!("event: read_mark.updated\nid: AgENgEBvmw\ndata: {\"type\":\"read_mark.updated\",…}\n\n")
    ))
)]
pub(crate) async fn stream_updates(
    updates: Updates,
    query: Arc<Query>,
    caller: Caller,
    parameters: Parameters,
    freshness: Freshness,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let feed = updates.0;
    let interest = interest(&parameters)?;
    let (by_scope, by_sender) = match &interest {
        Interest::Conversation(_) => (caller.scopes.has(Scope::Members), false),
        Interest::Sender(id) => (caller.scopes.has(Scope::Members), caller.is(id)),
    };
    let access = *query.access.of(&caller.tenant);
    if !access.counts.permits(by_scope, by_sender) {
        return Err(Problem::new(Code::Forbidden));
    }
    let since = since(&headers, &parameters, query.answers.partition_count())?;
    query.wait(&freshness).await?;
    let room = Arc::clone(&feed.room).try_acquire_owned().map_err(|_| Problem::new(Code::TooManyStreams))?;
    // Before the stream begins, so that everything beyond is on it.
    let positions = freshness.with(query.answers.positions());
    let names = access.read.permits(by_scope, by_sender);
    let view = View { tenant: caller.tenant, interest, names, expires: caller.expires };
    let (answers, timeout) = (Arc::clone(&query.answers), query.limits.request_timeout);
    let stream = Stream::open(feed, answers, timeout, view, since, room).await?;
    let body = unfold(stream, async |mut stream| {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would collect what is to go out at once.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    put_position(headers, &positions);
    Ok(response)
}

/// What the stream is to be of.
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
        (Some(_), Some(_)) => Err(Problem::invalid("/sender_id", "must not stand beside conversation_id")),
        (None, None) => {
            Err(Problem::invalid("/conversation_id", "is missing, and so is sender_id: one of them is needed"))
        }
    }
}

/// From where the stream is to go on. The header is the newer: it comes from a client that has heard something since it
/// was given its URL.
fn since(headers: &HeaderMap, parameters: &Parameters, partition_count: u32) -> Result<Option<Since>, Problem> {
    let header = headers.get(&LAST_EVENT_ID_HEADER).map(|id| id.to_str().unwrap_or("\u{fffd}"));
    let (pointer, token) = match (header.filter(|id| !id.is_empty()), parameters.one("since")?) {
        (Some(id), _) => ("/Last-Event-ID", id),
        (None, Some(token)) => ("/since", token),
        (None, None) => return Ok(None),
    };
    let bad = |detail: String| Problem::new(Code::BadPosition).item(pointer, detail);
    let since: Since = token.trim().parse().map_err(|error: receipts_query::BadToken| bad(error.to_string()))?;
    match since.positions().highest_partition() {
        Some(highest) if highest >= partition_count => Err(bad("must be a token of this log".to_owned())),
        _ => Ok(Some(since)),
    }
}
