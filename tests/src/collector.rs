//! A collector of traces, which takes OTLP over HTTP and keeps all spans. Must not judge them.

use crate::eventually;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A span that a collector got.
#[derive(Debug, Clone)]
pub struct Span {
    /// The service that sent it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its kind, by OTLP's names: `SPAN_KIND_SERVER`.
    pub kind: &'static str,
    /// The number of its trace, 32 hexadecimal digits.
    pub trace: String,
    /// Its own number, 16 hexadecimal digits.
    pub id: String,
    /// The number of its parent; empty for a root.
    pub parent: String,
    /// The trace states that it had from its parent.
    pub state: String,
    /// Its attributes, and those of its process.
    pub attributes: BTreeMap<String, String>,
    /// The traces and spans that it links to.
    pub links: Vec<(String, String)>,
    /// How long it took.
    pub took: Duration,
}

#[derive(Default)]
struct Got {
    spans: Vec<Span>,
    requests: Vec<HeaderMap>,
}

/// A running collector. It ends with the test's process at the latest.
pub struct Collector {
    /// For `telemetry.otlp_endpoint`.
    pub url: String,
    got: Arc<Mutex<Got>>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    /// Starts a collector on a free port.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let got = Arc::<Mutex<Got>>::default();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&got));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { url, got, _runtime: runtime }
    }

    fn got(&self) -> MutexGuard<'_, Got> {
        self.got.lock().expect("no panic")
    }

    /// Returns the headers of all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<HeaderMap> {
        self.got().requests.clone()
    }

    /// Returns all spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.got().spans.clone()
    }

    /// Waits for a span of a trace, by its name.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn span(&self, trace: &str, name: &str) -> Span {
        let is_it = |span: &Span| span.trace == trace && span.name == name;
        let spans = eventually(name, || self.spans(), |spans| spans.iter().any(is_it));
        spans.into_iter().find(is_it).expect("it came")
    }
}

async fn take(State(got): State<Arc<Mutex<Got>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
    let mut got = got.lock().expect("no panic");
    got.requests.push(headers);
    for of_resource in request.resource_spans {
        let common = attributes(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            let mut all = common.clone();
            let kind = span.kind().as_str_name();
            all.extend(attributes(span.attributes));
            got.spans.push(Span {
                service: common.get("service.name").cloned().unwrap_or_default(),
                name: span.name,
                kind,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                state: span.trace_state,
                attributes: all,
                links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
                took: Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano),
            });
        }
    }
    StatusCode::OK
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("no attribute of ours: {other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}
