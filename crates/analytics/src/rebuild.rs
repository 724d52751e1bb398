//! Folds a log into a new store and compares it with the old one. It does not switch stores.

use crate::fold::{fold_into, save};
use crate::{Error, FoldReport, ProgressMonitor, Span, UpTo, digest, span};
use receipts_fold::{Limits, State};
use receipts_log::Inspect;
use receipts_store::{Paged, SledStore};
use serde::Serialize;

/// The digest of an older store after all records below an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldDigest {
    /// The offset after the last record that the store has folded.
    pub next_offset: u64,
    /// The digest of the store at that offset.
    pub digest: String,
}

/// A partition that was folded again.
#[derive(Debug, Clone, Serialize)]
pub struct RebuildReport {
    /// The records that were read, including those of earlier attempts that this one resumed.
    #[serde(flatten)]
    pub report: FoldReport,
    /// Digest of the new state.
    pub digest: String,
    /// The comparison with the old store, if the old store stands within the folded range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<Comparison>,
}

/// The digests of two states at one offset.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Both states hold all records below this offset.
    pub next_offset: u64,
    /// Digest of the old state.
    pub old: String,
    /// Digest of the new state.
    pub new: String,
}

impl RebuildReport {
    /// Returns true if the old state was compared and differs from the new one.
    pub fn differs(&self) -> bool {
        self.compared.as_ref().is_some_and(|compared| compared.old != compared.new)
    }
}

/// Folds a partition into a store, from the store's checkpoint to the end of the log, and compares
/// it with the old store at the old store's offset.
///
/// # Errors
/// If the log, the disk or the state fails, the log has lost its beginning, or the monitor stops
/// the run; the next attempt resumes.
pub fn partition(
    log: &dyn Inspect,
    store: &SledStore,
    partition: u32,
    limits: Limits,
    memory_bytes: usize,
    old: Option<&OldDigest>,
    monitor: &dyn ProgressMonitor,
) -> Result<RebuildReport, Error> {
    let end = span(log, partition, UpTo::End)?;
    let pages = Paged::new(store.partition(partition)?, partition, memory_bytes);
    let mut state = State::open(pages, limits).map_err(Error::state(partition))?;
    if state.next_offset() < end.first_offset {
        return Err(Error::Trimmed { partition, first: end.first_offset });
    }
    monitor.skipped(state.next_offset().min(end.end_offset) - end.first_offset);
    let fold_up_to = |state: &mut State<_>, end_offset: u64| -> Result<FoldReport, Error> {
        let first_offset = state.next_offset();
        fold_into(state, log, &Span { partition, first_offset, end_offset: end_offset.max(first_offset) }, monitor)
    };
    let (mut compared, mut before) = (None, None);
    if let Some(old) = old.filter(|old| (state.next_offset()..=end.end_offset).contains(&old.next_offset)) {
        before = Some(fold_up_to(&mut state, old.next_offset)?);
        let new = digest(&state, partition, monitor)?;
        compared = Some(Comparison { next_offset: old.next_offset, old: old.digest.clone(), new });
    }
    let mut report = fold_up_to(&mut state, end.end_offset)?;
    if let Some(before) = before {
        report.first_offset = before.first_offset;
        report.first_timestamp_ms = before.first_timestamp_ms.or(report.first_timestamp_ms);
        report.newest_timestamp_ms = report.newest_timestamp_ms.max(before.newest_timestamp_ms);
        report.events += before.events;
        for (reason, count) in before.dead_letters {
            *report.dead_letters.entry(reason).or_default() += count;
        }
    }
    save(&mut state)?;
    state.pages().backend().wait()?;
    let digest = digest(&state, partition, monitor)?;
    Ok(RebuildReport { report, digest, compared })
}
