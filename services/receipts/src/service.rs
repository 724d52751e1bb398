//! The service in one process: log, projector and HTTP edge, started, watched and stopped together.
//!
//! Must not do their work: it decides only their order.

use receipts_assembly::{
    AnswersFrom, DataDir, HttpEdge, Service, access, authenticate, connections, cors, follow_updates, guard, inspector,
    limits, listen, log_in_memory, on_thread, open_log_and_store, open_projector, operator_secret, projector_in_memory,
    random, stop_projector, until,
};
use receipts_cluster::Secret;
use receipts_http::{Health, Parts, QueryContext, Router, Tickets, Updates};
use receipts_log::{Inspect, Writer};
use receipts_projection::{Partitions, Projector};
use receipts_query::{Answers, CursorKey, Readiness};
use receipts_runtime::build::Build;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::metrics::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The build of the process.
pub(crate) const BUILD: Build =
    Build { name: NAME, version: env!("CARGO_PKG_VERSION"), commit: env!("RECEIPTS_COMMIT") };
/// The name of the process in its ready line, metrics and logs.
pub(crate) const NAME: &str = "receipts";
/// How often a starting service logs what it waits for.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// All parts of the service in this process.
pub(crate) struct AllInOne {
    http: HttpEdge,
    log_name: String,
    group: String,
    state: State,
    /// Cancelled once the service has to end although no signal came.
    ends: CancellationToken,
}

/// The parts that have threads of their own, in the order in which they end: streams follow the
/// updates that the projector publishes through the log, and all of them are in the directory.
struct State {
    updates: Updates,
    projector: Projector,
    log: Arc<dyn Inspect>,
    /// `None` if log and state are in memory.
    data: Option<DataDir>,
}

/// Where a service keeps log and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// As the settings say: in the data directory, and in Kafka if they name one.
    Settings,
    /// In memory, where both end with the process.
    Memory,
}

impl AllInOne {
    /// Takes the address, opens log and store, and starts to fold and to answer.
    ///
    /// # Errors
    /// A failure that says what to do.
    pub(crate) async fn start(settings: &Settings, medium: Medium, metrics: Metrics) -> Result<Self, Failure> {
        let connections = connections(settings, AnswersFrom::Itself)?;
        let authenticate = authenticate(&settings.auth).await?;
        let listeners = listen(settings, settings.http.listen, "--http-listen").await?.with_tls(settings)?;
        let Opened { state, cursor_key, secret, log_name } = {
            let settings = settings.clone();
            on_thread("opening", move || open(&settings, medium)).await?
        };
        if let Some(data) = &state.data {
            data.note_url(&listeners.operators_url()?)?;
        }
        let limits = limits(settings, connections);
        let partitions = state.projector.partitions().clone();
        let parts = Parts {
            ingest: receipts_assembly::ingest(limits.clone(), &*state.log),
            query: QueryContext {
                answers: Arc::new(partitions.clone()),
                tickets: Tickets::new(&cursor_key, receipts_runtime::clock::unix_ms),
                cursor_key,
                access: access(&settings.access),
                limits: limits.clone(),
            },
            updates: state.updates.clone(),
            guard: guard(settings),
            cors: cors(settings),
            authenticate,
            limits,
        };
        let health = Health {
            readiness: Arc::new(move || readiness(&partitions)),
            render_metrics: Arc::new(move || metrics.render()),
        };
        let snapshots = receipts_http::snapshot_router(state.projector.snapshots(), secret);
        let operators = receipts_http::health_router(health).merge(snapshots);
        // Half of the time to drain is for requests, the rest for the last checkpoint.
        let drain = Duration::from_millis(settings.drain_ms / 2);
        let router = |open: Router| receipts_http::router(parts, open.merge(inspector(settings)));
        let http = listeners.serve(router, operators, settings, connections, drain)?;
        let ends = CancellationToken::new();
        Ok(Self { http, log_name, group: settings.projector.group.clone(), state, ends })
    }

    /// The URL of its HTTP edge.
    pub(crate) fn url(&self) -> String {
        self.http.url()
    }

    /// Cancelling this ends the service as a signal does.
    pub(crate) fn ends(&self) -> CancellationToken {
        self.ends.clone()
    }

    /// The state that it answers from.
    pub(crate) fn partitions(&self) -> &Partitions {
        self.state.projector.partitions()
    }

    /// The writer of its log.
    pub(crate) fn writer(&self) -> Arc<dyn Writer> {
        self.state.log.writer()
    }
}

impl Service for AllInOne {
    fn addresses(&self) -> Vec<(&'static str, String)> {
        let mut addresses = self.http.addresses("http");
        addresses.push(("log", self.log_name.clone()));
        addresses
    }

    /// Resolves once the service owns all partitions and has folded its log to the end.
    fn ready(&self) -> impl Future<Output = ()> + 'static {
        let (partitions, group) = (self.partitions().clone(), self.group.clone());
        let mut logged = Instant::now();
        until(move || {
            let readiness = readiness(&partitions);
            if !readiness.caught_up && logged.elapsed() >= LOG_INTERVAL {
                logged = Instant::now();
                log_progress(&readiness, partitions.count(), &group);
            }
            readiness.caught_up
        })
    }

    async fn ended(&mut self) {
        tokio::select! {
            () = self.state.projector.stopped() => {}
            () = self.http.ended() => {}
            () = self.ends.cancelled() => {}
        }
    }

    /// Answers requests that have begun, then publishes and checkpoints all folded events.
    async fn stop(self) -> Result<Option<DataDir>, Failure> {
        let served = self.http.stop(Some(self.state.updates.clone())).await;
        let state = self.state;
        let data = on_thread("closing", move || {
            let State { updates, projector, log, data } = state;
            drop(updates);
            stop_projector(projector, log, data.as_ref())?;
            Ok(data)
        })
        .await?;
        served?;
        Ok(data)
    }
}

fn log_progress(readiness: &Readiness, partition_count: u32, group: &str) {
    let (owned, of) = (readiness.partitions, partition_count);
    if owned < of {
        tracing::warn!(
            owned,
            of,
            group,
            "this process does not own all partitions yet: another member of the consumer group owns the others, or has \
             died and Kafka waits for it; give a process that must answer for all of them its own --projector-group"
        );
    } else {
        tracing::info!(caught_up = readiness.partitions_caught_up, of, "folding the log up to its end");
    }
}

/// This process is ready only if it answers for all partitions.
fn readiness(partitions: &Partitions) -> Readiness {
    let readiness = partitions.ready();
    let (owned, count) = (readiness.partitions, partitions.partition_count());
    let missing = readiness.partitions_missing + (count - owned);
    let reason = match &readiness.reason {
        None if owned < count => Some(partitions.contact().trouble().unwrap_or_else(|| {
            format!(
                "this process owns {owned} of {count} partitions: another member of its consumer group has the others"
            )
        })),
        reason => reason.clone(),
    };
    let stale_seconds = match partitions.contact().silence() {
        Some(silence) if owned < count => Some(silence.as_secs()),
        _ => readiness.stale_seconds,
    };
    Readiness {
        caught_up: readiness.caught_up && owned == count,
        partitions_missing: missing,
        stale_seconds,
        reason,
        ..readiness
    }
}

struct Opened {
    state: State,
    cursor_key: CursorKey,
    secret: Secret,
    log_name: String,
}

fn open(settings: &Settings, medium: Medium) -> Result<Opened, Failure> {
    let data = match medium {
        Medium::Settings => Some(DataDir::open(&settings.data_dir)?),
        Medium::Memory => None,
    };
    let cursor_key = data.as_ref().map_or_else(|| Ok(CursorKey::new(random()?)), DataDir::cursor_key)?;
    let secret = operator_secret(settings, &cursor_key)?;
    let opened = match &data {
        Some(data) => open_log_and_store(settings, data)?,
        None => log_in_memory(settings)?,
    };
    let updates = follow_updates(settings, opened.log.clone())?;
    let projector = match &data {
        Some(data) => open_projector(settings, data, &opened, false)?,
        None => projector_in_memory(settings, &*opened.log)?,
    };
    let log_name = opened.name;
    Ok(Opened { state: State { updates, projector, log: opened.log, data }, cursor_key, secret, log_name })
}
