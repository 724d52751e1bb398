//! The service under test: the real router over a real embedded log, with answers from a table.
//! Every answer is checked against the OpenAPI document.
//!
//! It must not fold events: each test writes the answers of the state into the table.

pub(crate) mod contract;
pub(crate) mod table;
pub(crate) mod wire;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use receipts_event::{Event, decode};
use receipts_http::{
    AccessByTenant, Authenticate, Cors, Guard, Health, Ingest, Limits, Parts, QueryContext, Tickets, TrustedHeaders,
    Updates, health_router, router,
};
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Inspect, Log, OwnedRecord, Topic, Writer};
use receipts_query::CursorKey;
use serde_json::Value;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use table::Table;
use tower::ServiceExt as _;

/// Partitions of the event topic in these tests.
pub(crate) const PARTITIONS: u32 = 4;

/// The service under test.
pub(crate) struct App {
    pub(crate) router: Router,
    pub(crate) table: Arc<Table>,
    pub(crate) log: Arc<EmbeddedLog>,
    /// The time of day of tickets.
    pub(crate) now_ms: Arc<AtomicU64>,
    _dir: tempfile::TempDir,
}

/// The parts that a test may change.
pub(crate) struct Setup {
    pub(crate) access: AccessByTenant,
    pub(crate) limits: Limits,
    pub(crate) writer: Option<Arc<dyn Writer>>,
    pub(crate) acknowledge_timeout: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) authenticate: Arc<dyn Authenticate>,
    pub(crate) guard: Guard,
    pub(crate) cors: Cors,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            access: AccessByTenant::default(),
            limits: Limits::default(),
            writer: None,
            acknowledge_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            authenticate: Arc::new(TrustedHeaders),
            guard: Guard::Loopback { hosts: Vec::new(), origins: Vec::new() },
            cors: Cors::default(),
        }
    }
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// Null if the body is not JSON.
    pub(crate) json: Value,
}

impl Answer {
    /// Returns a header that must be present.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}: {self:?}")).to_str().unwrap()
    }

    /// Returns the code of the problem, without the prefix of its type.
    pub(crate) fn code(&self) -> &str {
        self.json["type"].as_str().and_then(|uri| uri.strip_prefix(receipts_http::TYPE_PREFIX)).unwrap_or_default()
    }

    /// Returns the pointers of the offending items.
    pub(crate) fn pointers(&self) -> Vec<&str> {
        self.json["errors"].as_array().into_iter().flatten().map(|item| item["pointer"].as_str().unwrap()).collect()
    }

    /// Asserts that the answer is this problem.
    pub(crate) fn is_problem(&self, status: u16, code: &str, pointers: &[&str]) {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{self:?}");
        assert_eq!(self.pointers(), pointers, "{self:?}");
    }
}

impl App {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(dir.path(), NonZeroU32::new(PARTITIONS)).unwrap());
        let table = Arc::new(Table::new(PARTITIONS));
        let now_ms = Arc::new(AtomicU64::new(1_780_000_000_000));
        let readiness = Arc::clone(&table);
        let health = Health {
            readiness: Arc::new(move || receipts_query::Answers::ready(&*readiness)),
            render_metrics: Arc::new(|| "up 1\n".to_owned()),
        };
        let parts = Parts {
            ingest: Ingest {
                writer: setup.writer.unwrap_or_else(|| log.writer()),
                partition_count: log.partition_count(),
                log: None,
                limits: setup.limits.clone(),
                acknowledge_timeout: setup.acknowledge_timeout,
            },
            query: QueryContext {
                answers: Arc::clone(&table) as _,
                cursor_key: CursorKey::new([9; 32]),
                tickets: Tickets::new(&CursorKey::new([9; 32]), {
                    let now_ms = Arc::clone(&now_ms);
                    move || now_ms.load(Ordering::Relaxed)
                }),
                access: setup.access,
                limits: setup.limits.clone(),
            },
            updates: Updates::start(Arc::clone(&log) as _, setup.heartbeat).unwrap(),
            guard: setup.guard,
            cors: setup.cors,
            authenticate: setup.authenticate,
            limits: setup.limits,
        };
        let router = router(parts, health_router(health));
        Self { router, table, log, now_ms, _dir: dir }
    }

    /// Sends a request through the router, and checks the answer against the contract. The host is
    /// this machine if the request names none.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_default();
        let answer = Answer { status: parts.status, headers: parts.headers, text, json };
        contract::check(method.as_str(), &path, &answer);
        answer
    }

    /// Sends a `GET` with headers.
    pub(crate) async fn get(&self, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Sends a `POST` of JSON with headers.
    pub(crate) async fn post(&self, uri: &str, headers: &[(&str, &str)], body: impl ToString) -> Answer {
        let mut request = Request::post(uri);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.to_string();
        let answer = self.send(request.body(Body::from(body.clone())).unwrap()).await;
        if answer.status == StatusCode::ACCEPTED {
            contract::check_accepted_body(&body);
        }
        answer
    }

    /// Returns all records of the event log, by partition and offset.
    pub(crate) fn records(&self) -> Vec<OwnedRecord> {
        let partitions = 0..self.log.partition_count();
        partitions.flat_map(|partition| self.log.read(Topic::Events, partition, 0, 10_000).unwrap()).collect()
    }
}

/// Returns the event of a record, which must have the right key.
pub(crate) fn event_of(record: &OwnedRecord) -> Event<'_> {
    let event = decode(record.value.as_deref().unwrap()).unwrap();
    assert!(event.key_matches(record.key.as_deref().unwrap()), "{record:?}");
    event
}
