//! The read marks of a conversation, by slot, and the messages that each slot has been offered.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// Slots per page.
pub const MARKS_PER_PAGE: u32 = 64;

/// A read mark as answers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The message up to which the person read, where the event named one.
    pub message_id: Option<Box<str>>,
    /// The person has read up to this `sent_at_ms`, Unix milliseconds.
    pub up_to_sent_at_ms: u64,
    /// When the person read, Unix milliseconds.
    pub read_at_ms: u64,
    /// Offset of the event that moved it.
    pub version: u64,
}

/// The messages that a slot's earlier marks have covered, so that the next mark visits new ones
/// only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// Messages below this number …
    pub below: u64,
    /// … with at most this `sent_at_ms` need no second look.
    pub up_to_sent_at_ms: u64,
}

/// The marks of 64 slots.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadMarks {
    /// The mark of each slot, and its covered messages. Hidden marks cover messages too.
    pub slots: Vec<(Option<Mark>, Option<Covered>)>,
}

impl ReadMarks {
    /// Returns the entry at an index, and makes it if it is missing.
    pub fn entry_mut(&mut self, index: u32) -> &mut (Option<Mark>, Option<Covered>) {
        if self.slots.len() <= index as usize {
            self.slots.resize(index as usize + 1, (None, None));
        }
        &mut self.slots[index as usize]
    }
}

impl Page for ReadMarks {
    const TABLE: TableId = TableId::ReadMarks;

    fn encode(&self, to: &mut Writer) {
        to.number(self.slots.len() as u64);
        let (mut sent_at, mut below) = (0, 0);
        for (mark, covered) in &self.slots {
            let named = mark.as_ref().is_some_and(|m| m.message_id.is_some());
            to.byte(u8::from(mark.is_some()) | u8::from(named) << 1 | u8::from(covered.is_some()) << 2);
            if let Some(m) = mark {
                m.message_id.iter().for_each(|id| to.text(id));
                to.difference(m.up_to_sent_at_ms, sent_at);
                sent_at = m.up_to_sent_at_ms;
                to.difference(m.read_at_ms, sent_at);
                to.number(m.version);
            }
            if let Some(c) = covered {
                to.difference(c.below, below);
                below = c.below;
                to.difference(c.up_to_sent_at_ms, sent_at);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(1)?;
        if count > MARKS_PER_PAGE as usize {
            return Err(Malformed("too many marks on a page"));
        }
        let mut slots = Vec::with_capacity(count);
        let (mut sent_at, mut below) = (0, 0);
        for _ in 0..count {
            let flags = from.byte()?;
            let mut entry = (None, None);
            if flags & 1 > 0 {
                let message_id = if flags & 2 > 0 { Some(from.text()?.into()) } else { None };
                sent_at = from.difference(sent_at)?;
                let read_at_ms = from.difference(sent_at)?;
                entry.0 = Some(Mark { message_id, up_to_sent_at_ms: sent_at, read_at_ms, version: from.number()? });
            }
            if flags & 4 > 0 {
                below = from.difference(below)?;
                entry.1 = Some(Covered { below, up_to_sent_at_ms: from.difference(sent_at)? });
            }
            slots.push(entry);
        }
        Ok(Self { slots })
    }

    fn memory_bytes(&self) -> usize {
        let ids = self.slots.iter().flat_map(|s| &s.0).flat_map(|m| &m.message_id).map(|id| id.len() + 16);
        size_of::<Self>() + self.slots.capacity() * size_of::<(Option<Mark>, Option<Covered>)>() + ids.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn page_accounts_for_its_marks() {
        let mut marks = ReadMarks { slots: Vec::with_capacity(64) };
        let message_id = Some("m".repeat(128).into());
        marks.entry_mut(3).0 = Some(Mark { message_id, up_to_sent_at_ms: 1, read_at_ms: 2, version: 3 });
        accounts_for(&marks, 64 * size_of::<(Option<Mark>, Option<Covered>)>() + 128);
    }

    #[test]
    fn page_holds_64_marks_and_no_more() {
        let decode = |page: &ReadMarks| {
            let mut w = Writer::default();
            page.encode(&mut w);
            ReadMarks::decode(&mut Reader::new(&w.bytes))
        };
        let page = |count: u32| ReadMarks { slots: vec![(None, None); count as usize] };
        assert_eq!(decode(&page(MARKS_PER_PAGE)), Ok(page(MARKS_PER_PAGE)));
        assert_eq!(decode(&page(MARKS_PER_PAGE + 1)), Err(Malformed("too many marks on a page")));
    }
}
