//! `receipts export --follow` and `--versions`: reads their arguments and prints versions.
//! `receipts_analytics` keeps the tables.

use crate::analysis::{self, Memory, shown};
use anyhow::anyhow;
use clap::Args;
use receipts_analytics::export::Dataset;
use receipts_analytics::live::{self, Committed, DATASETS, Plan};
use receipts_objects::Destination;
use receipts_runtime::clock::unix_ms;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use serde::Serialize;
use std::time::Duration;

const HOUR_MS: u64 = 3_600_000;

/// Arguments of live tables.
#[derive(Args, Clone)]
pub(crate) struct Live {
    /// Keeps a Delta table per dataset that follows the log, in a folder of its name
    #[arg(long, conflicts_with_all = ["layout", "format", "as_of", "position"])]
    pub(crate) follow: bool,
    /// Ends after one round of --follow
    #[arg(long, requires = "follow")]
    once: bool,
    /// Lists the versions of live tables with their times and positions
    #[arg(long, conflicts_with_all = ["follow", "layout", "format", "as_of", "position", "file_mb"])]
    pub(crate) versions: bool,
    /// Seconds from one round of --follow to the next, from begin to begin
    #[arg(long, value_name = "S", default_value_t = 30, requires = "follow", value_parser = clap::value_parser!(u32).range(1..))]
    every_s: u32,
    /// Hours that old versions are kept
    #[arg(long, value_name = "HOURS", default_value_t = 168, requires = "follow")]
    keep_versions_hours: u32,
    /// Hours within which an erasure reaches old versions while the command runs
    #[arg(long, value_name = "HOURS", default_value_t = 24, requires = "follow")]
    erase_within_hours: u32,
}

/// A version as JSON.
#[derive(Serialize)]
struct Shown {
    dataset: Dataset,
    version: u64,
    committed_ms: u64,
    position: Option<String>,
}

fn destination(out: &str) -> Result<Destination, Failure> {
    Destination::open(out).map_err(|error| Failure::usage(format!("--out: {error}")))
}

fn datasets(named: &[Dataset]) -> Result<Vec<Dataset>, Failure> {
    match named.iter().find(|dataset| !DATASETS.contains(dataset)) {
        Some(other) => Err(Failure::usage(format!(
            "--dataset {}: there is no live table of it, because the log itself has its rows",
            other.name()
        ))),
        None if named.is_empty() => Ok(DATASETS.to_vec()),
        None => Ok(DATASETS.into_iter().filter(|dataset| named.contains(dataset)).collect()),
    }
}

/// Follows the log.
///
/// # Errors
/// Wrong usage; if a table is another log's, or the log, the temporary disk or the destination
/// fails.
pub(crate) fn follow(
    settings: Settings,
    live: Live,
    out: String,
    named: Vec<Dataset>,
    file_bytes: u64,
    memory: Memory,
    json: bool,
) -> Result<(), Failure> {
    if settings.kafka.bootstrap.is_none() && !live.once {
        return Err(Failure::usage(
            "--follow waits for new records, but nobody can write an embedded log while this command has it open: \
             add --once, or name a Kafka log with --kafka-bootstrap",
        ));
    }
    analysis::run(settings, move |settings, progress| {
        let datasets = datasets(&named)?;
        let opened = receipts_assembly::open_existing_log(settings)?;
        let scratch = memory.scratch(settings, &opened.identity)?;
        let token = |offsets: &[(u32, u64)]| analysis::token(&*opened.log, offsets.iter().copied());
        let plan = Plan {
            out: destination(&out)?,
            log: opened.identity.name(),
            datasets,
            every: Duration::from_secs(live.every_s.into()),
            keep_versions_ms: u64::from(live.keep_versions_hours) * HOUR_MS,
            erase_within_ms: u64::from(live.erase_within_hours) * HOUR_MS,
            file_bytes,
            once: live.once,
            token: &token,
            now_ms: &unix_ms,
        };
        let mut output = Output::stdout(json);
        let mut wrong = None;
        let followed = live::follow(&*opened.log, &scratch, &plan, progress, &mut |committed: &Committed| {
            let Committed { dataset, version, position, added, removed, files, bytes, versions_removed, behind_ms } =
                committed;
            let written = output.write(committed, |to| {
                writeln!(
                    to,
                    "{} version {version} at {position}: {added} files added, {removed} left out, {files} files of \
                     {bytes} bytes, {versions_removed} old versions removed, {} behind the log",
                    dataset.name(),
                    receipts_analytics::stats::page::duration(*behind_ms)
                )
            });
            written.map_err(|error| {
                wrong = Some(error);
                receipts_analytics::Error::Stopped
            })
        });
        match wrong {
            Some(error) => Err(error.into()),
            None => Ok(followed?),
        }
    })
}

/// Lists versions.
///
/// # Errors
/// If the destination fails.
pub(crate) fn versions(settings: Settings, out: String, named: Vec<Dataset>, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |_, _| {
        let (named_out, out, mut output) = (&out, destination(&out)?, Output::stdout(json));
        let mut has_versions = false;
        for dataset in datasets(&named)? {
            for made in live::versions(&out, dataset)? {
                has_versions = true;
                let (version, committed_ms, position) = (made.version, made.committed_ms, made.position);
                let line = Shown { dataset, version, committed_ms, position };
                output.write(&line, |to| {
                    let position = line.position.as_deref().unwrap_or("unknown");
                    writeln!(to, "{} {version} {} {position}", dataset.name(), shown(committed_ms))
                })?;
            }
        }
        if !has_versions {
            return Err(anyhow!("there is no live table in {named_out}: --out names the folder of the tables").into());
        }
        Ok(())
    })
}
