//! Finds the message that an event names. Reads pages and changes nothing.

use crate::index::{id_hash, in_tenant};
use crate::pages::{ConversationPage, Message, Messages, PageKey, Pages, Table, message_key};
use crate::state::{Error, Result, State};

/// The message that an id names in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// A live message, by number.
    Message(u64),
    /// A message that has expired and whose page is still there. No event changes it.
    Expired,
    /// No known message: not yet in the log, or expired and removed.
    Unknown,
}

impl<S: Pages> State<S> {
    /// Finds the message of an id in a conversation of the tenant.
    pub(crate) fn find_message(
        &mut self,
        tenant: &str,
        conversation: u32,
        message_id: &str,
    ) -> Result<Lookup, S::Error> {
        let horizon = self.horizon();
        let hash = id_hash(message_id);
        let mut otherwise = Lookup::Unknown;
        let mut accept = |pages: &mut S, message| -> Result<_, S::Error> {
            let page = Table::<Messages>::load_mut(pages, message_key(message).0)?;
            let Some(m) = page.as_deref().and_then(|p| message_named(p, message, conversation, message_id)) else {
                return Ok(None);
            };
            if !horizon.is_past(m.timestamp_ms) {
                return Ok(Some(Lookup::Message(message)));
            }
            otherwise = Lookup::Expired;
            Ok(None)
        };
        let mut found = self.index.find_active(&mut self.pages, hash, conversation, &mut accept)?;
        if found.is_none() && self.index.has_sealed() {
            let page = Table::<ConversationPage>::load_mut(&mut self.pages, PageKey::new(conversation, 0))?
                .ok_or(Error::Broken("a conversation"))?;
            let segments = page.segments.clone();
            let hash = in_tenant(hash, tenant);
            found = self.index.find_sealed(&mut self.pages, hash, (conversation, &segments), accept)?;
        }
        Ok(found.unwrap_or(otherwise))
    }
}

/// Returns a message of a page if it has that conversation and id.
pub(crate) fn message_named<'a>(
    page: &'a Messages,
    message: u64,
    conversation: u32,
    message_id: &str,
) -> Option<&'a Message> {
    let index = message_key(message).1;
    page.at(index).filter(|m| m.conversation == conversation && page.id(index) == message_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::MessageStatus;
    use crate::skip_list::SkipLink;
    use receipts_event::Kind;

    /// Look-ups by hash return other messages too, so both the conversation and the id are
    /// compared.
    #[test]
    fn message_is_named_by_conversation_and_id() {
        let mut page = Messages::new(64);
        let link = SkipLink { sent_at_ms: 0, sent_at_max: 0, previous: None, skip: None };
        page.push("m", Message::new(5, 0, 0, 0, 0, Kind::Group, MessageStatus::Ok), link);
        let named = |message, conversation, id| message_named(&page, message, conversation, id).is_some();
        assert!(named(64, 5, "m"));
        assert!(!named(64, 6, "m") && !named(64, 5, "n") && !named(65, 5, "m"));
    }
}
