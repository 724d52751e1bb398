//! Fetches small answers of identity providers: sets of keys, and tokens.
//!
//! Within bounds of time and size. It must not follow a redirect, because a redirecting host could
//! decide whose tokens are accepted, or be told a secret.

use axum::body::Body;
use axum::http::{Method, Request, Uri, header};
use bytes::Bytes;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A client for one URL.
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    url: Uri,
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server cannot be reached, or ends the connection.
    #[error("{0}")]
    Unreachable(String),
    /// The certificate of the server is not accepted.
    #[error("{0}")]
    Certificate(String),
    /// The answer is not complete within the time or the size.
    #[error("{0}")]
    Incomplete(String),
}

impl Fetcher {
    /// Makes a client whose requests end within `timeout`. It verifies the server by the
    /// certificates in the PEM file `ca`, or in all files of that folder; without it, by those of
    /// the system.
    ///
    /// # Errors
    /// A reason, if the URL is invalid, or there are no certificates to verify a server with.
    pub fn new(url: &str, timeout: Duration, ca: Option<&Path>) -> Result<Self, String> {
        let url: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        // Trusts only the certificates of the system, which its operator chooses and may extend, or
        // those that the operator names.
        let config = match ca {
            Some(ca) => config.with_root_certificates(roots(ca)?),
            None if url.scheme_str() == Some("https") => config.with_native_roots().map_err(|error| {
                format!("{error}; install ca-certificates, or name a file of them in SSL_CERT_FILE")
            })?,
            None => config.with_root_certificates(RootCertStore::empty()),
        };
        let https = HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth());
        let connector = https.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, url, timeout })
    }

    /// Asks for the URL; returns the status and a body of at most `bytes_max`.
    ///
    /// # Errors
    /// [`FetchError`] if there is no complete answer in time.
    pub async fn get(&self, accept: &str, bytes_max: usize) -> Result<(u16, Bytes), FetchError> {
        self.send(Request::get(self.url.clone()).header(header::ACCEPT, accept), Body::empty(), bytes_max).await
    }

    /// Sends a form, with the value of `Authorization`; returns the status and a body of at most
    /// `bytes_max`.
    ///
    /// # Errors
    /// As [`Fetcher::get`].
    pub async fn post_form(
        &self,
        form: String,
        authorization: &str,
        bytes_max: usize,
    ) -> Result<(u16, Bytes), FetchError> {
        let request = Request::builder().method(Method::POST).uri(self.url.clone());
        let request = request
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request, Body::from(form), bytes_max).await
    }

    async fn send(
        &self,
        request: axum::http::request::Builder,
        body: Body,
        bytes_max: usize,
    ) -> Result<(u16, Bytes), FetchError> {
        let request = request
            .header(header::USER_AGENT, concat!("receipts/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| FetchError::Unreachable(error.to_string()))?;
        let answer = async {
            let answer = self.client.request(request).await.map_err(|error| {
                let text = chain(&error);
                match text.contains("certificate") {
                    true => FetchError::Certificate(text),
                    false => FetchError::Unreachable(text),
                }
            })?;
            let status = answer.status().as_u16();
            let body = axum::body::to_bytes(Body::new(answer.into_body()), bytes_max).await.map_err(|error| {
                FetchError::Incomplete(format!("no complete answer of at most {bytes_max} bytes: {}", chain(&error)))
            })?;
            Ok((status, body))
        };
        tokio::time::timeout(self.timeout, answer).await.unwrap_or_else(|_| {
            Err(FetchError::Incomplete(format!("no complete answer within {} ms", self.timeout.as_millis())))
        })
    }
}

/// Reads the certificates of a PEM file, or of all files of a folder.
fn roots(ca: &Path) -> Result<RootCertStore, String> {
    let shown = ca.display();
    let unreadable = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    let files: Vec<_> = match ca.is_dir() {
        true => {
            let entries = std::fs::read_dir(ca).map_err(unreadable)?;
            entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect()
        }
        false => vec![ca.to_owned()],
    };
    let mut roots = RootCertStore::empty();
    for file in files {
        let text = std::fs::read(&file).map_err(unreadable)?;
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
    }
    if roots.is_empty() { Err(format!("{shown} holds no certificate in PEM form")) } else { Ok(roots) }
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
