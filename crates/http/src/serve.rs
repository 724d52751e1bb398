//! Listens, serves, and drains with a deadline.
//!
//! Must not decide when to stop: whoever composes the service does.

use axum::Router;
use axum::serve::ListenerExt as _;
use std::future::IntoFuture as _;
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request that had begun was answered.
    Fully,
    /// The deadline came first; what was still open is cut off once the runtime goes.
    DeadlineReached,
}

/// Serves until `shutdown`, then takes no more connections, lets what has begun end for at most `drain`, and returns.
///
/// # Errors
/// Where the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> io::Result<Drained> {
    let (signal, signalled) = oneshot::channel::<()>();
    let until = async move {
        shutdown.await;
        let _ = signal.send(());
    };
    // Answers are small and whole: waiting for more to put into a segment only delays them.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(until).into_future();
    let deadline = async {
        match signalled.await {
            Ok(()) => tokio::time::sleep(drain).await,
            // The signal is gone with the server: its own end is the answer.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = serving => served.map(|()| Drained::Fully),
        () = deadline => {
            tracing::warn!(drain_ms = drain.as_millis() as u64, "requests were still open when the time to drain was over");
            Ok(Drained::DeadlineReached)
        }
    }
}
