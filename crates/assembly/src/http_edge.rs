//! The HTTP edge of a process: bound early, served on its own task, stopped with a deadline. Knows
//! no route.

use crate::process::on_thread;
use anyhow::{Context as _, anyhow};
use receipts_http::{DrainOutcome, Timeouts, Updates};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

type Ended = Result<io::Result<DrainOutcome>, JoinError>;

/// A served HTTP edge.
pub struct HttpEdge {
    address: SocketAddr,
    task: JoinHandle<io::Result<DrainOutcome>>,
    stop: CancellationToken,
    /// The end of the task, if it ended by itself.
    ended: Option<Ended>,
}

/// Binds the address to listen at. `flag` chooses another address; the error names it.
///
/// # Errors
/// If the address cannot be bound.
pub async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.with_context(|| format!("cannot listen at {address}; choose another {flag}"))?)
}

impl HttpEdge {
    /// Serves routes at a listener. Once it stops, requests that have begun get `drain` to end.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn start(
        listener: TcpListener,
        router: receipts_http::Router,
        settings: &Settings,
        drain: Duration,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let timeouts = Timeouts { head: Duration::from_millis(settings.http.head_timeout_ms), drain };
        let stop = CancellationToken::new();
        let serving = receipts_http::serve(listener, router, stop.clone().cancelled_owned(), timeouts);
        Ok(Self { address, task: tokio::spawn(serving), stop, ended: None })
    }

    /// The URL of the edge, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resolves once the edge has ended by itself. Must not be called after that.
    pub async fn ended(&mut self) {
        let ended = (&mut self.task).await;
        self.ended = Some(ended);
    }

    /// Takes no more requests, ends the streams of `updates`, and returns once requests that have
    /// begun are answered or their time is over.
    ///
    /// # Errors
    /// If the edge failed, panicked or had ended by itself.
    pub async fn stop(self, updates: Option<Updates>) -> Result<DrainOutcome, Failure> {
        self.stop.cancel();
        // A stream has no end of its own to wait for.
        if let Some(updates) = updates {
            on_thread("ending streams", move || {
                updates.close();
                Ok(())
            })
            .await?;
        }
        let (by_itself, ended) = match self.ended {
            Some(ended) => (true, ended),
            None => (false, self.task.await),
        };
        match ended.context("the HTTP edge panicked; this is a bug: please report it with the log")? {
            Ok(_) if by_itself => Err(anyhow!("the HTTP edge ended by itself").into()),
            Ok(drained) => Ok(drained),
            Err(error) => Err(anyhow!(error).context("the HTTP edge failed").into()),
        }
    }
}
