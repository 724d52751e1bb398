//! Parks records that name a message not yet in the log, bounded by count, by bytes, and by age in
//! record time. Where a bound is met, the tenant with the most parked bytes loses its oldest
//! record, so no flood of one tenant costs another one that has less.
//!
//! A parked record is applied once its messages come. Otherwise it becomes a dead letter, and only
//! once (INV-PARKED).

use crate::effects::{DeadLetter, Effects};
use crate::pages::{PageKey, Pages, Parked, Table};
use crate::record::{RawRecord, RecordMetadata};
use crate::rules::waiting::name_hash;
use crate::state::{Error, Result, State};
use receipts_event::Reason;

/// Why a record is not parked any longer, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It has waited for too long.
    Age,
    /// Too many records wait.
    Count,
    /// The records that wait take too many bytes.
    Bytes,
    /// The record alone takes too many bytes, of this number.
    Size(u64),
}

impl<S: Pages> State<S> {
    /// Returns the number of parked records.
    pub fn parked(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the bytes of the parked records, as [`Parked::bytes`] counts them.
    pub fn parked_bytes(&self) -> u64 {
        self.meta.parked_bytes
    }

    pub(crate) fn load_parked(&mut self) -> Result<(), S::Error> {
        let mut bytes = 0u64;
        for key in Table::<Parked>::keys(&self.pages)? {
            let parked = Table::<Parked>::read(&self.pages, key)?.ok_or(Error::Broken("a parked record"))?;
            bytes = bytes.checked_add(parked.bytes).ok_or(Error::Broken("the bytes of a parked record"))?;
            self.waiting.insert(&parked);
        }
        if bytes == self.meta.parked_bytes { Ok(()) } else { Err(Error::Broken("the bytes of parked records")) }
    }

    /// Parks a record for the unknown messages that it names.
    pub(crate) fn park(
        &mut self,
        tenant: &str,
        at: RecordMetadata,
        raw: RawRecord<'_>,
        waits_for: Vec<Box<str>>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let mut parked = Parked {
            offset: at.offset,
            timestamp_ms: at.timestamp_ms,
            tenant: tenant.into(),
            bytes: 0,
            key: raw.key.map(Into::into),
            value: raw.value.into(),
            headers: (raw.headers)(),
            waits_for,
        };
        parked.bytes = parked.count_bytes();
        let refusal = if self.is_too_old(at.timestamp_ms) {
            Some(Refusal::Age)
        } else if self.limits.parked_max == 0 {
            Some(Refusal::Count)
        } else {
            (parked.bytes > self.limits.parked_bytes).then_some(Refusal::Size(parked.bytes))
        };
        if let Some(refusal) = refusal {
            let (reason, detail) = self.reason(refusal, &parked.waits_for);
            effects.dead_letters.push(DeadLetter { reason, detail, ids: parked.waits_for, parked: None });
            return Ok(());
        }
        effects.counters.parked += 1;
        self.waiting.insert(&parked);
        self.meta.parked_bytes += parked.bytes;
        self.pages.put(PageKey::new(at.offset, 0), parked);
        loop {
            let refusal = if self.waiting.len() > self.limits.parked_max {
                Refusal::Count
            } else if self.meta.parked_bytes > self.limits.parked_bytes {
                Refusal::Bytes
            } else {
                return Ok(());
            };
            let Some(offset) = self.waiting.oldest_of_the_fullest() else { return Ok(()) };
            self.give_up(offset, refusal, effects)?;
        }
    }

    fn is_too_old(&self, timestamp_ms: u64) -> bool {
        self.meta.newest_timestamp_ms.saturating_sub(timestamp_ms) > self.limits.parked_age_ms
    }

    fn reason(&self, refusal: Refusal, waits_for: &[Box<str>]) -> (Reason, String) {
        let (ids, limits) = (list(waits_for), &self.limits);
        let (count, bytes) = (limits.parked_max, limits.parked_bytes);
        let reason = if refusal == Refusal::Age { Reason::ParkedExpired } else { Reason::ParkedOverflow };
        let detail = match refusal {
            Refusal::Age => {
                format!("{ids} did not come within {} ms (projector.parked_age_ms)", limits.parked_age_ms)
            }
            Refusal::Count => format!(
                "{ids} did not come, and of the more than {count} records that wait (projector.parked_count) the \
                 tenant's take the most bytes"
            ),
            Refusal::Bytes => format!(
                "{ids} did not come, and of the more than {bytes} bytes that wait (projector.parked_bytes) the tenant's \
                 are the most"
            ),
            Refusal::Size(size) => format!(
                "{ids} did not come, and the record's {size} bytes are more than may wait (projector.parked_bytes, {bytes})"
            ),
        };
        (reason, detail)
    }

    /// Turns records that have waited too long into dead letters.
    pub(crate) fn expire_parked(&mut self, effects: &mut Effects) -> Result<(), S::Error> {
        while let Some((timestamp_ms, offset)) = self.waiting.oldest()
            && self.is_too_old(timestamp_ms)
        {
            self.give_up(offset, Refusal::Age, effects)?;
        }
        Ok(())
    }

    /// Makes a parked record a dead letter.
    fn give_up(&mut self, offset: u64, refusal: Refusal, effects: &mut Effects) -> Result<(), S::Error> {
        let parked = Table::<Parked>::load_mut(&mut self.pages, PageKey::new(offset, 0))?
            .ok_or(Error::Broken("a parked record"))?
            .clone();
        self.remove_parked(&parked)?;
        let (reason, detail) = self.reason(refusal, &parked.waits_for);
        let ids = parked.waits_for.clone();
        effects.dead_letters.push(DeadLetter { reason, detail, ids, parked: Some(Box::new(parked)) });
        Ok(())
    }

    fn remove_parked(&mut self, parked: &Parked) -> Result<(), S::Error> {
        self.waiting.remove(parked);
        let rest = self.meta.parked_bytes.checked_sub(parked.bytes);
        self.meta.parked_bytes = rest.ok_or(Error::Broken("the bytes of parked records"))?;
        Table::<Parked>::remove(&mut self.pages, PageKey::new(parked.offset, 0));
        Ok(())
    }

    /// Returns the offsets of the records that probably wait for a message, in log order; `None`
    /// if there are none. The caller takes each of them with [`Self::take_parked`].
    pub(crate) fn take_waiting(&self, conversation: &[u8], message_id: &str) -> Option<Vec<u64>> {
        let offsets = self.waiting.waiting_for(name_hash(conversation, message_id));
        (!offsets.is_empty()).then_some(offsets)
    }

    /// Returns a record that waited for a message. It no longer waits for it. `None` if it waits
    /// for another one whose name has the same hash.
    pub(crate) fn take_parked(
        &mut self,
        offset: u64,
        conversation: &[u8],
        message_id: &str,
    ) -> Result<Option<Parked>, S::Error> {
        let mut page = Table::<Parked>::load_mut(&mut self.pages, PageKey::new(offset, 0))?
            .ok_or(Error::Broken("a parked record"))?;
        let waits = page.waits_for.iter().position(|id| &**id == message_id);
        let Some(index) = waits.filter(|_| page.conversation() == conversation) else { return Ok(None) };
        page.waits_for.remove(index);
        let parked = page.clone();
        self.waiting.forget(name_hash(conversation, message_id), offset);
        if parked.waits_for.is_empty() {
            self.remove_parked(&parked)?;
        }
        Ok(Some(parked))
    }
}

fn list(ids: &[Box<str>]) -> String {
    ids.iter().map(|id| format!("{id:?}")).collect::<Vec<_>>().join(", ")
}
