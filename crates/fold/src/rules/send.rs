//! `message.sent`: freezes the message's audience, stores the message, and applies the records that
//! were parked for it.
//!
//! A send with the id of a live message of the conversation changes nothing.

use crate::effects::{DeadLetter, Effects, MessageChanged};
use crate::index::{IdHash, Lookup};
use crate::pages::{
    CHUNK_SLOTS, Chunk, ConversationPage, INLINE_SLOTS, MESSAGES_PER_PAGE, Message, MessageStatus, Messages,
    PEOPLE_PER_PAGE, PageKey, Pages, Parked, Reads, Role, Table, message_key, write_conversation_name,
};
use crate::record::RecordMetadata;
use crate::rules::read::{ReadTimes, Reading};
use crate::skip_list;
use crate::state::{Error, Result, State};
use receipts_event::{Body, Kind, MessageSent, Reason};

/// The records that waited for a message which has come, while they are being applied.
pub(crate) struct Waited {
    /// Their offsets, in order.
    offsets: std::vec::IntoIter<u64>,
    /// The name of the conversation.
    name: Box<[u8]>,
    conversation: u32,
    /// The message's number; `None` if it has expired on arrival.
    message: Option<u64>,
    message_id: Box<str>,
    /// The offset of the send.
    sent_offset: u64,
}

impl<S: Pages> State<S> {
    pub(super) fn send(
        &mut self,
        tenant: &str,
        e: &MessageSent<'_>,
        at: RecordMetadata,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let conversation = match self.find_conversation(tenant, &e.conversation_id)? {
            Some(conversation) => {
                self.apply_erasures(conversation)?;
                if matches!(self.find_message(tenant, conversation, &e.message_id)?, Lookup::Message(_)) {
                    return Ok(());
                }
                if e.recipients.is_none() && !self.conversation_page(conversation)?.ever_roster {
                    return no_roster(e, effects);
                }
                conversation
            }
            None if e.recipients.is_none() => return no_roster(e, effects),
            None => self.conversation_or_new(tenant, &e.conversation_id)?,
        };
        if self.horizon().is_past(at.timestamp_ms) {
            // The message has expired on arrival. It is not stored, and records no longer wait for
            // it. That makes no dead letter, because the message came.
            self.take_waiting_for(tenant, e, conversation, None, at);
            return Ok(());
        }
        let (message, audience) = self.append(tenant, conversation, e, at)?;
        effects.counters.messages += 1;
        effects.changed.push(MessageChanged { message, audience, newly_read: None });
        self.take_waiting_for(tenant, e, conversation, Some(message), at);
        if self.unfinished.is_empty() { self.finish_send(message) } else { Ok(()) }
    }

    /// Gives space back, once per page of messages.
    fn finish_send(&mut self, message: u64) -> Result<(), S::Error> {
        if message.is_multiple_of(MESSAGES_PER_PAGE) { self.remove_expired() } else { Ok(()) }
    }

    /// Numbers, links and stores a new message. Returns its number and the size of its audience,
    /// frozen here (INV-FROZEN).
    fn append(
        &mut self,
        tenant: &str,
        conversation: u32,
        e: &MessageSent<'_>,
        at: RecordMetadata,
    ) -> Result<(u64, u32), S::Error> {
        let message = self.meta.next_message;
        let sender = self.slot_or_new(conversation, &e.sender_id)?;
        let page = Table::<ConversationPage>::load_mut(&mut self.pages, PageKey::new(conversation, 0))?
            .ok_or(Error::Broken("a conversation"))?;
        let kind = page.kind;
        let status = if !e.need_read_receipt {
            MessageStatus::NotRequested
        } else if kind == Kind::Group && !self.supports(tenant, conversation)? {
            MessageStatus::Unsupported
        } else {
            MessageStatus::Ok
        };
        let mut recipients = Vec::new();
        let named = if status == MessageStatus::Ok { e.recipients.as_deref() } else { None };
        for id in named.unwrap_or_default() {
            recipients.push(self.slot_or_new(conversation, id)?);
        }
        recipients.sort_unstable();
        recipients.dedup();
        recipients.retain(|slot| *slot != sender);
        for slot in &recipients {
            let mut people = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
            let person = people.at_mut(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a recipient"))?;
            person.ever_recipient = true;
        }

        let people = self.people(conversation, sender / PEOPLE_PER_PAGE)?;
        let sender_role = people.at(sender % PEOPLE_PER_PAGE).ok_or(Error::Broken("a sender"))?.role;
        let oldest_segment = self.index.segment_of(self.meta.oldest_page * MESSAGES_PER_PAGE);
        let segment = self.index.segment_of(message);
        let mut page = self.conversation_page(conversation)?;
        let by_roster = page.members.checked_sub(u32::from(sender_role == Role::Member));
        let by_roster = by_roster.ok_or(Error::Broken("the number of members"))?;
        let slots = if status == MessageStatus::Ok { page.people } else { 0 };
        if page.roots.first().is_some_and(|newest| newest.message >= message) {
            return Err(Error::Broken("the newest message of a conversation"));
        }
        let link = skip_list::push(&mut page, message, e.sent_at_ms);
        page.segments.add(segment, oldest_segment).ok_or(Error::Broken("the segments of a conversation"))?;
        let mut reads = Reads::default();
        if slots <= INLINE_SLOTS {
            recipients.iter().for_each(|slot| reads.add_recipient(*slot));
        }
        let mut new = Message::new(conversation, sender, e.sent_at_ms, at.offset, at.timestamp_ms, kind, status);
        new.named_recipients = named.is_some();
        new.slots = slots;
        new.reads = reads;
        let audience = match (status, named) {
            (MessageStatus::Ok, Some(_)) => recipients.len() as u32,
            (MessageStatus::Ok, None) => by_roster,
            _ => 0,
        };
        new.audience = audience;
        self.meta.next_message += 1;
        let (key, index) = message_key(message);
        if index == 0 {
            self.pages.put(key, Messages::new(message));
        }
        let mut page =
            Table::<Messages>::load_mut(&mut self.pages, key)?.ok_or(Error::Broken("the newest messages"))?;
        if page.len() != index {
            return Err(Error::Broken("the end of the newest messages"));
        }
        page.push(&e.message_id, new, link);
        self.index.insert(&mut self.pages, message, IdHash::of(tenant, &e.message_id), conversation);
        if slots > INLINE_SLOTS {
            self.store_recipients(message, &recipients)?;
        }
        Ok((message, audience))
    }

    /// Writes the chunks of a message that hold its named recipients, given as sorted slots.
    fn store_recipients(&mut self, message: u64, slots: &[u32]) -> Result<(), S::Error> {
        for chunk in slots.chunk_by(|a, b| a / CHUNK_SLOTS == b / CHUNK_SLOTS) {
            let mut page = Chunk::default();
            chunk.iter().for_each(|slot| page.0.add_recipient(slot % CHUNK_SLOTS));
            self.pages.put(PageKey::new(message, chunk[0] / CHUNK_SLOTS), page);
        }
        Ok(())
    }

    /// Finds the records that wait for a message. The slices of [`super::slices`]
    /// apply them; without a number they only no longer wait.
    fn take_waiting_for(
        &mut self,
        tenant: &str,
        e: &MessageSent<'_>,
        conversation: u32,
        message: Option<u64>,
        at: RecordMetadata,
    ) {
        if self.waiting.is_empty() {
            return;
        }
        let mut name = std::mem::take(&mut self.name);
        write_conversation_name(&mut name, tenant, &e.conversation_id);
        if let Some(offsets) = self.take_waiting(&name, &e.message_id) {
            let (offsets, name, message_id) = (offsets.into_iter(), (&*name).into(), (&*e.message_id).into());
            self.unfinished.waited =
                Some(Waited { offsets, name, conversation, message, message_id, sent_offset: at.offset });
        }
        self.name = name;
    }

    /// Applies the next record that waited for a message. Each read keeps the time of its own
    /// record. The roster and the version are those at the offset of the send. Returns `None` after
    /// the last record.
    pub(super) fn apply_next_waited(
        &mut self,
        mut waited: Waited,
        effects: &mut Effects,
    ) -> Result<Option<Waited>, S::Error> {
        let Some(offset) = waited.offsets.next() else {
            return waited.message.map_or(Ok(()), |message| self.finish_send(message)).map(|()| None);
        };
        let Some(parked) = self.take_parked(offset, &waited.name, &waited.message_id)? else {
            return Ok(Some(waited));
        };
        match waited.message {
            Some(message) => self.apply_parked(&parked, waited.conversation, message, waited.sent_offset, effects)?,
            None => effects.counters.expired += 1,
        }
        Ok(Some(waited))
    }

    fn apply_parked(
        &mut self,
        parked: &Parked,
        conversation: u32,
        message: u64,
        sent_offset: u64,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let event = receipts_event::decode(self.limits.unwrap.event_of(&parked.value))
            .map_err(|_| Error::Broken("the event of a parked record"))?;
        let reading = |read_at_ms, hidden| {
            let times = ReadTimes { read_at_ms, timestamp_ms: parked.timestamp_ms };
            Reading { times, hidden, offset: sent_offset }
        };
        match &event.body {
            Body::MessageRead(e) => match self.reader(conversation, &e.reader_id)? {
                Some(reader) => self.read_message(message, &reader, reading(e.read_at_ms, e.hidden), effects)?,
                None => effects.counters.not_in_audience += 1,
            },
            Body::ConversationRead(e) => {
                let reading = reading(e.read_at_ms, e.hidden);
                self.read_up_to_message(conversation, &e.reader_id, message, reading, effects)?;
            }
            Body::MessageRecalled(_) => self.recall_message(message, sent_offset, effects)?,
            _ => return Err(Error::Broken("the event of a parked record")),
        }
        Ok(())
    }
}

fn no_roster<E>(e: &MessageSent<'_>, effects: &mut Effects) -> Result<(), E> {
    let detail = "/recipients is missing, and the conversation never had a roster".to_owned();
    effects.dead_letters.push(DeadLetter {
        reason: Reason::NoRoster,
        detail,
        ids: vec![(&*e.message_id).into()],
        parked: None,
    });
    Ok(())
}
