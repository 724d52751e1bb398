//! Keeps live tables: one Delta table per dataset that follows the log, in a directory or a bucket
//! (`schemas/export/live-v1.md`).
//!
//! A process keeps no state of its own. It begins at the position that a table's newest version
//! stands for, folds the log up to there, and goes on: so a kill at any moment loses no row and
//! doubles none (INV-LIVE). Each version is the fold of one position. Never writes to the log.

mod changes;
mod delta;
mod keep;
mod ranges;
mod rows;
mod stamp;
mod table;
mod write;

pub use delta::Version;
pub use rows::DATASETS;

use crate::export::Dataset;
use crate::fold::{Folded, fold_watched};
use crate::{Error, ProgressMonitor, Scratch, Span, TemporaryFolder, UpTo, span};
use receipts_log::Inspect;
use receipts_objects::Destination;
use serde::Serialize;
use std::time::{Duration, Instant};
use table::Table;

/// How often a wait between two rounds looks whether the operator stops it.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// What to keep, where and for how long.
pub struct Plan<'a> {
    /// A directory, or a folder of a bucket.
    pub out: Destination,
    /// The identity of the log.
    pub log: String,
    /// The datasets; each must be one of [`DATASETS`].
    pub datasets: Vec<Dataset>,
    /// The time from the beginning of a round to that of the next.
    pub every: Duration,
    /// How long versions are kept, milliseconds.
    pub keep_versions_ms: u64,
    /// The time after which no version and no file names a person who was erased, milliseconds.
    pub erase_within_ms: u64,
    /// The size up to which files are merged, bytes.
    pub file_bytes: u64,
    /// Whether to end after one round.
    pub once: bool,
    /// Returns the token of a position, given as next offsets by partition.
    pub token: &'a TokenOf<'a>,
    /// The time of day, Unix milliseconds.
    pub now_ms: &'a dyn Fn() -> u64,
}

/// Returns the token of a position, given as next offsets by partition.
pub type TokenOf<'a> = dyn Fn(&[(u32, u64)]) -> String + 'a;

/// A version that was committed.
#[derive(Debug, Clone, Serialize)]
pub struct Committed {
    /// The dataset.
    pub dataset: Dataset,
    /// The version.
    pub version: u64,
    /// The token of the position that it stands for.
    pub position: String,
    /// Data files that it adds.
    pub added: u64,
    /// Data files of the version before that it leaves out.
    pub removed: u64,
    /// Files of the version.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Old versions that were removed afterwards.
    pub versions_removed: u64,
    /// Time from the look at the log's end to the commit, milliseconds: the version has all records
    /// that are older.
    pub behind_ms: u64,
}

/// A partition that is followed.
struct Partition {
    folded: Folded,
    next_offset: u64,
    first_offset: u64,
}

/// Lists the versions of a table, the oldest first.
///
/// # Errors
/// If the destination fails.
pub fn versions(out: &Destination, dataset: Dataset) -> Result<Vec<Version>, Error> {
    let table = delta::Delta::open(out, dataset.name())?;
    table.commits()?.into_iter().map(|(version, name)| table.read_commit(version, &name)).collect()
}

/// Follows the log until the monitor stops it, or for one round. Calls `told` with each version.
///
/// # Errors
/// If a table was made from another log or with other settings, another process writes it, or the
/// log, the temporary disk or the destination fails. Every committed version is complete, and the
/// same call goes on from there.
pub fn follow(
    log: &dyn Inspect,
    scratch: &Scratch,
    plan: &Plan<'_>,
    monitor: &dyn ProgressMonitor,
    told: &mut dyn FnMut(&Committed) -> Result<(), Error>,
) -> Result<(), Error> {
    let ended = follow_on(log, scratch, plan, monitor, told);
    // A follower has no end of its own: a stop is how it ends.
    if !plan.once && monitor.is_stopped() && matches!(ended, Err(Error::Stopped)) { Ok(()) } else { ended }
}

fn follow_on(
    log: &dyn Inspect,
    scratch: &Scratch,
    plan: &Plan<'_>,
    monitor: &dyn ProgressMonitor,
    told: &mut dyn FnMut(&Committed) -> Result<(), Error>,
) -> Result<(), Error> {
    let count = log.partition_count();
    let settings = stamp::settings(&scratch.limits);
    let folder = TemporaryFolder::new()?;
    let mut tables = Vec::new();
    for dataset in &plan.datasets {
        tables.push(Table::open(plan, *dataset, &settings, count)?);
    }
    // All partitions are held at once, so they share the memory.
    let scratch =
        Scratch { memory_bytes: (scratch.memory_bytes / count.max(1) as usize).max(16 << 20), ..scratch.clone() };
    let mut partitions = Vec::new();
    for partition in 0..count {
        partitions.push(catch_up(log, &scratch, partition, &mut tables, monitor)?);
    }
    loop {
        let (began, looked_ms) = (Instant::now(), (plan.now_ms)());
        for (partition, held) in (0..count).zip(&mut partitions) {
            let end = span(log, partition, UpTo::End)?.end_offset;
            advance(log, partition, held, end, &mut tables, monitor)?;
        }
        for table in &mut tables {
            if let Some(mut committed) = table.round(plan, &partitions, folder.path(), monitor)? {
                committed.behind_ms = (plan.now_ms)().saturating_sub(looked_ms);
                committed.versions_removed = table.keep(plan)?;
                told(&committed)?;
            } else {
                table.keep(plan)?;
            }
        }
        if plan.once {
            return Ok(());
        }
        // From begin to begin, so that a long round is not followed by a long wait.
        loop {
            if monitor.is_stopped() {
                return Err(Error::Stopped);
            }
            let left = plan.every.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(STOP_CHECK.min(left));
        }
    }
}

/// Folds a partition up to the oldest position of a table, and on to the position of each.
fn catch_up(
    log: &dyn Inspect,
    scratch: &Scratch,
    partition: u32,
    tables: &mut [Table],
    monitor: &dyn ProgressMonitor,
) -> Result<Partition, Error> {
    let whole = span(log, partition, UpTo::End)?;
    let mut positions: Vec<u64> = tables.iter().filter_map(|table| table.next_offset(partition)).collect();
    positions.sort_unstable();
    positions.dedup();
    if let Some(asked) = positions.iter().copied().find(|position| *position > whole.end_offset) {
        return Err(Error::Beyond { partition, end: whole.end_offset, asked });
    }
    let begin = positions.first().copied().unwrap_or(whole.end_offset);
    if begin < whole.first_offset {
        return Err(Error::Refused(format!(
            "the log of partition {partition} begins at offset {}, after offset {begin} at which the tables stand: the \
             records between are lost, so name a new --out",
            whole.first_offset
        )));
    }
    let folded = scratch.fold(log, &Span { end_offset: begin, ..whole }, monitor)?;
    // A snapshot has all records from the beginning.
    let first_offset = if folded.report.snapshot_offset.is_some() { 0 } else { whole.first_offset };
    let mut held = Partition { folded, next_offset: begin, first_offset };
    for position in positions {
        advance(log, partition, &mut held, position, tables, monitor)?;
        for table in tables.iter_mut().filter(|table| table.next_offset(partition) == Some(position)) {
            table.check(partition, &held)?;
        }
    }
    Ok(held)
}

/// Folds a partition up to an offset, and collects the changes for each table that stands before
/// them.
fn advance(
    log: &dyn Inspect,
    partition: u32,
    held: &mut Partition,
    end_offset: u64,
    tables: &mut [Table],
    monitor: &dyn ProgressMonitor,
) -> Result<(), Error> {
    if end_offset <= held.next_offset {
        return Ok(());
    }
    let range = Span { partition, first_offset: held.next_offset, end_offset };
    let state = &mut held.folded.state;
    fold_watched(state, log, &range, monitor, &mut |state, record, event, effects| {
        for table in tables.iter_mut() {
            table.add(state, partition, record.offset, event, effects)?;
        }
        Ok(())
    })?;
    held.next_offset = end_offset;
    for table in tables {
        table.find_erased(state, partition)?;
    }
    Ok(())
}
