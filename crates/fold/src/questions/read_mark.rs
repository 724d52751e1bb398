//! Read marks: the point up to which a reader has read a conversation.

use crate::pages::{MARKS_PER_PAGE, Mark, PageKey, Pages, ReadMarks, Table};
use crate::questions::view::ReadMark;
use crate::state::{Result, State};

/// A page of a conversation's read marks in slot order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadMarksPage {
    /// The open marks, without those of erased people.
    pub marks: Vec<ReadMark>,
    /// The slot from which the next page begins; `None` at the end.
    pub next_slot: Option<u32>,
}

impl<S: Pages> State<S> {
    /// Returns the read mark of a person in a conversation; `None` if there is none or the person
    /// was erased.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Result<Option<ReadMark>, S::Error> {
        if self.is_erased(tenant, user_id) {
            return Ok(None);
        }
        let Some((conversation, _, slot)) = self.find_person(tenant, conversation_id, user_id)? else {
            return Ok(None);
        };
        self.read_mark_of(conversation, slot)
    }

    /// Returns a read mark by conversation and slot; `None` if there is none or the reader was
    /// erased.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn read_mark_of(&self, conversation: u32, slot: u32) -> Result<Option<ReadMark>, S::Error> {
        let page = self.read_conversation_page(conversation)?;
        let Some(reader_id) = self.user_id(conversation, &page.tenant, slot)? else { return Ok(None) };
        let key = PageKey::new(conversation, slot / MARKS_PER_PAGE);
        let Some(marks) = Table::<ReadMarks>::read(&self.pages, key)? else { return Ok(None) };
        let Some((Some(mark), _)) = marks.slots.get((slot % MARKS_PER_PAGE) as usize) else { return Ok(None) };
        Ok(Some(shown(mark, reader_id)))
    }

    /// Returns a page of a conversation's read marks, from the slot `from_slot` on.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn read_marks_page(&self, conversation: u32, from_slot: u32) -> Result<ReadMarksPage, S::Error> {
        let page = self.read_conversation_page(conversation)?;
        let (number, mut marks) = (from_slot / MARKS_PER_PAGE, Vec::new());
        if let Some(held) = Table::<ReadMarks>::read(&self.pages, PageKey::new(conversation, number))? {
            for (slot, (mark, _)) in (number * MARKS_PER_PAGE..).zip(&held.slots) {
                let Some(mark) = mark.as_ref().filter(|_| slot >= from_slot) else { continue };
                if let Some(reader_id) = self.user_id(conversation, &page.tenant, slot)? {
                    marks.push(shown(mark, reader_id));
                }
            }
        }
        let next = (number + 1).saturating_mul(MARKS_PER_PAGE);
        Ok(ReadMarksPage { marks, next_slot: (next < page.people).then_some(next) })
    }
}

fn shown(mark: &Mark, reader_id: String) -> ReadMark {
    ReadMark {
        reader_id,
        up_to_message_id: mark.message_id.as_deref().map(Into::into),
        up_to_sent_at_ms: mark.up_to_sent_at_ms,
        read_at_ms: mark.read_at_ms,
        version: mark.version,
    }
}
