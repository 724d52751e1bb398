//! Listens, serves, and drains with a deadline.
//!
//! Must not decide when to stop: whoever composes the service does.

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
    /// Every request that had begun was answered.
    Fully,
    /// The deadline came first; what was still open is cut off once the runtime goes.
    DeadlineReached,
}

/// How patient a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How long the head of a request may take, from the end of the one before on: so this is also how long a connection
    /// is kept that asks nothing. Then it is closed.
    pub head: Duration,
    /// How long what has begun may take once the service is to stop.
    pub drain: Duration,
}

/// Serves HTTP/1.1 until `shutdown`, then takes no more connections, lets what has begun end for as long as it may take,
/// and returns. Not axum's own `serve`: that one waits for the head of a request for ever.
///
/// # Errors
/// None at present: a connection that cannot be taken is logged and tried again.
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
        // The listener that axum knows takes connections again after whatever went wrong with one.
        let (stream, _) = tokio::select! {
            accepted = axum::serve::Listener::accept(&mut listener) => accepted,
            () = &mut shutdown => break,
        };
        // Answers are small and whole: waiting for more to put into a segment only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    match tokio::time::timeout(timeouts.drain, connections.shutdown()).await {
        Ok(()) => Ok(DrainOutcome::Fully),
        Err(_) => {
            let drain_ms = timeouts.drain.as_millis() as u64;
            tracing::warn!(drain_ms, "requests were still open when the time to drain was over");
            Ok(DrainOutcome::DeadlineReached)
        }
    }
}
