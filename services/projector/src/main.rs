//! The binary `receipts-projector`: folds its share of the log and answers the query edges.
//!
//! Composes parts, and does nothing else.

use clap::Parser;
use receipts_assembly::{
    AnswersFrom, DataDir, HttpEdge, Service, connections, listen, log_location, on_thread, open_log_and_store,
    open_projector, require_bootstrap, shared_secret, stop_projector, until, waits_max,
};
use receipts_cluster::cursor_key_to_text;
use receipts_http::{Health, Peer, health_router, peer_router};
use receipts_log::{Inspect, Membership};
use receipts_projection::{Partitions, Projector};
use receipts_query::{Answers as _, Readiness};
use receipts_runtime::build::Build;
use receipts_runtime::command_line::{self, CommandLine};
use receipts_runtime::config::{CommandHelp, Named, Settings};
use receipts_runtime::exit::{self, Failure};
use receipts_runtime::metrics::Metrics;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUILD: Build =
    Build { name: "receipts-projector", version: env!("CARGO_PKG_VERSION"), commit: env!("RECEIPTS_COMMIT") };

/// Pages are allocated and freed by the million, on which glibc's allocator would spend a third of
/// the time (docs/performance-log.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings that `-h` shows; `--help` shows all that it uses.
const FIRST: [Named; 8] = [
    Named::by("projector.listen", "listen"),
    Named::by("projector.advertise", "advertise"),
    Named::usual("kafka.bootstrap"),
    Named::usual("data_dir"),
    Named::by("projector.group", "group"),
    Named::by("projector.standby", "standby"),
    Named::usual("query.secret_file"),
    Named::usual("telemetry.log_filter"),
];

/// How long a projector waits for partitions before it reports itself ready as a spare.
const SPARE_AFTER: Duration = Duration::from_secs(20);

const HELP: CommandHelp = CommandHelp {
    command: "",
    uses: &[
        &["data_dir", "drain_ms", "secret_files_strict", "http.admin_listen", "http.connections_max"],
        &["http.head_bytes_max", "http.head_timeout_ms", "http.keep_alive_ms", "http.write_timeout_ms"],
        &["http.ready_lag_ms", "log.", "kafka.", "projector.", "snapshot."],
        &["query.candidates_max", "query.secret_file", "telemetry."],
    ],
    done: "a signal has stopped it in order",
    failed: "it could not start, a part of it ended, or it could not stop in order",
};

const EXAMPLES: &str = "Examples:
  receipts-projector --kafka-bootstrap localhost:9092 --data-dir p0
  receipts-projector --kafka-bootstrap localhost:9092 --data-dir p1 --listen 127.0.0.1:8082
  receipts-projector --kafka-bootstrap localhost:9092 --data-dir s0 --listen 127.0.0.1:8083 --standby

  receipts-query --projectors localhost:8081,localhost:8082,localhost:8083";

/// Folds its share of the event log's partitions, and answers the query edges for them.
///
/// Projectors of one group share the partitions. A standby folds beside them as a group of its own,
/// answers where they do not, and publishes nothing; each further --group makes a further group of
/// standbys. Every process needs its own data directory. Prints one line on standard output once it
/// has caught up. The first SIGINT or SIGTERM stops it in order, the second at once.
#[derive(Parser)]
#[command(
    name = "receipts-projector",
    version,
    long_version = receipts_assembly::long_version(&BUILD),
    after_help = EXAMPLES
)]
struct Cli {
    /// Prints results as JSON lines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> Result<(), Failure> {
    let CommandLine { cli, settings, .. } = command_line::read::<Cli>(&FIRST, &[HELP])?;
    require_bootstrap(BUILD.name, &settings)?;
    receipts_assembly::serve(BUILD, &settings, cli.json, async |metrics| Folding::start(&settings, metrics).await)
}

/// The parts: the internal HTTP edge, and the projector behind it.
struct Folding {
    http: HttpEdge,
    state: State,
    log_location: String,
}

/// The parts that have threads of their own, in the order in which they end.
struct State {
    projector: Projector,
    log: Arc<dyn Inspect>,
    data: DataDir,
}

impl Folding {
    async fn start(settings: &Settings, metrics: Metrics) -> Result<Self, Failure> {
        let connections = connections(settings, AnswersFrom::Itself)?;
        let listeners = listen(settings, settings.projector.listen, "--listen").await?;
        let secret = shared_secret(settings)?;
        let state = {
            let settings = settings.clone();
            on_thread("opening", move || open(&settings)).await?
        };
        // So that `receipts snapshot take --data-dir` finds this process.
        state.data.note_url(&listeners.operators_url()?)?;
        let operator_secret = receipts_assembly::operator_secret(settings, &state.data.cursor_key()?)?;
        let partitions = state.projector.partitions().clone();
        let peer = Peer {
            owner: Arc::new(partitions.clone()),
            advertise: settings.projector.advertise.clone(),
            standby: settings.projector.standby,
            cursor_key: match secret {
                Some(_) => None,
                None => Some(cursor_key_to_text(&state.data.cursor_key()?)),
            },
            secret,
            waits_max: usize::try_from(waits_max(connections)).unwrap_or(usize::MAX),
        };
        let health = Health {
            readiness: {
                let begun = Instant::now();
                Arc::new(move || readiness(&partitions, begun.elapsed()))
            },
            render_metrics: Arc::new(move || metrics.render()),
        };
        let snapshots = receipts_http::snapshot_router(state.projector.snapshots(), operator_secret);
        let operators = health_router(health).merge(snapshots);
        // Half of the time to drain is for questions, the rest for the last checkpoint.
        let drain = Duration::from_millis(settings.drain_ms / 2);
        let http = listeners.serve(|open| peer_router(peer, open), operators, settings, connections, drain)?;
        Ok(Self { http, state, log_location: log_location(settings) })
    }
}

impl Service for Folding {
    fn addresses(&self) -> Vec<(&'static str, String)> {
        let mut addresses = self.http.addresses("listen");
        addresses.push(("log", self.log_location.clone()));
        addresses
    }

    /// Resolves once the projector owns partitions and has caught up with them, or is a spare.
    fn ready(&self) -> impl Future<Output = ()> + 'static {
        let (partitions, begun) = (self.state.projector.partitions().clone(), Instant::now());
        until(move || readiness(&partitions, begun.elapsed()).caught_up)
    }

    async fn ended(&mut self) {
        tokio::select! {
            () = self.state.projector.stopped() => {}
            () = self.http.ended() => {}
        }
    }

    async fn stop(self) -> Result<Option<DataDir>, Failure> {
        // Meanwhile a standby answers the edges or, a little later, the next owner.
        let served = self.http.stop(None).await;
        let state = self.state;
        let data = on_thread("closing", move || {
            let State { projector, log, data } = state;
            stop_projector(projector, log, Some(&data))?;
            Ok(data)
        })
        .await?;
        served?;
        Ok(Some(data))
    }
}

fn open(settings: &Settings) -> Result<State, Failure> {
    let data = DataDir::open(&settings.data_dir)?;
    let opened = open_log_and_store(settings, &data)?;
    let projector = open_projector(settings, &data, &opened, true)?;
    Ok(State { projector, log: opened.log, data })
}

/// A projector is ready for the partitions that it owns. One that owns none is ready if the group
/// gave it none, and not if it lost them.
fn readiness(partitions: &Partitions, up: Duration) -> Readiness {
    let readiness = partitions.ready();
    if readiness.partitions > 0 {
        return readiness;
    }
    let contact = partitions.contact();
    let stale_seconds = contact.silence().map(|silence| silence.as_secs());
    let reason = match contact.membership() {
        _ if stale_seconds.is_some() => contact.trouble(),
        Membership::Expelled => {
            Some("the consumer group has taken all partitions away; this process joins it again".into())
        }
        Membership::Unknown if up < SPARE_AFTER => Some("the consumer group has given no partitions yet".into()),
        Membership::Fenced => Some("another process has taken this one's name in the consumer group".into()),
        Membership::Member | Membership::Unknown => None,
    };
    let spare = reason.is_none() && stale_seconds.is_none();
    Readiness { caught_up: spare, spare, stale_seconds, reason, ..readiness }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use receipts_runtime::config::with_help;

    #[test]
    fn the_command_line_is_consistent() {
        with_help(Cli::command(), &FIRST, &[HELP]).debug_assert();
    }
}
