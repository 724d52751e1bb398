//! `receipts snapshot restore`: restores the newest usable snapshot of every partition into a data
//! directory without state. Must not overwrite a state.

use super::Progress;
use anyhow::{Context as _, anyhow};
use clap::Args;
use receipts_assembly::{DataDir, LogIdentity, fold_limits};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use receipts_snapshots::{Requirements, Snapshots};
use receipts_store::snapshot::hex;
use receipts_store::{SledSettings, SledStore};
use serde::Serialize;
use std::collections::BTreeSet;

/// Arguments of `receipts snapshot restore`.
#[derive(Args)]
pub(crate) struct Restore {
    /// Name of the log, as `list` shows it; needed only if there are several.
    #[arg(long, value_name = "NAME")]
    log: Option<String>,
    /// Restores of every partition the newest snapshot up to this offset.
    #[arg(long, value_name = "OFFSET")]
    at_most: Option<u64>,
}

#[derive(Serialize)]
struct Report {
    partition: u32,
    next_offset: u64,
    place: String,
    pages: u64,
    plain_bytes: u64,
    seconds: f64,
    digest: String,
}

/// Restores all partitions of which there are snapshots.
///
/// # Errors
/// If there is a state already, there are no snapshots, or no snapshot of a partition is usable.
pub(super) fn run(settings: &Settings, asked: &Restore, progress: &Progress, json: bool) -> Result<(), Failure> {
    let destination = super::destination(settings)?.stopped_by(progress.stop().clone());
    let data = DataDir::open(&settings.data_dir)?;
    if data.store().exists() {
        return Err(anyhow!(
            "there is a state in {}: move it away, or choose another --data-dir",
            data.store().display()
        )
        .into());
    }
    let own = if data.log().exists() { Some(data.embedded_log()?.name()) } else { None };
    let logs = Snapshots::logs_at(&destination)?;
    let log = match (asked.log.clone().or(own), &*logs) {
        (Some(log), logs) if logs.contains(&log) => log,
        (Some(log), _) => return Err(anyhow!("there is no snapshot of the log {log} in {destination}").into()),
        (None, [log]) => log.clone(),
        (None, []) => return Err(anyhow!("there are no snapshots in {destination}").into()),
        (None, logs) => {
            let names = logs.join("\n  ");
            return Err(Failure::usage(format!("there are snapshots of several logs: choose one by --log\n  {names}")));
        }
    };
    let identity = LogIdentity::from_name(&log)?;
    let snapshots = Snapshots::new(destination, log);
    let found = snapshots.list()?;
    let partitions: BTreeSet<u32> = found.iter().map(|found| found.partition).collect();
    let newest = |partition| found.iter().rfind(|found| found.partition == partition).map_or(0, |found| found.bytes);
    progress.begin("restoring", partitions.iter().map(|partition| newest(*partition)).sum());
    // An incomplete state is kept where no service looks for it.
    let aside = data.store().with_extension("restoring");
    if aside.exists() {
        std::fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
    }
    std::fs::create_dir_all(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
    let mut output = Output::stdout(json);
    {
        let sled = SledSettings { cache_bytes: settings.projector.memory_bytes / 4, sync: true };
        let store = SledStore::open_strict(&aside, sled)?;
        for partition in partitions {
            let wanted = Requirements {
                partition,
                partition_count: None,
                limits: Some(fold_limits(settings)),
                next_offset: 0..=asked.at_most.unwrap_or(u64::MAX),
            };
            let restored = snapshots.restore_newest(&store, &wanted, progress)?.ok_or_else(|| {
                anyhow!("no snapshot of partition {partition} is usable: the log lines above name the reasons")
            })?;
            let report = Report {
                partition,
                next_offset: restored.header.next_offset,
                place: restored.location,
                pages: restored.summary.pages,
                plain_bytes: restored.summary.plain_bytes,
                seconds: restored.took.as_secs_f64(),
                digest: hex(&restored.summary.digest),
            };
            progress.aside(|| {
                output.write(&report, |to| {
                    let Report { next_offset, place, pages, seconds, .. } = &report;
                    writeln!(
                        to,
                        "partition {partition} at offset {next_offset}: {pages} pages in {seconds:.1} s from {place}"
                    )
                })
            })?;
        }
    }
    progress.end();
    std::fs::rename(&aside, data.store()).with_context(|| format!("cannot rename {}", aside.display()))?;
    data.bind_store(&identity)?;
    Ok(())
}
