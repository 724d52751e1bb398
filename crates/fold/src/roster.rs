//! Who is in a conversation: slots by user id, joins and leaves.

use crate::head::Head;
use crate::page::Table;
use crate::people::{INDEX_ENTRIES_PER_PAGE, PEOPLE_PER_PAGE, People, PeopleIndex, Person, Role, user_hash};
use crate::small::{Erased, LEAVES_PER_PAGE, Leaves};
use crate::state::{At, Error, Pages, Result, State, key};
use receipts_event::{ConversationConfigured, Kind, MembersChanged};

/// The page of the hash index that holds a hash.
pub(crate) fn index_page(hash: u32, pages: u32) -> u32 {
    ((u64::from(hash) * u64::from(pages)) >> 32) as u32
}

impl<S: Pages> State<S> {
    /// The number of a conversation, made if need be.
    pub(crate) fn conversation_or_new(&mut self, tenant: &str, conversation_id: &str) -> Result<u32, S::Error> {
        if let Some(number) = self.find_conversation(tenant, conversation_id)? {
            return Ok(number);
        }
        let number = self.meta.next_conversation;
        self.meta.next_conversation += 1;
        self.pages.name_conversation(&self.name, number);
        self.pages.put(key(number, 0), Head::new(tenant, conversation_id, self.meta.erasures));
        Ok(number)
    }

    pub(crate) fn configure(&mut self, tenant: &str, e: &ConversationConfigured<'_>) -> Result<(), S::Error> {
        let number = self.conversation_or_new(tenant, &e.conversation_id)?;
        let mut head = self.head(number)?;
        head.kind = e.kind;
        head.group_type = match e.kind {
            Kind::Group => e.group_type.as_deref().unwrap_or("default").into(),
            Kind::Direct => "default".into(),
        };
        Ok(())
    }

    pub(crate) fn change_members(&mut self, tenant: &str, e: &MembersChanged<'_>, at: At) -> Result<(), S::Error> {
        let number = self.conversation_or_new(tenant, &e.conversation_id)?;
        self.settle_erasures(number)?;
        for id in &e.left {
            if let Some(slot) = self.slot(number, id)? {
                self.take_role(number, slot, Role::None, at.offset)?;
            }
        }
        let joins =
            e.joined.iter().map(|id| (id, Role::Member)).chain(e.observers.iter().map(|id| (id, Role::Observer)));
        for (id, role) in joins {
            let slot = self.slot_or_new(number, id)?;
            self.take_role(number, slot, role, at.offset)?;
        }
        Ok(())
    }

    /// Gives a slot a role.
    fn take_role(&mut self, conversation: u32, slot: u32, role: Role, offset: u64) -> Result<(), S::Error> {
        let mut page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        let place = slot % PEOPLE_PER_PAGE;
        let before = page.at(place).ok_or(Error::Broken("a person"))?.role;
        if before == role {
            return Ok(());
        }
        page.at_mut(place).ok_or(Error::Broken("a person"))?.take_role(role, offset);
        let mut head = self.head(conversation)?;
        let others = head.members.checked_sub(u32::from(before == Role::Member));
        head.members = others.ok_or(Error::Broken("the members"))?.saturating_add(u32::from(role == Role::Member));
        head.ever_roster |= role != Role::None;
        if role == Role::None { self.log_leave(conversation, offset, slot) } else { Ok(()) }
    }

    fn log_leave(&mut self, conversation: u32, offset: u64, slot: u32) -> Result<(), S::Error> {
        let mut head = self.head(conversation)?;
        head.last_leave = Some(offset);
        let at = head.leaves;
        head.leaves += 1;
        let k = key(conversation, at / LEAVES_PER_PAGE);
        match Table::<Leaves>::hot(&mut self.pages, k)? {
            Some(page) if page.leaves.len() != (at % LEAVES_PER_PAGE) as usize => return Err(Error::Broken("leaves")),
            Some(mut page) => page.leaves.push((offset, slot)),
            None => self.pages.put(k, Leaves { leaves: vec![(offset, slot)] }),
        }
        Ok(())
    }

    /// Lets a conversation see the erasures it has not seen: who may be in one of its audiences has left, even if they
    /// had left before or were never on the roster.
    pub(crate) fn settle_erasures(&mut self, conversation: u32) -> Result<(), S::Error> {
        let head = Table::<Head>::hot(&mut self.pages, key(conversation, 0))?.ok_or(Error::Broken("a conversation"))?;
        if head.erasures_seen == self.meta.erasures {
            return Ok(());
        }
        let unseen = self.erasures.get(head.erasures_seen as usize..).ok_or(Error::Broken("an erasure"))?;
        let unseen: Vec<Erased> = unseen.iter().filter(|e| e.tenant == head.tenant).cloned().collect();
        for erased in unseen {
            if let Some(slot) = self.slot(conversation, &erased.user_id)? {
                self.leave_by_erasure(conversation, slot, erased.offset)?;
            }
        }
        let erasures = self.meta.erasures;
        self.head(conversation)?.erasures_seen = erasures;
        Ok(())
    }

    fn leave_by_erasure(&mut self, conversation: u32, slot: u32, offset: u64) -> Result<(), S::Error> {
        let mut page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = page.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        if person.role != Role::None {
            return self.take_role(conversation, slot, Role::None, offset);
        }
        if person.may_be_in_audience() {
            page.at_mut(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?.last_leave = Some(offset);
            self.log_leave(conversation, offset, slot)?;
        }
        Ok(())
    }

    pub(crate) fn erase(&mut self, tenant: &str, user_id: &str, at: At) {
        let erased = Erased { tenant: tenant.into(), user_id: user_id.into(), offset: at.offset };
        self.pages.put(key(self.meta.erasures, 0), erased.clone());
        self.meta.erasures += 1;
        self.remember_erased(erased);
    }

    pub(crate) fn remember_erased(&mut self, erased: Erased) {
        self.erasures.push(erased.clone());
        self.erased.entry(erased.tenant.clone()).or_default().insert(erased.user_id);
    }

    /// Whether a person was erased and must appear nowhere.
    pub fn is_erased(&self, tenant: &str, user_id: &str) -> bool {
        !self.erased.is_empty() && self.erased.get(tenant).is_some_and(|e| e.contains(user_id))
    }

    /// The slot of somebody the conversation knows.
    pub(crate) fn slot(&mut self, conversation: u32, user_id: &str) -> Result<Option<u32>, S::Error> {
        let head = self.head(conversation)?;
        let (people, index_pages) = (head.people, head.index_pages);
        let hash = user_hash(user_id);
        if people == 0 {
            return Ok(None);
        }
        if index_pages == 0 {
            return Ok(self.people(conversation, 0)?.find(user_id, hash));
        }
        let k = key(conversation, index_page(hash, index_pages));
        let index = Table::<PeopleIndex>::hot(&mut self.pages, k)?.ok_or(Error::Broken("an index of people"))?;
        // Nearly always one; none of it is on the heap.
        let mut slots = [0; 8];
        let mut found = 0;
        let mut more = Vec::new();
        for slot in index.slots(hash) {
            if found < slots.len() {
                slots[found] = slot;
                found += 1;
            } else {
                more.push(slot);
            }
        }
        for slot in slots[..found].iter().copied().chain(more) {
            let page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
            if page.at(slot % PEOPLE_PER_PAGE).is_some_and(|p| &*p.id == user_id) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// The slot of somebody; who is new to the conversation gets the next one.
    pub(crate) fn slot_or_new(&mut self, conversation: u32, user_id: &str) -> Result<u32, S::Error> {
        if let Some(slot) = self.slot(conversation, user_id)? {
            return Ok(slot);
        }
        let mut head = self.head(conversation)?;
        let slot = head.people;
        head.people += 1;
        let index_pages = head.index_pages;
        let hash = user_hash(user_id);
        if slot % PEOPLE_PER_PAGE == 0 {
            self.pages.put(key(conversation, slot / PEOPLE_PER_PAGE), People::default());
        }
        let since = self.meta.next_message;
        let mut page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        if page.hashes().len() != (slot % PEOPLE_PER_PAGE) as usize {
            return Err(Error::Broken("a person between others"));
        }
        page.push(Person::stranger(user_id, since), hash);
        if slot + 1 > index_pages.saturating_mul(INDEX_ENTRIES_PER_PAGE) && slot >= PEOPLE_PER_PAGE {
            self.grow_index(conversation, (2 * index_pages).max(1))?;
        } else if index_pages > 0 {
            let k = key(conversation, index_page(hash, index_pages));
            Table::<PeopleIndex>::hot(&mut self.pages, k)?
                .ok_or(Error::Broken("an index of people"))?
                .insert(hash, slot);
        }
        Ok(slot)
    }

    /// Builds the hash index of people anew with that many pages.
    fn grow_index(&mut self, conversation: u32, pages: u32) -> Result<(), S::Error> {
        let mut head = self.head(conversation)?;
        head.index_pages = pages;
        let people = head.people;
        let mut entries = Vec::with_capacity(people as usize);
        for page in 0..people.div_ceil(PEOPLE_PER_PAGE) {
            let first = page * PEOPLE_PER_PAGE;
            entries.extend(
                self.people(conversation, page)?.hashes().iter().zip(first..).map(|(hash, slot)| (*hash, slot)),
            );
        }
        entries.sort_unstable();
        let mut rest = &entries[..];
        for page in 0..pages {
            let (own, others) = rest.split_at(rest.partition_point(|e| index_page(e.0, pages) <= page));
            rest = others;
            self.pages.put(key(conversation, page), PeopleIndex::from_sorted(own.to_vec()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Part of the store's format: hashes in order, evenly over the pages.
    #[test]
    fn an_index_spreads_hashes_evenly_over_its_pages() {
        let quarter = |hash| index_page(hash, 4);
        assert_eq!([0, (1 << 30) - 1, 1 << 30, 1 << 31, 3 << 30, u32::MAX].map(quarter), [0, 0, 1, 2, 3, 3]);
        assert_eq!(index_page(u32::MAX, 1), 0);
    }
}
