//! The receipt of a message: its status and its counts. Computed from the message's counts and the
//! departures since its send, not by a look at every slot.

use crate::index::{id_hash, message_named};
use crate::pages::{ConversationPage, Message, MessageStatus, Messages, PageKey, Pages, Ref, Table, message_key};
use crate::questions::find::{Found, not_found};
use crate::questions::view::{Counts, Receipt, Status};
use crate::state::{Error, Result, State};

impl<S: Pages> State<S> {
    /// Returns the receipt of a message.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Result<Receipt, S::Error> {
        match self.find_in_conversation(tenant, conversation_id, message_id)? {
            Some(found) => found.receipt(),
            None => Ok(not_found(tenant, Some(conversation_id), message_id)),
        }
    }

    /// Returns the receipts of messages of one conversation, one for each id, in the order of the
    /// ids. Finds the conversation once, and reads a page once for neighbouring messages, as a
    /// screen shows them.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn receipts(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_ids: &[String],
    ) -> Result<Vec<Receipt>, S::Error> {
        let missing = |id: &String| not_found(tenant, Some(conversation_id), id);
        let Some((conversation, conversation_page)) = self.read_conversation_by_name(tenant, conversation_id)? else {
            return Ok(message_ids.iter().map(missing).collect());
        };
        let segments = &conversation_page.segments;
        let mut receipts = Vec::with_capacity(message_ids.len());
        let mut page: Option<(PageKey, Ref<'_, Messages>)> = None;
        'ids: for id in message_ids {
            for number in self.index.candidates(&self.pages, id_hash(id), Some((conversation, segments)))? {
                let key = message_key(number).0;
                if page.as_ref().is_none_or(|(last, _)| *last != key) {
                    page = Table::<Messages>::read(&self.pages, key)?.map(|page| (key, page));
                }
                let Some((_, page)) = &page else { continue };
                if message_named(page, number, conversation, id).is_some_and(|m| !self.is_expired(m)) {
                    let found = self.found(number, Ref::Cached(page), Ref::Cached(&conversation_page))?;
                    receipts.push(found.receipt()?);
                    continue 'ids;
                }
            }
            receipts.push(missing(id));
        }
        Ok(receipts)
    }

    /// Returns the receipt of the message with that id in any conversation. Of several messages,
    /// takes the one with the greatest `sent_at_ms`.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn receipt_anywhere(&self, tenant: &str, message_id: &str) -> Result<Receipt, S::Error> {
        self.receipt_of_the_last(tenant, message_id, |_, _| Ok(true))
    }

    /// Returns the receipt of a message if this person sent it. Otherwise answers as if the message
    /// did not exist.
    ///
    /// If the person was never in the conversation, the look-up stops there, so the response time
    /// does not reveal whether the message exists (INV-STRANGER).
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn receipt_sent_by(
        &self,
        tenant: &str,
        conversation_id: &str,
        sender_id: &str,
        message_id: &str,
    ) -> Result<Receipt, S::Error> {
        let sender = if self.is_erased(tenant, sender_id) {
            None
        } else {
            self.find_person(tenant, conversation_id, sender_id)?
        };
        if let Some((_, _, slot)) = sender
            && let Some(found) = self.find_in_conversation(tenant, conversation_id, message_id)?
            && found.message().sender == slot
        {
            return found.receipt();
        }
        Ok(not_found(tenant, Some(conversation_id), message_id))
    }

    /// As [`State::receipt_anywhere`], but only among the messages that this person sent.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn receipt_anywhere_sent_by(
        &self,
        tenant: &str,
        sender_id: &str,
        message_id: &str,
    ) -> Result<Receipt, S::Error> {
        if self.is_erased(tenant, sender_id) {
            return Ok(not_found(tenant, None, message_id));
        }
        self.receipt_of_the_last(tenant, message_id, |m, page| {
            Ok(self.slot_of(m.conversation, page, sender_id)? == Some(m.sender))
        })
    }

    /// Returns the receipt of a message with that id that `accept` accepts. Of several messages,
    /// takes the one with the greatest `sent_at_ms`.
    fn receipt_of_the_last(
        &self,
        tenant: &str,
        message_id: &str,
        accept: impl Fn(&Message, &ConversationPage) -> Result<bool, S::Error>,
    ) -> Result<Receipt, S::Error> {
        let mut best: Option<Found<'_, S>> = None;
        for number in self.index.candidates(&self.pages, id_hash(message_id), None)? {
            let Some(page) = Table::<Messages>::read(&self.pages, message_key(number).0)? else { continue };
            let index = message_key(number).1;
            let Some(m) = page.at(index).filter(|m| page.id(index) == message_id && !self.is_expired(m)) else {
                continue;
            };
            if best.as_ref().is_some_and(|b| b.message().sent_at_ms >= m.sent_at_ms) {
                continue;
            }
            let conversation_page = self.read_conversation_page(m.conversation)?;
            if &*conversation_page.tenant == tenant && accept(m, &conversation_page)? {
                best = Some(self.found(number, page, conversation_page)?);
            }
        }
        best.map_or_else(|| Ok(not_found(tenant, None, message_id)), |found| found.receipt())
    }

    /// Returns the receipt of a message by its number in the partition; `None` once it has expired.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn receipt_of(&self, message: u64) -> Result<Option<Receipt>, S::Error> {
        self.find_number(message)?.map(|found| found.receipt()).transpose()
    }
}

impl<S: Pages> Found<'_, S> {
    pub(super) fn receipt(&self) -> Result<Receipt, S::Error> {
        Ok(self.receipt_and_departed()?.0)
    }

    /// The receipt, and the slots that it counts as departed, in any order.
    pub(super) fn receipt_and_departed(&self) -> Result<(Receipt, Vec<u32>), S::Error> {
        let m = self.message();
        let (state, conversation_page) = (self.state, &*self.conversation_page);
        let message_id = self.page.id(message_key(self.number).1);
        let mut receipt = not_found(&conversation_page.tenant, Some(&conversation_page.conversation_id), message_id);
        receipt.status = match m.status {
            MessageStatus::Ok => Status::Ok,
            MessageStatus::NotRequested => Status::NotRequested,
            MessageStatus::Unsupported => Status::Unsupported,
            MessageStatus::Recalled => Status::Recalled,
        };
        receipt.kind = Some(m.kind);
        receipt.sender_id = state.user_id(m.conversation, &conversation_page.tenant, m.sender)?;
        receipt.sent_at_ms = Some(m.sent_at_ms);
        let last_departure = self.last_departure()?.filter(|departure| *departure > m.offset);
        receipt.version = Some(m.changed.max(last_departure.unwrap_or(0)));
        if m.status != MessageStatus::Ok {
            return Ok((receipt, Vec::new()));
        }
        let departed = self.departed()?;
        let departed_count = departed.len() as u32;
        // A hidden read of the one reader of a direct chat is invisible (INV-HIDDEN).
        let hidden_count = if m.is_direct_to_one() { 0 } else { m.hidden };
        // The rest of the audience is unread, so the counts always add up to the audience. A
        // negative rest is an error (INV-SUM).
        let unread_count = m
            .audience
            .checked_sub(m.read)
            .and_then(|rest| rest.checked_sub(hidden_count))
            .and_then(|rest| rest.checked_sub(departed_count))
            .ok_or(Error::Broken("the counts of a message"))?;
        receipt.counts = Some(Counts {
            audience_count: m.audience,
            read_count: m.read,
            unread_count,
            hidden_count,
            departed_count,
            all_read: unread_count == 0 && hidden_count == 0,
        });
        receipt.last_read_at_ms = (m.read > 0).then_some(m.last_read_at_ms);
        if m.is_direct_to_one() {
            self.add_other_party(&mut receipt)?;
        }
        Ok((receipt, departed))
    }

    /// Adds the other party of a direct chat, and the time of their read.
    fn add_other_party(&self, receipt: &mut Receipt) -> Result<(), S::Error> {
        let m = self.message();
        let mut audience = self.audience();
        for slot in 0..m.slots {
            if audience.is_in_audience(slot)? {
                receipt.user_id = self.state.user_id(m.conversation, &self.conversation_page.tenant, slot)?;
                if receipt.user_id.is_some() && m.read > 0 {
                    receipt.read_at_ms = Some(m.last_read_at_ms);
                }
                break;
            }
        }
        Ok(())
    }
}
