//! The binary `receipts-query`: the public edge of queries. Keeps no state: it asks the projectors. Only composes.

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory, FromArgMatches, Parser};
use receipts_assembly::{access, authenticate, connect, follow_updates, limits, on_thread, secret};
use receipts_cluster::{PeerSettings, Peers};
use receipts_http::{Health, QueryContext, edge, health_router, query_router};
use receipts_query::{Answers as _, CursorKey};
use receipts_runtime::config::{self, Named, Settings};
use receipts_runtime::exit::{self, Failure};
use receipts_runtime::metrics::Metrics;
use receipts_runtime::output::Output;
use receipts_runtime::shutdown;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The settings that show in `-h`; `--help` shows all.
const FIRST: [Named; 5] = [
    Named::usual("http.listen"),
    Named::by("query.projectors", "projectors"),
    Named::usual("query.secret_file"),
    Named::usual("kafka.bootstrap"),
    Named::usual("telemetry.log_filter"),
];

const READY_POLL: Duration = Duration::from_millis(10);

const EXAMPLES: &str = "Examples:
  receipts-query --projectors localhost:8081,localhost:8082 --kafka-bootstrap localhost:9092
  receipts-query --projectors projectors.internal:8081 --http-listen 127.0.0.1:0 --json

  curl -s localhost:8080/v1/receipts/query -H 'Content-Type: application/json' -d '{\"message_ids\":[\"m1\"]}'";

/// Answers queries over HTTP from the projectors that own the partitions, or from their standbys.
///
/// Any number of edges may run. Each asks every projector from time to time what it holds. A line on standard output
/// says when every partition is answered for. The first SIGINT or SIGTERM ends it in order, the second at once.
#[derive(Parser)]
#[command(name = "receipts-query", version, after_help = EXAMPLES)]
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
    if settings.query.projectors.is_empty() {
        return Err(Failure::usage(
            "receipts-query needs projectors to ask: --projectors HOST:PORT,…, RECEIPTS_QUERY__PROJECTORS, or \
             query.projectors in the file",
        ));
    }
    receipts_assembly::run("receipts-query", &settings, async |stop, metrics| {
        serve(&settings, &stop, metrics, cli.json).await
    })
}

async fn serve(settings: &Settings, stop: &CancellationToken, metrics: Metrics, json: bool) -> Result<(), Failure> {
    let authenticate = tokio::select! {
        authenticate = authenticate(&settings.auth) => authenticate?,
        () = stop.cancelled() => return Ok(()),
    };
    let listener = receipts_assembly::listen(settings.http.listen, "--http-listen").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let peers = PeerSettings {
        projectors: settings.query.projectors.clone(),
        poll_interval: Duration::from_millis(settings.query.poll_ms),
        secret: secret(settings)?,
    };
    let peers = tokio::select! {
        found = Peers::find(peers) => found.map_err(|why| anyhow!(why))?,
        () = stop.cancelled() => return Ok(()),
    };
    let cursor_key = match peers.cursor_key() {
        Some(key) => key,
        None => {
            tracing::warn!("cursors are this edge's own: give all edges one query.secret_file");
            CursorKey::new(random()?)
        }
    };
    // Streams come from the topic of updates, which only an edge that knows the brokers reaches.
    let updates = match settings.kafka.bootstrap.clone() {
        Some(bootstrap) => {
            let settings = settings.clone();
            let following = on_thread("following", move || {
                Ok(follow_updates(&settings, Arc::new(connect(&settings, &bootstrap)?))?)
            });
            tokio::select! {
                followed = following => Some(followed?),
                () = stop.cancelled() => return Ok(()),
            }
        }
        None => None,
    };
    let limits = limits(settings);
    let access = access(&settings.access);
    let query = QueryContext { answers: Arc::new(peers.clone()), cursor_key, access, limits: limits.clone() };
    let health = {
        let peers = peers.clone();
        Health { readiness: Arc::new(move || peers.ready()), render_metrics: Arc::new(move || metrics.render()) }
    };
    let router = edge(query_router(query, updates.clone()), health_router(health), authenticate, &limits);
    let drain = Duration::from_millis(settings.drain_ms);
    let timeouts = receipts_assembly::timeouts(settings, drain);
    let mut serving = tokio::spawn(receipts_http::serve(listener, router, stop.clone().cancelled_owned(), timeouts));
    let ready = async {
        while !peers.ready().caught_up {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::select! {
        () = ready => {
            let projectors = settings.query.projectors.join(",");
            Output::stdout(json).ready("receipts-query", &[("http", url), ("projectors", projectors)])?;
        }
        () = stop.cancelled() => {}
    }
    let work = async {
        // Until there is a reason to end, nobody closes streams; from then on they have no end of their own to wait for.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = &mut serving => {
                ended.context("the HTTP edge panicked; this is a bug: please report it with the log")??;
                return Err(anyhow!("the HTTP edge ended by itself").into());
            }
        }
        if let Some(updates) = updates {
            on_thread("ending streams", move || {
                updates.close();
                Ok(())
            })
            .await?;
        }
        (&mut serving).await.context("the HTTP edge panicked; this is a bug: please report it with the log")??;
        Ok(())
    };
    shutdown::drain(stop, drain, work).await?
}

fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random bytes: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        config::with_flags(Cli::command(), &FIRST).debug_assert();
    }
}
