//! Accepts connections within their bounds, serves them, and drains them with a deadline.
//!
//! It must not decide when to stop; its caller does.

use crate::edge::connections::{Connection, Connections, EndsAt, InProgress, Slot};
use crate::problem::{Code, TYPE_PREFIX};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;
use tower::Service as _;

/// The smallest buffer that hyper allows, bytes. The head has a bound of its own.
const BUFFER_BYTES_MIN: usize = 8_192;
/// Refused connections that are open at once, beyond all others. More are closed without an answer.
const REFUSALS_MAX: usize = 16;
/// How long a refused client may take to read its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every request in progress was answered.
    Fully,
    /// The deadline came first. Open requests are cut off when the runtime shuts down.
    DeadlineReached,
}

/// The bounds of a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Connections at once. For one more, the one that is idle for the longest is closed.
    pub connections_max: usize,
    /// The name of this bound in metrics.
    pub budget: &'static str,
    /// The setting that decides it.
    pub setting: &'static str,
    /// The largest head of a request, bytes. A larger one is answered with 431.
    pub head_bytes_max: usize,
    /// How long the head of a request may take, counted from the end of the request before. An idle
    /// connection is closed after this time too.
    pub head_timeout: Duration,
    /// How long a client may read nothing of its answer. Its connection is closed then.
    pub write_timeout: Duration,
    /// How long requests in progress may take after the service begins to stop.
    pub drain: Duration,
}

/// The defaults of the settings, with 20,000 connections.
impl Default for ConnectionBounds {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            budget: "connections",
            setting: "http.connections_max",
            head_bytes_max: 65_536,
            head_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves HTTP/1.1 until `shutdown`, then accepts no more connections, waits at most `bounds.drain`
/// for requests in progress, and returns.
///
/// axum's own `serve` bounds none of this (INV-HEAD, INV-CONNECTIONS).
///
/// # Errors
/// None at present: a failed accept is logged and tried again.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    bounds: ConnectionBounds,
) -> io::Result<DrainOutcome> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_header_size(bounds.head_bytes_max)
        .max_buf_size(bounds.head_bytes_max.max(BUFFER_BYTES_MIN));
    let draining = GracefulShutdown::new();
    let connections = Connections::new(bounds.connections_max, bounds.budget, bounds.setting);
    let refusal = refusal(bounds.setting);
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut shutdown = pin!(shutdown);
    loop {
        // axum's listener accepts again after any error.
        let (stream, _) = tokio::select! {
            accepted = axum::serve::Listener::accept(&mut listener) => accepted,
            () = &mut shutdown => break,
        };
        // Answers are small and written at once, so Nagle's algorithm would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set on a connection");
        }
        let Some(slot) = connections.open().await else {
            refuse(stream, Arc::clone(&refusal), &refusals);
            continue;
        };
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(bounds.write_timeout));
        let service = {
            let (router, connection) = (router.clone(), Arc::clone(slot.connection()));
            service_fn(move |request| answer(router.clone(), Arc::clone(&connection), request))
        };
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        tokio::spawn(watch(draining.watch(connection), slot));
    }
    drop(listener);
    match tokio::time::timeout(bounds.drain, draining.shutdown()).await {
        Ok(()) => Ok(DrainOutcome::Fully),
        Err(_) => {
            let drain_ms = bounds.drain.as_millis() as u64;
            tracing::warn!(drain_ms, "requests were still open when the drain timeout ended");
            Ok(DrainOutcome::DeadlineReached)
        }
    }
}

/// Serves a connection until it ends or has to be closed.
async fn watch(connection: impl Future<Output = hyper::Result<()>>, slot: Slot) {
    tokio::select! {
        biased;
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection failed");
            }
        }
        () = slot.must_close() => tracing::debug!("a connection was closed by the service"),
    }
}

/// Returns the answer to a connection for which there is no room.
fn refusal(setting: &str) -> Arc<str> {
    let (name, status, title) = Code::Overloaded.spec();
    let detail = format!("the service has as many connections as it may, and none is idle: {setting}");
    let problem = json!({
        "type": format!("{TYPE_PREFIX}{name}"), "title": title, "status": status.as_u16(), "detail": detail,
    })
    .to_string();
    let length = problem.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{problem}"
    )
    .into()
}

/// Answers a connection for which there is no room, and closes it. Reads what the client has sent,
/// because closing it unread would reset the connection and could cost the client the answer.
fn refuse(mut stream: TcpStream, refusal: Arc<str>, refusals: &Arc<Semaphore>) {
    let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else { return };
    let answer = async move {
        stream.write_all(refusal.as_bytes()).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1_024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::spawn(async move {
        _ = tokio::time::timeout(REFUSAL_TIMEOUT, answer).await;
        drop(permit);
    });
}

/// Answers one request of a connection, which is busy until the answer is sent.
async fn answer(
    mut router: Router,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Answered>, Infallible> {
    let mut in_progress = connection.begin();
    let mut response = router.call(request).await?;
    if let Some(ends_at) = response.extensions_mut().remove::<EndsAt>() {
        in_progress.end_at(ends_at);
    }
    Ok(response.map(|body| Answered { body, _in_progress: in_progress }))
}

/// The body of an answer. Its request is in progress until the connection has taken all of it.
struct Answered {
    body: Body,
    _in_progress: InProgress,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
