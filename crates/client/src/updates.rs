//! The stream of updates. It connects, resumes after interruptions, and ends only if a retry cannot
//! help.
//!
//! Keeps INV-CLIENT.

use crate::error::{BoxError, Error, Problem};
use crate::transport::{Request, Transport, backoff, encode};
use crate::types::{StreamTicket, Update};
use futures_util::stream::{BoxStream, Stream, StreamExt as _, unfold};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use sse_stream::{Sse, SseStream};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The first wait before a reconnect, unless the service sends `retry`.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

type OnInterruption = Box<dyn Fn(&Error, Duration) + Send>;

/// What a stream follows, as in the body of a request for a ticket.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    SenderId(String),
    ConversationId(String),
}

impl Subject {
    fn path(&self) -> String {
        match self {
            Self::SenderId(id) => format!("/v1/updates?sender_id={}", encode(id)),
            Self::ConversationId(id) => format!("/v1/updates?conversation_id={}", encode(id)),
        }
    }
}

/// A subscription that is not open yet.
#[must_use = "open() opens the stream"]
pub struct Subscription {
    transport: Arc<Transport>,
    subject: Subject,
    since: String,
    on_interruption: Option<OnInterruption>,
}

impl Subscription {
    pub(crate) const fn new(transport: Arc<Transport>, subject: Subject) -> Self {
        Self { transport, subject, since: String::new(), on_interruption: None }
    }

    /// Starts with all updates since an earlier [`Updates::last_event_id`] or a position of an
    /// answer.
    pub fn since(mut self, since: impl Into<String>) -> Self {
        self.since = since.into();
        self
    }

    /// Calls `callback` when a connection is lost or a reconnect fails, with the error and the wait
    /// before the next attempt.
    pub fn on_interruption(mut self, callback: impl Fn(&Error, Duration) + Send + 'static) -> Self {
        self.on_interruption = Some(Box::new(callback));
        self
    }

    /// Returns a ticket for this stream, for a program whose requests carry no credential: a
    /// backend gives it to a browser's `EventSource`, which then follows the stream as this
    /// client's caller. The ticket opens the stream within a minute, and resumes it until this
    /// client's token ends.
    ///
    /// # Errors
    /// `forbidden` if the caller may not follow the stream; or if the request fails.
    pub async fn ticket(&self) -> Result<StreamTicket, Error> {
        /// The answer of the service, without the URL.
        #[derive(Deserialize)]
        struct Issued {
            ticket: String,
            expires_at_ms: u64,
        }
        let body = serde_json::to_vec(&self.subject).map_err(|error| Error::Usage(error.to_string()))?;
        let (what, path) = ("a ticket for a stream", "/v1/updates/tickets".to_owned());
        let request =
            Request { what, method: Method::POST, path, body: Some(body), is_repeatable: true, is_read: false };
        let Issued { ticket, expires_at_ms } = self.transport.call(&request).await?;
        let url = format!("{}/v1/updates?ticket={ticket}", self.transport.base);
        Ok(StreamTicket { ticket, url, expires_at_ms })
    }

    /// Opens the stream. It carries everything that happens from now on. Query the shown receipts
    /// after this call, and no change is missed.
    ///
    /// # Errors
    /// [`Error::UpdatesGone`] if updates since the given position are no longer kept; or if the
    /// service refuses or does not answer after some attempts.
    pub async fn open(self) -> Result<Updates, Error> {
        let Self { transport, subject, since, on_interruption } = self;
        let path = subject.path();
        let connected = transport.persist(true, || connect(&transport, &path, &since)).await?;
        let feed = Feed {
            transport,
            path,
            last_event_id: since.clone(),
            connection: Some(connected),
            attempt: 0,
            first_backoff: BACKOFF,
            missed: None,
            has_ended: false,
            on_interruption,
        };
        Ok(Updates { last_event_id: since, items: unfold(feed, Feed::next_item).boxed() })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("subject", &self.subject)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// An open subscription: a [`Stream`] of updates that outlives its connections. Dropping it ends
/// it.
///
/// If a connection breaks, or is silent for 15 s (more than three heartbeats), the stream
/// reconnects with growing, random waits and continues after the last update that the caller took.
/// An update may come twice, and an older one after a newer one: the higher `version` is right.
///
/// Errors:
/// - [`Error::UpdatesGone`]: missed updates are no longer kept. The stream has reconnected and
///   continues from now on. Query the shown receipts again.
/// - [`Error::Malformed`]: one update cannot be read. The stream continues after it.
/// - All others: the service refused the stream, and it ends. Use a new token or another
///   subscription.
///
/// ```no_run
/// use futures_util::StreamExt as _;
/// use receipts_client::{Error, Update};
///
/// # async fn run(client: receipts_client::Client) -> Result<(), Error> {
/// let mut updates = client.updates_of_sender("alice").open().await?;
/// while let Some(update) = updates.next().await {
///     match update {
///         Ok(Update::Receipt(update)) => println!("{}: {:?}", update.receipt.message_id, update.receipt.counts),
///         Ok(_) => {}
///         Err(Error::UpdatesGone(_)) => println!("query the receipts again"),
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct Updates {
    last_event_id: String,
    items: BoxStream<'static, (Item, String)>,
}

impl Updates {
    /// Returns the id of the last update that the caller took. Pass it to [`Subscription::since`],
    /// and another process continues without a gap. Empty until the service has sent anything.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }
}

impl Stream for Updates {
    type Item = Result<Update, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some((item, id)) = ready!(self.items.poll_next_unpin(context)) else { return Poll::Ready(None) };
            self.last_event_id = id;
            match item {
                Item::KeepAlive => {}
                Item::Update(update) => return Poll::Ready(Some(update)),
            }
        }
    }
}

impl fmt::Debug for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updates").field("last_event_id", &self.last_event_id).finish_non_exhaustive()
    }
}

enum Item {
    /// Only a newer id to resume from.
    KeepAlive,
    Update(Result<Update, Error>),
}

type Connection = SseStream<reqwest::Body>;

/// Reads the service's stream over one connection after another.
struct Feed {
    transport: Arc<Transport>,
    path: String,
    /// The id of the last received event; empty for "from now on".
    last_event_id: String,
    connection: Option<Connection>,
    /// Connections that failed since the last received event.
    attempt: u32,
    first_backoff: Duration,
    /// The problem to report after the reconnect, because updates were missed.
    missed: Option<Box<Problem>>,
    has_ended: bool,
    on_interruption: Option<OnInterruption>,
}

async fn connect(transport: &Transport, path: &str, last_event_id: &str) -> Result<Connection, Error> {
    let response = transport.stream(path, last_event_id).await?;
    Ok(SseStream::new(reqwest::Body::from(response)))
}

impl Feed {
    async fn next_item(mut self) -> Option<((Item, String), Self)> {
        if self.has_ended {
            return None;
        }
        let item = self.next().await;
        let id = self.last_event_id.clone();
        Some(((item, id), self))
    }

    async fn next(&mut self) -> Item {
        loop {
            let failure = match &mut self.connection {
                Some(connection) => match connection.next().await {
                    Some(Ok(event)) => return self.take(event),
                    Some(Err(error)) => Error::Unanswered(error.into()),
                    None => Error::Unanswered(BoxError::from("the service ended the stream")),
                },
                None => match connect(&self.transport, &self.path, &self.last_event_id).await {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        match self.missed.take() {
                            Some(problem) => return Item::Update(Err(Error::UpdatesGone(problem))),
                            None => continue,
                        }
                    }
                    Err(Error::UpdatesGone(problem)) if !self.last_event_id.is_empty() => {
                        // Missed updates are lost to the stream, so it continues from now on. The
                        // caller must query the receipts.
                        self.last_event_id.clear();
                        self.missed = Some(problem);
                        continue;
                    }
                    Err(error) if is_final(&error) => {
                        self.has_ended = true;
                        return Item::Update(Err(error));
                    }
                    Err(error) => error,
                },
            };
            self.connection = None;
            let asked = failure.problem().and_then(|problem| problem.retry_after).unwrap_or_default();
            let wait = asked.max(backoff(self.attempt, self.first_backoff, BACKOFF_MAX));
            self.attempt = self.attempt.saturating_add(1);
            if let Some(on_interruption) = &self.on_interruption {
                on_interruption(&failure, wait);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn take(&mut self, event: Sse) -> Item {
        self.attempt = 0;
        if let Some(retry_ms) = event.retry {
            self.first_backoff = Duration::from_millis(retry_ms);
        }
        if let Some(id) = event.id {
            self.last_event_id = id;
        }
        match (event.data, event.event.as_deref()) {
            (Some(data), Some("receipt.updated" | "read_mark.updated")) => {
                let update = serde_json::from_str(&data);
                Item::Update(update.map_err(|source| Error::Malformed { what: "a stream of updates", source }))
            }
            // Later versions may add types of updates.
            _ => Item::KeepAlive,
        }
    }
}

/// Returns true if the service would refuse the same request again.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Problem(problem) | Error::UpdatesGone(problem) => {
            (400..500).contains(&problem.status) && !matches!(problem.status, 408 | 429)
        }
        Error::Usage(_) => true,
        _ => false,
    }
}
