//! The binary `receipts-query`: answers queries over HTTP from the projectors.
//!
//! Composes parts, and does nothing else. It keeps no state.

use anyhow::anyhow;
use clap::Parser;
use receipts_assembly::{
    AnswersFrom, DataDir, HttpEdge, Service, access, authenticate, connect, connections, cors, follow_updates, guard,
    inspector, limits, listen, on_thread, random, shared_secret, until,
};
use receipts_cluster::{PeerSettings, Peers};
use receipts_http::{Health, QueryContext, Router, Tickets, Updates, edge, health_router, query_router};
use receipts_log::{Contact, Log as _};
use receipts_query::{Answers as _, CursorKey};
use receipts_runtime::build::Build;
use receipts_runtime::command_line::{self, CommandLine};
use receipts_runtime::config::{CommandHelp, Named, Settings};
use receipts_runtime::exit::{self, Failure};
use receipts_runtime::metrics::Metrics;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const BUILD: Build =
    Build { name: "receipts-query", version: env!("CARGO_PKG_VERSION"), commit: env!("RECEIPTS_COMMIT") };

/// The settings that `-h` shows; `--help` shows all that it uses.
const FIRST: [Named; 5] = [
    Named::usual("http.listen"),
    Named::by("query.projectors", "projectors"),
    Named::usual("query.secret_file"),
    Named::usual("kafka.bootstrap"),
    Named::usual("telemetry.log_filter"),
];

const HELP: CommandHelp = CommandHelp {
    command: "",
    uses: &[
        &["drain_ms", "secret_files_strict", "http.", "!http.ready_lag_ms", "auth.", "access.", "query."],
        &["log.", "!log.accept_missing_beginning", "kafka.", "telemetry."],
    ],
    done: "a signal has stopped it in order",
    failed: "it could not start, a part of it ended, or it could not stop in order",
};

const EXAMPLES: &str = "Examples:
  receipts-query --projectors localhost:8081,localhost:8082 --kafka-bootstrap localhost:9092
  receipts-query --projectors projectors.internal:8081 --http-listen 127.0.0.1:0 --json

  curl -s localhost:8080/v1/receipts/query -H 'Content-Type: application/json' -d '{\"message_ids\":[\"m1\"]}'";

/// Answers queries over HTTP from the projectors that own the partitions, or from their standbys.
///
/// Any number of edges may run. Each polls every projector for the partitions that it owns. Prints
/// one line on standard output once every partition has a projector that answers. The first SIGINT
/// or SIGTERM stops it in order, the second at once.
#[derive(Parser)]
#[command(
    name = "receipts-query",
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
    if settings.query.projectors.is_empty() {
        return Err(Failure::usage(
            "receipts-query needs projectors to ask: --projectors HOST:PORT,…, RECEIPTS_QUERY__PROJECTORS, or \
             query.projectors in the file",
        ));
    }
    receipts_assembly::serve(BUILD, &settings, cli.json, async |metrics| QueryEdge::start(&settings, metrics).await)
}

/// The parts: the HTTP edge, the projectors that it asks, and the streams of updates if it knows
/// the brokers.
struct QueryEdge {
    http: HttpEdge,
    peers: Peers,
    updates: Option<Updates>,
    /// The contact with the log of the updates, if there is one.
    contact: Option<Contact>,
    projectors: String,
}

impl QueryEdge {
    async fn start(settings: &Settings, metrics: Metrics) -> Result<Self, Failure> {
        let connections = connections(settings, AnswersFrom::Peers)?;
        let authenticate = authenticate(&settings.auth).await?;
        let listeners = listen(settings, settings.http.listen, "--http-listen").await?.with_tls(settings)?;
        let peers = PeerSettings {
            projectors: settings.query.projectors.clone(),
            poll_interval: Duration::from_millis(settings.query.poll_ms),
            secret: shared_secret(settings)?,
            candidates_max: settings.query.candidates_max,
        };
        let peers = Peers::find(peers).await.map_err(|why| anyhow!(why))?;
        let cursor_key = match peers.cursor_key() {
            Some(key) => key,
            None => {
                tracing::warn!(
                    "this edge signs cursors and tickets with a key of its own: give all edges one query.secret_file"
                );
                CursorKey::new(random()?)
            }
        };
        // Streams come from the topic of updates, so only an edge that knows the brokers has them.
        let (updates, contact) = match settings.kafka.bootstrap.clone() {
            Some(bootstrap) => {
                let settings = settings.clone();
                let follow = move || {
                    let log = connect(&settings, &bootstrap)?;
                    let contact = log.contact();
                    Ok((follow_updates(&settings, Arc::new(log))?, contact))
                };
                let (updates, contact) = on_thread("following", follow).await?;
                (Some(updates), Some(contact))
            }
            None => (None, None),
        };
        let limits = limits(settings, connections);
        let access = access(&settings.access);
        let tickets = Tickets::new(&cursor_key, receipts_runtime::clock::unix_ms);
        let query = QueryContext {
            answers: Arc::new(peers.clone()),
            cursor_key,
            tickets: tickets.clone(),
            access,
            limits: limits.clone(),
        };
        let health = {
            let peers = peers.clone();
            Health { readiness: Arc::new(move || peers.ready()), render_metrics: Arc::new(move || metrics.render()) }
        };
        let routes = query_router(query, updates.clone());
        let router = |open: Router| {
            let open = open.merge(inspector(settings));
            edge(routes, open, guard(settings), cors(settings), authenticate, Some(tickets), &limits)
        };
        let drain = Duration::from_millis(settings.drain_ms);
        let http = listeners.serve(router, health_router(health), settings, connections, drain)?;
        Ok(Self { http, peers, updates, contact, projectors: settings.query.projectors.join(",") })
    }
}

impl Service for QueryEdge {
    fn addresses(&self) -> Vec<(&'static str, String)> {
        let mut addresses = self.http.addresses("http");
        addresses.push(("projectors", self.projectors.clone()));
        addresses
    }

    /// Resolves once every partition has a projector that answers for it.
    fn ready(&self) -> impl Future<Output = ()> + 'static {
        let peers = self.peers.clone();
        until(move || peers.ready().caught_up)
    }

    async fn ended(&mut self) {
        let contact = self.contact.clone();
        let failed = async {
            match contact {
                Some(contact) => _ = contact.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.http.ended() => {}
            () = failed => {}
        }
    }

    async fn stop(self) -> Result<Option<DataDir>, Failure> {
        self.http.stop(self.updates).await?;
        let fault = self.contact.and_then(|contact| contact.fault());
        fault.map_or(Ok(None), |sentence| Err(anyhow!(sentence).into()))
    }
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
