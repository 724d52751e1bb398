//! `message.recalled`: makes a message recalled and drops its reads. A recalled message stays
//! recalled.

use crate::effects::{Effects, MessageChanged};
use crate::index::Lookup;
use crate::pages::{MessageStatus, Pages, Reads, message_key};
use crate::record::{RawRecord, RecordMetadata};
use crate::state::{Error, Result, State};
use receipts_event::MessageRecalled;

impl<S: Pages> State<S> {
    pub(super) fn recall(
        &mut self,
        tenant: &str,
        e: &MessageRecalled<'_>,
        at: RecordMetadata,
        raw: RawRecord<'_>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let named = match self.find_conversation(tenant, &e.conversation_id)? {
            Some(conversation) => self.find_message(tenant, conversation, &e.message_id)?,
            None => Lookup::Unknown,
        };
        match named {
            Lookup::Message(message) => self.recall_message(message, at.offset, effects),
            Lookup::Expired => {
                effects.counters.expired += 1;
                Ok(())
            }
            Lookup::Unknown => self.park(tenant, at, raw, vec![(&*e.message_id).into()], effects),
        }
    }

    /// Makes a message recalled, as of the event at `offset`.
    pub(super) fn recall_message(&mut self, message: u64, offset: u64, effects: &mut Effects) -> Result<(), S::Error> {
        let Some(mut page) = self.messages_page(message)? else { return Ok(()) };
        let index = message_key(message).1;
        if page.at(index).is_none_or(|m| m.status == MessageStatus::Recalled) {
            return Ok(());
        }
        let m = page.at_mut(index).ok_or(Error::Broken("a message"))?;
        let chunks = m.chunks();
        m.status = MessageStatus::Recalled;
        m.changed = offset;
        m.reads = Reads::default();
        (m.audience, m.read, m.hidden, m.last_read_at_ms) = (0, 0, 0, 0);
        self.remove_chunks(message, chunks);
        effects.changed.push(MessageChanged { message, audience: 0, newly_read: None });
        Ok(())
    }
}
