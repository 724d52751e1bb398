//! Read marks: the point up to which a reader has read a conversation.

use crate::pages::{MARKS_PER_PAGE, PageKey, Pages, ReadMarks, Table};
use crate::questions::view::ReadMark;
use crate::state::{Result, State};

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
        Ok(Some(ReadMark {
            reader_id,
            up_to_message_id: mark.message_id.as_deref().map(Into::into),
            up_to_sent_at_ms: mark.up_to_sent_at_ms,
            read_at_ms: mark.read_at_ms,
            version: mark.version,
        }))
    }
}
