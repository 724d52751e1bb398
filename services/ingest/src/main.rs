//! The binary `receipts-ingest`: events over HTTP into Kafka. Keeps no state and answers no question; only composes.

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory, FromArgMatches, Parser};
use receipts_assembly::{authenticate, connect, ingest, kafka_name, limits, on_thread};
use receipts_http::{Health, edge, health_router, ingest_router};
use receipts_log::Log as _;
use receipts_query::Readiness;
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
const FIRST: [Named; 3] =
    [Named::usual("http.listen"), Named::usual("kafka.bootstrap"), Named::usual("telemetry.log_filter")];

const EXAMPLES: &str = "Examples:
  receipts-ingest --kafka-bootstrap localhost:9092
  receipts-ingest --kafka-bootstrap a:9092,b:9092 --http-listen 127.0.0.1:0 --json

  curl -s localhost:8080/v1/events -H 'Content-Type: application/json' -d '{
    \"type\":\"members.changed\",\"conversation_id\":\"g1\",\"joined\":[\"alice\",\"bob\"]}'";

/// Takes events over HTTP and writes them to Kafka: all of a body or nothing, answered once they are acknowledged.
///
/// Creates topics that are missing. A line on standard output says when it serves. The first SIGINT or SIGTERM ends it
/// in order, the second at once.
#[derive(Parser)]
#[command(name = "receipts-ingest", version, after_help = EXAMPLES)]
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
    let bootstrap = receipts_assembly::bootstrap("receipts-ingest", &settings)?.to_owned();
    // What is acknowledged is in Kafka, and what is not was not promised: nothing is waited for beyond the drain.
    receipts_assembly::run("receipts-ingest", &settings, async |stop, metrics| {
        serve(&settings, bootstrap, &stop, metrics, cli.json).await
    })
}

async fn serve(
    settings: &Settings,
    bootstrap: String,
    stop: &CancellationToken,
    metrics: Metrics,
    json: bool,
) -> Result<(), Failure> {
    let authenticate = tokio::select! {
        authenticate = authenticate(&settings.auth) => authenticate?,
        () = stop.cancelled() => return Ok(()),
    };
    let listener = receipts_assembly::listen(settings.http.listen, "--http-listen").await?;
    let connecting = {
        let (settings, bootstrap) = (settings.clone(), bootstrap.clone());
        on_thread("connecting", move || connect(&settings, &bootstrap))
    };
    let log = tokio::select! {
        log = connecting => log?,
        () = stop.cancelled() => return Ok(()),
    };
    let url = format!("http://{}", listener.local_addr()?);
    let (ingest, limits) = (ingest(settings, &log), limits(settings));
    let health = Health {
        // It folds nothing, so it is never behind.
        readiness: {
            let partitions = log.partition_count();
            let readiness =
                Readiness { caught_up: true, partitions, partitions_caught_up: partitions, lag_records: None };
            Arc::new(move || readiness)
        },
        render_metrics: Arc::new(move || metrics.render()),
    };
    let router = edge(ingest_router(ingest), health_router(health), authenticate, &limits);
    let drain = Duration::from_millis(settings.drain_ms);
    // Half of the time to drain is for requests, the rest for what they left on its way to Kafka.
    let timeouts = receipts_assembly::timeouts(settings, drain / 2);
    let serving = tokio::spawn(receipts_http::serve(listener, router, stop.clone().cancelled_owned(), timeouts));
    Output::stdout(json).ready("receipts-ingest", &[("http", url), ("log", kafka_name(&bootstrap))])?;
    let work = async {
        serving.await?.context("the HTTP edge failed")?;
        if !stop.is_cancelled() {
            return Err(anyhow!("the HTTP edge ended by itself"));
        }
        let writer = log.writer();
        // Every request has its answer or was cut off, so a failure here is news to nobody but the operator.
        if let Err(error) = tokio::task::spawn_blocking(move || writer.flush(drain)).await? {
            tracing::warn!(%error, "not everything that was written is acknowledged");
        }
        Ok(())
    };
    Ok(shutdown::drain(stop, drain, work).await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        config::with_flags(Cli::command(), &FIRST).debug_assert();
    }
}
