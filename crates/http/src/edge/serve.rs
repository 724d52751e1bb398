//! Accepts connections within their bounds, serves them, and drains them with a deadline.
//!
//! It must not decide when to stop; its caller does.

use crate::edge::answering::{Streams, answer};
use crate::edge::connections::{Connections, Slot, Times, Why};
use crate::edge::tls::Tls;
use crate::edge::transport::{self, Version};
use crate::problem::{Code, TYPE_PREFIX};
use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use serde_json::json;
use std::fmt::Display;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// The smallest buffer that hyper allows, bytes. The head has a bound of its own.
const BUFFER_BYTES_MIN: usize = 8_192;
/// Refused connections that are open at once, beyond all others. More are closed without an answer.
const REFUSALS_MAX: usize = 16;
/// How long a refused client may take to read its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Streams of one HTTP/2 connection at once: the least that RFC 9113, section 6.5.2 recommends.
const STREAMS_MAX: u32 = 100;
/// Bytes of bodies that an HTTP/2 connection may send before they are read: the protocol's default,
/// and as many as a head may have.
const WINDOW_BYTES: u32 = 65_535;
/// How long an idle HTTP/2 connection may take to end after it was told to.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// How long the head of a request may take, counted from its first byte. The first one of a
    /// connection counts from its beginning, with the handshake of TLS.
    pub head_timeout: Duration,
    /// How long a connection without a request stays open.
    pub keep_alive: Duration,
    /// How long a client may read nothing of its answer. Its connection is closed then, or its
    /// stream if it reads others of an HTTP/2 connection.
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
            keep_alive: Duration::from_secs(620),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// The protocols of a listener.
#[derive(Clone)]
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    tls: Option<Tls>,
    bounds: ConnectionBounds,
}

/// Serves HTTP/1.1 and HTTP/2, with TLS if it is given, until `shutdown`. Then it accepts no more
/// connections, waits at most `bounds.drain` for requests in progress, and returns.
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
    tls: Option<Tls>,
) -> io::Result<DrainOutcome> {
    let protocols = Protocols { http1: http1(&bounds), http2: http2(&bounds), tls, bounds };
    let times = Times { head: bounds.head_timeout, keep_alive: bounds.keep_alive };
    let connections = Connections::new(bounds.connections_max, times, bounds.budget, bounds.setting);
    let refusal = refusal(bounds.setting);
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let (stop, stopping) = watch::channel(());
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
        match connections.open().await {
            Some(slot) => {
                tokio::spawn(serve_one(stream, slot, router.clone(), protocols.clone(), stopping.clone()));
            }
            // Before the handshake of TLS no answer can be read.
            None if protocols.tls.is_some() => {}
            None => refuse(stream, Arc::clone(&refusal), &refusals),
        }
    }
    drop((listener, stopping));
    _ = stop.send(());
    match tokio::time::timeout(bounds.drain, stop.closed()).await {
        Ok(()) => Ok(DrainOutcome::Fully),
        Err(_) => {
            let drain_ms = bounds.drain.as_millis() as u64;
            tracing::warn!(drain_ms, "requests were still open when the drain timeout ended");
            Ok(DrainOutcome::DeadlineReached)
        }
    }
}

/// HTTP/1. [`Connections`] has its timeouts: hyper's own counts an idle connection as a late head.
fn http1(bounds: &ConnectionBounds) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(bounds.head_bytes_max)
        .max_buf_size(bounds.head_bytes_max.max(BUFFER_BYTES_MIN));
    http
}

/// HTTP/2. A client must answer a ping, which it cannot within a frame or between the frames of a
/// head: so pings end heads that are late. Resets that come before their requests are taken are
/// bounded by hyper and h2.
fn http2(bounds: &ConnectionBounds) -> http2::Builder<Streams> {
    let mut http = http2::Builder::new(Streams { write_timeout: bounds.write_timeout });
    http.timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(bounds.head_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(bounds.head_timeout / 2)
        .keep_alive_timeout(bounds.head_timeout / 2);
    http
}

/// Serves a connection until it ends or has to be closed.
async fn serve_one(
    stream: TcpStream,
    slot: Slot,
    router: Router,
    protocols: Protocols,
    mut stopping: watch::Receiver<()>,
) {
    let Protocols { http1, http2, tls, bounds } = protocols;
    let connection = slot.connection();
    let opened = tokio::select! {
        biased;
        opened = transport::open(stream, tls.as_ref(), bounds.write_timeout, Arc::clone(connection)) => opened,
        _ = slot.must_close() => return,
        _ = stopping.changed() => return,
    };
    let (io, version) = match opened {
        Ok((io, version)) => (TokioIo::new(io), version),
        Err(error) => {
            tracing::debug!(%error, "a connection failed before its first request");
            return;
        }
    };
    let service = service_fn(|request| answer(router.clone(), connection, request));
    match version {
        Version::Http1 => drive(http1.serve_connection(io, service), &slot, stopping).await,
        Version::Http2 => drive(http2.serve_connection(io, service), &slot, stopping).await,
    }
}

/// Drives a connection until it ends or has to be closed.
async fn drive(connection: impl GracefulConnection<Error: Display>, slot: &Slot, mut stopping: watch::Receiver<()>) {
    let mut connection = pin!(connection);
    let why = {
        let mut must_close = pin!(slot.must_close());
        let mut is_stopping = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return log_end(ended),
                why = &mut must_close => break why,
                _ = stopping.changed(), if !is_stopping => {
                    connection.as_mut().graceful_shutdown();
                    is_stopping = true;
                }
            }
        }
    };
    tracing::debug!(?why, "a connection is closed by the service");
    if why == Why::Idle {
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = tokio::time::timeout(GOODBYE_TIMEOUT, connection).await {
            log_end(ended);
        }
    }
}

fn log_end(ended: Result<(), impl Display>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
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
