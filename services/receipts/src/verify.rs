//! `receipts verify`: reads its arguments and prints verdicts. `receipts_analytics` compares the
//! store with its log.

use crate::analysis::{self, Memory, Progress, write_summary};

use anyhow::anyhow;
use clap::Args;
use receipts_analytics::verify::{self, Verdict};
use receipts_analytics::{Scratch, UpTo, span};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use receipts_snapshots::Snapshots;
use receipts_store::{SledSettings, SledStore};
use std::io::{self, Write};

pub(crate) const EXAMPLES: &str = "Examples:
  receipts verify --data-dir /var/lib/receipts
  receipts verify --data-dir /var/lib/receipts --kafka-bootstrap localhost:9092 --json
  receipts verify --snapshots --snapshot-url s3://backups/receipts --kafka-bootstrap localhost:9092";

/// Arguments of `receipts verify`.
#[derive(Args)]
pub(crate) struct Verify {
    /// Verifies the newest snapshot of each partition instead of a store.
    ///
    /// A service on the same Kafka can run on meanwhile. --snapshot-url names the destination of
    /// snapshots.
    #[arg(long)]
    snapshots: bool,
    #[command(flatten)]
    memory: Memory,
}

/// Verifies all partitions.
///
/// # Errors
/// If there is no log or no store, another process uses it, a read fails, or anything differs.
pub(crate) fn run(settings: Settings, asked: Verify, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |settings, progress| {
        if asked.snapshots {
            return snapshots(settings, &asked, progress, json);
        }
        let (opened, dir) = receipts_assembly::open_existing_log_with_store(settings)?;
        let log = &*opened.log;
        let scratch = Scratch { snapshots: None, ..asked.memory.scratch(settings, &opened.identity)? };
        let sled = SledSettings { cache_bytes: (scratch.memory_bytes / 4) as u64, sync: true };
        let store = SledStore::open_strict(&dir, sled)?;
        let mut offsets = 0;
        for partition in 0..log.partition_count() {
            offsets += span(log, partition, UpTo::End)?.offsets();
        }
        progress.begin(offsets);
        let mut output = Output::stdout(json);
        let (mut told, mut wrong) = (Vec::new(), 0);
        for partition in 0..log.partition_count() {
            let verdict = verify::partition(log, &store, partition, &scratch, progress)?;
            progress.aside(|| output.write(&verdict, |to| write_verdict(to, &verdict)))?;
            wrong += u32::from(!verdict.is_good());
            told.push(verdict.report);
        }
        progress.end(&told);
        if wrong > 0 {
            return Err(anyhow!(
                "{wrong} of {} partitions differ from a fold of the log: move {} away, and the service folds the log again. \
                 Settings other than the service's (such as --projector-retention-ms) also cause differences",
                log.partition_count(),
                dir.display()
            )
            .into());
        }
        Ok(())
    })
}

/// Verifies the newest snapshot of every partition.
fn snapshots(settings: &Settings, asked: &Verify, progress: &mut Progress, json: bool) -> Result<(), Failure> {
    let opened = receipts_assembly::open_existing_log(settings)?;
    let log = &*opened.log;
    let scratch = asked.memory.scratch(settings, &opened.identity)?;
    let Some(destination) = scratch.snapshots.as_ref().map(Snapshots::location) else {
        return Err(Failure::usage("verify --snapshots needs --snapshot-url DIR-OR-URL, the destination of snapshots"));
    };
    let mut offsets = 0;
    for partition in 0..log.partition_count() {
        offsets += span(log, partition, UpTo::End)?.offsets();
    }
    progress.begin(offsets);
    let mut output = Output::stdout(json);
    let (mut told, mut wrong, mut missing) = (Vec::new(), 0, 0);
    for partition in 0..log.partition_count() {
        let Some(verdict) = verify::snapshot(log, partition, &scratch, progress)? else {
            tracing::warn!(partition, location = destination, "there is no snapshot that can be compared");
            missing += 1;
            continue;
        };
        progress.aside(|| output.write(&verdict, |to| write_verdict(to, &verdict)))?;
        wrong += u32::from(!verdict.is_good());
        told.push(verdict.report);
    }
    progress.end(&told);
    let count = log.partition_count();
    if wrong > 0 {
        return Err(anyhow!(
            "the snapshots of {wrong} of {count} partitions in {destination} differ from a fold of the log, and so does the \
             store that they were taken of: stop its service and run `receipts verify`, or run `receipts rebuild`"
        )
        .into());
    }
    if missing > 0 {
        return Err(anyhow!(
            "{missing} of {count} partitions have no snapshot in {destination} that can be compared: `receipts snapshot take` \
             makes one of a running service; all compared snapshots agree with the log"
        )
        .into());
    }
    Ok(())
}

fn write_verdict(to: &mut dyn Write, verdict: &Verdict) -> io::Result<()> {
    write_summary(to, &verdict.report)?;
    let behind = verdict.end_offset.saturating_sub(verdict.report.next_offset);
    if behind > 0 && verdict.digest_of_log.is_some() {
        writeln!(to, "  {behind} offsets of the log are not folded into it yet, so they are not compared")?;
    }
    if let Some(digest) = verdict.digest_of_log.as_ref().filter(|_| verdict.is_good()) {
        return writeln!(to, "  agrees with the log; digest {digest}");
    }
    if let Some(first) = &verdict.first_difference {
        writeln!(to, "  first difference at {}\n    log:   {}\n    store: {}", first.location, first.log, first.store)?;
    }
    if let Some(first) = &verdict.first_contradiction {
        let count = verdict.contradictions;
        writeln!(to, "  {count} messages contradict themselves; the first is {}: {}", first.location, first.store)?;
    }
    Ok(())
}
