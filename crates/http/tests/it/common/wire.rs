//! A real listener on loopback, and clients that speak to it byte by byte.

use super::App;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use receipts_http::{ConnectionBounds, DrainOutcome, Tls, serve};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Serves a router on a free loopback port until the sender is used or dropped, with one client.
pub(crate) async fn listen(
    router: Router,
    drain: Duration,
) -> (TcpStream, oneshot::Sender<()>, tokio::task::JoinHandle<DrainOutcome>) {
    let head_timeout = Duration::from_secs(3_600);
    listen_with(router, ConnectionBounds { head_timeout, drain, ..ConnectionBounds::default() }).await
}

/// As [`listen`], with bounds.
pub(crate) async fn listen_with(
    router: Router,
    bounds: ConnectionBounds,
) -> (TcpStream, oneshot::Sender<()>, tokio::task::JoinHandle<DrainOutcome>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let until = async move {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(async move { serve(listener, router, until, bounds, None).await.unwrap() });
    (TcpStream::connect(address).await.unwrap(), stop, serving)
}

/// A service on a free loopback port, until it is dropped.
pub(crate) struct Listening {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Listening {
    /// Serves an app with the default bounds.
    pub(crate) async fn at(app: &App) -> Self {
        Self::with(app.router.clone(), ConnectionBounds::default()).await
    }

    /// Serves a router with bounds.
    pub(crate) async fn with(router: Router, bounds: ConnectionBounds) -> Self {
        Self::secured(router, bounds, None).await
    }

    /// Serves a router with bounds and TLS.
    pub(crate) async fn secured(router: Router, bounds: ConnectionBounds, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move {
            let _ = stopped.await;
        };
        tokio::spawn(serve(listener, router, until, bounds, tls));
        Self { address, _stop: stop }
    }

    /// Opens a connection of HTTP/2, by prior knowledge.
    pub(crate) async fn http2(&self) -> SendRequest<Body> {
        http2(self.connect().await).await
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Opens a connection and sends text.
    pub(crate) async fn send(&self, text: &str) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(text.as_bytes()).await.unwrap();
        client
    }

    /// Sends a GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> TcpStream {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")).await
    }

    /// Sends a GET on a connection of its own, and returns the beginning of the answer.
    pub(crate) async fn ask(&self, path: &str, headers: &str) -> String {
        read_some(&mut self.get(path, headers).await).await
    }
}

/// Speaks HTTP/2 over a stream. Answers are read as far as the test reads them.
pub(crate) async fn http2(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> SendRequest<Body> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A GET to this machine over HTTP/2.
pub(crate) fn get_request(path: &str) -> Request<Body> {
    Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap()
}

/// Returns the next bytes of an answer as text.
pub(crate) async fn read_some(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = vec![0; 4_096];
    let count = tokio::time::timeout(LONG, stream.read(&mut bytes)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

/// Reads until the server closes the connection, and returns the text.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Much longer than anything takes that is waited for.
const LONG: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A route that answers after `took`.
pub(crate) fn slow(took: Duration) -> Router {
    let handler = move || async move {
        tokio::time::sleep(took).await;
        "done"
    };
    Router::new().route("/slow", get(handler))
}
