//! Parks records that name a message which is not yet in the log (rule 5). Says which are due and
//! which are dropped; applies none.

use std::collections::BTreeMap;

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

    /// Drops the records that are older than the age, then the oldest ones beyond the count.
    // DECISION: `parked_count` counts records, not ids, over the whole partition. The record of the
    // lowest offset is dropped first, because its message is the least likely to come. DECISION: a
    // record that is already past the age is a dead letter at once.
    pub(super) fn out(&mut self, newest_ms: u64, age_ms: u64, count: usize) -> Vec<OracleEffect> {
        let mut dead = vec![];
        self.records.retain(|offset, parked| {
            let aged = newest_ms - parked.timestamp_ms > age_ms;
            if aged {
                dead.push(dead_letter(*offset, reason::PARKED_EXPIRED, parked));
            }
            !aged
        });
        while self.records.len() > count
            && let Some((offset, parked)) = self.records.pop_first()
        {
            dead.push(dead_letter(offset, reason::PARKED_OVERFLOW, &parked));
        }
        dead
    }
}

/// Returns the dead letter of a record, with the ids that it still waited for.
fn dead_letter(offset: u64, reason: &'static str, parked: &Parked) -> OracleEffect {
    OracleEffect::DeadLetter { offset, reason, ids: parked.message_ids.clone() }
}
