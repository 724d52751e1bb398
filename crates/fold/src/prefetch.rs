//! Prefetches the memory that the next records will need, for all of them side by side. Changes
//! nothing and decides nothing: a record folds the same with or without it (ADR 0013).
//!
//! A record needs some fifteen pieces of memory that are not in the processor's cache, and each
//! leads to the next. Folding records one by one waits for each piece in turn. Here each loop takes
//! one such step for all records, so the processor waits for them at once. Many small loops are
//! needed: the processor cannot begin the next record's step inside one long loop.

use crate::index::{id_hash, tenant_hash};
use crate::pages::{
    CHUNK_SLOTS, Chunk, ConversationPage, Messages, PEOPLE_PER_PAGE, PageKey, Pages, People, PeopleIndex, Table,
    index_page, message_key, user_hash, write_conversation_name,
};
use crate::state::State;
use receipts_event::{Body, Event};
use std::hint::black_box;

/// Records to prefetch together: enough to hide the waiting, and few enough that the first is still
/// cached when it is folded.
pub const PREFETCH_EVENTS: usize = 32;

/// A person who acts in a conversation.
struct Actor {
    /// Hash of the conversation's name, by the store.
    name_hash: u64,
    user_hash: u32,
    is_send: bool,
    /// The conversation that probably has the name.
    conversation: Option<u32>,
    /// The slot that the user probably has.
    slot: Option<u32>,
}

/// A message id that an event names.
struct Mention {
    /// Index of the event's actor.
    actor: usize,
    hash: u64,
    /// The hash with the tenant, where it is needed.
    in_tenant: u64,
    /// The message that probably has the id.
    message: Option<u64>,
}

/// The buffers of a prefetch, kept between calls.
#[derive(Default)]
pub(crate) struct Scratch {
    actors: Vec<Actor>,
    mentions: Vec<Mention>,
}

impl<S: Pages> State<S> {
    /// Brings the memory that the next events need into the processor's cache. Never reads the
    /// medium. Takes at most [`PREFETCH_EVENTS`] events, which the caller then
    /// [applies](Self::apply).
    pub fn prefetch<'e>(&mut self, events: impl Iterator<Item = &'e Event<'e>>) {
        let mut scratch = std::mem::take(&mut self.prefetch_scratch);
        self.gather(events, &mut scratch);
        self.prefetch_conversations(&mut scratch);
        self.prefetch_people(&mut scratch.actors);
        self.prefetch_messages(&mut scratch);
        self.prefetch_reads(&scratch);
        self.prefetch_scratch = scratch;
    }

    /// Collects the actors of the events, and the message ids that the events name.
    fn gather<'e>(&mut self, events: impl Iterator<Item = &'e Event<'e>>, scratch: &mut Scratch) {
        let Scratch { actors, mentions } = scratch;
        actors.clear();
        mentions.clear();
        // Receipts of one reader often come in a row; then they share an actor.
        let mut last = None;
        let has_sealed = self.index.has_sealed();
        for event in events {
            let Some(conversation) = event.conversation_id() else { continue };
            let (user, ids, is_send) = match &event.body {
                Body::MessageRead(e) => (&*e.reader_id, &e.message_ids[..], false),
                Body::MessageSent(e) => (&*e.sender_id, std::slice::from_ref(&e.message_id), true),
                Body::ConversationRead(e) => (&*e.reader_id, &[][..], false),
                _ => continue,
            };
            let this = Some((&*event.tenant, conversation, user, is_send));
            if last != this {
                last = this;
                write_conversation_name(&mut self.name, &event.tenant, conversation);
                let name_hash = self.pages.conversation_hash(&self.name);
                let user_hash = user_hash(user);
                actors.push(Actor { name_hash, user_hash, is_send, conversation: None, slot: None });
            }
            let actor = actors.len() - 1;
            // Only a send and a look-up in sealed segments need the tenant.
            let tenant = if is_send || has_sealed { tenant_hash(&event.tenant) } else { 0 };
            mentions.extend(ids.iter().map(|id| {
                let hash = id_hash(id);
                Mention { actor, hash, in_tenant: hash ^ tenant, message: None }
            }));
        }
    }

    fn prefetch_conversations(&self, Scratch { actors, .. }: &mut Scratch) {
        actors.iter_mut().for_each(|a| a.conversation = self.pages.peek_conversation_number(a.name_hash));
        for_each(actors.iter(), |a| self.pages.prefetch_conversation(a.name_hash).into());
    }

    fn prefetch_people(&self, actors: &mut [Actor]) {
        let first = |a: &Actor| self.peek_people(a.conversation?, 0);
        for_each(actors.iter().filter_map(first), |people| people.len() as u64);
        for_each(actors.iter().filter_map(first), |people| people.prefetch_hashes().into());
        actors.iter_mut().for_each(|a| a.slot = first(a).and_then(|people| people.likely_index(a.user_hash)));
        // Only a send, and a person who is not on the first page, need the conversation's own page.
        let page = |a: &Actor| self.peek_conversation_page(a).filter(|_| a.is_send || a.slot.is_none());
        for_each(actors.iter().filter_map(page), |page| page.people.into());
        for_each(actors.iter().filter_map(page).filter_map(|page| page.roots.first()), |root| root.message);
        for actor in actors.iter_mut().filter(|a| a.slot.is_none()) {
            actor.slot = self.likely_slot(actor);
        }
        let person = |a: &Actor| {
            let slot = a.slot?;
            Some((self.peek_people(a.conversation?, slot / PEOPLE_PER_PAGE)?, slot % PEOPLE_PER_PAGE))
        };
        for_each(actors.iter().filter_map(person), |(people, index)| people.prefetch(index));
        for_each(actors.iter().filter_map(person), |(people, index)| people.prefetch_id(index).into());
    }

    /// The likely slot of a person in a conversation with more than one page of people.
    fn likely_slot(&self, actor: &Actor) -> Option<u32> {
        let page = self.peek_conversation_page(actor).filter(|page| page.index_pages > 0)?;
        let key = PageKey::new(actor.conversation?, index_page(actor.user_hash, page.index_pages));
        Table::<PeopleIndex>::peek(&self.pages, key)?.slots(actor.user_hash).next()
    }

    fn prefetch_messages(&self, Scratch { actors, mentions }: &mut Scratch) {
        let index = &self.index;
        let within = |m: &Mention| actors[m.actor].conversation;
        for_each(mentions.iter(), |m| within(m).map_or(0, |c| index.prefetch(m.hash, c)));
        for_each(mentions.iter().filter(|m| actors[m.actor].is_send), |m| index.prefetch_insert(m.in_tenant));
        mentions.iter_mut().for_each(|m| m.message = within(m).and_then(|c| index.peek_active(m.hash, c)));
        for m in mentions.iter_mut().filter(|m| m.message.is_none()) {
            let page = self.peek_conversation_page(&actors[m.actor]);
            let Some((conversation, page)) = within(m).zip(page) else { continue };
            m.message = index.peek_sealed(&self.pages, m.in_tenant, (conversation, &page.segments));
        }
        let message = |m: &Mention| self.peek_messages(m.message?);
        for_each(mentions.iter().filter_map(message), |(page, index)| page.prefetch(index));
        for_each(mentions.iter().filter_map(message), |(page, index)| page.prefetch_id(index));
    }

    /// Prefetches the bits and times of messages that keep them in chunks.
    fn prefetch_reads(&self, Scratch { actors, mentions }: &Scratch) {
        let chunk = |m: &Mention| {
            let slot = actors[m.actor].slot?;
            let (page, index) = self.peek_messages(m.message?)?;
            page.at(index).filter(|m| m.is_chunked())?;
            let chunk = Table::<Chunk>::peek(&self.pages, PageKey::new(m.message?, slot / CHUNK_SLOTS))?;
            Some((chunk, slot % CHUNK_SLOTS))
        };
        for_each(mentions.iter().filter_map(chunk), |(chunk, slot)| chunk.0.has_read(slot).into());
        for_each(mentions.iter().filter_map(chunk), |(chunk, _)| chunk.0.prefetch_times());
    }

    fn peek_conversation_page(&self, actor: &Actor) -> Option<&ConversationPage> {
        Table::<ConversationPage>::peek(&self.pages, PageKey::new(actor.conversation?, 0))
    }

    fn peek_people(&self, conversation: u32, page: u32) -> Option<&People> {
        Table::<People>::peek(&self.pages, PageKey::new(conversation, page))
    }

    fn peek_messages(&self, message: u64) -> Option<(&Messages, usize)> {
        let (key, index) = message_key(message);
        Some((Table::<Messages>::peek(&self.pages, key)?, index))
    }
}

/// Reads a part of each item. `black_box` keeps the compiler from removing the reads.
fn for_each<T>(of: impl Iterator<Item = T>, read: impl Fn(T) -> u64) {
    black_box(of.fold(0, |all, one| all | read(one)));
}
