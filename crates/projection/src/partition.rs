//! One partition: its state, what it asked for since, and its checkpoints.

use crate::clock::ClockWatch;
use crate::damage::FoldError;
use crate::settings::ProjectError;
use crate::source::Decoded;
use parking_lot::RwLock;
use receipts_fold::effects::Effects;
use receipts_fold::{At, Headers, Limits, Raw, State};
use receipts_log::Record;
use receipts_store::{Backend as _, Paged, SledBackend, trim};
use std::time::{Duration, Instant};

/// The state of a partition over its store.
pub(crate) type Fold = State<Paged<SledBackend>>;

/// A partition that this process owns. Only the projector's thread changes it.
pub(crate) struct Partition {
    pub(crate) fold: Fold,
    pub(crate) effects: Effects,
    /// Dead letters of this stretch, with their records.
    pub(crate) dead_letters: Vec<Dead>,
    /// Every record below was folded or is none.
    pub(crate) position: u64,
    pub(crate) folded_since_checkpoint: u64,
    pub(crate) first_change: Option<Instant>,
    pub(crate) clock: ClockWatch,
    /// Stands on the loop's agenda.
    pub(crate) touched: bool,
    /// What is folded is that old, and more is to come.
    pub(crate) behind: Option<Duration>,
    /// The last checkpoint, as the store numbers them.
    saved: u64,
    /// Where a record was begun and not finished, the state is that of no prefix: it must not be asked, nor saved.
    whole: bool,
}

/// A record that could not be applied, whole.
pub(crate) struct Dead {
    pub(crate) offset: u64,
    pub(crate) reason: receipts_event::Reason,
    pub(crate) detail: String,
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) value: Option<Box<[u8]>>,
    pub(crate) headers: Headers,
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
            touched: false,
            behind: None,
            saved: 0,
            whole: true,
        })
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.fold.pages().memory_bytes() + self.fold.memory_bytes()
    }

    /// Whether every record was applied from its beginning to its end.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether the last checkpoint is still on its way, so that its pages cannot leave memory.
    pub(crate) fn is_saving(&self) -> bool {
        self.fold.pages().backend().applied() < self.saved
    }

    /// Folds a record, or passes over one that is no event. After an error, or a panic, the state is of no use.
    pub(crate) fn apply(&mut self, record: &Record<'_>, event: &Decoded<'_>) -> Result<(), FoldError> {
        let at = At { partition: record.partition, offset: record.offset, timestamp_ms: record.timestamp_ms };
        let headers = || headers_of(record);
        let raw = Raw { key: record.key, value: record.value.unwrap_or_default(), headers: &headers };
        self.whole = false;
        match event {
            Ok(event) => self.fold.apply(at, event, raw, &mut self.effects),
            Err(rejection) => self.fold.pass(at, rejection.reason, rejection.to_string(), &mut self.effects),
        }?;
        self.position = self.position.max(record.offset + 1);
        self.folded_since_checkpoint += 1;
        for letter in self.effects.dead_letters.drain(..) {
            self.dead_letters.push(match letter.parked {
                Some(parked) => Dead {
                    offset: parked.offset,
                    reason: letter.reason,
                    detail: letter.detail,
                    key: parked.key,
                    value: Some(parked.value),
                    headers: parked.headers,
                },
                None => Dead {
                    offset: record.offset,
                    reason: letter.reason,
                    detail: letter.detail,
                    key: record.key.map(Into::into),
                    value: record.value.map(Into::into),
                    headers: headers_of(record),
                },
            });
        }
        self.whole = true;
        Ok(())
    }
}

fn headers_of(record: &Record<'_>) -> Headers {
    record.headers.to_vec().into_iter().map(|(name, value)| (name.into(), value.map(|v| v[..].into()))).collect()
}

/// Makes the state so far durable, if it is that of a prefix. Readers go on meanwhile, but for two moments.
pub(crate) fn checkpoint(number: u32, slot: &RwLock<Option<Partition>>) -> Result<Option<u64>, ProjectError> {
    {
        let mut guard = slot.write();
        let Some(partition) = guard.as_mut().filter(|p| p.whole) else { return Ok(None) };
        partition.fold.settle();
    }
    // Nobody but this thread changes the partition: what is encoded now is what `saved` speaks of below.
    let guard = slot.read();
    let Some(partition) = guard.as_ref() else { return Ok(None) };
    let started = Instant::now();
    let next_offset = partition.fold.next_offset();
    let batch = partition.fold.pages().batch(next_offset);
    let bytes = batch.bytes().len();
    let saved = partition.fold.pages().backend().commit(batch)?;
    drop(guard);
    let mut guard = slot.write();
    let Some(partition) = guard.as_mut() else { return Ok(None) };
    partition.fold.pages_mut().saved(saved);
    partition.saved = saved;
    trim(&mut partition.fold);
    partition.folded_since_checkpoint = 0;
    partition.first_change = None;
    drop(guard);
    metrics::histogram!("receipts_checkpoint_seconds").record(started.elapsed().as_secs_f64());
    metrics::counter!("receipts_checkpoint_bytes_total").increment(bytes as u64);
    tracing::debug!(
        partition = number,
        next_offset,
        bytes,
        millis = started.elapsed().as_millis() as u64,
        "checkpoint"
    );
    Ok(Some(next_offset))
}
