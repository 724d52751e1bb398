//! Process things, used by every binary: configuration, telemetry, clock, shutdown, output and exit codes.
//!
//! Knows no event, no log and no store: nothing here may depend on another crate of this workspace.
//!
//! A service's `main` is a composition of these parts and no more:
//!
//! ```no_run
//! use clap::{CommandFactory, FromArgMatches, Parser};
//! use receipts_runtime::config::{self, Named};
//! use receipts_runtime::exit::{self, Failure};
//! use receipts_runtime::metrics::Metrics;
//! use receipts_runtime::output::Output;
//! use receipts_runtime::{shutdown, telemetry};
//! use std::time::Duration;
//!
//! /// Takes events over HTTP and writes them to the log.
//! #[derive(Parser)]
//! #[command(name = "receipts-ingest", version)]
//! struct Cli {
//!     /// Prints results as JSON lines.
//!     #[arg(long)]
//!     json: bool,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     exit::report(run())
//! }
//!
//! fn run() -> Result<(), Failure> {
//!     let first = [Named::usual("http.listen"), Named::usual("kafka.bootstrap")];
//!     let matches = config::with_flags(Cli::command(), &first).get_matches();
//!     let cli = Cli::from_arg_matches(&matches)?;
//!     let env = config::environment();
//!     let file = config::file(&matches, &env);
//!     let settings = config::load(file.as_deref(), env, &config::overrides(&matches))?;
//!     telemetry::init(&settings.telemetry)?;
//!     let metrics = Metrics::install("receipts-ingest")?;
//!     settings.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
//!     tokio::runtime::Runtime::new()?.block_on(async {
//!         let stop = shutdown::on_signal()?;
//!         tokio::spawn(metrics.upkeep());
//!         let http = tokio::net::TcpListener::bind(settings.http.listen).await?;
//!         Output::stdout(cli.json).ready("receipts-ingest", &[("http", format!("http://{}", http.local_addr()?))])?;
//!         // Here the parts of the service run until `stop` is cancelled, and then end by themselves.
//!         let work = stop.cancelled();
//!         shutdown::drain(&stop, Duration::from_millis(settings.drain_ms), work).await?;
//!         Ok(())
//!     })
//! }
//! ```

pub mod clock;
pub mod config;
pub mod exit;
pub mod metrics;
pub mod output;
pub mod shutdown;
pub mod telemetry;
