//! Folds a prefix of a partition aside: its own consumer, a state of its own in memory and, beyond the memory it may take, in
//! a temporary directory that goes with it.

use crate::Error;
use receipts_event::decode_record;
use receipts_fold::effects::{DeadLetter, Effects};
use receipts_fold::{At, Headers, LOOK_AHEAD_EVENTS, Limits, Raw, State};
use receipts_log::{Inspect, ReadError, Record, Topic};
use receipts_snapshots::{Snapshots, Wanted};
use receipts_store::{Backend as _, Paged, SledBackend, SledSettings, SledStore, trim};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;
use tempfile::TempDir;

/// How often a log that cannot be read just now is asked again while nothing comes of it.
const RETRIES: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Who watches an analysis: told how far it is, asked whether to go on.
pub trait ProgressMonitor {
    /// So many more offsets of the log are read.
    fn advanced(&self, offsets: u64);

    /// So many offsets need not be read: a snapshot holds them, or an earlier run has done with them.
    fn skipped(&self, _offsets: u64) {}

    /// Whether to stop at the next opportunity.
    fn is_stopped(&self) -> bool;
}

/// Up to where a log is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpTo {
    /// Its end just now.
    End,
    /// The prefix before the first record whose timestamp (Unix milliseconds) is later. Records behind that one are left
    /// out even where their own timestamps are earlier: a state is that of a prefix.
    Time(u64),
    /// Everything below an offset.
    Offset(u64),
}

/// A stretch of one partition of the event topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which.
    pub partition: u32,
    /// The first offset kept.
    pub first_offset: u64,
    /// The offset after the last one.
    pub end_offset: u64,
}

impl Span {
    /// How many offsets it has; the log may have gaps, so there may be fewer records.
    pub fn offsets(&self) -> u64 {
        self.end_offset - self.first_offset
    }
}

/// Finds the stretch of a partition from its beginning on.
///
/// # Errors
/// Where the log cannot be asked, or ends before an offset that is asked for.
pub fn span(log: &dyn Inspect, partition: u32, up_to: UpTo) -> Result<Span, Error> {
    let bounds = retrying(|| log.bounds(Topic::Events, partition))?;
    let end = match up_to {
        UpTo::End => bounds.end,
        UpTo::Time(ms) => offset_at(log, partition, ms.saturating_add(1))?.min(bounds.end),
        UpTo::Offset(asked) if asked > bounds.end => {
            return Err(Error::Beyond { partition, end: bounds.end, asked });
        }
        UpTo::Offset(asked) => asked,
    };
    Ok(Span { partition, first_offset: bounds.start, end_offset: end.max(bounds.start) })
}

/// The offset of the first record of a partition whose timestamp (Unix milliseconds) is at least so late; the end where
/// there is none.
///
/// # Errors
/// Where the log cannot be asked.
pub fn offset_at(log: &dyn Inspect, partition: u32, ms: u64) -> Result<u64, Error> {
    retrying(|| log.offset_at(Topic::Events, partition, ms))
}

fn retrying<T>(mut ask: impl FnMut() -> Result<T, ReadError>) -> Result<T, Error> {
    let mut left = RETRIES;
    loop {
        match ask() {
            Err(ReadError::Retry(why)) if left > 0 => {
                left -= 1;
                tracing::warn!(why, "the log cannot be read just now; trying again");
                std::thread::sleep(RETRY_WAIT);
            }
            other => return Ok(other?),
        }
    }
}

/// Reads a stretch of the log in order, and begins again where it broke off while that comes to something.
///
/// # Errors
/// Where the log cannot be read on, `each` fails, or the watch stops it.
pub fn read(
    log: &dyn Inspect,
    span: &Span,
    monitor: &dyn ProgressMonitor,
    each: &mut dyn FnMut(&[Record<'_>]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut next = span.first_offset;
    let mut left = RETRIES;
    loop {
        let (began, mut failed) = (next, None);
        let scanned = log.scan(Topic::Events, span.partition, next..span.end_offset, &mut |records| {
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
                tracing::warn!(partition = span.partition, offset = next, why, "reading on after a break");
                std::thread::sleep(RETRY_WAIT);
            }
            (None, Err(error)) => return Err(error.into()),
        }
    }
}

/// What a fold of one partition has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldReport {
    /// Which.
    pub partition: u32,
    /// The first offset that was read.
    pub first_offset: u64,
    /// Where the fold began by a snapshot, if it did: the state after all records below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_offset: Option<u64>,
    /// From where on it is told, if that was asked for: events, dead letters and times are those of the records from there
    /// on. What stands before was folded for the state alone.
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
    /// Messages sent, expired ones included.
    pub messages: u64,
    /// Records that could not be applied, by reason. A parked record may be an event and a dead letter.
    pub dead_letters: BTreeMap<String, u64>,
}

/// Where states are folded aside.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Settings that decide answers: those of the service whose answers are meant.
    pub limits: Limits,
    /// Memory for one partition's pages, bytes; beyond that they go to the temporary directory.
    pub memory_bytes: usize,
    /// Where a fold may begin instead of at the log's beginning: by the newest snapshot within what is folded.
    pub snapshots: Option<Snapshots>,
}

/// A state folded aside.
pub struct Folded {
    /// The state, with its counters settled into its pages. Goes before its store.
    pub state: State<Paged<SledBackend>>,
    /// What was read for it.
    pub report: FoldReport,
    _store: SledStore,
    _dir: TempDir,
}

impl Scratch {
    /// Folds a stretch of a partition, from the newest snapshot within it where there is one.
    ///
    /// # Errors
    /// Where log, temporary disk or state fail, or the watch stops it.
    pub fn fold(&self, log: &dyn Inspect, span: &Span, monitor: &dyn ProgressMonitor) -> Result<Folded, Error> {
        self.fold_and_tell(log, span, None, monitor)
    }

    /// Folds a stretch of a partition and tells of its records from an offset on alone. The state is that of the whole
    /// stretch all the same: what stands before the offset comes from the newest snapshot at or below it, else from the log.
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
        self.fold_and_tell(log, span, Some(from_offset.clamp(span.first_offset, span.end_offset)), monitor)
    }

    fn fold_and_tell(
        &self,
        log: &dyn Inspect,
        span: &Span,
        from_offset: Option<u64>,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Folded, Error> {
        let partition = span.partition;
        let (mut dir, mut store) = self.store()?;
        let before = Span { end_offset: from_offset.unwrap_or(span.end_offset), ..*span };
        let restored = self.restore(&store, &before, log.partition_count(), monitor)?;
        if restored.is_none() && self.snapshots.is_some() {
            // One that broke off may have left pages.
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
                "the log has lost its beginning, and no snapshot holds it: what stood there is in no answer"
            );
        }
        if from_offset.is_some() {
            fold_into(&mut state, log, &Span { first_offset, ..before }, monitor)?;
        }
        let rest = Span { first_offset: from_offset.unwrap_or(first_offset), ..*span };
        let told = fold_into(&mut state, log, &rest, monitor)?;
        let mut told = FoldReport { first_offset, snapshot_offset: restored, from_offset, ..told };
        if restored.is_some() && from_offset.is_none() {
            told.newest_timestamp_ms = Some(state.newest_timestamp_ms());
        }
        Ok(Folded { state, report: told, _store: store, _dir: dir })
    }

    /// An empty store that goes with its directory.
    fn store(&self) -> Result<(TempDir, SledStore), Error> {
        let dir =
            tempfile::tempdir().map_err(Error::io("making a temporary directory; TMPDIR chooses another place"))?;
        let settings = SledSettings { cache_bytes: (self.memory_bytes / 4) as u64, sync: false };
        let store = SledStore::open_whole(dir.path(), settings)?;
        Ok((dir, store))
    }

    /// Where a snapshot that was restored stands; `None` where there is none within the stretch.
    fn restore(
        &self,
        store: &SledStore,
        span: &Span,
        partition_count: u32,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Option<u64>, Error> {
        let Some(snapshots) = &self.snapshots else { return Ok(None) };
        let wanted = Wanted {
            partition: span.partition,
            partition_count: Some(partition_count),
            limits: Some(self.limits),
            next_offset: span.first_offset..=span.end_offset,
        };
        let restored = snapshots.restore_newest(store, &wanted, &Restoring(monitor))?;
        Ok(restored.map(|restored| {
            let next_offset = restored.header.next_offset;
            tracing::info!(
                partition = span.partition,
                next_offset,
                place = restored.place,
                "folding on from a snapshot"
            );
            next_offset
        }))
    }

    /// The newest snapshot of a partition at or below an offset, restored aside; `None` where none is usable.
    ///
    /// # Errors
    /// Where the destination or the temporary disk fail, or the watch stops it.
    pub(crate) fn newest_snapshot(
        &self,
        span: &Span,
        partition_count: u32,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Option<(TempDir, SledStore)>, Error> {
        let (dir, store) = self.store()?;
        Ok(self.restore(&store, span, partition_count, monitor)?.map(|_| (dir, store)))
    }
}

/// Asks whether to stop while a snapshot comes; its bytes are no offsets.
struct Restoring<'a>(&'a dyn ProgressMonitor);

impl receipts_snapshots::Watch for Restoring<'_> {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

/// Folds a stretch of a partition into a state that stands at its beginning, and settles that. Beyond its memory the state goes to
/// its store.
///
/// # Errors
/// Where log, disk or state fail, or the watch stops it.
pub(crate) fn fold_into(
    state: &mut State<Paged<SledBackend>>,
    log: &dyn Inspect,
    span: &Span,
    monitor: &dyn ProgressMonitor,
) -> Result<FoldReport, Error> {
    let partition = span.partition;
    let mut told = FoldReport { partition, first_offset: span.first_offset, ..FoldReport::default() };
    told.next_offset = span.first_offset;
    let mut effects = Effects::default();
    let partitions = log.partition_count();
    read(log, span, monitor, &mut |records| {
        for records in records.chunks(LOOK_AHEAD_EVENTS) {
            let events: Vec<_> = records
                .iter()
                .map(|record| decode_record(record.partition, record.key, record.value, partitions))
                .collect();
            state.look_ahead(events.iter().flatten());
            for (record, event) in records.iter().zip(events) {
                let at = At { partition, offset: record.offset, timestamp_ms: record.timestamp_ms };
                let applied = match event {
                    Ok(event) => {
                        told.events += 1;
                        let headers = || headers_of(record);
                        let raw = Raw { key: record.key, value: record.value.unwrap_or_default(), headers: &headers };
                        state.apply(at, &event, raw, &mut effects)
                    }
                    Err(rejection) => state.pass(at, rejection.reason, rejection.to_string(), &mut effects),
                };
                applied.map_err(Error::state(partition))?;
                told.first_timestamp_ms.get_or_insert(record.timestamp_ms);
                told.next_offset = record.offset + 1;
            }
            for DeadLetter { reason, .. } in effects.dead_letters.drain(..) {
                *told.dead_letters.entry(reason.code().to_owned()).or_default() += 1;
            }
            effects.clear();
        }
        if state.pages().needs_checkpoint() {
            save(state)?;
        }
        trim(state);
        Ok(())
    })?;
    state.settle();
    told.newest_timestamp_ms = told.first_timestamp_ms.map(|_| state.newest_timestamp_ms());
    told.messages = state.messages();
    Ok(told)
}

/// Kept with a record that waits: should it come to nothing, it is a dead letter untouched.
fn headers_of(record: &Record<'_>) -> Headers {
    record.headers.to_vec().into_iter().map(|(name, value)| (name.into(), value.map(|v| v[..].into()))).collect()
}

/// Lets changed pages go to the disk; whether anybody waits for that is the store's setting.
pub(crate) fn save(state: &mut State<Paged<SledBackend>>) -> Result<(), Error> {
    state.settle();
    let batch = state.pages().batch(state.next_offset());
    let saved = state.pages().backend().commit(batch)?;
    state.pages_mut().saved(saved);
    Ok(())
}
