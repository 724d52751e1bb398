//! Touches what the next records will need, for all of them side by side. Changes nothing, decides nothing: a record is
//! folded the same with or without it.
//!
//! A record needs some fifteen pieces of memory that nothing has touched lately, each found by the one before it: to fold
//! one record after the other waits for them one after the other. Here each loop takes one such step for all records, so
//! that the processor waits for them at once. Hence the many small loops: one that took all steps of a record would be too
//! long for the processor to begin the next record's meanwhile.

use crate::head::Head;
use crate::index::id_hash;
use crate::message::{CHUNK_SLOTS, Chunk, Messages};
use crate::page::Table;
use crate::people::{PEOPLE_PER_PAGE, People, PeopleIndex, user_hash};
use crate::roster::index_page;
use crate::state::{Pages, State, key, message_key, write_name};
use receipts_event::{Body, Event};
use std::hint::black_box;

/// Records to look at together: enough to hide the waiting, few enough that the first is still at hand when it is folded.
pub const LOOK_AHEAD_EVENTS: usize = 32;

/// Somebody who does something in a conversation.
struct Actor {
    /// Of the conversation's name, as the store hashes names.
    name_hash: u64,
    user_hash: u32,
    is_send: bool,
    /// Probably that of the name.
    conversation: Option<u32>,
    /// Probably that of the user.
    slot: Option<u32>,
}

/// A message id, by its hash, named by the actor of that index.
struct Mention {
    actor: usize,
    hash: u64,
    /// Probably meant.
    message: Option<u64>,
}

/// What one look ahead works with.
#[derive(Default)]
pub(crate) struct Scratch {
    actors: Vec<Actor>,
    mentions: Vec<Mention>,
}

impl<S: Pages> State<S> {
    /// Brings what the next records need closer, as far as it is in memory at all. To be called with at most
    /// [`LOOK_AHEAD_EVENTS`] that are about to be [applied](Self::apply).
    pub fn look_ahead<'e>(&mut self, events: impl Iterator<Item = &'e Event<'e>>) {
        let mut scratch = std::mem::take(&mut self.ahead);
        self.gather(events, &mut scratch);
        self.find_conversations(&mut scratch);
        self.find_people(&mut scratch.actors);
        self.find_messages(&mut scratch);
        self.touch_reads(&scratch);
        self.ahead = scratch;
    }

    /// Who does something, and which ids are named.
    fn gather<'e>(&mut self, events: impl Iterator<Item = &'e Event<'e>>, scratch: &mut Scratch) {
        let Scratch { actors, mentions } = scratch;
        actors.clear();
        mentions.clear();
        // A reader's receipts come one after the other: then all but the ids is the same.
        let mut last = None;
        for event in events {
            let Some(conversation) = event.conversation_id() else { continue };
            let (user, ids, is_send) = match &event.body {
                Body::MessageRead(e) => (&*e.reader_id, &e.message_ids[..], false),
                Body::MessageSent(e) => (&*e.sender_id, std::slice::from_ref(&e.message_id), true),
                Body::ConversationRead(e) => (&*e.reader_id, &[][..], false),
                _ => continue,
            };
            let who = Some((&*event.tenant, conversation, user, is_send));
            if last != who {
                last = who;
                write_name(&mut self.name, &event.tenant, conversation);
                let name_hash = self.pages.conversation_hash(&self.name);
                let user_hash = user_hash(user);
                actors.push(Actor { name_hash, user_hash, is_send, conversation: None, slot: None });
            }
            let actor = actors.len() - 1;
            mentions.extend(ids.iter().map(|id| Mention { actor, hash: id_hash(id), message: None }));
        }
    }

    fn find_conversations(&self, Scratch { actors, .. }: &mut Scratch) {
        actors.iter_mut().for_each(|a| a.conversation = self.pages.conversation_probably(a.name_hash));
        each(actors.iter(), |a| self.pages.touch_conversation(a.name_hash).into());
    }

    fn find_people(&self, actors: &mut [Actor]) {
        let first = |a: &Actor| self.people_at_hand(a.conversation?, 0);
        each(actors.iter().filter_map(first), |people| people.len() as u64);
        each(actors.iter().filter_map(first), |people| people.touch_hashes().into());
        actors.iter_mut().for_each(|a| a.slot = first(a).and_then(|people| people.probably(a.user_hash)));
        // The conversation itself matters to a send, and to who is not among the first people.
        let head = |a: &Actor| self.head_at_hand(a).filter(|_| a.is_send || a.slot.is_none());
        each(actors.iter().filter_map(head), |head| head.people.into());
        each(actors.iter().filter_map(head).filter_map(|head| head.roots.first()), |root| root.message);
        for actor in actors.iter_mut().filter(|a| a.slot.is_none()) {
            actor.slot = self.slot_probably(actor);
        }
        let place = |a: &Actor| {
            let slot = a.slot?;
            Some((self.people_at_hand(a.conversation?, slot / PEOPLE_PER_PAGE)?, slot % PEOPLE_PER_PAGE))
        };
        each(actors.iter().filter_map(place), |(people, place)| people.touch(place));
        each(actors.iter().filter_map(place), |(people, place)| people.touch_id(place).into());
    }

    /// The slot of somebody in a conversation with more than one page of people.
    fn slot_probably(&self, actor: &Actor) -> Option<u32> {
        let head = self.head_at_hand(actor).filter(|head| head.index_pages > 0)?;
        let page = key(actor.conversation?, index_page(actor.user_hash, head.index_pages));
        Table::<PeopleIndex>::at_hand(&self.pages, page)?.slots(actor.user_hash).next()
    }

    fn find_messages(&self, Scratch { actors, mentions }: &mut Scratch) {
        let index = &self.index;
        let within = |m: &Mention| actors[m.actor].conversation;
        each(mentions.iter(), |m| within(m).map_or(0, |c| index.touch(m.hash, c)));
        each(mentions.iter().filter(|m| actors[m.actor].is_send), |m| index.touch_newest(m.hash));
        mentions.iter_mut().for_each(|m| m.message = within(m).and_then(|c| index.probably(m.hash, c)));
        for m in mentions.iter_mut().filter(|m| m.message.is_none()) {
            let Some((conversation, head)) = within(m).zip(self.head_at_hand(&actors[m.actor])) else { continue };
            m.message = index.probably_sealed(&self.pages, m.hash, (conversation, &head.stretches));
        }
        let message = |m: &Mention| self.message_at_hand(m.message?);
        each(mentions.iter().filter_map(message), |(page, place)| page.touch(place));
        each(mentions.iter().filter_map(message), |(page, place)| page.touch_id(place));
    }

    /// The bits and times of messages that keep them in chunks.
    fn touch_reads(&self, Scratch { actors, mentions }: &Scratch) {
        let chunk = |m: &Mention| {
            let slot = actors[m.actor].slot?;
            let (page, place) = self.message_at_hand(m.message?)?;
            page.at(place).filter(|m| m.is_chunked())?;
            let chunk = Table::<Chunk>::at_hand(&self.pages, key(m.message?, slot / CHUNK_SLOTS))?;
            Some((chunk, slot % CHUNK_SLOTS))
        };
        each(mentions.iter().filter_map(chunk), |(chunk, slot)| chunk.0.has_read(slot).into());
        each(mentions.iter().filter_map(chunk), |(chunk, _)| chunk.0.touch_times());
    }

    fn head_at_hand(&self, actor: &Actor) -> Option<&Head> {
        Table::<Head>::at_hand(&self.pages, key(actor.conversation?, 0))
    }

    fn people_at_hand(&self, conversation: u32, page: u32) -> Option<&People> {
        Table::<People>::at_hand(&self.pages, key(conversation, page))
    }

    fn message_at_hand(&self, message: u64) -> Option<(&Messages, usize)> {
        let (key, place) = message_key(message);
        Some((Table::<Messages>::at_hand(&self.pages, key)?, place))
    }
}

/// Reads something of each, so that the processor has it at hand.
fn each<T>(of: impl Iterator<Item = T>, read: impl Fn(T) -> u64) {
    black_box(of.fold(0, |all, one| all | read(one)));
}
