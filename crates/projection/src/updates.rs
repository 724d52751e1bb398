//! Receipt updates: what changed within a window is one update, and the last one always equals the state.

use crate::partition::{Dead, Fold};
use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use receipts_fold::effects::{Changed, MarkMoved};
use receipts_fold::view::{ReadMark, Receipt};
use receipts_log::{Entry, Topic};
use receipts_store::Error as StoreError;
use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Readers that an update names at most.
const NEWLY_READ_MAX: usize = 100;

/// Changes of one partition that were not published yet.
pub(crate) struct Updates {
    window: Duration,
    pending: HashMap<u64, Pending>,
    /// Messages by the time of their first change, which is the order in which they fall due.
    due: VecDeque<(Instant, u64)>,
    marks: BTreeSet<MarkMoved>,
}

#[derive(Default)]
struct Pending {
    newly_read: Vec<(u32, u64)>,
    truncated: bool,
}

#[derive(Serialize)]
struct ReceiptUpdated<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    receipt: &'a Receipt,
    newly_read: Vec<NewlyRead>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    newly_read_truncated: bool,
}

#[derive(Serialize)]
struct NewlyRead {
    user_id: String,
    read_at_ms: u64,
}

#[derive(Serialize)]
struct ReadMarkUpdated<'a> {
    r#type: &'static str,
    tenant: &'a str,
    conversation_id: &'a str,
    #[serde(flatten)]
    mark: &'a ReadMark,
}

type FoldError = receipts_fold::Error<StoreError>;

impl Updates {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, pending: HashMap::new(), due: VecDeque::new(), marks: BTreeSet::new() }
    }

    /// Whether read marks wait: they go at once.
    pub(crate) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Takes note of changes.
    pub(crate) fn add(&mut self, changed: &[Changed], marks: &[MarkMoved], now: Instant) {
        for change in changed {
            let pending = match self.pending.entry(change.message) {
                Slot::Occupied(pending) => pending.into_mut(),
                Slot::Vacant(place) => {
                    self.due.push_back((now + self.window, change.message));
                    place.insert(Pending::default())
                }
            };
            if let Some(read) = change.newly_read {
                if pending.newly_read.len() < NEWLY_READ_MAX {
                    pending.newly_read.push(read);
                } else {
                    pending.truncated = true;
                }
            }
        }
        self.marks.extend(marks);
    }

    /// When the next update falls due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// Hands out what is due, or everything.
    pub(crate) fn publish(&mut self, fold: &Fold, now: Option<Instant>, mut send: impl FnMut(Entry)) -> Result<(), FoldError> {
        while let Some((at, message)) = self.due.front().copied() {
            if now.is_some_and(|now| at > now) {
                break;
            }
            self.due.pop_front();
            let Some(pending) = self.pending.remove(&message) else { continue };
            // Expired since: nobody will ask for it again.
            let Some(receipt) = fold.receipt_of(message)? else { continue };
            let mut newly_read = Vec::with_capacity(pending.newly_read.len());
            for (slot, read_at_ms) in pending.newly_read {
                newly_read.extend(fold.reader_id(message, slot)?.map(|user_id| NewlyRead { user_id, read_at_ms }));
            }
            let key = receipts_event::key(&receipt.tenant, receipt.conversation_id.as_deref().unwrap_or_default());
            let update = ReceiptUpdated { r#type: "receipt.updated", receipt: &receipt, newly_read, newly_read_truncated: pending.truncated };
            send(entry(key, &update));
        }
        for mark in std::mem::take(&mut self.marks) {
            let Some(read_mark) = fold.read_mark_of(mark.conversation, mark.slot)? else { continue };
            let (tenant, conversation_id) = fold.conversation_name(mark.conversation)?;
            let update = ReadMarkUpdated { r#type: "read_mark.updated", tenant: &tenant, conversation_id: &conversation_id, mark: &read_mark };
            send(entry(receipts_event::key(&tenant, &conversation_id), &update));
        }
        Ok(())
    }
}

fn entry(key: Vec<u8>, update: &impl Serialize) -> Entry {
    let value = serde_json::to_vec(update).expect("updates are plain JSON");
    Entry { topic: Topic::Updates, partition: None, key: Some(key.into()), value: Some(value.into()), headers: Vec::new(), timestamp_ms: None }
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
