//! The HTTP client of the exporter. The exporter's thread is none of tokio's, so each request is a
//! task of the process's runtime.

use super::loss::Loss;
use super::variable;
use crate::exit::told_once;
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The longest time of one request, unless a variable sets it; OpenTelemetry's default.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    runtime: Handle,
    loss: Arc<Loss>,
}

impl Client {
    pub(super) fn new(runtime: Handle, loss: Arc<Loss>) -> Result<Self, reqwest::Error> {
        let set = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"));
        let timeout = set.and_then(|millis| millis.parse().ok()).map_or(TIMEOUT, Duration::from_millis);
        // A redirect could carry the headers, which may hold a key, to another host.
        let http = reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { http, runtime, loss })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move { http.send_bytes(request).await });
        let answer = sent.await.unwrap_or_else(|error| Err(error.into()));
        // The exporter's own error says no cause.
        match &answer {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => self.loss.note_cause(format!("it answers {}", answer.status())),
            Err(error) => self.loss.note_cause(told_once(&**error)),
        }
        answer
    }
}
