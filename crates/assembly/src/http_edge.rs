//! The HTTP edge of a process: bound early, served on tasks of its own, stopped with a deadline.
//! Knows no route.

use crate::bounds::{admin_listener, listener};
use crate::callers::guard_of_operators;
use crate::process::on_thread;
use anyhow::{Context as _, anyhow};
use receipts_http::{ConnectionBounds, DrainOutcome, Router, Updates};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

type Ended = Result<io::Result<DrainOutcome>, JoinError>;

/// The listeners of a process, bound and not served yet.
pub struct Listeners {
    main: TcpListener,
    /// For operators, if the settings name an address for them.
    admin: Option<TcpListener>,
}

/// A served HTTP edge.
pub struct HttpEdge {
    main: Served,
    admin: Option<Served>,
    stop: CancellationToken,
}

/// One served listener.
struct Served {
    address: SocketAddr,
    task: JoinHandle<io::Result<DrainOutcome>>,
    /// The end of the task, if it ended by itself.
    ended: Option<Ended>,
}

/// Binds the address of callers or edges, and the one of operators if there is one. `flag` chooses
/// another address; the error names it.
///
/// # Errors
/// If an address cannot be bound.
pub async fn listen(settings: &Settings, address: SocketAddr, flag: &str) -> Result<Listeners, Failure> {
    let main = bind(address, flag).await?;
    let admin = match settings.http.admin_listen {
        Some(address) => Some(bind(address, "--http-admin-listen").await?),
        None => None,
    };
    Ok(Listeners { main, admin })
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.with_context(|| format!("cannot listen at {address}; choose another {flag}"))?)
}

impl Listeners {
    /// Returns the URL at which operators reach the process, without a path.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn operators_url(&self) -> io::Result<String> {
        Ok(url(self.admin.as_ref().unwrap_or(&self.main).local_addr()?))
    }

    /// Serves `routes`, and `operators` at the listener for operators. Without that listener,
    /// `operators` are served beside `routes`; with it, only the liveness stays there.
    ///
    /// Accepts at most `connections` from callers. Once the edge stops, requests that have begun
    /// get `drain` to end.
    ///
    /// # Errors
    /// If a listener has no address.
    pub fn serve(
        self,
        routes: impl FnOnce(Router) -> Router,
        operators: Router,
        settings: &Settings,
        connections: u64,
        drain: Duration,
    ) -> io::Result<HttpEdge> {
        let stop = CancellationToken::new();
        let bounds = listener(settings, connections, drain);
        let (main, admin) = match self.admin {
            None => (Served::start(self.main, routes(operators), &stop, bounds)?, None),
            Some(admin) => {
                let main = Served::start(self.main, routes(receipts_http::liveness_router()), &stop, bounds)?;
                let guard = guard_of_operators(settings, admin.local_addr()?);
                let operators = receipts_http::operators_router(operators, guard);
                (main, Some(Served::start(admin, operators, &stop, admin_listener(settings, drain))?))
            }
        };
        Ok(HttpEdge { main, admin, stop })
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

impl Served {
    fn start(
        listener: TcpListener,
        router: Router,
        stop: &CancellationToken,
        bounds: ConnectionBounds,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let serving = receipts_http::serve(listener, router, stop.clone().cancelled_owned(), bounds);
        Ok(Self { address, task: tokio::spawn(serving), ended: None })
    }

    async fn ended(&mut self) {
        let ended = (&mut self.task).await;
        self.ended = Some(ended);
    }

    async fn stopped(self) -> Result<DrainOutcome, Failure> {
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

impl HttpEdge {
    /// The URL of the edge, without a path.
    pub fn url(&self) -> String {
        url(self.main.address)
    }

    /// Returns the addresses of the ready line: the edge under its label, and the listener for
    /// operators if there is one.
    pub fn addresses(&self, label: &'static str) -> Vec<(&'static str, String)> {
        let admin = self.admin.as_ref().map(|admin| ("admin", url(admin.address)));
        [(label, self.url())].into_iter().chain(admin).collect()
    }

    /// Resolves once a listener has ended by itself. Must not be called after that.
    pub async fn ended(&mut self) {
        let Self { main, admin, .. } = self;
        match admin {
            Some(admin) => tokio::select! {
                () = main.ended() => {}
                () = admin.ended() => {}
            },
            None => main.ended().await,
        }
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
        let drained = self.main.stopped().await;
        if let Some(admin) = self.admin {
            admin.stopped().await?;
        }
        drained
    }
}
