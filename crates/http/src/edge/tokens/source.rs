//! Reads public keys from a file, or from a URL within bounds of time and size.
//!
//! It must not follow a redirect, because a redirecting host could decide whose tokens are
//! accepted.

use axum::body::Body;
use axum::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The largest set, bytes. A key has less than 1 KiB, or 3 KiB with a chain of certificates.
pub(super) const SET_BYTES_MAX: usize = 512 << 10;

/// The source of a JWK Set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A URL, `https` or `http`.
    Url {
        /// The URL.
        url: String,
        /// How long one fetch may take.
        timeout: Duration,
    },
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url { url, .. } => url.fmt(f),
        }
    }
}

/// A source that is ready to be read.
pub(super) enum Reader {
    File(PathBuf),
    Url(Box<Fetcher>),
}

pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    url: Uri,
    timeout: Duration,
}

impl Reader {
    /// # Errors
    /// A reason, if the URL is invalid, or the system has no certificates to verify a server with.
    pub(super) fn new(source: &KeySource) -> Result<Self, String> {
        match source {
            KeySource::File(path) => Ok(Self::File(path.clone())),
            KeySource::Url { url, timeout } => Fetcher::new(url, *timeout).map(|fetcher| Self::Url(Box::new(fetcher))),
        }
    }

    /// Returns the current set.
    ///
    /// # Errors
    /// A reason, if the file or the URL cannot be read.
    pub(super) async fn read(&self) -> Result<Bytes, String> {
        match self {
            Self::File(path) => match tokio::fs::read(path).await {
                Ok(text) => Ok(text.into()),
                Err(error) => Err(format!("the file cannot be read: {error}")),
            },
            Self::Url(fetcher) => tokio::time::timeout(fetcher.timeout, fetcher.fetch())
                .await
                .unwrap_or_else(|_| Err(format!("no complete answer within {} ms", fetcher.timeout.as_millis()))),
        }
    }
}

impl Fetcher {
    fn new(url: &str, timeout: Duration) -> Result<Self, String> {
        let url: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        // Trusts only the certificates of the system, which its operator chooses and may extend.
        let config = if url.scheme_str() == Some("https") {
            config
                .with_native_roots()
                .map_err(|error| format!("{error}; install ca-certificates, or name a file of them in SSL_CERT_FILE"))?
        } else {
            config.with_root_certificates(RootCertStore::empty())
        };
        let https = HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth());
        let connector = https.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, url, timeout })
    }

    async fn fetch(&self) -> Result<Bytes, String> {
        let request = Request::get(self.url.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("receipts/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| chain(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the server answered {} instead of 200 with the set", answer.status().as_u16()));
        }
        axum::body::to_bytes(Body::new(answer.into_body()), SET_BYTES_MAX)
            .await
            .map_err(|error| format!("no complete set of at most {SET_BYTES_MAX} bytes: {}", chain(&error)))
    }
}

/// Returns the text of an error with its causes, because a client error says little without them.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
