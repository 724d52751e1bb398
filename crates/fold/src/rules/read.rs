//! `message.read`: the first read of an audience member counts, once, with its time. Later reads
//! change nothing. A reader who has left since the send still counts: only the audience at the send
//! decides. A hidden read is counted apart and names nobody (INV-HIDDEN).

use crate::effects::{Effects, MessageChanged};
use crate::index::Lookup;
use crate::pages::{
    CHUNK_SLOTS, Chunk, INLINE_SLOTS, Membership, MessageStatus, Messages, PEOPLE_PER_PAGE, PageKey, Pages, People,
    Person, ReadOutcome, Reads, Role, Table, message_key, user_hash,
};
use crate::record::{RawRecord, RecordMetadata};
use crate::state::{Error, Result, State};
use receipts_event::MessageRead;

/// The two times of a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadTimes {
    /// The device's time, Unix milliseconds.
    pub(crate) read_at_ms: Option<u64>,
    /// The record's timestamp, Unix milliseconds.
    pub(crate) timestamp_ms: u64,
}

impl ReadTimes {
    /// Returns the read time that counts: the device's time, but not after the record's timestamp,
    /// and never before the message's `sent_at_ms`.
    pub(super) fn read_time(self, sent_at_ms: u64) -> u64 {
        self.read_at_ms.unwrap_or(self.timestamp_ms).min(self.timestamp_ms).max(sent_at_ms)
    }
}

/// The times of a read, whether it is hidden, and the offset at which it takes effect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) times: ReadTimes,
    pub(crate) hidden: bool,
    /// Offset at which the read takes effect.
    pub(crate) offset: u64,
}

/// A reader whom the conversation knows: a copy of the person, for use while pages are borrowed.
pub(crate) struct Reader {
    pub(crate) slot: u32,
    pub(crate) role: Role,
    /// Number of the first message that may have the reader in its audience.
    pub(crate) since_message: u64,
    membership: Option<Membership>,
    #[expect(clippy::box_collection, reason = "the same type as in `Person`")]
    earlier: Option<Box<Vec<Membership>>>,
}

impl Reader {
    fn in_audience_at(&self, offset: u64) -> bool {
        let within = |s: &Membership| s.from < offset && offset < s.to;
        self.membership.as_ref().is_some_and(within) || self.earlier.as_ref().is_some_and(|e| e.iter().any(within))
    }
}

impl<S: Pages> State<S> {
    pub(super) fn read(
        &mut self,
        tenant: &str,
        e: &MessageRead<'_>,
        at: RecordMetadata,
        raw: RawRecord<'_>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let mut missing: Vec<Box<str>> = Vec::new();
        let conversation = self.find_conversation(tenant, &e.conversation_id)?;
        let reader = match conversation {
            Some(conversation) => self.reader(conversation, &e.reader_id)?,
            None => None,
        };
        let times = ReadTimes { read_at_ms: e.read_at_ms, timestamp_ms: at.timestamp_ms };
        let reading = Reading { times, hidden: e.hidden, offset: at.offset };
        for id in &e.message_ids {
            let named = match conversation {
                Some(conversation) => self.find_message(tenant, conversation, id)?,
                None => Lookup::Unknown,
            };
            match (named, &reader) {
                (Lookup::Message(message), Some(reader)) => self.read_message(message, reader, reading, effects)?,
                (Lookup::Message(_), None) => effects.counters.not_in_audience += 1,
                (Lookup::Expired, _) => effects.counters.expired += 1,
                (Lookup::Unknown, _) if missing.iter().any(|m| **m == **id) => {}
                (Lookup::Unknown, _) => missing.push((&**id).into()),
            }
        }
        if !missing.is_empty() {
            self.park(tenant, at, raw, missing, effects)?;
        }
        Ok(())
    }

    /// Finds a reader by user id.
    pub(super) fn reader(&mut self, conversation: u32, user_id: &str) -> Result<Option<Reader>, S::Error> {
        let reader = |person: &Person, slot| Reader {
            slot,
            role: person.role,
            since_message: person.since_message,
            membership: person.membership,
            earlier: person.earlier.clone(),
        };
        // Nearly always all people are on one page, which one search then finds and reads.
        if let Some(first) = Table::<People>::load_mut(&mut self.pages, PageKey::new(conversation, 0))?
            && let Some(slot) = first.find(user_id, user_hash(user_id))
        {
            return Ok(first.at(slot).map(|person| reader(person, slot)));
        }
        let Some(slot) = self.slot(conversation, user_id)? else { return Ok(None) };
        let page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = page.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        Ok(Some(reader(person, slot)))
    }

    /// Sets a reader's bit in a message, if the reader is in its audience. Keeps the counts equal
    /// to the bits (INV-BITS).
    pub(super) fn read_message(
        &mut self,
        message: u64,
        reader: &Reader,
        how: Reading,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let (key, index) = message_key(message);
        let (horizon, keep_times) = (self.horizon(), self.limits.read_times);
        let mut page = Table::<Messages>::load_mut(&mut self.pages, key)?.ok_or(Error::Broken("a message"))?;
        let m = page.at(index).ok_or(Error::Broken("a message"))?;
        if horizon.is_past(m.timestamp_ms) {
            effects.counters.expired += 1;
            return Ok(());
        }
        let slot = reader.slot;
        let outside = m.status != MessageStatus::Ok || slot == m.sender || slot >= m.slots;
        if outside || !m.named_recipients && !reader.in_audience_at(m.offset) {
            effects.counters.not_in_audience += 1;
            return Ok(());
        }
        let named = m.named_recipients;
        let read_at_ms = how.times.read_time(m.sent_at_ms);
        let after_ms = keep_times.then_some(read_at_ms - m.sent_at_ms);
        let outcome = if m.slots <= INLINE_SLOTS {
            if named && !m.reads.is_recipient(slot) {
                effects.counters.not_in_audience += 1;
                return Ok(());
            }
            // A repeated read must not make the page dirty, so check before asking for a mutable
            // message.
            if m.reads.has_read(slot) || m.reads.has_read_hidden(slot) {
                ReadOutcome::Repeated
            } else {
                set_bit(&mut page.at_mut(index).ok_or(Error::Broken("a message"))?.reads, slot, how.hidden, after_ms)
            }
        } else {
            let Some(outcome) = self.set_bit_in_chunk(message, slot, named, how.hidden, after_ms)? else {
                effects.counters.not_in_audience += 1;
                return Ok(());
            };
            page = Table::<Messages>::load_mut(&mut self.pages, key)?.ok_or(Error::Broken("a message"))?;
            outcome
        };
        if outcome == ReadOutcome::Repeated {
            effects.counters.repeated += 1;
            return Ok(());
        }
        effects.counters.reads += 1;
        let m = page.at_mut(index).ok_or(Error::Broken("a message"))?;
        if how.hidden {
            m.hidden += 1;
            if m.is_direct_to_one() {
                return Ok(()); // The read is invisible: no new version and no update (INV-HIDDEN).
            }
            effects.changed.push(MessageChanged { message, audience: m.audience, newly_read: None });
        } else {
            m.read += 1;
            m.last_read_at_ms = m.last_read_at_ms.max(read_at_ms);
            effects.changed.push(MessageChanged {
                message,
                audience: m.audience,
                newly_read: Some((slot, read_at_ms)),
            });
        }
        m.changed = how.offset;
        Ok(())
    }

    /// Sets a bit in the chunk of a message with many slots. `None` if the slot is not a named
    /// recipient.
    fn set_bit_in_chunk(
        &mut self,
        message: u64,
        slot: u32,
        named: bool,
        hidden: bool,
        after_ms: Option<u64>,
    ) -> Result<Option<ReadOutcome>, S::Error> {
        let chunk_key = PageKey::new(message, slot / CHUNK_SLOTS);
        let slot = slot % CHUNK_SLOTS;
        match Table::<Chunk>::load_mut(&mut self.pages, chunk_key)? {
            Some(chunk) if named && !chunk.0.is_recipient(slot) => Ok(None),
            Some(chunk) if chunk.0.has_read(slot) || chunk.0.has_read_hidden(slot) => Ok(Some(ReadOutcome::Repeated)),
            Some(mut chunk) => Ok(Some(set_bit(&mut chunk.0, slot, hidden, after_ms))),
            None if named => Ok(None),
            None => {
                let mut chunk = Chunk::default();
                let outcome = set_bit(&mut chunk.0, slot, hidden, after_ms);
                self.pages.put(chunk_key, chunk);
                Ok(Some(outcome))
            }
        }
    }
}

fn set_bit<const N: usize>(reads: &mut Reads<N>, slot: u32, hidden: bool, after_ms: Option<u64>) -> ReadOutcome {
    if hidden { reads.read_hidden(slot) } else { reads.read(slot, after_ms) }
}
