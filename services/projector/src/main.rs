//! The binary `receipts-projector`: folds its share of the log and answers the query edges. Only composes.

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory, FromArgMatches, Parser};
use receipts_assembly::{DataDir, on_thread, open_projector, secret};
use receipts_cluster::cursor_key_to_text;
use receipts_http::{Health, Peer, peer_router};
use receipts_log::Log;
use receipts_projection::{Partitions, Projector};
use receipts_query::{Answers as _, Readiness};
use receipts_runtime::config::{self, Named, Settings};
use receipts_runtime::exit::{self, Failure};
use receipts_runtime::metrics::Metrics;
use receipts_runtime::output::Output;
use receipts_runtime::shutdown;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Pages come and go by the million: glibc's allocator would spend a third of the time on it (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings that show in `-h`; `--help` shows all.
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

/// How long a projector waits for partitions before it calls itself a ready spare.
const SPARE_AFTER: Duration = Duration::from_secs(20);
const READY_POLL: Duration = Duration::from_millis(10);

const EXAMPLES: &str = "Examples:
  receipts-projector --kafka-bootstrap localhost:9092 --data-dir p0
  receipts-projector --kafka-bootstrap localhost:9092 --data-dir p1 --listen 127.0.0.1:8082
  receipts-projector --kafka-bootstrap localhost:9092 --data-dir s0 --listen 127.0.0.1:8083 --standby

  receipts-query --projectors localhost:8081,localhost:8082,localhost:8083";

/// Folds its share of the event log's partitions, and answers the query edges for them.
///
/// Projectors of one group share the partitions. A standby folds beside them as a group of its own, answers where they do
/// not, and publishes nothing; with another --group there may be any number of standby groups. Each process needs a data
/// directory of its own. A line on standard output says when it has caught up. The first SIGINT or SIGTERM ends it in
/// order, the second at once.
#[derive(Parser)]
#[command(name = "receipts-projector", version, after_help = EXAMPLES)]
struct Cli {
    /// Prints results as JSON lines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> Result<(), Failure> {
    let matches = config::with_flags(Cli::command(), &FIRST).get_matches();
    let cli = Cli::from_arg_matches(&matches)?;
    let settings = config::of_process(&matches)?;
    receipts_assembly::bootstrap("receipts-projector", &settings)?;
    receipts_assembly::run("receipts-projector", &settings, async |stop, metrics| {
        serve(&settings, &stop, metrics, cli.json).await
    })
}

/// What lives on threads of its own and ends in this order.
struct State {
    projector: Projector,
    log: Arc<dyn Log>,
    data: DataDir,
}

async fn serve(settings: &Settings, stop: &CancellationToken, metrics: Metrics, json: bool) -> Result<(), Failure> {
    let listener = receipts_assembly::listen(settings.projector.listen, "--listen").await?;
    let address = listener.local_addr()?;
    let secret = secret(settings)?;
    let opening = {
        let settings = settings.clone();
        on_thread("opening", move || open(&settings))
    };
    let opened = tokio::select! {
        opened = opening => opened?,
        // Nothing is answered yet, and what was opened survives a kill.
        () = stop.cancelled() => return Ok(()),
    };
    let mut state = opened;
    // So that `receipts snapshot take --data-dir` finds it.
    state.data.serves_at(&format!("http://{address}"))?;
    let operators = receipts_assembly::operators_secret(settings, &state.data)?;
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
    };
    let health = {
        let partitions = partitions.clone();
        Health {
            readiness: Arc::new(move || readiness(&partitions)),
            render_metrics: Arc::new(move || metrics.render()),
        }
    };
    let drain = Duration::from_millis(settings.drain_ms);
    let stop_http = CancellationToken::new();
    let snapshots = receipts_http::snapshot_router(state.projector.snapshots(), operators);
    let router = peer_router(peer, health).merge(snapshots);
    // Half of the time to drain is for questions, the rest for the last checkpoint.
    let timeouts = receipts_assembly::timeouts(settings, drain / 2);
    let mut http = tokio::spawn(receipts_http::serve(listener, router, stop_http.clone().cancelled_owned(), timeouts));
    let mut ended = None;
    tokio::select! {
        () = ready(&partitions) => {
            let log = receipts_assembly::place(settings);
            Output::stdout(json).ready("receipts-projector", &[("listen", format!("http://{address}")), ("log", log)])?;
        }
        () = state.projector.stopped() => {}
        () = stop.cancelled() => {}
    }
    tokio::select! {
        () = state.projector.stopped() => {}
        http = &mut http => ended = Some(http),
        () = stop.cancelled() => {}
    }
    let by_itself = !stop.is_cancelled();
    stop.cancel();
    let work = async {
        // Whoever asks meanwhile is answered by a standby, or a little later by the next owner.
        stop_http.cancel();
        let served = match ended {
            Some(ended) => ended,
            None => http.await,
        };
        let data = on_thread("closing", move || {
            let State { projector, log, data } = state;
            let stopped = projector.stop();
            drop(log);
            stopped?;
            Ok(data)
        })
        .await?;
        served.context("the internal edge panicked; this is a bug: please report it with the log")??;
        if by_itself { Err(Failure::from(anyhow!("the internal edge ended by itself"))) } else { Ok(data) }
    };
    let data = shutdown::drain(stop, drain, work).await??;
    // Its partitions are others' by now.
    receipts_assembly::leave(data).await
}

fn open(settings: &Settings) -> Result<State, Failure> {
    let data = DataDir::open(&settings.data_dir)?;
    let opened = receipts_assembly::open(settings, &data)?;
    data.adopt_rebuilt()?;
    data.bind_store(&opened.identity)?;
    let snapshots = receipts_assembly::snapshotting(settings, &data, &opened.identity)?;
    let projector = open_projector(settings, &data, &*opened.log, true, snapshots)?;
    Ok(State { projector, log: opened.log, data })
}

/// A projector is ready for what it owns; one that owns nothing is a spare.
fn readiness(partitions: &Partitions) -> Readiness {
    let readiness = partitions.ready();
    Readiness { caught_up: readiness.partitions_caught_up == readiness.partitions, ..readiness }
}

/// Returns once it owns something and is caught up, or is a spare.
async fn ready(partitions: &Partitions) {
    let begun = Instant::now();
    while !(partitions.ready().caught_up || partitions.ready().partitions == 0 && begun.elapsed() >= SPARE_AFTER) {
        tokio::time::sleep(READY_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        config::with_flags(Cli::command(), &FIRST).debug_assert();
    }
}
