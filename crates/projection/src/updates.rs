//! Receipt updates: what changed within a window is one update, and the last one always equals the state. Sends nothing
//! itself.

use crate::damage::FoldError;
use crate::partition::{Dead, Fold};
use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use receipts_fold::effects::{Changed, MarkMoved};
use receipts_fold::view::{ReadMark, Receipt, Status};
use receipts_log::{Entry, Topic};
use receipts_query::UPDATE_POSITION_HEADER;
use receipts_query::json::ReceiptUpdate;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Readers that an update names at most.
const NEWLY_READ_MAX: usize = 100;

/// From so many members on, a window grows no further.
const AUDIENCE_WITH_LONGEST_WINDOW: u32 = 100_000;

/// While a partition is behind, changes gather for a share of how far it is: what an update says of them is that old, and the
/// next one will not be long in coming.
const SHARE_OF_BEHIND: u32 = 5;

/// But for no more than so many windows.
const WINDOWS_WHILE_BEHIND: u32 = 50;

/// Memory of a message with changes, but for those who newly read it, in about.
const MESSAGE_BYTES: usize = 128;

/// Memory of one who newly read it, in about: their list has some room left.
const READER_BYTES: usize = 24;

/// Changes of one partition that were not published yet.
pub(crate) struct Updates {
    window: Duration,
    pending: Pending,
    /// Memory that may be pending, whatever the windows say.
    bytes_max: usize,
    marks: BTreeSet<MarkMoved>,
    /// How far behind the partition was at the last changes, if it was.
    behind: Option<Duration>,
}

/// A change whose update is on its way. Where it gets lost, an update is rendered anew from this.
pub(crate) enum Change {
    /// A message, by number, and who newly read it.
    Message(u64, Readers),
    /// A read mark.
    Mark(MarkMoved),
}

/// Who newly read a message: slots and times.
#[derive(Default)]
pub(crate) struct Readers {
    named: Vec<(u32, u64)>,
    truncated: bool,
}

impl Readers {
    fn add(&mut self, read: (u32, u64)) {
        if self.named.len() < NEWLY_READ_MAX {
            self.named.push(read);
        } else {
            self.truncated = true;
        }
    }

    fn bytes(&self) -> usize {
        MESSAGE_BYTES + READER_BYTES * self.named.len()
    }
}

/// Messages with changes.
#[derive(Default)]
struct Pending {
    readers: HashMap<u64, Readers>,
    /// When they fall due.
    due: BTreeSet<(Instant, u64)>,
    /// Their memory, in about.
    bytes: usize,
}

impl Pending {
    /// A message has changed, for it was newly read or for another reason. The first change says when it falls due.
    fn change(&mut self, message: u64, read: Option<(u32, u64)>, due: Instant) {
        let readers = match self.readers.entry(message) {
            Slot::Occupied(readers) => readers.into_mut(),
            Slot::Vacant(place) => {
                self.due.insert((due, message));
                self.bytes += MESSAGE_BYTES;
                place.insert(Readers::default())
            }
        };
        if let Some(read) = read {
            self.bytes -= readers.bytes();
            readers.add(read);
            self.bytes += readers.bytes();
        }
    }

    /// Earlier changes of a message join those since.
    fn join(&mut self, message: u64, earlier: Readers, due: Instant) {
        let mut readers = earlier;
        match self.readers.remove(&message) {
            Some(later) => {
                self.bytes -= later.bytes();
                readers.truncated |= later.truncated;
                later.named.into_iter().for_each(|read| readers.add(read));
            }
            None => _ = self.due.insert((due, message)),
        }
        self.bytes += readers.bytes();
        self.readers.insert(message, readers);
    }

    /// The message that falls due first.
    fn pop_first(&mut self) -> Option<(u64, Readers)> {
        let (_, message) = self.due.pop_first()?;
        let readers = self.readers.remove(&message)?;
        self.bytes -= readers.bytes();
        Some((message, readers))
    }

    /// Nothing falls due later than that.
    fn hurry(&mut self, due: Instant) {
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
    /// Who is shown it: the other one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_id: Option<String>,
    #[serde(flatten)]
    mark: &'a ReadMark,
}

impl Updates {
    /// Changes gather for a window, in about so much memory.
    pub(crate) fn new(window: Duration, bytes_max: usize) -> Self {
        Self { window, pending: Pending::default(), bytes_max, marks: BTreeSet::new(), behind: None }
    }

    /// Whether there is anything to publish now: marks go at once.
    pub(crate) fn is_due(&self, now: Option<Instant>) -> bool {
        self.is_message_due(now) || !self.marks.is_empty() || self.pending.bytes > self.bytes_max
    }

    fn is_message_due(&self, now: Option<Instant>) -> bool {
        self.next_due().is_some_and(|due| now.is_none_or(|now| due <= now))
    }

    /// Takes note of changes, of a partition that is so far behind or is not.
    pub(crate) fn add(&mut self, changed: &[Changed], marks: &[MarkMoved], now: Instant, behind: Option<Duration>) {
        if std::mem::replace(&mut self.behind, behind).is_some() && behind.is_none() {
            // It has caught up: nothing waits longer than one window any more.
            self.pending.hurry(now + self.window);
        }
        let least = behind.unwrap_or_default() / SHARE_OF_BEHIND;
        let least = least.min(self.window * WINDOWS_WHILE_BEHIND);
        for change in changed {
            let window = window_of(self.window, change.audience).max(least);
            self.pending.change(change.message, change.newly_read, now + window);
        }
        self.marks.extend(marks);
    }

    /// Takes a change back whose update was not acknowledged: it joins what has changed since, after another window.
    pub(crate) fn again(&mut self, change: Change, now: Instant) {
        match change {
            Change::Message(message, earlier) => self.pending.join(message, earlier, now + self.window),
            Change::Mark(mark) => _ = self.marks.insert(mark),
        }
    }

    /// When the next update falls due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.pending.due.first().map(|(at, _)| *at)
    }

    /// Hands out what is due, or without `now` everything, as the fold has it at `position`.
    pub(crate) fn publish(
        &mut self,
        fold: &Fold,
        position: u64,
        now: Option<Instant>,
        mut send: impl FnMut(Entry, Change),
    ) -> Result<(), FoldError> {
        // Where they take too much memory a quarter goes at once: the log takes many more readily than one after the other.
        let is_too_much = self.pending.bytes > self.bytes_max;
        let bytes_max = if is_too_much { self.bytes_max / 4 * 3 } else { self.bytes_max };
        while self.is_message_due(now) || self.pending.bytes > bytes_max {
            let Some((message, readers)) = self.pending.pop_first() else { break };
            // Expired since: nobody will ask for it again.
            let Some(receipt) = fold.receipt_of(message)? else { continue };
            let update = receipt_updated(fold, message, &receipt, &readers)?;
            let key = receipts_event::key(&receipt.tenant, receipt.conversation_id.as_deref().unwrap_or_default());
            send(entry(key, update, position), Change::Message(message, readers));
        }
        for mark in std::mem::take(&mut self.marks) {
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
            send(entry(receipts_event::key(&tenant, &conversation_id), update, position), Change::Mark(mark));
        }
        Ok(())
    }
}

/// Names readers only where the receipt has counts: what was recalled within the window says nothing about who read it.
fn receipt_updated(fold: &Fold, message: u64, receipt: &Receipt, readers: &Readers) -> Result<Vec<u8>, FoldError> {
    let has_counts = receipt.status == Status::Ok;
    let named = if has_counts { &*readers.named } else { &[] };
    let mut update = ReceiptUpdate::new(receipt, named.len());
    fold.name_slots(message, named.iter().copied(), |user_id, read_at_ms| update.reader(user_id, read_at_ms))?;
    Ok(update.finish(has_counts && readers.truncated))
}

/// How long the changes of a message gather. The more must read it, the more come within a moment, and the less each one
/// matters: five times the window at 100,000 and beyond, in between by the square root.
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

/// The dead letter of a record: its own key, value and headers, and why.
pub(crate) fn dead_letter(partition: u32, topic: &str, dead: Dead) -> Entry {
    let mut headers: Vec<(String, Option<Bytes>)> =
        dead.headers.into_iter().map(|(name, value)| (name.into(), value.map(|v| Bytes::from(v.into_vec())))).collect();
    let own = [
        ("dead-letter-reason", dead.reason.code().to_owned()),
        ("dead-letter-detail", dead.detail),
        ("dead-letter-topic", topic.to_owned()),
        ("dead-letter-partition", partition.to_string()),
        ("dead-letter-offset", dead.offset.to_string()),
    ];
    headers.extend(own.into_iter().map(|(name, value)| (name.to_owned(), Some(Bytes::from(value)))));
    Entry {
        topic: Topic::DeadLetters,
        partition: None,
        key: dead.key.map(|k| Bytes::from(k.into_vec())),
        value: dead.value.map(|v| Bytes::from(v.into_vec())),
        headers,
        timestamp_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_the_audience_to_five_times_and_no_further() {
        let ms = |audience| window_of(Duration::from_millis(200), audience).as_millis();
        assert_eq!([0, 10, 1_000, 10_000, 100_000, u32::MAX].map(ms), [200, 208, 280, 452, 1_000, 1_000]);
        assert_eq!(window_of(Duration::ZERO, 100_000), Duration::ZERO, "off stays off");
    }

    #[test]
    fn a_small_audience_does_not_wait_for_a_large_one_that_changed_first() {
        let (mut updates, now) = (Updates::new(Duration::from_millis(200), 1 << 20), Instant::now());
        let change = |message, audience| Changed { message, audience, newly_read: None };
        updates.add(&[change(1, 100_000), change(2, 1)], &[], now, None);
        assert!(updates.next_due().is_some_and(|due| due < now + Duration::from_millis(250)));
        assert_eq!(updates.pending.due.iter().map(|(_, message)| *message).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_is_behind_gathers_longer_and_waits_no_longer_once_it_has_caught_up() {
        let (mut updates, now) = (Updates::new(Duration::from_millis(200), 1 << 20), Instant::now());
        let change = |message| Changed { message, audience: 1, newly_read: None };
        for (message, behind, waits) in [(1, 3_600, 10_000), (2, 30, 6_000), (3, 6, 1_200)] {
            updates.add(&[change(message)], &[], now, Some(Duration::from_secs(behind)));
            assert_eq!(updates.next_due(), Some(now + Duration::from_millis(waits)), "{behind} s behind");
        }
        updates.add(&[], &[], now, None);
        assert_eq!(updates.next_due(), Some(now + Duration::from_millis(200)), "it has caught up");
    }

    #[test]
    fn what_waits_is_bounded_whatever_the_windows_say() {
        let a_message = MESSAGE_BYTES + NEWLY_READ_MAX * READER_BYTES;
        let (mut updates, now) = (Updates::new(Duration::from_millis(200), 10 * a_message), Instant::now());
        let read = |message: u64| Changed { message, audience: 500, newly_read: Some((0, 0)) };
        let behind = Some(Duration::from_secs(3_600));
        // Those that no update would name take none.
        let all: Vec<_> = (0..10).flat_map(|message| vec![read(message); 2 * NEWLY_READ_MAX]).collect();
        updates.add(&all, &[], now, behind);
        assert!(!updates.is_due(Some(now)));
        updates.add(&[read(10)], &[], now, behind);
        assert!(updates.is_due(Some(now)));
        let (message, readers) = updates.pending.pop_first().unwrap();
        assert!(!updates.is_due(Some(now)));
        updates.again(Change::Message(message, readers), now);
        assert!(updates.is_due(Some(now)), "what failed counts again");
        while updates.pending.pop_first().is_some() {}
        assert_eq!(updates.pending.bytes, 0);
    }
}
