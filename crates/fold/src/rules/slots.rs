//! Slots: finds a person's slot in a conversation by user id, and gives a newcomer the next one. A
//! slot is never given to another person.

use crate::pages::{
    INDEX_ENTRIES_PER_PAGE, PEOPLE_PER_PAGE, PageKey, Pages, People, PeopleIndex, Person, Table, index_page, user_hash,
};
use crate::state::{Error, Result, State};

impl<S: Pages> State<S> {
    /// Returns the slot of a person whom the conversation knows.
    pub(super) fn slot(&mut self, conversation: u32, user_id: &str) -> Result<Option<u32>, S::Error> {
        let page = self.conversation_page(conversation)?;
        let (people, index_pages) = (page.people, page.index_pages);
        let hash = user_hash(user_id);
        if people == 0 {
            return Ok(None);
        }
        if index_pages == 0 {
            return Ok(self.people(conversation, 0)?.find(user_id, hash));
        }
        let key = PageKey::new(conversation, index_page(hash, index_pages));
        let index = Table::<PeopleIndex>::load_mut(&mut self.pages, key)?.ok_or(Error::Broken("an index of people"))?;
        // Nearly always there is one slot. The first eight take no heap.
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

    /// Returns the slot of a person, and gives the next one to a person new to the conversation
    /// (INV-SLOT).
    pub(super) fn slot_or_new(&mut self, conversation: u32, user_id: &str) -> Result<u32, S::Error> {
        if let Some(slot) = self.slot(conversation, user_id)? {
            return Ok(slot);
        }
        let mut page = self.conversation_page(conversation)?;
        let slot = page.people;
        page.people += 1;
        let index_pages = page.index_pages;
        let hash = user_hash(user_id);
        if slot % PEOPLE_PER_PAGE == 0 {
            self.pages.put(PageKey::new(conversation, slot / PEOPLE_PER_PAGE), People::default());
        }
        let since_message = self.meta.next_message;
        let mut people = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        if people.hashes().len() != (slot % PEOPLE_PER_PAGE) as usize {
            return Err(Error::Broken("the end of a page of people"));
        }
        people.push(Person::new(user_id, since_message), hash);
        if slot + 1 > index_pages.saturating_mul(INDEX_ENTRIES_PER_PAGE) && slot >= PEOPLE_PER_PAGE {
            self.grow_index(conversation, (2 * index_pages).max(1))?;
        } else if index_pages > 0 {
            let key = PageKey::new(conversation, index_page(hash, index_pages));
            Table::<PeopleIndex>::load_mut(&mut self.pages, key)?
                .ok_or(Error::Broken("an index of people"))?
                .insert(hash, slot);
        }
        Ok(slot)
    }

    /// Rebuilds the hash index of people with that number of pages.
    fn grow_index(&mut self, conversation: u32, pages: u32) -> Result<(), S::Error> {
        let mut page = self.conversation_page(conversation)?;
        page.index_pages = pages;
        let people = page.people;
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
            self.pages.put(PageKey::new(conversation, page), PeopleIndex::from_sorted(own.to_vec()));
        }
        Ok(())
    }
}
