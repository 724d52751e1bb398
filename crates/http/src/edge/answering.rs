//! Answers on their way to the client: a request is in progress until its connection has taken the
//! whole answer, and a stream of HTTP/2 that its client does not read is cut.
//!
//! It must not know a route, or count connections.

use crate::edge::alarm::Alarm;
use crate::edge::connections::{Connection, EndsAt, GRACE, InProgress};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, Response, StatusCode, Version};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower::Service as _;

/// The largest piece of an answer over HTTP/2, bytes: its client has the write timeout for each.
const PIECE_BYTES: usize = 16_384;

tokio::task_local! {
    /// The delivery of the stream that runs on the task. HTTP/1 has none.
    static DELIVERY: Arc<Delivery>;
}

/// Answers one request of a connection, which is busy until the answer is sent. Must be called on
/// the task of the connection: from then on it is not idle.
pub(crate) fn answer(
    mut router: Router,
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answered>, Infallible>> + use<> {
    let (mut in_progress, no_room) = connection.begin(request.version() == Version::HTTP_2);
    if let Some(no_room) = no_room {
        request.extensions_mut().insert(no_room);
    }
    async move {
        let delivery = DELIVERY.try_with(Arc::clone).ok();
        if delivery.is_some() && !in_progress.start() {
            let mut gone = Response::new(Answered { body: Body::empty(), rest: Bytes::new(), delivery, in_progress });
            *gone.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(gone);
        }
        let mut response = router.call(request).await?;
        match (response.extensions_mut().remove::<EndsAt>(), &delivery) {
            (Some(EndsAt(at)), Some(delivery)) => delivery.0.lock().ends_at = Some(at + GRACE),
            (Some(ends_at), None) => in_progress.end_at(ends_at),
            (None, _) => {}
        }
        Ok(response.map(|body| {
            let mut answered = Answered { body, rest: Bytes::new(), delivery, in_progress };
            answered.set_offered(true);
            answered
        }))
    }
}

/// The body of an answer. Its request is in progress until the connection has taken all of it.
///
/// hyper takes a piece for HTTP/2 once the client's window has room for its first byte, and then
/// asks for the next one. So the last piece is one byte: when it is taken, the client has given
/// room for all before it.
pub(crate) struct Answered {
    body: Body,
    /// What is left of the last frame of `body`.
    rest: Bytes,
    delivery: Option<Arc<Delivery>>,
    in_progress: InProgress,
}

impl Answered {
    /// Notes of an answer over HTTP/2 whether hyper has a piece of it, or its head, and has not
    /// asked for the next one.
    fn set_offered(&mut self, is_offered: bool) {
        if let Some(delivery) = &self.delivery {
            delivery.0.lock().offered_at = is_offered.then(Instant::now);
            self.in_progress.set_waiting(is_offered);
        }
    }

    fn piece(&mut self) -> Bytes {
        let (count, is_last) = (self.rest.len(), self.body.is_end_stream());
        let before_last = if is_last && count > 1 { count - 1 } else { count };
        self.rest.split_to(before_last.min(PIECE_BYTES))
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.delivery.is_none() {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        self.set_offered(false);
        if self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else { return Poll::Ready(None) };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => self.rest = data,
                Ok(Err(other)) => return Poll::Ready(Some(Ok(other))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        self.set_offered(true);
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.saturating_add(body.lower()));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// How far the answer on a stream of HTTP/2 is.
#[derive(Default)]
struct Delivery(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    /// When hyper got the piece that the client has not made room for yet.
    offered_at: Option<Instant>,
    /// When the stream has to be cut, because its credential has expired.
    ends_at: Option<Instant>,
}

impl Delivery {
    /// Resolves when the client has not made room for a piece in time, or when the credential has
    /// expired. Must be polled on the task of the stream.
    async fn must_end(&self, write_timeout: Duration) {
        let mut alarm = Alarm::default();
        poll_fn(|context| {
            let due = {
                let Progress { offered_at, ends_at } = &*self.0.lock();
                offered_at.map(|at| at + write_timeout).into_iter().chain(*ends_at).min()
            };
            due.map_or(Poll::Pending, |at| alarm.poll(at, context))
        })
        .await;
    }
}

/// Runs the streams of HTTP/2 connections, each on a task of its own, and cuts one that its client
/// does not read. [`TimeoutWriter`](tokio_io_timeout::TimeoutWriter) does not see that, because
/// the client may read the other streams.
#[derive(Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) write_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (delivery, write_timeout) = (Arc::<Delivery>::default(), self.write_timeout);
        let watched = {
            let delivery = Arc::clone(&delivery);
            async move {
                tokio::select! {
                    biased;
                    () = stream => {}
                    () = delivery.must_end(write_timeout) => tracing::debug!("a stream was cut by the service"),
                }
            }
        };
        tokio::spawn(DELIVERY.scope(delivery, watched));
    }
}
