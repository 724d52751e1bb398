//! A reader has read messages: the first read of an audience member counts, once, with its time.

use crate::effects::{Changed, Effects};
use crate::message::{CHUNK_SLOTS, Chunk, INLINE_SLOTS, State as Fate};
use crate::page::Table;
use crate::park::Raw;
use crate::people::{PEOPLE_PER_PAGE, People, Person, Role, Span, user_hash};
use crate::reads::{Marked, Reads};
use crate::state::{At, Error, Named, Pages, Result, State, key, message_key};
use receipts_event::MessageRead;

/// The two clocks of a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// The device's, Unix milliseconds.
    pub(crate) read_at_ms: Option<u64>,
    /// The record's, Unix milliseconds.
    pub(crate) timestamp_ms: u64,
}

impl Clock {
    /// Never before what was read was sent, never after the log had it.
    pub(crate) fn read_time(self, sent_at_ms: u64) -> u64 {
        self.read_at_ms.unwrap_or(self.timestamp_ms).min(self.timestamp_ms).max(sent_at_ms)
    }
}

/// How something is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) clock: Clock,
    pub(crate) hidden: bool,
    /// Offset at which it takes effect.
    pub(crate) offset: u64,
}

/// Somebody the conversation knows, with the stretches in which they are in audiences.
pub(crate) struct Reader {
    pub(crate) slot: u32,
    pub(crate) role: Role,
    /// Number of the first message that they can be in the audience of.
    pub(crate) since: u64,
    span: Option<Span>,
    #[expect(clippy::box_collection, reason = "as in the page")]
    earlier: Option<Box<Vec<Span>>>,
}

impl Reader {
    fn in_audience_at(&self, offset: u64) -> bool {
        let within = |s: &Span| s.from < offset && offset < s.to;
        self.span.as_ref().is_some_and(within) || self.earlier.as_ref().is_some_and(|e| e.iter().any(within))
    }
}

impl<S: Pages> State<S> {
    pub(crate) fn read(
        &mut self,
        tenant: &str,
        e: &MessageRead<'_>,
        at: At,
        raw: Raw<'_>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let mut missing: Vec<Box<str>> = Vec::new();
        let conversation = self.find_conversation(tenant, &e.conversation_id)?;
        let reader = match conversation {
            Some(conversation) => self.reader(conversation, &e.reader_id)?,
            None => None,
        };
        let clock = Clock { read_at_ms: e.read_at_ms, timestamp_ms: at.timestamp_ms };
        let reading = Reading { clock, hidden: e.hidden, offset: at.offset };
        for id in &e.message_ids {
            let named = match conversation {
                Some(conversation) => self.find_message(conversation, id)?,
                None => Named::Nothing,
            };
            match (named, &reader) {
                (Named::Message(message), Some(reader)) => self.read_message(message, reader, reading, effects)?,
                (Named::Message(_), None) => effects.counters.not_in_audience += 1,
                (Named::Expired, _) => effects.counters.expired += 1,
                (Named::Nothing, _) if missing.iter().any(|m| **m == **id) => {}
                (Named::Nothing, _) => missing.push((&**id).into()),
            }
        }
        if !missing.is_empty() {
            self.park(at, raw, missing, effects)?;
        }
        Ok(())
    }

    /// The reader of that id, if the conversation knows one.
    pub(crate) fn reader(&mut self, conversation: u32, user_id: &str) -> Result<Option<Reader>, S::Error> {
        let reader = |person: &Person, slot| Reader {
            slot,
            role: person.role,
            since: person.since,
            span: person.span,
            earlier: person.earlier.clone(),
        };
        // Nearly always all people are on one page: found and read in one look.
        if let Some(first) = Table::<People>::hot(&mut self.pages, key(conversation, 0))?
            && let Some(slot) = first.find(user_id, user_hash(user_id))
        {
            return Ok(first.at(slot).map(|person| reader(person, slot)));
        }
        let Some(slot) = self.slot(conversation, user_id)? else { return Ok(None) };
        let page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = page.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        Ok(Some(reader(person, slot)))
    }

    /// Sets a reader's bit in a message, if the message has one for them.
    pub(crate) fn read_message(
        &mut self,
        message: u64,
        reader: &Reader,
        how: Reading,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let (page_key, place) = message_key(message);
        let (horizon, times) = (self.horizon(), self.limits.read_times);
        let mut page =
            Table::<crate::message::Messages>::hot(&mut self.pages, page_key)?.ok_or(Error::Broken("a message"))?;
        let m = page.at(place).ok_or(Error::Broken("a message"))?;
        if horizon.is_past(m.timestamp_ms) {
            effects.counters.expired += 1;
            return Ok(());
        }
        let slot = reader.slot;
        let outside = m.state != Fate::Ok || slot == m.sender || slot >= m.slots;
        if outside || !m.named_recipients && !reader.in_audience_at(m.offset) {
            effects.counters.not_in_audience += 1;
            return Ok(());
        }
        let named = m.named_recipients;
        let read_at_ms = how.clock.read_time(m.sent_at_ms);
        let after_ms = times.then_some(read_at_ms - m.sent_at_ms);
        let marked = if m.slots <= INLINE_SLOTS {
            if named && !m.reads.is_recipient(slot) {
                effects.counters.not_in_audience += 1;
                return Ok(());
            }
            // Looks before it touches: a repetition must not make the page one to write.
            if m.reads.has_read(slot) || m.reads.has_read_hidden(slot) {
                Marked::Before
            } else {
                mark(&mut page.at_mut(place).ok_or(Error::Broken("a message"))?.reads, slot, how.hidden, after_ms)
            }
        } else {
            let Some(marked) = self.mark_in_chunk(message, slot, named, how.hidden, after_ms)? else {
                effects.counters.not_in_audience += 1;
                return Ok(());
            };
            page =
                Table::<crate::message::Messages>::hot(&mut self.pages, page_key)?.ok_or(Error::Broken("a message"))?;
            marked
        };
        if marked == Marked::Before {
            effects.counters.repeated += 1;
            return Ok(());
        }
        effects.counters.reads += 1;
        let m = page.at_mut(place).ok_or(Error::Broken("a message"))?;
        if how.hidden {
            m.hidden += 1;
            if m.is_direct_to_one() {
                return Ok(()); // invisible: no new version, no update
            }
            effects.changed.push(Changed { message, audience: m.audience, newly_read: None });
        } else {
            m.read += 1;
            m.last_read_at_ms = m.last_read_at_ms.max(read_at_ms);
            effects.changed.push(Changed { message, audience: m.audience, newly_read: Some((slot, read_at_ms)) });
        }
        m.changed = how.offset;
        Ok(())
    }

    /// The same in the chunk of a message with many slots; `None` where the slot was not named as a recipient.
    fn mark_in_chunk(
        &mut self,
        message: u64,
        slot: u32,
        named: bool,
        hidden: bool,
        after_ms: Option<u64>,
    ) -> Result<Option<Marked>, S::Error> {
        let k = key(message, slot / CHUNK_SLOTS);
        let slot = slot % CHUNK_SLOTS;
        match Table::<Chunk>::hot(&mut self.pages, k)? {
            Some(chunk) if named && !chunk.0.is_recipient(slot) => Ok(None),
            Some(chunk) if chunk.0.has_read(slot) || chunk.0.has_read_hidden(slot) => Ok(Some(Marked::Before)),
            Some(mut chunk) => Ok(Some(mark(&mut chunk.0, slot, hidden, after_ms))),
            None if named => Ok(None),
            None => {
                let mut chunk = Chunk::default();
                let marked = mark(&mut chunk.0, slot, hidden, after_ms);
                self.pages.put(k, chunk);
                Ok(Some(marked))
            }
        }
    }
}

fn mark<const N: usize>(reads: &mut Reads<N>, slot: u32, hidden: bool, after_ms: Option<u64>) -> Marked {
    if hidden { reads.read_hidden(slot) } else { reads.read(slot, after_ms) }
}
