//! The step from records to state, and from state to disk: shared by the projector and by
//! analytics. Also defines a partition that a projector owns. Does not decide when a step happens.

use crate::clock::ClockWatch;
use crate::publish::DeadRecord;
use crate::settings::ProjectError;
use crate::traced::Traced;
use parking_lot::RwLock;
use receipts_event::{Decoder, Event, Rejection};
use receipts_fold::effects::Effects;
use receipts_fold::{Headers, Limits, RawRecord, RecordMetadata, State};
use receipts_log::Record;
use receipts_metrics::catalogue;
use receipts_store::{Backend as _, Paged, SledBackend, trim};
use std::time::{Duration, Instant};

/// The state of a partition over its store.
pub type Fold = State<Paged<SledBackend>>;

/// The error of a [`Fold`].
pub type FoldError = receipts_fold::Error<receipts_store::Error>;

/// The event of a record, or the reason why the record is not an event.
pub type Decoded<'a> = Result<Event<'a>, Rejection>;

/// Decodes a record of a log.
#[inline]
pub fn decode<'a>(record: &Record<'a>, decoder: Decoder) -> Decoded<'a> {
    decoder.decode(record.partition, record.key, record.value)
}

/// Applies a record's event to a state, or skips a record that is no event, and adds the effects.
///
/// # Errors
/// If a page cannot be read or is damaged. The record is then applied in part, and the state must
/// not be used again.
#[inline]
pub fn apply(
    fold: &mut Fold,
    record: &Record<'_>,
    event: &Decoded<'_>,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let mut is_whole = begin(fold, record, event, u32::MAX, effects)?;
    while !is_whole {
        is_whole = fold.proceed(u32::MAX, effects)?;
    }
    Ok(())
}

/// Begins to apply a record as [`apply`] does; returns false if [`State::proceed`] must apply more
/// slices of `messages_max` messages.
fn begin(
    fold: &mut Fold,
    record: &Record<'_>,
    event: &Decoded<'_>,
    messages_max: u32,
    effects: &mut Effects,
) -> Result<bool, FoldError> {
    let at = RecordMetadata { partition: record.partition, offset: record.offset, timestamp_ms: record.timestamp_ms };
    match event {
        Ok(event) => {
            let headers = || headers_of(record);
            let raw = RawRecord { key: record.key, value: record.value.unwrap_or_default(), headers: &headers };
            fold.begin(at, event, raw, messages_max, effects)
        }
        Err(rejection) => fold.skip(at, rejection.reason, rejection.to_string(), effects).map(|()| true),
    }
}

/// Copies a record's headers. They are kept with a parked record, which may become a dead letter.
pub(crate) fn headers_of(record: &Record<'_>) -> Headers {
    record.headers.to_vec().into_iter().map(|(name, value)| (name.into(), value.map(|v| v[..].into()))).collect()
}

/// A checkpoint that the store has accepted.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint {
    /// The state holds all records below this offset.
    pub next_offset: u64,
    /// The size of the journal, bytes.
    pub bytes: usize,
    /// The store's number of the checkpoint, for [`Paged::mark_saved`].
    pub number: u64,
}

/// Writes the changed pages of a state. The caller calls [`State::write_meta`] before, and
/// [`Paged::mark_saved`] after; only then may the pages leave memory.
///
/// # Errors
/// If the store cannot write.
pub fn write_checkpoint(fold: &Fold) -> Result<Checkpoint, receipts_store::Error> {
    let next_offset = fold.next_offset();
    let batch = fold.pages().batch(next_offset);
    let bytes = batch.bytes().len();
    let number = fold.pages().backend().commit(batch)?;
    Ok(Checkpoint { next_offset, bytes, number })
}

/// A partition that this process owns. Only its worker changes it.
pub(crate) struct Partition {
    pub(crate) fold: Fold,
    pub(crate) effects: Effects,
    /// Dead letters since the last publish, with their records.
    pub(crate) dead_letters: Vec<DeadRecord>,
    /// Every record below was folded or skipped.
    pub(crate) position: u64,
    pub(crate) folded_since_checkpoint: u64,
    pub(crate) first_change: Option<Instant>,
    pub(crate) clock: ClockWatch,
    /// True while the schedule holds the partition for the next publish.
    pub(crate) enqueued: bool,
    /// The age of the newest folded record, if the partition is behind.
    pub(crate) behind: Option<Duration>,
    /// The effects whose records belong to traces; always empty while traces are off.
    pub(crate) traced: Traced,
    /// The store's number of the last checkpoint.
    saved: u64,
    condition: Condition,
}

/// How far the last record is applied (INV-PREFIX, INV-SLICES).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// To its end: the state is that of a prefix of the log.
    Whole,
    /// Up to the end of a slice: the state can be queried, and must not be saved.
    BetweenSlices,
    /// Up to some point within a slice, because the slice is being applied or has failed: the state
    /// must be neither queried nor saved.
    Within,
}

impl Partition {
    pub(crate) fn open(
        backend: SledBackend,
        number: u32,
        memory_bytes: usize,
        limits: Limits,
    ) -> Result<Self, FoldError> {
        let fold = State::open(Paged::new(backend, number, memory_bytes), limits)?;
        let position = fold.next_offset();
        Ok(Self {
            fold,
            effects: Effects::default(),
            dead_letters: Vec::new(),
            position,
            folded_since_checkpoint: 0,
            first_change: None,
            clock: ClockWatch::default(),
            enqueued: false,
            behind: None,
            traced: Traced::default(),
            saved: 0,
            condition: Condition::Whole,
        })
    }

    /// Returns the bytes of memory that the partition uses.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.fold.pages().memory_bytes() + self.fold.memory_bytes()
    }

    /// Tells whether every record was applied from its beginning to its end.
    fn is_whole(&self) -> bool {
        self.condition == Condition::Whole
    }

    /// Tells whether the state can be queried: no slice of a record is applied in part.
    pub(crate) fn is_readable(&self) -> bool {
        self.condition != Condition::Within
    }

    /// Tells whether the store is still applying the last checkpoint, whose pages must stay in
    /// memory.
    pub(crate) fn is_saving(&self) -> bool {
        self.fold.pages().backend().applied() < self.saved
    }

    /// Folds a record, or the first slice of it: up to `messages_max` messages of a read mark, or
    /// of the records that waited. Returns true once the whole record is applied; otherwise
    /// [`Self::proceed`] must follow. After an error or a panic the state must not be used again.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        record: &Record<'_>,
        event: &Decoded<'_>,
        messages_max: u32,
    ) -> Result<bool, FoldError> {
        self.condition = Condition::Within;
        let is_whole = begin(&mut self.fold, record, event, messages_max, &mut self.effects)?;
        Ok(self.end_slice(record, is_whole))
    }

    /// Applies the next slice of the record that [`Self::begin`] began.
    pub(crate) fn proceed(&mut self, record: &Record<'_>, messages_max: u32) -> Result<bool, FoldError> {
        self.condition = Condition::Within;
        let is_whole = self.fold.proceed(messages_max, &mut self.effects)?;
        Ok(self.end_slice(record, is_whole))
    }

    fn end_slice(&mut self, record: &Record<'_>, is_whole: bool) -> bool {
        self.dead_letters.extend(self.effects.dead_letters.drain(..).map(|letter| DeadRecord::new(letter, record)));
        if is_whole {
            self.position = self.position.max(record.offset + 1);
            self.folded_since_checkpoint += 1;
        }
        self.condition = if is_whole { Condition::Whole } else { Condition::BetweenSlices };
        is_whole
    }
}

/// Makes the state so far durable, unless a record is applied in part; returns its next offset.
/// INV-NO-STALL: queries are locked out only for two moments, not while pages are encoded.
pub(crate) fn checkpoint(number: u32, partition: &RwLock<Option<Partition>>) -> Result<Option<u64>, ProjectError> {
    {
        let mut guard = partition.write();
        let Some(partition) = guard.as_mut().filter(|p| p.is_whole()) else { return Ok(None) };
        partition.fold.write_meta();
    }
    // Only this thread changes the partition, so the pages are the same until `mark_saved` below.
    let guard = partition.read();
    let Some(owned) = guard.as_ref() else { return Ok(None) };
    let started = Instant::now();
    let written = write_checkpoint(&owned.fold)?;
    drop(guard);
    let mut guard = partition.write();
    let Some(owned) = guard.as_mut() else { return Ok(None) };
    owned.fold.pages_mut().mark_saved(written.number);
    owned.saved = written.number;
    trim(&mut owned.fold);
    owned.folded_since_checkpoint = 0;
    owned.first_change = None;
    drop(guard);
    catalogue::CHECKPOINT_SECONDS.get().record(started.elapsed().as_secs_f64());
    catalogue::CHECKPOINT_BYTES.get().increment(written.bytes as u64);
    tracing::debug!(
        partition = number,
        next_offset = written.next_offset,
        bytes = written.bytes,
        millis = started.elapsed().as_millis() as u64,
        "checkpoint"
    );
    Ok(Some(written.next_offset))
}
