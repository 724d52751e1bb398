//! Finds messages, conversations and people for the questions. Reads only the pages that the answer
//! needs, because response times must not reveal the rest (INV-STRANGER).

use crate::index::{IdHash, message_named};
use crate::pages::{
    ConversationPage, Message, Messages, PEOPLE_PER_PAGE, PageKey, Pages, People, PeopleIndex, Person, Ref, Table,
    index_page, message_key, user_hash, write_conversation_name,
};
use crate::questions::view::{Receipt, Status};
use crate::rules::Walk;
use crate::state::{Error, Result, State};
use std::borrow::Cow;

/// Number and page of a conversation, and the slot of a person whom it knows.
pub(super) type KnownPerson<'a> = (u32, Ref<'a, ConversationPage>, u32);

/// A live message, with its page and that of its conversation.
pub(super) struct Found<'a, S> {
    pub(super) state: &'a State<S>,
    /// Number of the message.
    pub(super) number: u64,
    pub(super) page: Ref<'a, Messages>,
    pub(super) conversation_page: Ref<'a, ConversationPage>,
    /// As [`State::unseen_departures`] of the conversation.
    pub(super) unseen_departures: Cow<'a, [(u32, u64)]>,
}

impl<S> Found<'_, S> {
    pub(super) fn message(&self) -> &Message {
        self.page.at(message_key(self.number).1).expect("was found")
    }
}

impl<S: Pages> State<S> {
    /// Finds a message by its number, unless it has expired.
    pub(super) fn find_number(&self, message: u64) -> Result<Option<Found<'_, S>>, S::Error> {
        let Some(page) = Table::<Messages>::read(&self.pages, message_key(message).0)? else { return Ok(None) };
        let Some(m) = page.at(message_key(message).1).filter(|m| !self.is_expired(m)) else { return Ok(None) };
        let conversation_page = self.read_conversation_page(m.conversation)?;
        self.found(message, page, conversation_page).map(Some)
    }

    /// Finds a message by its id in a conversation, unless it has expired.
    pub(super) fn find_in_conversation(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
    ) -> Result<Option<Found<'_, S>>, S::Error> {
        let Some((conversation, conversation_page)) = self.read_conversation_by_name(tenant, conversation_id)? else {
            return Ok(None);
        };
        let within = (conversation, &conversation_page.segments);
        let hash = IdHash::of(tenant, message_id);
        for number in self.index.candidates(&self.pages, hash, within)? {
            let Some(page) = Table::<Messages>::read(&self.pages, message_key(number).0)? else { continue };
            if message_named(&page, number, conversation, message_id).is_some_and(|m| !self.is_expired(m)) {
                return self.found(number, page, conversation_page).map(Some);
            }
        }
        Ok(None)
    }

    /// Puts a message together with its pages. Checks that it has no more slots than its
    /// conversation gave, so that loops over its slots end even in a damaged store.
    pub(super) fn found<'a>(
        &'a self,
        number: u64,
        page: Ref<'a, Messages>,
        conversation_page: Ref<'a, ConversationPage>,
    ) -> Result<Found<'a, S>, S::Error> {
        let conversation = page.at(message_key(number).1).ok_or(Error::Broken("a message"))?.conversation;
        let unseen = self.unseen_departures(conversation, &conversation_page)?;
        self.found_among(number, page, conversation_page, Cow::Owned(unseen))
    }

    /// As [`Self::found`], with departures that the caller has found for the conversation.
    pub(super) fn found_among<'a>(
        &'a self,
        number: u64,
        page: Ref<'a, Messages>,
        conversation_page: Ref<'a, ConversationPage>,
        unseen_departures: Cow<'a, [(u32, u64)]>,
    ) -> Result<Found<'a, S>, S::Error> {
        let slots = page.at(message_key(number).1).ok_or(Error::Broken("a message"))?.slots;
        if slots > conversation_page.people {
            return Err(Error::Broken("the people of a message"));
        }
        Ok(Found { state: self, number, page, conversation_page, unseen_departures })
    }

    pub(super) fn read_conversation_by_name(
        &self,
        tenant: &str,
        conversation_id: &str,
    ) -> Result<Option<(u32, Ref<'_, ConversationPage>)>, S::Error> {
        let mut name = Vec::with_capacity(tenant.len() + conversation_id.len() + 1);
        write_conversation_name(&mut name, tenant, conversation_id);
        let Some(conversation) = self.pages.conversation_number(&name)? else { return Ok(None) };
        Ok(Some((conversation, self.read_conversation_page(conversation)?)))
    }

    pub(super) fn find_person(
        &self,
        tenant: &str,
        conversation_id: &str,
        user_id: &str,
    ) -> Result<Option<KnownPerson<'_>>, S::Error> {
        let Some((conversation, page)) = self.read_conversation_by_name(tenant, conversation_id)? else {
            return Ok(None);
        };
        let slot = self.slot_of(conversation, &page, user_id)?;
        Ok(slot.map(|slot| (conversation, page, slot)))
    }

    pub(super) fn slot_of(
        &self,
        conversation: u32,
        page: &ConversationPage,
        user_id: &str,
    ) -> Result<Option<u32>, S::Error> {
        let hash = user_hash(user_id);
        if page.people == 0 {
            return Ok(None);
        }
        if page.index_pages == 0 {
            return Ok(self.read_people(conversation, 0)?.find(user_id, hash));
        }
        let key = PageKey::new(conversation, index_page(hash, page.index_pages));
        let index = Table::<PeopleIndex>::read(&self.pages, key)?.ok_or(Error::Broken("an index of people"))?;
        for slot in index.slots(hash) {
            let people = self.read_people(conversation, slot / PEOPLE_PER_PAGE)?;
            if people.at(slot % PEOPLE_PER_PAGE).is_some_and(|p| &*p.id == user_id) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    pub(super) fn read_conversation_page(&self, conversation: u32) -> Result<Ref<'_, ConversationPage>, S::Error> {
        let page = Table::<ConversationPage>::read(&self.pages, PageKey::new(conversation, 0))?
            .ok_or(Error::Broken("a conversation"))?;
        if page.erasures_seen > self.meta.next_erasure {
            return Err(Error::Broken("an erasure"));
        }
        Ok(page)
    }

    pub(super) fn read_people(&self, conversation: u32, page: u32) -> Result<Ref<'_, People>, S::Error> {
        Table::<People>::read(&self.pages, PageKey::new(conversation, page))?
            .ok_or(Error::Broken("people of a conversation"))
    }

    /// The user id of a slot; `None` if the person was erased (INV-ERASED).
    pub(super) fn user_id(&self, conversation: u32, tenant: &str, slot: u32) -> Result<Option<String>, S::Error> {
        let people = self.read_people(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = people.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        Ok((!self.is_erased(tenant, &person.id)).then(|| person.id.as_ref().into()))
    }

    /// The departures by erasures that a conversation has not applied yet, because no event was
    /// written to it since: slot and offset, in slot order. Costs no more than a look at each of
    /// its people, and nothing for erasures of other tenants.
    pub(super) fn unseen_departures(
        &self,
        conversation: u32,
        page: &ConversationPage,
    ) -> Result<Vec<(u32, u64)>, S::Error> {
        let mut departures = Vec::new();
        if page.erasures_seen == self.meta.next_erasure {
            return Ok(departures);
        }
        let Some(own) = self.erased.of(&page.tenant) else { return Ok(departures) };
        match own.walk(page.erasures_seen, page.people) {
            Walk::Nothing => {}
            Walk::People => {
                for number in 0..page.people.div_ceil(PEOPLE_PER_PAGE) {
                    let people = self.read_people(conversation, number)?;
                    let slots = (number * PEOPLE_PER_PAGE..).zip(people.iter());
                    let may = slots.filter(|(_, person)| person.may_be_in_audience());
                    departures.extend(may.filter_map(|(slot, p)| Some((slot, own.unseen(&p.id, page.erasures_seen)?))));
                }
            }
            Walk::Erasures(unseen) => {
                for (user_id, offset) in unseen {
                    let Some(slot) = self.slot_of(conversation, page, &user_id)? else { continue };
                    let people = self.read_people(conversation, slot / PEOPLE_PER_PAGE)?;
                    if people.at(slot % PEOPLE_PER_PAGE).is_some_and(Person::may_be_in_audience) {
                        departures.push((slot, offset));
                    }
                }
                departures.sort_unstable();
            }
        }
        Ok(departures)
    }
}

/// The receipt of a message that does not exist.
pub(super) fn not_found(tenant: &str, conversation_id: Option<&str>, message_id: &str) -> Receipt {
    Receipt::bare(tenant, conversation_id, message_id, Status::NotFound)
}
