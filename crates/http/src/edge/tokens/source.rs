//! Where public keys come from: a file, or a URL that is asked within bounds of time and size.
//!
//! Must not follow a redirect: whoever may redirect would say whose tokens are taken.

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

/// How large a set may be, bytes. A key has less than 1 KiB, or 3 with a chain of certificates.
pub(super) const SET_BYTES_MAX: usize = 512 << 10;

/// Where a JWK Set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At a URL, `https` or `http`.
    Url {
        /// Which.
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

/// A source that can be read.
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
    /// In words, where the URL is none, or the system has no certificates to tell a server by.
    pub(super) fn new(source: &KeySource) -> Result<Self, String> {
        match source {
            KeySource::File(path) => Ok(Self::File(path.clone())),
            KeySource::Url { url, timeout } => Fetcher::new(url, *timeout).map(|fetcher| Self::Url(Box::new(fetcher))),
        }
    }

    /// The set as it is now.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn read(&self) -> Result<Bytes, String> {
        match self {
            Self::File(path) => match tokio::fs::read(path).await {
                Ok(text) => Ok(text.into()),
                Err(error) => Err(format!("it cannot be read: {error}")),
            },
            Self::Url(fetcher) => tokio::time::timeout(fetcher.timeout, fetcher.fetch())
                .await
                .unwrap_or_else(|_| Err(format!("no whole answer within {} ms", fetcher.timeout.as_millis()))),
        }
    }
}

impl Fetcher {
    fn new(url: &str, timeout: Duration) -> Result<Self, String> {
        let url: Uri = url.parse().map_err(|error| format!("no URL: {error}"))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        // The system's certificates are those that its operator trusts, one of their own among them; nobody else is asked.
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
            return Err(format!("it answered {} where 200 with the set is wanted", answer.status().as_u16()));
        }
        axum::body::to_bytes(Body::new(answer.into_body()), SET_BYTES_MAX)
            .await
            .map_err(|error| format!("no whole set of at most {SET_BYTES_MAX} bytes: {}", chain(&error)))
    }
}

/// An error with its causes: that of a client says little without them.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
