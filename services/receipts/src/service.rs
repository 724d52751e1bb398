//! All parts in one process: log, projector and HTTP edge, started, watched and stopped together. Decides their order,
//! not their work.

use anyhow::{Context as _, anyhow};
use receipts_assembly::{DataDir, access, authenticate, limits, on_thread};
use receipts_cluster::Secret;
use receipts_http::{DrainOutcome, Health, Parts, QueryContext, Updates};
use receipts_log::{Inspect, Writer};
use receipts_projection::{Partitions, Projector};
use receipts_query::{Answers, CursorKey, Readiness};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::metrics::Metrics;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

/// How often a starting service looks whether it has caught up.
const READY_POLL: Duration = Duration::from_millis(10);
/// After what time, and how often, a starting service says what it waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running service.
pub(crate) struct Service {
    address: SocketAddr,
    log_name: String,
    group: String,
    state: State,
    http: JoinHandle<io::Result<DrainOutcome>>,
    /// How the edge ended, where it did so by itself.
    http_ended: Option<Result<io::Result<DrainOutcome>, JoinError>>,
    stop_http: CancellationToken,
}

/// What lives on threads of its own and ends in this order: streams follow what the projector publishes through the log, and
/// all is in the directory.
struct State {
    updates: Updates,
    projector: Projector,
    log: Arc<dyn Inspect>,
    data: DataDir,
}

impl Service {
    /// Takes the address, opens log and store, and starts to fold and to answer.
    ///
    /// # Errors
    /// Says what is in the way and what to do.
    pub(crate) async fn start(settings: &Settings, metrics: &Metrics) -> Result<Self, Failure> {
        let authenticate = authenticate(&settings.auth).await?;
        let listener = receipts_assembly::listen(settings.http.listen, "--http-listen").await?;
        let address = listener.local_addr()?;
        let (state, cursor_key, secret, log_name) = {
            let settings = settings.clone();
            on_thread("opening", move || open(&settings)).await?
        };
        state.data.serves_at(&format!("http://{address}"))?;
        let limits = limits(settings);
        let partitions = state.projector.partitions().clone();
        let metrics = metrics.clone();
        let router = receipts_http::router(Parts {
            ingest: receipts_assembly::ingest(settings, &*state.log),
            query: QueryContext {
                answers: Arc::new(partitions.clone()),
                cursor_key,
                access: access(&settings.access),
                limits: limits.clone(),
            },
            updates: state.updates.clone(),
            health: Health {
                readiness: Arc::new(move || readiness(&partitions)),
                render_metrics: Arc::new(move || metrics.render()),
            },
            authenticate,
            limits,
        });
        let router = router.merge(receipts_http::snapshot_router(state.projector.snapshots(), secret));
        let stop_http = CancellationToken::new();
        // Half of the time to drain is for requests, the rest for the last checkpoint.
        let timeouts = receipts_assembly::timeouts(settings, Duration::from_millis(settings.drain_ms / 2));
        let http = receipts_http::serve(listener, router, stop_http.clone().cancelled_owned(), timeouts);
        Ok(Self {
            address,
            log_name,
            group: settings.projector.group.clone(),
            state,
            http: tokio::spawn(http),
            http_ended: None,
            stop_http,
        })
    }

    /// The address of its HTTP edge.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The log for people: `embedded`, or the brokers.
    pub(crate) fn log_name(&self) -> &str {
        &self.log_name
    }

    /// The state that it answers from.
    pub(crate) fn partitions(&self) -> &Partitions {
        self.state.projector.partitions()
    }

    /// The way into its log.
    pub(crate) fn writer(&self) -> Arc<dyn Writer> {
        self.state.log.writer()
    }

    /// Returns once it has folded its log to the end and answers for all partitions, or has ended by itself: then
    /// false.
    pub(crate) async fn ready(&mut self) -> bool {
        let mut said = Instant::now();
        loop {
            let readiness = readiness(self.partitions());
            if readiness.caught_up {
                return true;
            }
            if said.elapsed() >= PATIENCE {
                said = Instant::now();
                self.say_what_is_missing(readiness);
            }
            tokio::select! {
                () = self.ended() => return false,
                () = tokio::time::sleep(READY_POLL) => {}
            }
        }
    }

    fn say_what_is_missing(&self, readiness: Readiness) {
        let (owned, of) = (readiness.partitions, self.partitions().count());
        if owned < of {
            tracing::warn!(
                owned,
                of,
                group = self.group,
                "not all partitions are here yet: another member of the consumer group holds them, or has died and is \
                 waited for; a process that shall answer for all of them needs a --projector-group of its own"
            );
        } else {
            tracing::info!(caught_up = readiness.partitions_caught_up, of, "folding the log up to its end");
        }
    }

    /// Resolves when a part has ended though nobody asked: [`Self::stop`] says why. Not to be called after that.
    pub(crate) async fn ended(&mut self) {
        tokio::select! {
            () = self.state.projector.stopped() => {}
            ended = &mut self.http => self.http_ended = Some(ended),
        }
    }

    /// Stops in order: requests that have begun are answered, what is folded is published and checkpointed. Returns the
    /// directory, for [`receipts_assembly::leave`].
    ///
    /// # Errors
    /// What had ended the service before, or kept it from ending in order.
    pub(crate) async fn stop(self) -> Result<DataDir, Failure> {
        self.stop_http.cancel();
        // A stream has no end of its own that could be waited for.
        let updates = self.state.updates.clone();
        on_thread("ending streams", move || {
            updates.close();
            Ok(())
        })
        .await?;
        let (by_itself, http) = match self.http_ended {
            Some(ended) => (true, ended),
            None => (false, self.http.await),
        };
        let state = self.state;
        let data = on_thread("closing", move || {
            let State { updates, projector, log, data } = state;
            drop(updates);
            let stopped = projector.stop();
            drop(log);
            stopped?;
            Ok(data)
        })
        .await?;
        match http.context("the HTTP edge panicked; this is a bug: please report it with the log")? {
            Ok(_) if by_itself => Err(anyhow!("the HTTP edge ended by itself").into()),
            Ok(_) => Ok(data),
            Err(error) => Err(anyhow!(error).context("the HTTP edge failed").into()),
        }
    }
}

/// How far the state is. A part of the partitions is not enough: this process answers for all, or says that it is not
/// ready.
fn readiness(partitions: &Partitions) -> Readiness {
    let readiness = partitions.ready();
    Readiness { caught_up: readiness.caught_up && readiness.partitions == partitions.partition_count(), ..readiness }
}

fn open(settings: &Settings) -> Result<(State, CursorKey, Secret, String), Failure> {
    let data = DataDir::open(&settings.data_dir)?;
    let cursor_key = data.cursor_key()?;
    let secret = receipts_assembly::operators_secret(settings, &data)?;
    let opened = receipts_assembly::open(settings, &data)?;
    data.adopt_rebuilt()?;
    data.bind_store(&opened.identity)?;
    let updates = receipts_assembly::follow_updates(settings, opened.log.clone())?;
    let snapshots = receipts_assembly::snapshotting(settings, &data, &opened.identity)?;
    let projector = receipts_assembly::open_projector(settings, &data, &*opened.log, false, snapshots)?;
    Ok((State { updates, projector, log: opened.log, data }, cursor_key, secret, opened.name))
}
