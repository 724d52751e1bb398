//! Accepts connections, serves them, and drains them with a deadline.
//!
//! It must not decide when to stop; its caller does.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpListener;

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every request in progress was answered.
    Fully,
    /// The deadline came first. Open requests are cut off when the runtime shuts down.
    DeadlineReached,
}

/// The timeouts of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How long the head of a request may take, counted from the end of the request before. An idle
    /// connection is closed after this time too.
    pub head: Duration,
    /// How long requests in progress may take after the service begins to stop.
    pub drain: Duration,
}

/// Serves HTTP/1.1 until `shutdown`, then accepts no more connections, waits at most
/// `timeouts.drain` for requests in progress, and returns.
///
/// axum's own `serve` has no timeout for the head of a request (INV-HEAD).
///
/// # Errors
/// None at present: a failed accept is logged and tried again.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    timeouts: Timeouts,
) -> io::Result<DrainOutcome> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(timeouts.head);
    let connections = GracefulShutdown::new();
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
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
    drop(listener);
    match tokio::time::timeout(timeouts.drain, connections.shutdown()).await {
        Ok(()) => Ok(DrainOutcome::Fully),
        Err(_) => {
            let drain_ms = timeouts.drain.as_millis() as u64;
            tracing::warn!(drain_ms, "requests were still open when the drain timeout ended");
            Ok(DrainOutcome::DeadlineReached)
        }
    }
}
