//! Parks records that name a message which is not yet in the log (rule 5). Says which are due and
//! which are dropped; applies none.

use std::collections::{BTreeMap, BTreeSet};

use crate::subject::{OracleEffect, reason};

/// The action of a parked record on its message.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// `message.read`
    Read(Reader),
    /// `conversation.read` by message
    Mark(Reader),
    /// `message.recalled`
    Recall,
}

/// The reader, time and kind of a read, as in the record. The read time is known once the message
/// is.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) id: String,
    /// Unix milliseconds, by the reader's device.
    pub(super) read_at_ms: Option<u64>,
    /// The record's own, Unix milliseconds.
    pub(super) timestamp_ms: u64,
    pub(super) hidden: bool,
}

impl Reader {
    /// `max(sent_at_ms, min(read_at_ms, timestamp))`, Unix milliseconds.
    pub(super) fn time_ms(&self, sent_at_ms: u64) -> u64 {
        sent_at_ms.max(self.read_at_ms.unwrap_or(self.timestamp_ms).min(self.timestamp_ms))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Parked {
    pub(super) timestamp_ms: u64,
    pub(super) tenant: String,
    pub(super) conversation_id: String,
    /// The message ids that it still waits for, in the record's order, each once; never empty.
    pub(super) message_ids: Vec<String>,
    pub(super) wish: Wish,
    /// Of its key and value, and of each id that it waited for at first with 48 more.
    pub(super) bytes: u64,
}

/// The bounds of what may be parked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The partition's time, Unix milliseconds.
    pub(super) newest_ms: u64,
    pub(super) age_ms: u64,
    pub(super) count: usize,
    pub(super) bytes: u64,
}

/// The parked records of a partition, by offset.
#[derive(Debug, Clone, Default)]
pub(super) struct Parking {
    records: BTreeMap<u64, Parked>,
}

impl Parking {
    pub(super) fn park(&mut self, offset: u64, parked: Parked) {
        self.records.insert(offset, parked);
    }

    /// Takes the records that wait for this message, in log order. A record that also waits for
    /// other messages keeps waiting for those.
    pub(super) fn claim(&mut self, tenant: &str, conversation_id: &str, message_id: &str) -> Vec<Wish> {
        let mut due = vec![];
        self.records.retain(|_, parked| {
            if parked.tenant == tenant && parked.conversation_id == conversation_id {
                let before = parked.message_ids.len();
                parked.message_ids.retain(|id| id != message_id);
                if parked.message_ids.len() < before {
                    due.push(parked.wish.clone());
                }
            }
            !parked.message_ids.is_empty()
        });
        due
    }

    /// Drops the records that are older than the age, and one that alone is larger than the bytes.
    /// Then, while there are too many or too many bytes, the oldest one of the tenant with the most
    /// bytes; of equal tenants, the one whose name sorts first loses.
    // DECISION: `parked_count` counts records, not ids, over the whole partition. The record of the
    // lowest offset is dropped first, because its message is the least likely to come. DECISION: a
    // record that is already past the age is a dead letter at once. DECISION: an id that comes
    // frees no bytes; the last one frees all bytes of its record.
    pub(super) fn out(&mut self, bounds: Bounds) -> Vec<OracleEffect> {
        let mut dead = vec![];
        self.records.retain(|offset, parked| {
            let aged = bounds.newest_ms - parked.timestamp_ms > bounds.age_ms;
            let too_large = parked.bytes > bounds.bytes;
            if aged || too_large {
                let reason = if aged { reason::PARKED_EXPIRED } else { reason::PARKED_OVERFLOW };
                dead.push(dead_letter(*offset, reason, parked));
            }
            !aged && !too_large
        });
        while self.records.len() > bounds.count || self.bytes(None) > bounds.bytes {
            let by_name = self.records.values().map(|parked| &parked.tenant).collect::<BTreeSet<_>>();
            // Of equal ones `max_by_key` takes the last.
            let fullest = by_name.into_iter().rev().max_by_key(|tenant| self.bytes(Some(tenant)));
            let oldest = self.records.iter().find(|(_, parked)| Some(&parked.tenant) == fullest);
            let Some(offset) = oldest.map(|(offset, _)| *offset) else { break };
            let parked = self.records.remove(&offset);
            dead.extend(parked.map(|parked| dead_letter(offset, reason::PARKED_OVERFLOW, &parked)));
        }
        dead
    }

    /// The bytes of a tenant's records, or of all.
    fn bytes(&self, tenant: Option<&str>) -> u64 {
        let own = self.records.values().filter(|parked| tenant.is_none_or(|tenant| parked.tenant == tenant));
        own.map(|parked| parked.bytes).sum()
    }
}

/// Returns the dead letter of a record, with the ids that it still waited for.
fn dead_letter(offset: u64, reason: &'static str, parked: &Parked) -> OracleEffect {
    OracleEffect::DeadLetter { offset, reason, ids: parked.message_ids.clone() }
}
