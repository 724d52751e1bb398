//! Folds a prefix of a partition for analysis, with its own consumer and its own state: in memory
//! and, beyond its memory, in a temporary directory. Opens no store of a service.

use crate::{Error, TemporaryFolder};
use receipts_event::Event;
use receipts_fold::effects::{DeadLetter, Effects};
use receipts_fold::{Limits, PREFETCH_EVENTS, State};
use receipts_log::{Inspect, ReadError, Record, Topic};
use receipts_projection::partition::{Fold, apply, decode, write_checkpoint};
use receipts_snapshots::{ProgressMonitor, Requirements, Snapshots, StopOnly};
use receipts_store::{Paged, SledSettings, SledStore, trim};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

/// Called after an event: with the state, the record, its event, and its effects.
pub type Watch<'w> = dyn FnMut(&Fold, &Record<'_>, &Event<'_>, &Effects) -> Result<(), Error> + 'w;

/// Retries of a log that cannot be read at the moment, while no retry makes progress.
const RETRIES: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// The end of the prefix that is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpTo {
    /// The current end of the log.
    End,
    /// Before the first record whose timestamp (Unix milliseconds) is later. Records after that one
    /// are left out even if their own timestamps are earlier, because every state is the fold of a
    /// prefix (INV-ASOF).
    Time(u64),
    /// Everything below an offset.
    Offset(u64),
}

/// A range of one partition of the event topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that the log still holds.
    pub first_offset: u64,
    /// The offset after the last one.
    pub end_offset: u64,
}

impl Span {
    /// Returns the number of offsets. The log may have gaps, so there may be fewer records.
    pub fn offsets(&self) -> u64 {
        self.end_offset - self.first_offset
    }
}

/// Returns the range of a partition from its first offset to `up_to`. Records that wait for an open
/// transaction are beyond the end; a line in the log says so.
///
/// # Errors
/// If the log cannot be read, or ends before a requested offset.
pub fn span(log: &dyn Inspect, partition: u32, up_to: UpTo) -> Result<Span, Error> {
    // Asked first, so that an append between the two questions does not look like one that waits.
    let written = match (up_to, log.ends()) {
        (UpTo::End | UpTo::Time(_), Some(ends)) => retrying(|| ends.ends(&[partition]))?.first().copied(),
        _ => None,
    };
    let bounds = retrying(|| log.bounds(Topic::Events, partition))?;
    let end = match up_to {
        UpTo::End => bounds.end,
        UpTo::Time(ms) => offset_at(log, partition, ms.saturating_add(1))?.min(bounds.end),
        UpTo::Offset(asked) if asked > bounds.end => {
            return Err(Error::Beyond { partition, end: bounds.end, asked });
        }
        UpTo::Offset(asked) => asked,
    };
    if written.is_some_and(|written| written > bounds.end) && end == bounds.end {
        tracing::warn!(
            partition,
            offset = bounds.end,
            "a producer's transaction is open: the records from this offset on wait for it, and are left out"
        );
    }
    Ok(Span { partition, first_offset: bounds.start, end_offset: end.max(bounds.start) })
}

/// Returns the offset of a partition's first record whose timestamp is at least `ms` (Unix
/// milliseconds), or the end of the log.
///
/// # Errors
/// If the log cannot be read.
pub fn offset_at(log: &dyn Inspect, partition: u32, ms: u64) -> Result<u64, Error> {
    retrying(|| log.offset_at(Topic::Events, partition, ms))
}

pub(crate) fn retrying<T>(mut ask: impl FnMut() -> Result<T, ReadError>) -> Result<T, Error> {
    let mut left = RETRIES;
    loop {
        match ask() {
            Err(ReadError::Retry(why)) if left > 0 => {
                left -= 1;
                tracing::warn!(why, "the log cannot be read at the moment; trying again");
                std::thread::sleep(RETRY_WAIT);
            }
            other => return Ok(other?),
        }
    }
}

/// Reads a range of the log in order. It resumes after a transient error as long as it makes
/// progress.
///
/// # Errors
/// If the log cannot be read any further, `each` fails, or the monitor stops it.
pub fn read(
    log: &dyn Inspect,
    span: &Span,
    monitor: &dyn ProgressMonitor,
    each: &mut dyn FnMut(&[Record<'_>]) -> Result<(), Error>,
) -> Result<(), Error> {
    read_topic(log, Topic::Events, span, monitor, each)
}

/// As [`read`], for any topic.
pub(crate) fn read_topic(
    log: &dyn Inspect,
    topic: Topic,
    span: &Span,
    monitor: &dyn ProgressMonitor,
    each: &mut dyn FnMut(&[Record<'_>]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut next = span.first_offset;
    let mut left = RETRIES;
    loop {
        let (began, mut failed) = (next, None);
        let scanned = log.scan(topic, span.partition, next..span.end_offset, &mut |records| {
            if monitor.is_stopped() {
                failed = Some(Error::Stopped);
                return ControlFlow::Break(());
            }
            if let Err(error) = each(records) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            if let Some(last) = records.last() {
                monitor.advanced(last.offset + 1 - next);
                next = last.offset + 1;
            }
            ControlFlow::Continue(())
        });
        match (failed, scanned) {
            (Some(error), _) => return Err(error),
            (None, Ok(())) => {
                monitor.advanced(span.end_offset.saturating_sub(next));
                return Ok(());
            }
            (None, Err(ReadError::Retry(why))) if left > 0 => {
                if monitor.is_stopped() {
                    return Err(Error::Stopped);
                }
                left = if next > began { RETRIES } else { left - 1 };
                tracing::warn!(
                    partition = span.partition,
                    offset = next,
                    why,
                    "the log could not be read for a moment; reading resumes"
                );
                std::thread::sleep(RETRY_WAIT);
            }
            (None, Err(error)) => return Err(error.into()),
        }
    }
}

/// The records that a fold of one partition has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldReport {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that was read.
    pub first_offset: u64,
    /// The next offset of the snapshot that the fold began with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_offset: Option<u64>,
    /// The first offset that events, dead letters and times cover, if [`Scratch::fold_from`] set
    /// one. Earlier records were folded for the state alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_offset: Option<u64>,
    /// The offset after the last record that was read.
    pub next_offset: u64,
    /// Timestamp of the first record, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_timestamp_ms: Option<u64>,
    /// The newest timestamp, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_timestamp_ms: Option<u64>,
    /// Records that are events.
    pub events: u64,
    /// Messages sent, including expired ones.
    pub messages: u64,
    /// Records that could not be applied, by reason. A parked record may count as an event too.
    pub dead_letters: BTreeMap<String, u64>,
}

/// How states are folded for analysis.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// The settings that decide answers; they must be those of the service in question.
    pub limits: Limits,
    /// Memory for one partition's pages, bytes. Further pages go to the temporary directory.
    pub memory_bytes: usize,
    /// Snapshots from which a fold may begin; it takes the newest one within the folded range.
    pub snapshots: Option<Snapshots>,
}

/// A state folded for analysis.
pub struct Folded {
    /// The state, with its counters written into its pages. Must be dropped before its store.
    pub state: Fold,
    /// The records that were read for it.
    pub report: FoldReport,
    _store: SledStore,
    _dir: TemporaryFolder,
}

impl Scratch {
    /// Folds a range of a partition, beginning with the newest snapshot within it if there is one.
    ///
    /// # Errors
    /// If the log, the temporary disk or the state fails, or the monitor stops it.
    pub fn fold(&self, log: &dyn Inspect, span: &Span, monitor: &dyn ProgressMonitor) -> Result<Folded, Error> {
        self.fold_and_report(log, span, None, monitor, &mut |_, _, _, _| Ok(()))
    }

    /// Folds a range of a partition, and calls `watch` after each event with its record and its
    /// effects. The counters in the effects are those since the fold began. Events that a snapshot
    /// replaces are not watched.
    ///
    /// # Errors
    /// As [`Self::fold`], or if `watch` fails.
    pub fn fold_watched(
        &self,
        log: &dyn Inspect,
        span: &Span,
        monitor: &dyn ProgressMonitor,
        watch: &mut Watch<'_>,
    ) -> Result<Folded, Error> {
        self.fold_and_report(log, span, None, monitor, watch)
    }

    /// Folds a range of a partition and reports only its records from an offset on. The state
    /// is still that of the whole range: records below the offset come from the newest snapshot at
    /// or below it, else from the log.
    ///
    /// # Errors
    /// As [`Self::fold`].
    pub fn fold_from(
        &self,
        log: &dyn Inspect,
        span: &Span,
        from_offset: u64,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Folded, Error> {
        let from_offset = from_offset.clamp(span.first_offset, span.end_offset);
        self.fold_and_report(log, span, Some(from_offset), monitor, &mut |_, _, _, _| Ok(()))
    }

    fn fold_and_report(
        &self,
        log: &dyn Inspect,
        span: &Span,
        from_offset: Option<u64>,
        monitor: &dyn ProgressMonitor,
        watch: &mut Watch<'_>,
    ) -> Result<Folded, Error> {
        let partition = span.partition;
        let (mut dir, mut store) = self.store()?;
        let before = Span { end_offset: from_offset.unwrap_or(span.end_offset), ..*span };
        let restored = self.restore(&store, &before, log.partition_count(), monitor)?;
        if restored.is_none() && self.snapshots.is_some() {
            // An interrupted restore may have left pages.
            (dir, store) = self.store()?;
        }
        let pages = Paged::new(store.partition(partition)?, partition, self.memory_bytes / 4 * 3);
        let mut state = State::open(pages, self.limits).map_err(Error::state(partition))?;
        let first_offset = restored.unwrap_or(span.first_offset);
        monitor.skipped(first_offset - span.first_offset);
        if restored.is_none() && first_offset > 0 {
            tracing::warn!(
                partition,
                first_offset,
                "the log has lost its first records, and no snapshot holds them: answers leave them out"
            );
        }
        if from_offset.is_some() {
            fold_into(&mut state, log, &Span { first_offset, ..before }, monitor)?;
        }
        let rest = Span { first_offset: from_offset.unwrap_or(first_offset), ..*span };
        let read = fold_watched(&mut state, log, &rest, monitor, watch)?;
        let mut report = FoldReport { first_offset, snapshot_offset: restored, from_offset, ..read };
        if restored.is_some() && from_offset.is_none() {
            report.newest_timestamp_ms = Some(state.newest_timestamp_ms());
        }
        Ok(Folded { state, report, _store: store, _dir: dir })
    }

    /// Creates an empty store in a temporary directory.
    fn store(&self) -> Result<(TemporaryFolder, SledStore), Error> {
        let dir = TemporaryFolder::new()?;
        let settings = SledSettings { cache_bytes: (self.memory_bytes / 4) as u64, sync: false };
        let store = SledStore::open_strict(dir.path(), settings)?;
        Ok((dir, store))
    }

    /// Restores the newest snapshot within the range; returns its next offset, or `None` without
    /// one.
    fn restore(
        &self,
        store: &SledStore,
        span: &Span,
        partition_count: u32,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Option<u64>, Error> {
        let Some(snapshots) = &self.snapshots else { return Ok(None) };
        let wanted = Requirements {
            partition: span.partition,
            partition_count: Some(partition_count),
            limits: Some(self.limits),
            next_offset: span.first_offset..=span.end_offset,
        };
        // The progress of a restore counts bytes, not offsets.
        let restored = snapshots.restore_newest(store, &wanted, &StopOnly(monitor))?;
        Ok(restored.map(|restored| {
            let next_offset = restored.header.next_offset;
            tracing::info!(
                partition = span.partition,
                next_offset,
                location = restored.location,
                "the fold begins with a snapshot"
            );
            next_offset
        }))
    }

    /// Restores the newest snapshot within the range into a temporary store; `None` if none is
    /// usable.
    ///
    /// # Errors
    /// If the destination or the temporary disk fails, or the monitor stops it.
    pub(crate) fn newest_snapshot(
        &self,
        span: &Span,
        partition_count: u32,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Option<(TemporaryFolder, SledStore)>, Error> {
        let (dir, store) = self.store()?;
        Ok(self.restore(&store, span, partition_count, monitor)?.map(|_| (dir, store)))
    }
}

/// Folds a range of a partition into a state at its first offset, and writes the counters into its
/// pages. Beyond its memory the state goes to its store.
///
/// # Errors
/// If the log, the disk or the state fails, or the monitor stops it.
pub(crate) fn fold_into(
    state: &mut Fold,
    log: &dyn Inspect,
    span: &Span,
    monitor: &dyn ProgressMonitor,
) -> Result<FoldReport, Error> {
    fold_watched(state, log, span, monitor, &mut |_, _, _, _| Ok(()))
}

/// As [`fold_into`], and calls `watch` after each record that is an event: with the state, the
/// record, its event, and the effects of the record alone.
pub(crate) fn fold_watched(
    state: &mut Fold,
    log: &dyn Inspect,
    span: &Span,
    monitor: &dyn ProgressMonitor,
    watch: &mut Watch<'_>,
) -> Result<FoldReport, Error> {
    let partition = span.partition;
    let mut report = FoldReport { partition, first_offset: span.first_offset, ..FoldReport::default() };
    report.next_offset = span.first_offset;
    let mut effects = Effects::default();
    let decoder = state.decoder(log.partition_count());
    read(log, span, monitor, &mut |records| {
        for records in records.chunks(PREFETCH_EVENTS) {
            let events: Vec<_> = records.iter().map(|record| decode(record, decoder)).collect();
            state.prefetch(events.iter().flatten());
            for (record, event) in records.iter().zip(&events) {
                report.events += u64::from(event.is_ok());
                apply(state, record, event, &mut effects).map_err(Error::state(partition))?;
                report.first_timestamp_ms.get_or_insert(record.timestamp_ms);
                report.next_offset = record.offset + 1;
                if let Ok(event) = event {
                    watch(state, record, event, &effects)?;
                }
                for DeadLetter { reason, .. } in effects.dead_letters.drain(..) {
                    *report.dead_letters.entry(reason.code().to_owned()).or_default() += 1;
                }
                effects.clear();
            }
        }
        if state.pages().needs_checkpoint() {
            save(state)?;
        }
        trim(state);
        Ok(())
    })?;
    state.write_meta();
    report.newest_timestamp_ms = report.first_timestamp_ms.map(|_| state.newest_timestamp_ms());
    report.messages = state.messages();
    Ok(report)
}

/// Writes the changed pages to the store. The store's settings say whether this waits for the disk.
pub(crate) fn save(state: &mut Fold) -> Result<(), Error> {
    state.write_meta();
    let written = write_checkpoint(state)?;
    state.pages_mut().mark_saved(written.number);
    Ok(())
}
