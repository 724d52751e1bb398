//! Sends spans to a collector by OTLP over HTTP. Must not know which spans there are: they stand in
//! `receipts-traces`. Nothing here holds up or fails a request: spans that cannot be sent are lost,
//! and a warning tells how many.

mod client;
mod loss;
mod queue;

use crate::config::Telemetry;
use client::Client;
use loss::Loss;
use opentelemetry::KeyValue;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use receipts_traces::LogNames;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The collector's path of traces, below its base address.
const TRACES_PATH: &str = "v1/traces";
/// The scope of all spans.
const SCOPE: &str = "receipts";
/// How long a stopping process waits until its last spans are sent.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Why traces could not be turned on.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The library refuses the settings, or a variable of its own.
    #[error("traces (telemetry.otlp_endpoint and the variables OTEL_EXPORTER_OTLP_…): {0}")]
    Exporter(#[from] ExporterBuildError),
    /// No HTTP client can be made.
    #[error("traces: no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// The sender of this process's spans.
pub struct Exporting {
    provider: SdkTracerProvider,
}

/// Turns traces on if the settings name a collector. `OTEL_SERVICE_NAME` and
/// `OTEL_RESOURCE_ATTRIBUTES` win over `service`; `OTEL_EXPORTER_OTLP_HEADERS` and
/// `OTEL_EXPORTER_OTLP_TIMEOUT` count too, and `OTEL_SDK_DISABLED=true` turns all off.
///
/// The library sends from a thread of its own, and its requests run on `runtime`, so that no second
/// runtime is needed.
///
/// # Errors
/// If the settings cannot be used.
pub fn start(
    settings: &Telemetry,
    service: &'static str,
    log: LogNames,
    runtime: Handle,
) -> Result<Option<Exporting>, TracesError> {
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let Some(endpoint) = settings.otlp_endpoint.as_deref().filter(|_| !is_disabled) else { return Ok(None) };
    if let Some(protocol) = variable("OTEL_EXPORTER_OTLP_PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
        tracing::warn!(
            protocol,
            "traces are sent by http/protobuf only: name the collector's port for HTTP (4318 by default) in \
             telemetry.otlp_endpoint or OTEL_EXPORTER_OTLP_ENDPOINT"
        );
    }
    let url = format!("{}/{TRACES_PATH}", endpoint.trim_end_matches('/'));
    let loss = Arc::new(Loss::new(url.clone()));
    let client = Client::new(runtime, Arc::clone(&loss))?;
    let exporter = SpanExporter::builder().with_http().with_http_client(client).with_endpoint(url).build()?;
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.trace_ratio))))
        .with_resource(resource(service))
        .with_span_processor(queue::processor(exporter, loss))
        .build();
    receipts_traces::install(BoxedTracer::new(Box::new(provider.tracer(SCOPE))), log);
    Ok(Some(Exporting { provider }))
}

impl Exporting {
    /// Sends the last spans, for at most 2 s. Spans that end later are not sent. Blocks.
    pub fn stop(self) {
        if let Err(OTelSdkError::Timeout(_)) = self.provider.shutdown_with_timeout(FLUSH_MAX) {
            tracing::warn!(within = ?FLUSH_MAX, "the collector did not take the last spans in time");
        }
    }
}

/// Returns a variable that is neither absent nor empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What all spans of this process have in common.
fn resource(service: &'static str) -> Resource {
    let ours = [KeyValue::new("service.name", service), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = Resource::builder_empty()
        .with_attributes(ours)
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match variable("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}
