//! The stream of updates: connects, goes on where it broke off, and gives up only where coming again cannot help.

use crate::error::{BoxError, Error, Problem};
use crate::transport::{Transport, backoff};
use crate::types::Update;
use futures_util::stream::{BoxStream, Stream, StreamExt as _, unfold};
use sse_stream::{Sse, SseStream};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Before the second connection, where the service does not say.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

type OnInterruption = Box<dyn Fn(&Error, Duration) + Send>;

/// A stream of updates that is not opened yet.
#[must_use = "open() opens the stream"]
pub struct Subscription {
    transport: Arc<Transport>,
    path: String,
    since: String,
    on_interruption: Option<OnInterruption>,
}

impl Subscription {
    pub(crate) const fn new(transport: Arc<Transport>, path: String) -> Self {
        Self { transport, path, since: String::new(), on_interruption: None }
    }

    /// Everything since comes first: [`Updates::last_event_id`] of before, or a position of the service's answers.
    pub fn since(mut self, since: impl Into<String>) -> Self {
        self.since = since.into();
        self
    }

    /// Calls this when a connection was lost, or could not be made again, with how long it is until the next try.
    pub fn on_interruption(mut self, heard: impl Fn(&Error, Duration) + Send + 'static) -> Self {
        self.on_interruption = Some(Box::new(heard));
        self
    }

    /// Opens the stream. What happens from here on comes on it: ask for the receipts on show once this has returned, and
    /// nothing falls between.
    ///
    /// # Errors
    /// [`Error::UpdatesGone`] where what came since is not kept any more; where it is refused, or nobody answers after some
    /// tries.
    pub async fn open(self) -> Result<Updates, Error> {
        let Self { transport, path, since, on_interruption } = self;
        let connected = transport.persist(true, || connect(&transport, &path, &since)).await?;
        let feed = Feed {
            transport,
            path,
            last_event_id: since.clone(),
            connection: Some(connected),
            attempt: 0,
            first_backoff: BACKOFF,
            gone: None,
            has_ended: false,
            on_interruption,
        };
        Ok(Updates { last_event_id: since, heard: unfold(feed, Feed::hear).boxed() })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("path", &self.path).field("since", &self.since).finish_non_exhaustive()
    }
}

/// A subscription that outlives its connections: a [`Stream`] of updates. Dropping it ends it.
///
/// A connection that breaks off, or says nothing for three heartbeats, is made again by itself, later each time and not at the
/// same moment as all others', and goes on behind the last update that was taken from here. An update may come twice, and an
/// older one after a newer: the higher `version` holds.
///
/// An error is one of these:
/// - [`Error::UpdatesGone`]: what was missed is not kept any more. The stream is connected again and goes on from now: ask
///   for the receipts on show anew.
/// - [`Error::Malformed`]: an update cannot be read; the stream goes on behind it.
/// - Anything else: the stream was refused and ends. A new token, or another question, is needed.
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
///         Err(Error::UpdatesGone(_)) => println!("to be asked for anew"),
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct Updates {
    last_event_id: String,
    heard: BoxStream<'static, (Heard, String)>,
}

impl Updates {
    /// Up to where updates were taken from here: kept and given to [`Subscription::since`], it lets the next process go on
    /// without a gap. Empty until the service has said anything.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }
}

impl Stream for Updates {
    type Item = Result<Update, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some((heard, id)) = ready!(self.heard.poll_next_unpin(context)) else { return Poll::Ready(None) };
            self.last_event_id = id;
            match heard {
                Heard::SignOfLife => {}
                Heard::Update(update) => return Poll::Ready(Some(update)),
            }
        }
    }
}

impl fmt::Debug for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updates").field("last_event_id", &self.last_event_id).finish_non_exhaustive()
    }
}

enum Heard {
    /// Nothing but a newer place to go on from.
    SignOfLife,
    Update(Result<Update, Error>),
}

type Connection = SseStream<reqwest::Body>;

/// What hears the service, connection after connection.
struct Feed {
    transport: Arc<Transport>,
    path: String,
    /// Up to where was heard; empty for "from now".
    last_event_id: String,
    connection: Option<Connection>,
    /// Connections that failed since anything was heard.
    attempt: u32,
    first_backoff: Duration,
    /// What is to be told once it is connected again.
    gone: Option<Box<Problem>>,
    has_ended: bool,
    on_interruption: Option<OnInterruption>,
}

async fn connect(transport: &Transport, path: &str, last_event_id: &str) -> Result<Connection, Error> {
    let response = transport.stream(path, last_event_id).await?;
    Ok(SseStream::new(reqwest::Body::from(response)))
}

impl Feed {
    async fn hear(mut self) -> Option<((Heard, String), Self)> {
        if self.has_ended {
            return None;
        }
        let heard = self.next().await;
        let id = self.last_event_id.clone();
        Some(((heard, id), self))
    }

    async fn next(&mut self) -> Heard {
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
                        match self.gone.take() {
                            Some(problem) => return Heard::Update(Err(Error::UpdatesGone(problem))),
                            None => continue,
                        }
                    }
                    Err(Error::UpdatesGone(problem)) if !self.last_event_id.is_empty() => {
                        // What was missed is not there any more: only the caller can ask for it anew, and it goes on from now.
                        self.last_event_id.clear();
                        self.gone = Some(problem);
                        continue;
                    }
                    Err(error) if is_final(&error) => {
                        self.has_ended = true;
                        return Heard::Update(Err(error));
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

    fn take(&mut self, event: Sse) -> Heard {
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
                Heard::Update(update.map_err(|source| Error::Malformed { what: "a stream of updates", source }))
            }
            // Types of updates may be added.
            _ => Heard::SignOfLife,
        }
    }
}

/// Whether the same request would be refused again.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Problem(problem) | Error::UpdatesGone(problem) => {
            (400..500).contains(&problem.status) && !matches!(problem.status, 408 | 429)
        }
        Error::Usage(_) => true,
        _ => false,
    }
}
