//! The audience of one message, slot by slot: who is in which list. Skips by bits and looks at people only where it must.

use crate::memo::Memo;
use crate::message::{CHUNK_SLOTS, Chunk, INLINE_SLOTS, Message};
use crate::people::{PEOPLE_PER_PAGE, People, Person};
use crate::state::{Error, Pages, Result};
use crate::view::MemberFilter;

/// The audience of a message by slot. Loads every page at most once.
pub(crate) struct Lists<'a, S> {
    pub(crate) pages: &'a S,
    pub(crate) number: u64,
    pub(crate) message: &'a Message,
    pub(crate) ignore_hidden: bool,
    /// Whose erasure the roster has not seen.
    pub(crate) erased: Vec<&'a str>,
    pub(crate) people: Memo<'a, People>,
    pub(crate) chunks: Memo<'a, Chunk>,
}

impl<'a, S: Pages> Lists<'a, S> {
    pub(crate) fn person(&mut self, slot: u32) -> Result<&Person, S::Error> {
        let page = self.people.get(self.pages, self.message.conversation.into(), slot / PEOPLE_PER_PAGE)?;
        page.and_then(|p| p.at(slot % PEOPLE_PER_PAGE)).ok_or(Error::Broken("a person"))
    }

    pub(crate) fn is_in_audience(&mut self, slot: u32) -> Result<bool, S::Error> {
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

    pub(crate) fn chunk(&mut self, slot: u32) -> Result<Option<&Chunk>, S::Error> {
        Ok(self.chunks.get(self.pages, self.number, slot / CHUNK_SLOTS)?)
    }

    pub(crate) fn after_ms(&mut self, slot: u32) -> Result<Option<u64>, S::Error> {
        if self.message.slots <= INLINE_SLOTS {
            return Ok(self.message.reads.after_ms(slot));
        }
        Ok(self.chunk(slot)?.and_then(|c| c.0.after_ms(slot % CHUNK_SLOTS)))
    }

    /// Whether a slot has read openly, and whether hidden.
    pub(crate) fn bits(&mut self, slot: u32) -> Result<(bool, bool), S::Error> {
        if self.message.slots <= INLINE_SLOTS {
            return Ok((self.message.reads.has_read(slot), self.message.reads.has_read_hidden(slot)));
        }
        let place = slot % CHUNK_SLOTS;
        Ok(self.chunk(slot)?.map_or((false, false), |c| (c.0.has_read(place), c.0.has_read_hidden(place))))
    }

    /// Whether somebody of the audience counts as unread or departed, by the bits.
    pub(crate) fn is_without_read(&mut self, slot: u32) -> Result<bool, S::Error> {
        let (read, hidden) = self.bits(slot)?;
        Ok(!read && (!hidden || self.ignore_hidden))
    }

    /// The list that a slot is in, if any.
    pub(crate) fn class(&mut self, slot: u32) -> Result<Option<MemberFilter>, S::Error> {
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
        let (offset, erased) = (self.message.offset, std::mem::take(&mut self.erased));
        let person = self.person(slot)?;
        let gone = person.left_after(offset) || erased.contains(&&*person.id);
        self.erased = erased;
        Ok(Some(if gone { MemberFilter::Departed } else { MemberFilter::Unread }))
    }

    /// The first slot at or after `from` that is in a list. Skips by bits, then looks at the person.
    pub(crate) fn next(&mut self, mut from: u32, filter: MemberFilter) -> Result<Option<u32>, S::Error> {
        let (slots, ignore_hidden) = (self.message.slots, self.ignore_hidden);
        while from < slots {
            let inline = slots <= INLINE_SLOTS;
            let (first, size) =
                if inline { (0, INLINE_SLOTS) } else { (from / CHUNK_SLOTS * CHUNK_SLOTS, CHUNK_SLOTS) };
            let place = from - first;
            let candidate = if inline {
                let reads = &self.message.reads;
                if filter == MemberFilter::Read {
                    reads.next_read(place)
                } else {
                    reads.next_without_read(place, ignore_hidden)
                }
            } else {
                match (self.chunk(from)?, filter) {
                    (Some(c), MemberFilter::Read) => c.0.next_read(place),
                    (Some(c), _) => c.0.next_without_read(place, ignore_hidden),
                    (None, MemberFilter::Read) => None,
                    (None, _) => Some(place),
                }
            };
            from = match candidate {
                None => first.saturating_add(size),
                Some(place) if first + place >= slots => break,
                Some(place) if filter == MemberFilter::Read || self.class(first + place)? == Some(filter) => {
                    return Ok(Some(first + place));
                }
                Some(place) => first + place + 1,
            };
        }
        Ok(None)
    }
}
