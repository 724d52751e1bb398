//! Process things that every binary uses: configuration, logs, metrics and traces, descriptors,
//! clock, shutdown, output and exit codes.
//!
//! Knows no event, no log and no store: of this workspace it uses only the names of metrics and
//! spans.
//!
//! ```no_run
//! use receipts_runtime::command_line::{self, CommandLine};
//! use receipts_runtime::config::Named;
//! use receipts_runtime::exit::{self, Failure};
//! use receipts_runtime::output::Output;
//! use receipts_runtime::{shutdown, telemetry};
//! use std::time::Duration;
//!
//! /// Takes events over HTTP and writes them to the log.
//! #[derive(clap::Parser)]
//! #[command(name = "receipts-ingest", version)]
//! struct Cli {
//!     /// Print results as JSON lines
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
//!     let CommandLine { cli, settings, .. } = command_line::read::<Cli>(&first, &[])?;
//!     telemetry::init(&settings.telemetry)?;
//!     tokio::runtime::Runtime::new()?.block_on(async {
//!         let stop = shutdown::on_signal()?;
//!         let http = tokio::net::TcpListener::bind(settings.http.listen).await?;
//!         let url = format!("http://{}", http.local_addr()?);
//!         Output::stdout(cli.json).ready("receipts-ingest", &[("http", url)])?;
//!         // The parts of the service run here until `stop` is cancelled, and then end by themselves.
//!         let work = stop.cancelled();
//!         shutdown::drain(&stop, Duration::from_millis(settings.drain_ms), work).await?;
//!         Ok(())
//!     })
//! }
//! ```

pub mod build;
pub mod clock;
pub mod command_line;
pub mod config;
pub mod descriptors;
pub mod exit;
pub mod machine;
pub mod metrics;
pub mod output;
pub mod shutdown;
pub mod telemetry;
pub mod traces;

/// Makes files and directories of this process its owner's alone from now on: it widens the umask
/// to 077. Libraries that make their own files (sled, redb) take no mode.
///
/// A command that writes files for others must not call it.
pub fn private_files() {
    let before = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // The two calls keep what the umask before took from the owner.
    rustix::process::umask(before | rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Returns the number of the user that this process acts as, for audit lines of commands.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
