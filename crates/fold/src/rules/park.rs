//! Parks records that name a message not yet in the log, bounded by count and by age in record
//! time.
//!
//! A parked record is applied once its messages come. Otherwise it becomes a dead letter, and only
//! once (INV-PARKED).

use crate::effects::{DeadLetter, Effects};
use crate::pages::{PageKey, Pages, Parked, Table};
use crate::record::{RawRecord, RecordMetadata};
use crate::state::{Error, Result, State};
use hashbrown::HashMap;
use receipts_event::Reason;
use std::collections::{BTreeMap, BTreeSet};

/// The parked records by message, by age and by offset. Rebuilt from the parked records when a
/// store opens.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Offsets in order, by [`message_name`].
    by_message: HashMap<Box<[u8]>, Vec<u64>>,
    /// (timestamp, offset).
    by_age: BTreeSet<(u64, u64)>,
    /// Timestamps by offset.
    by_offset: BTreeMap<u64, u64>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_message.is_empty()
    }
}

/// Returns the length of the conversation's name, the name, and the message id. The length keeps
/// names apart, for ids may hold any character.
fn message_name(conversation: &[u8], message_id: &str) -> Vec<u8> {
    [&conversation.len().to_le_bytes()[..], conversation, message_id.as_bytes()].concat()
}

impl<S: Pages> State<S> {
    /// Returns the number of parked records.
    pub fn parked(&self) -> usize {
        self.waiting.by_age.len()
    }

    pub(crate) fn load_parked(&mut self) -> Result<(), S::Error> {
        for key in Table::<Parked>::keys(&self.pages)? {
            let parked = Table::<Parked>::read(&self.pages, key)?.ok_or(Error::Broken("a parked record"))?;
            self.waiting.by_age.insert((parked.timestamp_ms, parked.offset));
            self.waiting.by_offset.insert(parked.offset, parked.timestamp_ms);
            let conversation = parked.key.as_deref().unwrap_or_default();
            for id in &parked.waits_for {
                self.waiting.by_message.entry(message_name(conversation, id).into()).or_default().push(parked.offset);
            }
        }
        Ok(())
    }

    /// Parks a record for the unknown messages that it names. If too many records are parked, the
    /// one at the lowest offset becomes a dead letter: its message is the least likely to come.
    pub(crate) fn park(
        &mut self,
        at: RecordMetadata,
        raw: RawRecord<'_>,
        waits_for: Vec<Box<str>>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        if self.is_too_old(at.timestamp_ms) || self.limits.parked_max == 0 {
            let (reason, detail) = self.refusal(at.timestamp_ms, &waits_for);
            effects.dead_letters.push(DeadLetter { reason, detail, ids: waits_for, parked: None });
            return Ok(());
        }
        while self.waiting.by_offset.len() >= self.limits.parked_max
            && let Some((offset, _)) = self.waiting.by_offset.first_key_value()
        {
            self.give_up(*offset, effects)?;
        }
        // The caller of `apply` has checked that the key is the conversation's name.
        let conversation = raw.key.unwrap_or_default();
        for id in &waits_for {
            self.waiting.by_message.entry(message_name(conversation, id).into()).or_default().push(at.offset);
        }
        self.waiting.by_age.insert((at.timestamp_ms, at.offset));
        self.waiting.by_offset.insert(at.offset, at.timestamp_ms);
        effects.counters.parked += 1;
        let parked = Parked {
            offset: at.offset,
            timestamp_ms: at.timestamp_ms,
            key: raw.key.map(Into::into),
            value: raw.value.into(),
            headers: (raw.headers)(),
            waits_for,
        };
        self.pages.put(PageKey::new(at.offset, 0), parked);
        Ok(())
    }

    fn is_too_old(&self, timestamp_ms: u64) -> bool {
        self.meta.newest_timestamp_ms.saturating_sub(timestamp_ms) > self.limits.parked_age_ms
    }

    fn refusal(&self, timestamp_ms: u64, waits_for: &[Box<str>]) -> (Reason, String) {
        if self.is_too_old(timestamp_ms) {
            (Reason::ParkedExpired, format!("{} did not come within {} ms", list(waits_for), self.limits.parked_age_ms))
        } else {
            (
                Reason::ParkedOverflow,
                format!("{} did not come, and more than {} records wait", list(waits_for), self.limits.parked_max),
            )
        }
    }

    /// Turns records that have waited too long into dead letters.
    pub(crate) fn expire_parked(&mut self, effects: &mut Effects) -> Result<(), S::Error> {
        while let Some((timestamp_ms, offset)) = self.waiting.by_age.first().copied()
            && self.is_too_old(timestamp_ms)
        {
            self.give_up(offset, effects)?;
        }
        Ok(())
    }

    /// Makes a parked record a dead letter.
    fn give_up(&mut self, offset: u64, effects: &mut Effects) -> Result<(), S::Error> {
        let parked = Table::<Parked>::load_mut(&mut self.pages, PageKey::new(offset, 0))?
            .ok_or(Error::Broken("a parked record"))?
            .clone();
        for id in &parked.waits_for {
            let name = message_name(parked.key.as_deref().unwrap_or_default(), id);
            if let Some(offsets) = self.waiting.by_message.get_mut(&name[..]) {
                offsets.retain(|o| *o != offset);
                if offsets.is_empty() {
                    self.waiting.by_message.remove(&name[..]);
                }
            }
        }
        self.remove_parked(offset, parked.timestamp_ms);
        let (reason, detail) = self.refusal(parked.timestamp_ms, &parked.waits_for);
        let ids = parked.waits_for.clone();
        effects.dead_letters.push(DeadLetter { reason, detail, ids, parked: Some(Box::new(parked)) });
        Ok(())
    }

    fn remove_parked(&mut self, offset: u64, timestamp_ms: u64) {
        self.waiting.by_age.remove(&(timestamp_ms, offset));
        self.waiting.by_offset.remove(&offset);
        Table::<Parked>::remove(&mut self.pages, PageKey::new(offset, 0));
    }

    /// Returns the offsets of the records that wait for a message, in log order. The caller takes
    /// each of them with [`Self::take_parked`].
    pub(crate) fn take_waiting(&mut self, conversation: &[u8], message_id: &str) -> Option<Vec<u64>> {
        self.waiting.by_message.remove(&message_name(conversation, message_id)[..])
    }

    /// Returns a record that waited for a message. It no longer waits for it.
    pub(crate) fn take_parked(&mut self, offset: u64, message_id: &str) -> Result<Parked, S::Error> {
        let mut page = Table::<Parked>::load_mut(&mut self.pages, PageKey::new(offset, 0))?
            .ok_or(Error::Broken("a parked record"))?;
        page.waits_for.retain(|id| &**id != message_id);
        let parked = page.clone();
        if parked.waits_for.is_empty() {
            self.remove_parked(offset, parked.timestamp_ms);
        }
        Ok(parked)
    }
}

fn list(ids: &[Box<str>]) -> String {
    ids.iter().map(|id| format!("{id:?}")).collect::<Vec<_>>().join(", ")
}
