//! Receipt updates: changes of a message within a window become one update, and the last update
//! always equals the state (INV-UPDATE-LAST). Sends nothing itself.

use crate::partition::{Fold, FoldError};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as MapEntry;
use receipts_fold::effects::{MarkMoved, MessageChanged};
use receipts_fold::view::{ReadMark, Receipt, Status};
use receipts_log::{Entry, Topic};
use receipts_query::UPDATE_POSITION_HEADER;
use receipts_query::json::ReceiptUpdate;
use receipts_traces::{Gathered, TraceContext};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// An update names at most this many readers.
const NEWLY_READ_MAX: usize = 100;

/// The window grows with the audience up to this many members.
const AUDIENCE_WITH_LONGEST_WINDOW: u32 = 100_000;

/// While a partition is behind, changes are gathered for this fraction of its lag. An update would
/// be that old anyway, and the next one would follow soon.
const FRACTION_OF_LAG: u32 = 5;

/// The longest time to gather changes while a partition is behind, in windows.
const WINDOWS_WHILE_BEHIND: u32 = 50;

/// Within a long record, pending changes may take this many times their memory. Ten read marks in a
/// row over the same messages then make one update of each, and not ten.
const BYTES_WITHIN_A_RECORD: usize = 4;

/// Approximate memory of a message with pending changes, without its new readers.
const MESSAGE_BYTES: usize = 128;

/// Approximate memory of one new reader, with some spare capacity of the list.
const READER_BYTES: usize = 24;

/// Approximate memory of the context of one change that belongs to a trace.
const TRACE_BYTES: usize = 128;

/// The changes of one partition that are not published yet.
pub(crate) struct UpdateWindow {
    window: Duration,
    pending: Pending,
    /// Pending changes beyond this memory are published before their window ends.
    bytes_max: usize,
    marks: BTreeMap<MarkMoved, Option<Box<Gathered>>>,
    /// The partition's lag at the last changes, if it was behind.
    behind: Option<Duration>,
}

/// The change that an update in flight reports. If the update fails, the change is rendered again.
pub(crate) enum Change {
    /// A message, by number, and its new readers.
    Message(u64, Readers),
    /// A read mark, and the traces that it belongs to.
    Mark(MarkMoved, Option<Box<Gathered>>),
}

impl Change {
    /// Returns the traces that the change belongs to.
    pub(super) fn traces(&self) -> Option<&Gathered> {
        match self {
            Self::Message(_, Readers { traces, .. }) | Self::Mark(_, traces) => traces.as_deref(),
        }
    }
}

/// The new readers of a message: their slots and times.
pub(crate) struct Readers {
    named: Vec<(u32, u64)>,
    truncated: bool,
    /// When the first of the changes was folded.
    since: Instant,
    /// The traces that the changes belong to.
    traces: Option<Box<Gathered>>,
}

/// Adds the context of a later change.
fn gather(traces: &mut Option<Box<Gathered>>, context: TraceContext) {
    match traces {
        Some(gathered) => gathered.add(context),
        None => *traces = Some(Box::new(Gathered::new(context))),
    }
}

/// Adds the contexts of later changes.
fn gather_all(traces: &mut Option<Box<Gathered>>, later: Option<Box<Gathered>>) {
    match (traces, later) {
        (Some(gathered), Some(later)) => gathered.add_all(*later),
        (traces @ None, later) => *traces = later,
        (Some(_), None) => {}
    }
}

impl Readers {
    pub(super) fn new(since: Instant) -> Self {
        Self { named: Vec::new(), truncated: false, since, traces: None }
    }

    fn add(&mut self, read: (u32, u64)) {
        if self.named.len() < NEWLY_READ_MAX {
            self.named.push(read);
        } else {
            self.truncated = true;
        }
    }

    fn bytes(&self) -> usize {
        let traces = self.traces.as_ref().map_or(0, |traces| traces.count());
        MESSAGE_BYTES + READER_BYTES * self.named.len() + TRACE_BYTES * traces
    }
}

/// Messages with unpublished changes.
#[derive(Default)]
struct Pending {
    /// By message number.
    readers: HashMap<u64, Readers>,
    /// When each message is due.
    due: BTreeSet<(Instant, u64)>,
    /// Their approximate memory.
    bytes: usize,
}

impl Pending {
    /// Adds a change of a message: a new read, or another one. The first change sets the due time.
    fn add(&mut self, message: u64, read: Option<(u32, u64)>, now: Instant, due: Instant) {
        let readers = match self.readers.entry(message) {
            MapEntry::Occupied(readers) => readers.into_mut(),
            MapEntry::Vacant(vacant) => {
                self.due.insert((due, message));
                self.bytes += MESSAGE_BYTES;
                vacant.insert(Readers::new(now))
            }
        };
        if let Some(read) = read {
            self.bytes -= readers.bytes();
            readers.add(read);
            self.bytes += readers.bytes();
        }
    }

    /// Puts earlier changes of a message back, before its later ones.
    fn put_back(&mut self, message: u64, earlier: Readers, due: Instant) {
        let mut readers = earlier;
        match self.readers.remove(&message) {
            Some(later) => {
                self.bytes -= later.bytes();
                readers.truncated |= later.truncated;
                gather_all(&mut readers.traces, later.traces);
                later.named.into_iter().for_each(|read| readers.add(read));
            }
            None => _ = self.due.insert((due, message)),
        }
        self.bytes += readers.bytes();
        self.readers.insert(message, readers);
    }

    /// Adds the trace of a change that was added before.
    fn trace(&mut self, message: u64, context: &TraceContext) {
        let Some(readers) = self.readers.get_mut(&message) else { return };
        self.bytes -= readers.bytes();
        gather(&mut readers.traces, context.clone());
        self.bytes += readers.bytes();
    }

    /// Removes the message that is due first.
    fn pop_first(&mut self) -> Option<(u64, Readers)> {
        let (_, message) = self.due.pop_first()?;
        let readers = self.readers.remove(&message)?;
        self.bytes -= readers.bytes();
        Some((message, readers))
    }

    /// Makes every message due no later than this time.
    fn cap_due(&mut self, due: Instant) {
        for (_, message) in self.due.split_off(&(due, 0)) {
            self.due.insert((due, message));
        }
    }
}

#[derive(Serialize)]
struct ReadMarkUpdated<'a> {
    r#type: &'static str,
    tenant: &'a str,
    conversation_id: &'a str,
    /// The other person of a direct conversation, who may see the mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_id: Option<String>,
    #[serde(flatten)]
    mark: &'a ReadMark,
}

impl UpdateWindow {
    /// Gathers changes for `window`, in about `bytes_max` of memory.
    pub(crate) fn new(window: Duration, bytes_max: usize) -> Self {
        Self { window, pending: Pending::default(), bytes_max, marks: BTreeMap::new(), behind: None }
    }

    /// Tells whether an update is due at `now`; with `None`, whether any is pending. Read marks are
    /// due at once.
    pub(crate) fn is_due(&self, now: Option<Instant>) -> bool {
        self.is_message_due(now) || !self.marks.is_empty() || self.pending.bytes > self.bytes_max
    }

    /// Tells whether pending changes must be published although a record is applied in part: the
    /// rest of it, and the next records, may change the same messages.
    pub(crate) fn is_far_over_limit(&self) -> bool {
        self.pending.bytes / BYTES_WITHIN_A_RECORD > self.bytes_max
    }

    fn is_message_due(&self, now: Option<Instant>) -> bool {
        self.next_due().is_some_and(|due| now.is_none_or(|now| due <= now))
    }

    /// Adds changes of a partition, and its lag if it is behind.
    pub(crate) fn add(
        &mut self,
        changed: &[MessageChanged],
        marks: &[MarkMoved],
        now: Instant,
        behind: Option<Duration>,
    ) {
        if std::mem::replace(&mut self.behind, behind).is_some() && behind.is_none() {
            // The partition has caught up, so no change waits longer than one window any more.
            self.pending.cap_due(now + self.window);
        }
        let least = behind.unwrap_or_default() / FRACTION_OF_LAG;
        let least = least.min(self.window * WINDOWS_WHILE_BEHIND);
        for change in changed {
            let window = window_of(self.window, change.audience).max(least);
            self.pending.add(change.message, change.newly_read, now, now + window);
        }
        for mark in marks {
            self.marks.entry(*mark).or_default();
        }
    }

    /// Adds the trace of changes and marks that were added before.
    pub(crate) fn trace(&mut self, context: &TraceContext, changed: &[MessageChanged], marks: &[MarkMoved]) {
        changed.iter().for_each(|change| self.pending.trace(change.message, context));
        for mark in marks {
            gather(self.marks.entry(*mark).or_default(), context.clone());
        }
    }

    /// Takes back the change of a failed update. It joins later changes of its message and their
    /// due time; without any, it is due after another window.
    pub(crate) fn retry(&mut self, change: Change, now: Instant) {
        match change {
            Change::Message(message, earlier) => self.pending.put_back(message, earlier, now + self.window),
            Change::Mark(mark, mut earlier) => {
                let traces = self.marks.entry(mark).or_default();
                gather_all(&mut earlier, traces.take());
                *traces = earlier;
            }
        }
    }

    /// Returns when the next update is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.pending.due.first().map(|(at, _)| *at)
    }

    /// Renders the updates that are due at `now`, from the fold at `position`. With `None`, renders
    /// all pending ones. Returns when the oldest of their changes was folded.
    pub(crate) fn publish(
        &mut self,
        fold: &Fold,
        position: u64,
        now: Option<Instant>,
        mut send: impl FnMut(Entry, Change),
    ) -> Result<Option<Instant>, FoldError> {
        let mut oldest: Option<Instant> = None;
        // Beyond the limit a quarter of the memory is freed at once, because one large batch costs
        // the log less than many single appends.
        let is_over_limit = self.pending.bytes > self.bytes_max;
        let bytes_max = if is_over_limit { self.bytes_max / 4 * 3 } else { self.bytes_max };
        while self.is_message_due(now) || self.pending.bytes > bytes_max {
            let Some((message, readers)) = self.pending.pop_first() else { break };
            // The message has expired since, and expired messages get no updates.
            let Some(receipt) = fold.receipt_of(message)? else { continue };
            oldest = Some(oldest.map_or(readers.since, |oldest| oldest.min(readers.since)));
            let update = receipt_updated(fold, message, &receipt, &readers)?;
            let key = receipts_event::key(&receipt.tenant, receipt.conversation_id.as_deref().unwrap_or_default());
            send(entry(key, update, position), Change::Message(message, readers));
        }
        for (mark, traces) in std::mem::take(&mut self.marks) {
            let Some(read_mark) = fold.read_mark_of(mark.conversation, mark.slot)? else { continue };
            let (tenant, conversation_id) = fold.conversation_name(mark.conversation)?;
            let peer_id = fold.peer_of(mark.conversation, mark.slot)?;
            let update = ReadMarkUpdated {
                r#type: "read_mark.updated",
                tenant: &tenant,
                conversation_id: &conversation_id,
                peer_id,
                mark: &read_mark,
            };
            let update = serde_json::to_vec(&update).expect("updates are plain JSON");
            send(entry(receipts_event::key(&tenant, &conversation_id), update, position), Change::Mark(mark, traces));
        }
        Ok(oldest)
    }
}

/// Renders an update. It names readers only if the receipt has counts: a message that was recalled
/// within the window must not tell who read it.
fn receipt_updated(fold: &Fold, message: u64, receipt: &Receipt, readers: &Readers) -> Result<Vec<u8>, FoldError> {
    let has_counts = receipt.status == Status::Ok;
    let named = if has_counts { &*readers.named } else { &[] };
    let mut update = ReceiptUpdate::new(receipt, named.len());
    fold.name_slots(message, named.iter().copied(), |user_id, read_at_ms| update.reader(user_id, read_at_ms))?;
    Ok(update.finish(has_counts && readers.truncated))
}

/// Returns how long changes of a message are gathered. A larger audience reads faster, and a single
/// read matters less. So the window grows with the square root of the audience, up to five times at
/// 100,000 members.
fn window_of(window: Duration, audience: u32) -> Duration {
    let share = f64::from(audience.min(AUDIENCE_WITH_LONGEST_WINDOW)) / f64::from(AUDIENCE_WITH_LONGEST_WINDOW);
    window.mul_f64(1.0 + 4.0 * share.sqrt())
}

fn entry(key: Vec<u8>, update: Vec<u8>, position: u64) -> Entry {
    Entry {
        topic: Topic::Updates,
        partition: None,
        key: Some(key.into()),
        value: Some(update.into()),
        headers: vec![(UPDATE_POSITION_HEADER.to_owned(), Some(position.to_string().into()))],
        timestamp_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_fivefold_with_the_audience() {
        let ms = |audience| window_of(Duration::from_millis(200), audience).as_millis();
        assert_eq!([0, 10, 1_000, 10_000, 100_000, u32::MAX].map(ms), [200, 208, 280, 452, 1_000, 1_000]);
        assert_eq!(window_of(Duration::ZERO, 100_000), Duration::ZERO, "off stays off");
    }

    #[test]
    fn small_audience_does_not_wait_for_a_large_one() {
        let (mut updates, now) = (UpdateWindow::new(Duration::from_millis(200), 1 << 20), Instant::now());
        let change = |message, audience| MessageChanged { message, audience, newly_read: None };
        updates.add(&[change(1, 100_000), change(2, 1)], &[], now, None);
        assert!(updates.next_due().is_some_and(|due| due < now + Duration::from_millis(250)));
        assert_eq!(updates.pending.due.iter().map(|(_, message)| *message).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_lagging_partition_gathers_longer_until_it_catches_up() {
        let (mut updates, now) = (UpdateWindow::new(Duration::from_millis(200), 1 << 20), Instant::now());
        let change = |message| MessageChanged { message, audience: 1, newly_read: None };
        for (message, behind, waits) in [(1, 3_600, 10_000), (2, 30, 6_000), (3, 6, 1_200)] {
            updates.add(&[change(message)], &[], now, Some(Duration::from_secs(behind)));
            assert_eq!(updates.next_due(), Some(now + Duration::from_millis(waits)), "{behind} s behind");
        }
        updates.add(&[], &[], now, None);
        assert_eq!(updates.next_due(), Some(now + Duration::from_millis(200)), "it has caught up");
    }

    #[test]
    fn pending_changes_are_bounded_in_memory() {
        let a_message = MESSAGE_BYTES + NEWLY_READ_MAX * READER_BYTES;
        let (mut updates, now) = (UpdateWindow::new(Duration::from_millis(200), 10 * a_message), Instant::now());
        let read = |message: u64| MessageChanged { message, audience: 500, newly_read: Some((0, 0)) };
        let behind = Some(Duration::from_secs(3_600));
        // Readers beyond those that an update names take no memory.
        let all: Vec<_> = (0..10).flat_map(|message| vec![read(message); 2 * NEWLY_READ_MAX]).collect();
        updates.add(&all, &[], now, behind);
        assert!(!updates.is_due(Some(now)));
        updates.add(&[read(10)], &[], now, behind);
        assert!(updates.is_due(Some(now)));
        let (message, readers) = updates.pending.pop_first().unwrap();
        assert!(!updates.is_due(Some(now)));
        updates.retry(Change::Message(message, readers), now);
        assert!(updates.is_due(Some(now)), "a failed change counts again");
        while updates.pending.pop_first().is_some() {}
        assert_eq!(updates.pending.bytes, 0);
    }
}
