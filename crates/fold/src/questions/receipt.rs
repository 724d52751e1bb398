//! The receipt of a message: its status and its counts. Computed from the message's counts and the
//! departures since its send, not by a look at every slot.

use crate::index::{IdHash, message_named};
use crate::pages::{Message, MessageStatus, Messages, PageKey, Pages, Ref, Table, message_key};
use crate::questions::find::{Found, not_found};
use crate::questions::view::{Counts, FoundReceipt, Receipt, Status};
use crate::state::{Error, Result, State};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::borrow::Cow;

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
        let within = (conversation, &conversation_page.segments);
        let unseen = self.unseen_departures(conversation, &conversation_page)?;
        let mut receipts = Vec::with_capacity(message_ids.len());
        let mut page: Option<(PageKey, Ref<'_, Messages>)> = None;
        'ids: for id in message_ids {
            for number in self.index.candidates(&self.pages, IdHash::of(tenant, id), within)? {
                let key = message_key(number).0;
                if page.as_ref().is_none_or(|(last, _)| *last != key) {
                    page = Table::<Messages>::read(&self.pages, key)?.map(|page| (key, page));
                }
                let Some((_, page)) = &page else { continue };
                if message_named(page, number, conversation, id).is_some_and(|m| !self.is_expired(m)) {
                    let pages = (Ref::Cached(&**page), Ref::Cached(&*conversation_page));
                    let found = self.found_among(number, pages.0, pages.1, Cow::Borrowed(&unseen))?;
                    receipts.push(found.receipt()?);
                    continue 'ids;
                }
            }
            receipts.push(missing(id));
        }
        Ok(receipts)
    }

    /// Returns the receipts of messages by their ids in any conversation, one for each id, in the
    /// order of the ids. Equal ids are looked up once.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn find_receipts(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
        candidates_max: u32,
    ) -> Result<Vec<FoundReceipt>, S::Error> {
        let mut found: Vec<FoundReceipt> = Vec::with_capacity(message_ids.len());
        let mut first: HashMap<&str, usize> = HashMap::with_capacity(message_ids.len());
        for (index, id) in message_ids.iter().enumerate() {
            let receipt = match first.entry(id) {
                Entry::Occupied(before) => found[*before.get()].clone(),
                Entry::Vacant(new) => {
                    new.insert(index);
                    self.find_receipt(tenant, sender_id, id, candidates_max)?
                }
            };
            found.push(receipt);
        }
        Ok(found)
    }

    /// Returns the receipt of the message with that id in any conversation. Of several messages, a
    /// live one goes before a recalled one; of these, the greatest `sent_at_ms` decides, and then
    /// the one sent later in the log. Where more messages have the id than `candidates_max`,
    /// expired ones that are not yet removed included, the receipt is ambiguous.
    ///
    /// With a `sender_id`, only the messages that this person sent are answered. Then the receipt
    /// is ambiguous only if one of the messages that were looked at is theirs: a stranger's answer
    /// does not reveal that others have the id (INV-STRANGER).
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn find_receipt(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_id: &str,
        candidates_max: u32,
    ) -> Result<FoundReceipt, S::Error> {
        let none = |candidates| FoundReceipt { receipt: not_found(tenant, None, message_id), candidates };
        if sender_id.is_some_and(|sender| self.is_erased(tenant, sender)) {
            return Ok(none(0));
        }
        let hash = IdHash::of(tenant, message_id).in_tenant;
        let numbers = self.index.candidates_anywhere(&self.pages, hash, candidates_max as usize + 1)?;
        let candidates = numbers.len() as u32;
        let too_many = candidates > candidates_max;
        let ambiguous = || Receipt::bare(tenant, None, message_id, Status::Ambiguous);
        if too_many && sender_id.is_none() {
            return Ok(FoundReceipt { receipt: ambiguous(), candidates });
        }
        let mut best: Option<Found<'_, S>> = None;
        for number in numbers.into_iter().take(candidates_max as usize) {
            let Some(page) = Table::<Messages>::read(&self.pages, message_key(number).0)? else { continue };
            let index = message_key(number).1;
            let Some(m) = page.at(index).filter(|m| page.id(index) == message_id && !self.is_expired(m)) else {
                continue;
            };
            if best.as_ref().is_some_and(|b| rank(b.message()) >= rank(m)) {
                continue;
            }
            let conversation_page = self.read_conversation_page(m.conversation)?;
            if &*conversation_page.tenant != tenant {
                continue;
            }
            if let Some(sender_id) = sender_id
                && self.slot_of(m.conversation, &conversation_page, sender_id)? != Some(m.sender)
            {
                continue;
            }
            if too_many {
                return Ok(FoundReceipt { receipt: ambiguous(), candidates });
            }
            best = Some(self.found(number, page, conversation_page)?);
        }
        match best {
            Some(found) => Ok(FoundReceipt { receipt: found.receipt()?, candidates }),
            None => Ok(none(candidates)),
        }
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

    /// Returns the receipt of a message by its number in the partition; `None` once it has expired.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn receipt_of(&self, message: u64) -> Result<Option<Receipt>, S::Error> {
        self.find_number(message)?.map(|found| found.receipt()).transpose()
    }
}

/// The order in which messages of one id answer for it: the greatest first. Candidates come by
/// falling number, so of equal ones the later one in the log answers.
fn rank(m: &Message) -> (bool, u64) {
    (m.status != MessageStatus::Recalled, m.sent_at_ms)
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
        let last_departure = self.last_departure().filter(|departure| *departure > m.offset);
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
