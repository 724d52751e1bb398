//! The HTTP edge of a process: bound early, served on tasks of its own, stopped with a deadline.
//! Knows no route.

use crate::bounds::{admin_listener, listener};
use crate::callers::guard_of_operators;
use crate::process::on_thread;
use anyhow::{Context as _, anyhow};
use receipts_http::{ConnectionBounds, DrainOutcome, Router, Tls, Updates};
use receipts_runtime::config::{Settings, TlsFiles};
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
    /// The TLS of `main`.
    tls: Option<Tls>,
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
    has_tls: bool,
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
    Ok(Listeners { main, tls: None, admin })
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.with_context(|| format!("cannot listen at {address}; choose another {flag}"))?)
}

/// Returns the routes of the inspector, or none if the settings turn it off.
pub fn inspector(settings: &Settings) -> Router {
    if settings.http.inspector { receipts_http::inspector_router() } else { Router::new() }
}

impl Listeners {
    /// Has the listener of callers speak TLS if the settings name its files.
    ///
    /// # Errors
    /// A usage failure if the files cannot be used.
    pub fn with_tls(self, settings: &Settings) -> Result<Self, Failure> {
        let Some(TlsFiles { certificate, key }) = &settings.http.tls else { return Ok(self) };
        let tls = Tls::open(certificate, key).map_err(|bad| Failure::usage(bad.to_string()))?;
        tokio::spawn(tls.clone().keep_fresh());
        Ok(Self { tls: Some(tls), ..self })
    }

    /// Returns the URL at which operators reach the process, without a path.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn operators_url(&self) -> io::Result<String> {
        match &self.admin {
            Some(admin) => Ok(url(admin.local_addr()?, false)),
            None => Ok(url(self.main.local_addr()?, self.tls.is_some())),
        }
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
            None => (Served::start(self.main, self.tls, routes(operators), &stop, bounds)?, None),
            Some(admin) => {
                let main = routes(receipts_http::liveness_router());
                let main = Served::start(self.main, self.tls, main, &stop, bounds)?;
                let guard = guard_of_operators(settings, admin.local_addr()?);
                let operators = receipts_http::operators_router(operators, guard);
                (main, Some(Served::start(admin, None, operators, &stop, admin_listener(settings, drain))?))
            }
        };
        Ok(HttpEdge { main, admin, stop })
    }
}

fn url(address: SocketAddr, has_tls: bool) -> String {
    let scheme = if has_tls { "https" } else { "http" };
    format!("{scheme}://{address}")
}

impl Served {
    fn start(
        listener: TcpListener,
        tls: Option<Tls>,
        router: Router,
        stop: &CancellationToken,
        bounds: ConnectionBounds,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let has_tls = tls.is_some();
        let serving = receipts_http::serve(listener, router, stop.clone().cancelled_owned(), bounds, tls);
        Ok(Self { address, has_tls, task: tokio::spawn(serving), ended: None })
    }

    fn url(&self) -> String {
        url(self.address, self.has_tls)
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
        self.main.url()
    }

    /// Returns the addresses of the ready line: the edge under its label, and the listener for
    /// operators if there is one.
    pub fn addresses(&self, label: &'static str) -> Vec<(&'static str, String)> {
        let admin = self.admin.as_ref().map(|admin| ("admin", admin.url()));
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
