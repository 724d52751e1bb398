//! The audience of one message, slot by slot, and the list that each slot is in. Skips slots by
//! bits, and reads people only where the bits do not decide.

use crate::pages::{CHUNK_SLOTS, Chunk, INLINE_SLOTS, Message, PEOPLE_PER_PAGE, Pages, People, Person};
use crate::questions::find::Found;
use crate::questions::memo::Memo;
use crate::questions::view::MemberFilter;
use crate::state::{Error, Result};

/// The audience of a message by slot. Reads every page at most once.
pub(super) struct Audience<'a, S> {
    pages: &'a S,
    number: u64,
    message: &'a Message,
    /// Whether hidden reads count as unread.
    ignore_hidden: bool,
    /// Slots and offsets of erasures that the conversation has not applied yet.
    unseen_departures: &'a [(u32, u64)],
    people: Memo<'a, People>,
    chunks: Memo<'a, Chunk>,
}

impl<S: Pages> Found<'_, S> {
    pub(super) fn audience(&self) -> Audience<'_, S> {
        let m = self.message();
        Audience {
            pages: &self.state.pages,
            number: self.number,
            message: m,
            ignore_hidden: m.is_direct_to_one(),
            unseen_departures: &self.unseen_departures,
            people: Memo::default(),
            chunks: Memo::default(),
        }
    }
}

impl<'a, S: Pages> Audience<'a, S> {
    pub(super) fn person(&mut self, slot: u32) -> Result<&Person, S::Error> {
        let page = self.people.get(self.pages, self.message.conversation.into(), slot / PEOPLE_PER_PAGE)?;
        page.and_then(|p| p.at(slot % PEOPLE_PER_PAGE)).ok_or(Error::Broken("a person"))
    }

    pub(super) fn is_in_audience(&mut self, slot: u32) -> Result<bool, S::Error> {
        let m = self.message;
        if slot == m.sender || slot >= m.slots {
            return Ok(false);
        }
        if !m.named_recipients {
            return Ok(self.person(slot)?.in_audience_at(m.offset));
        }
        if m.slots <= INLINE_SLOTS {
            return Ok(m.reads.is_recipient(slot));
        }
        Ok(self.chunk(slot)?.is_some_and(|c| c.0.is_recipient(slot % CHUNK_SLOTS)))
    }

    fn chunk(&mut self, slot: u32) -> Result<Option<&Chunk>, S::Error> {
        Ok(self.chunks.get(self.pages, self.number, slot / CHUNK_SLOTS)?)
    }

    /// The time of a slot's open read, milliseconds after the send.
    pub(super) fn after_ms(&mut self, slot: u32) -> Result<Option<u64>, S::Error> {
        if self.message.slots <= INLINE_SLOTS {
            return Ok(self.message.reads.after_ms(slot));
        }
        Ok(self.chunk(slot)?.and_then(|c| c.0.after_ms(slot % CHUNK_SLOTS)))
    }

    /// Whether a slot has an open read, and whether it has a hidden one.
    pub(super) fn bits(&mut self, slot: u32) -> Result<(bool, bool), S::Error> {
        if self.message.slots <= INLINE_SLOTS {
            return Ok((self.message.reads.has_read(slot), self.message.reads.has_read_hidden(slot)));
        }
        let in_chunk = slot % CHUNK_SLOTS;
        Ok(self.chunk(slot)?.map_or((false, false), |c| (c.0.has_read(in_chunk), c.0.has_read_hidden(in_chunk))))
    }

    /// Whether a slot of the audience counts as unread or departed, by its bits.
    pub(super) fn has_not_read(&mut self, slot: u32) -> Result<bool, S::Error> {
        let (read, hidden) = self.bits(slot)?;
        Ok(!read && (!hidden || self.ignore_hidden))
    }

    /// The list that a slot is in. A hidden reader is in none (INV-HIDDEN).
    pub(super) fn list_of(&mut self, slot: u32) -> Result<Option<MemberFilter>, S::Error> {
        if !self.is_in_audience(slot)? {
            return Ok(None);
        }
        let (read, hidden) = self.bits(slot)?;
        if read {
            return Ok(Some(MemberFilter::Read));
        }
        if hidden && !self.ignore_hidden {
            return Ok(None);
        }
        let offset = self.message.offset;
        let is_erased = self.unseen_departures.binary_search_by_key(&slot, |(slot, _)| *slot).is_ok();
        let has_departed = is_erased || self.person(slot)?.left_after(offset);
        Ok(Some(if has_departed { MemberFilter::Departed } else { MemberFilter::Unread }))
    }

    /// Whether nobody on a slot's page of people is in the audience: all of them had left before
    /// the message. So a list in a conversation that many people have left skips them by the page.
    fn is_page_outside(&mut self, slot: u32) -> Result<bool, S::Error> {
        let m = self.message;
        if m.named_recipients {
            return Ok(false);
        }
        let page = self.people.get(self.pages, m.conversation.into(), slot / PEOPLE_PER_PAGE)?;
        Ok(page.is_some_and(|people| people.is_outside_at(m.offset)))
    }

    /// The first slot at or after `from` that is in a list. Slots rise and never change hands
    /// (INV-PAGING).
    pub(super) fn next(&mut self, mut from: u32, filter: MemberFilter) -> Result<Option<u32>, S::Error> {
        let (slots, ignore_hidden) = (self.message.slots, self.ignore_hidden);
        while from < slots {
            let inline = slots <= INLINE_SLOTS;
            let (first, size) =
                if inline { (0, INLINE_SLOTS) } else { (from / CHUNK_SLOTS * CHUNK_SLOTS, CHUNK_SLOTS) };
            let in_chunk = from - first;
            let candidate = if inline {
                let reads = &self.message.reads;
                if filter == MemberFilter::Read {
                    reads.next_read(in_chunk)
                } else {
                    reads.next_without_read(in_chunk, ignore_hidden)
                }
            } else {
                match (self.chunk(from)?, filter) {
                    (Some(c), MemberFilter::Read) => c.0.next_read(in_chunk),
                    (Some(c), _) => c.0.next_without_read(in_chunk, ignore_hidden),
                    (None, MemberFilter::Read) => None,
                    (None, _) => Some(in_chunk),
                }
            };
            from = match candidate.map(|in_chunk| first + in_chunk) {
                None => first.saturating_add(size),
                Some(slot) if slot >= slots => break,
                Some(slot) if filter == MemberFilter::Read => return Ok(Some(slot)),
                Some(slot) if self.is_page_outside(slot)? => (slot / PEOPLE_PER_PAGE + 1) * PEOPLE_PER_PAGE,
                Some(slot) if self.list_of(slot)? == Some(filter) => return Ok(Some(slot)),
                Some(slot) => slot + 1,
            };
        }
        Ok(None)
    }
}
