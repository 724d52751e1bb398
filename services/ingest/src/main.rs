//! The binary `receipts-ingest`: takes events over HTTP and writes them to Kafka.
//!
//! Composes parts, and does nothing else. It keeps no state and answers no question.

use anyhow::anyhow;
use clap::Parser;
use receipts_assembly::{
    AnswersFrom, DataDir, HttpEdge, Service, authenticate, connect, connections, cors, guard, kafka_name, limits,
    listen, on_thread, require_bootstrap,
};
use receipts_http::{Health, edge, health_router, ingest_router};
use receipts_log::kafka::KafkaLog;
use receipts_log::{Contact, Log as _};
use receipts_query::Readiness;
use receipts_runtime::build::Build;
use receipts_runtime::command_line::{self, CommandLine};
use receipts_runtime::config::{CommandHelp, Named, Settings};
use receipts_runtime::exit::{self, Failure};
use receipts_runtime::metrics::Metrics;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const BUILD: Build =
    Build { name: "receipts-ingest", version: env!("CARGO_PKG_VERSION"), commit: env!("RECEIPTS_COMMIT") };

/// The settings that `-h` shows; `--help` shows all that it uses.
const FIRST: [Named; 3] =
    [Named::usual("http.listen"), Named::usual("kafka.bootstrap"), Named::usual("telemetry.log_filter")];

const HELP: CommandHelp = CommandHelp {
    command: "",
    uses: &[
        &[
            "drain_ms",
            "secret_files_strict",
            "http.",
            "!http.heartbeat_ms",
            "!http.ready_lag_ms",
            "!http.wait_ms_default",
            "auth.",
        ],
        &["log.", "!log.accept_missing_beginning", "kafka.", "telemetry."],
    ],
    done: "a signal has stopped it in order",
    failed: "it could not start, a part of it ended, or it could not stop in order",
};

const EXAMPLES: &str = "Examples:
  receipts-ingest --kafka-bootstrap localhost:9092
  receipts-ingest --kafka-bootstrap a:9092,b:9092 --http-listen 127.0.0.1:0 --json

  curl -s localhost:8080/v1/events -H 'Content-Type: application/json' -d '{
    \"type\":\"members.changed\",\"conversation_id\":\"g1\",\"joined\":[\"alice\",\"bob\"]}'";

/// Takes events over HTTP and writes them to Kafka.
///
/// Writes all events of a request or none, and answers once Kafka has acknowledged them. Creates
/// missing topics. Prints one line on standard output once it serves. The first SIGINT or SIGTERM
/// stops it in order, the second at once.
#[derive(Parser)]
#[command(
    name = "receipts-ingest",
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
    let bootstrap = require_bootstrap(BUILD.name, &settings)?;
    receipts_assembly::serve(BUILD, &settings, cli.json, async |metrics| {
        Ingest::start(&settings, bootstrap, metrics).await
    })
}

/// The parts: the HTTP edge, and the log that it writes to.
struct Ingest {
    http: HttpEdge,
    log: KafkaLog,
    log_name: String,
    drain: Duration,
}

impl Ingest {
    async fn start(settings: &Settings, bootstrap: &str, metrics: Metrics) -> Result<Self, Failure> {
        let connections = connections(settings, AnswersFrom::Itself)?;
        let authenticate = authenticate(&settings.auth).await?;
        let listeners = listen(settings, settings.http.listen, "--http-listen").await?.with_tls(settings)?;
        let log = {
            let (settings, bootstrap) = (settings.clone(), bootstrap.to_owned());
            on_thread("connecting", move || connect(&settings, &bootstrap)).await?
        };
        let limits = limits(settings, connections);
        let (contact, partitions) = (log.contact(), log.partition_count());
        let health = Health {
            readiness: Arc::new(move || readiness(&contact, partitions)),
            render_metrics: Arc::new(move || metrics.render()),
        };
        let routes = ingest_router(receipts_assembly::ingest(limits.clone(), &log));
        let router = |open| edge(routes, open, guard(settings), cors(settings), authenticate, None, &limits);
        let drain = Duration::from_millis(settings.drain_ms);
        // Half of the time to drain is for requests, the rest for their events on the way to Kafka.
        let http = listeners.serve(router, health_router(health), settings, connections, drain / 2)?;
        Ok(Self { http, log, log_name: kafka_name(bootstrap), drain })
    }
}

impl Service for Ingest {
    fn addresses(&self) -> Vec<(&'static str, String)> {
        let mut addresses = self.http.addresses("http");
        addresses.push(("log", self.log_name.clone()));
        addresses
    }

    fn ready(&self) -> impl Future<Output = ()> + 'static {
        std::future::ready(())
    }

    async fn ended(&mut self) {
        let contact = self.log.contact();
        tokio::select! {
            () = self.http.ended() => {}
            _ = contact.failed() => {}
        }
    }

    async fn stop(self) -> Result<Option<DataDir>, Failure> {
        self.http.stop(None).await?;
        let (writer, drain) = (self.log.writer(), self.drain);
        // Every request has its answer or was cut off: only the operator still needs to know of a
        // failure.
        let fault = self.log.contact().fault();
        let flushed = on_thread("flushing", move || {
            // Failures until now were told to their callers.
            _ = writer.flush(Duration::ZERO);
            Ok(writer.flush(drain))
        });
        let flushed = flushed.await?;
        if let Err(error) = flushed {
            tracing::warn!(%error, "not every written event is acknowledged");
        }
        fault.map_or(Ok(None), |sentence| Err(anyhow!(sentence).into()))
    }
}

/// Ingest folds nothing, so it is never behind. It is ready while the log would take its events.
fn readiness(contact: &Contact, partitions: u32) -> Readiness {
    let stale_seconds = contact.silence().map(|silence| silence.as_secs());
    let reason = contact.trouble();
    let writable = if reason.is_none() { partitions } else { 0 };
    Readiness {
        caught_up: reason.is_none(),
        partitions,
        partitions_caught_up: writable,
        stale_seconds,
        reason,
        ..Readiness::default()
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
