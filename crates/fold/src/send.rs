//! A message is sent: its audience is frozen, and what waited for it is applied.

use crate::chain;
use crate::effects::{Changed, DeadLetter, Effects};
use crate::head::Head;
use crate::index::id_hash;
use crate::message::{CHUNK_SLOTS, Chunk, INLINE_SLOTS, MESSAGES_PER_PAGE, Message, Messages, State as Fate};
use crate::page::Table;
use crate::people::{PEOPLE_PER_PAGE, Role};
use crate::read::{Clock, Reading};
use crate::reads::Reads;
use crate::small::Parked;
use crate::state::{At, Error, Named, Pages, Result, State, key, message_key, named_in_page, write_name};
use receipts_event::{Body, Kind, MessageSent, Reason};

impl<S: Pages> State<S> {
    pub(crate) fn send(
        &mut self,
        tenant: &str,
        e: &MessageSent<'_>,
        at: At,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let conversation = match self.find_conversation(tenant, &e.conversation_id)? {
            Some(conversation) => {
                self.settle_erasures(conversation)?;
                if matches!(self.find_message(conversation, &e.message_id)?, Named::Message(_)) {
                    return Ok(());
                }
                if e.recipients.is_none() && !self.head(conversation)?.ever_roster {
                    return no_roster(e, effects);
                }
                conversation
            }
            None if e.recipients.is_none() => return no_roster(e, effects),
            None => self.conversation_or_new(tenant, &e.conversation_id)?,
        };
        if self.horizon().is_past(at.timestamp_ms) {
            // Expired on arrival: nobody will ever see it, nor wait for it.
            self.take_parked_for(tenant, e)?;
            return Ok(());
        }
        let (message, audience) = self.append(tenant, conversation, e, at)?;
        effects.counters.messages += 1;
        effects.changed.push(Changed { message, audience, newly_read: None });
        self.apply_parked(tenant, conversation, message, e, at, effects)?;
        if message % MESSAGES_PER_PAGE == 0 {
            self.forget_expired()?;
        }
        Ok(())
    }

    /// What a message id stands for in a conversation.
    pub(crate) fn find_message(&mut self, conversation: u32, message_id: &str) -> Result<Named, S::Error> {
        let horizon = self.horizon();
        let hash = id_hash(message_id);
        let mut otherwise = Named::Nothing;
        let mut accept = |pages: &mut S, message| -> Result<_, S::Error> {
            let page = Table::<Messages>::hot(pages, message_key(message).0)?;
            let Some(m) = page.as_deref().and_then(|p| named_in_page(p, message, conversation, message_id)) else {
                return Ok(None);
            };
            if !horizon.is_past(m.timestamp_ms) {
                return Ok(Some(Named::Message(message)));
            }
            otherwise = Named::Expired;
            Ok(None)
        };
        let mut found = self.index.find_young(&mut self.pages, hash, conversation, &mut accept)?;
        if found.is_none() && self.index.has_sealed() {
            let head =
                Table::<Head>::hot(&mut self.pages, key(conversation, 0))?.ok_or(Error::Broken("a conversation"))?;
            let stretches = head.stretches.clone();
            found = self.index.find_sealed(&mut self.pages, hash, (conversation, &stretches), accept)?;
        }
        Ok(found.unwrap_or(otherwise))
    }

    /// Numbers, links and stores a new message; returns its number and how many must read it.
    fn append(&mut self, tenant: &str, conversation: u32, e: &MessageSent<'_>, at: At) -> Result<(u64, u32), S::Error> {
        let message = self.meta.next_message;
        let sender = self.slot_or_new(conversation, &e.sender_id)?;
        let head = Table::<Head>::hot(&mut self.pages, key(conversation, 0))?.ok_or(Error::Broken("a conversation"))?;
        let kind = head.kind;
        let state = if !e.need_read_receipt {
            Fate::NotRequested
        } else if kind == Kind::Group && !self.meta.supports(tenant, &head.group_type) {
            Fate::Unsupported
        } else {
            Fate::Ok
        };
        let mut recipients = Vec::new();
        let names = if state == Fate::Ok { e.recipients.as_deref() } else { None };
        for id in names.unwrap_or_default() {
            recipients.push(self.slot_or_new(conversation, id)?);
        }
        recipients.sort_unstable();
        recipients.dedup();
        recipients.retain(|slot| *slot != sender);
        for slot in &recipients {
            let mut page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
            let person = page.at_mut(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a recipient"))?;
            person.ever_recipient = true;
        }

        let sender_page = self.people(conversation, sender / PEOPLE_PER_PAGE)?;
        let sender_role = sender_page.at(sender % PEOPLE_PER_PAGE).ok_or(Error::Broken("a sender"))?.role;
        let oldest_stretch = self.index.stretch_of(self.meta.oldest_page * MESSAGES_PER_PAGE);
        let stretch = self.index.stretch_of(message);
        let mut head = self.head(conversation)?;
        let by_roster = head.members.checked_sub(u32::from(sender_role == Role::Member));
        let by_roster = by_roster.ok_or(Error::Broken("the members"))?;
        let slots = if state == Fate::Ok { head.people } else { 0 };
        let link = chain::push(&mut head, message, e.sent_at_ms);
        head.stretches.add(stretch, oldest_stretch);
        let mut reads = Reads::default();
        if slots <= INLINE_SLOTS {
            recipients.iter().for_each(|slot| reads.add_recipient(*slot));
        }
        let mut new = Message::new(conversation, sender, e.sent_at_ms, at.offset, at.timestamp_ms, kind, state);
        new.named_recipients = names.is_some();
        new.slots = slots;
        new.reads = reads;
        let audience = match (state, names) {
            (Fate::Ok, Some(_)) => recipients.len() as u32,
            (Fate::Ok, None) => by_roster,
            _ => 0,
        };
        new.audience = audience;
        self.meta.next_message += 1;
        let (page_key, place) = message_key(message);
        if place == 0 {
            self.pages.put(page_key, Messages::new(message));
        }
        let mut page =
            Table::<Messages>::hot(&mut self.pages, page_key)?.ok_or(Error::Broken("the newest messages"))?;
        if page.len() != place {
            return Err(Error::Broken("a message between others"));
        }
        page.push(&e.message_id, new, link);
        self.index.insert(&mut self.pages, message, id_hash(&e.message_id), conversation);
        if slots > INLINE_SLOTS {
            self.name_recipients(message, &recipients)?;
        }
        Ok((message, audience))
    }

    fn name_recipients(&mut self, message: u64, slots: &[u32]) -> Result<(), S::Error> {
        for chunk in slots.chunk_by(|a, b| a / CHUNK_SLOTS == b / CHUNK_SLOTS) {
            let mut page = Chunk::default();
            chunk.iter().for_each(|slot| page.0.add_recipient(slot % CHUNK_SLOTS));
            self.pages.put(key(message, chunk[0] / CHUNK_SLOTS), page);
        }
        Ok(())
    }

    /// Applies what waited for a message: as of its own record for times, at the send's position for all else.
    fn apply_parked(
        &mut self,
        tenant: &str,
        conversation: u32,
        message: u64,
        e: &MessageSent<'_>,
        at: At,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        for parked in self.take_parked_for(tenant, e)? {
            let event =
                receipts_event::decode(&parked.value).map_err(|_| Error::Broken("a parked event that can be read"))?;
            match &event.body {
                Body::MessageRead(e) => {
                    let clock = Clock { read_at_ms: e.read_at_ms, timestamp_ms: parked.timestamp_ms };
                    let reading = Reading { clock, hidden: e.hidden, offset: at.offset };
                    match self.reader(conversation, &e.reader_id)? {
                        Some(reader) => self.read_message(message, &reader, reading, effects)?,
                        None => effects.counters.not_in_audience += 1,
                    }
                }
                Body::ConversationRead(e) => {
                    let clock = Clock { read_at_ms: e.read_at_ms, timestamp_ms: parked.timestamp_ms };
                    let reading = Reading { clock, hidden: e.hidden, offset: at.offset };
                    self.read_up_to_message(conversation, &e.reader_id, message, reading, effects)?;
                }
                Body::MessageRecalled(_) => self.recall_message(message, at.offset, effects)?,
                _ => return Err(Error::Broken("a parked event that names messages")),
            }
        }
        Ok(())
    }

    fn take_parked_for(&mut self, tenant: &str, e: &MessageSent<'_>) -> Result<Vec<Parked>, S::Error> {
        if self.waiting.is_empty() {
            return Ok(Vec::new());
        }
        let mut name = std::mem::take(&mut self.name);
        write_name(&mut name, tenant, &e.conversation_id);
        let taken = self.take_parked(&name, &e.message_id);
        self.name = name;
        taken
    }

    /// Gives back the space of expired messages: whole pages, oldest first, a few at a time.
    fn forget_expired(&mut self) -> Result<(), S::Error> {
        const PAGES_AT_A_TIME: u32 = 4;
        for _ in 0..PAGES_AT_A_TIME {
            let oldest = self.meta.oldest_page;
            if (oldest + 1) * MESSAGES_PER_PAGE > self.meta.next_message {
                return Ok(());
            }
            let horizon = self.horizon();
            let page =
                Table::<Messages>::hot(&mut self.pages, key(oldest, 0))?.ok_or(Error::Broken("the oldest messages"))?;
            if page.iter().any(|m| !horizon.is_past(m.timestamp_ms)) {
                return Ok(());
            }
            let chunks: Vec<u32> = page.iter().map(Message::chunks).collect();
            for (message, chunks) in (oldest * MESSAGES_PER_PAGE..).zip(chunks) {
                self.remove_chunks(message, chunks);
            }
            Table::<Messages>::remove(&mut self.pages, key(oldest, 0));
            self.index.blank(oldest * MESSAGES_PER_PAGE..(oldest + 1) * MESSAGES_PER_PAGE);
            self.meta.oldest_page += 1;
            self.index.forget_below(&mut self.pages, self.meta.oldest_page * MESSAGES_PER_PAGE);
        }
        Ok(())
    }

    pub(crate) fn remove_chunks(&mut self, message: u64, chunks: u32) {
        for chunk in 0..chunks {
            Table::<Chunk>::remove(&mut self.pages, key(message, chunk));
        }
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
