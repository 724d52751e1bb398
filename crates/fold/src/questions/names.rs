//! Names for updates: the ids of conversations and people, which effects give by number and slot.
//! Never names an erased person.

use crate::pages::{Messages, PEOPLE_PER_PAGE, Pages, Role, Table, message_key};
use crate::state::{Error, Result, State};

impl<S: Pages> State<S> {
    /// Calls `each` with the user id of each slot of a message's conversation and the value beside
    /// the slot. Leaves out erased people, and every slot once the message's page is removed.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn name_slots<T>(
        &self,
        message: u64,
        slots: impl IntoIterator<Item = (u32, T)>,
        mut each: impl FnMut(&str, T),
    ) -> Result<(), S::Error> {
        let Some(page) = Table::<Messages>::read(&self.pages, message_key(message).0)? else { return Ok(()) };
        let conversation = page.at(message_key(message).1).ok_or(Error::Broken("a message"))?.conversation;
        let conversation_page = self.read_conversation_page(conversation)?;
        let mut last = None;
        for (slot, beside) in slots {
            let number = slot / PEOPLE_PER_PAGE;
            let people = match last.take() {
                Some((at, people)) if at == number => people,
                _ => self.read_people(conversation, number)?,
            };
            let person = people.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
            if !self.is_erased(&conversation_page.tenant, &person.id) {
                each(&person.id, beside);
            }
            last = Some((number, people));
        }
        Ok(())
    }

    /// Returns tenant and id of a conversation by its number.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn conversation_name(&self, conversation: u32) -> Result<(String, String), S::Error> {
        let page = self.read_conversation_page(conversation)?;
        Ok((page.tenant.as_ref().into(), page.conversation_id.as_ref().into()))
    }

    /// Returns the other party of a direct conversation: the one other member of its roster. `None`
    /// if there is no such member or more than one, or that person was erased.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn peer_of(&self, conversation: u32, slot: u32) -> Result<Option<String>, S::Error> {
        let page = self.read_conversation_page(conversation)?;
        // A direct chat with more than a page of people over time has no peer: a search for one
        // would cost too much.
        if page.people == 0 || page.people > PEOPLE_PER_PAGE {
            return Ok(None);
        }
        let people = self.read_people(conversation, 0)?;
        let is_other = |other: &u32| *other != slot && people.at(*other).is_some_and(|p| p.role == Role::Member);
        let mut others = (0..page.people).filter(is_other);
        match (others.next(), others.next()) {
            (Some(other), None) => self.user_id(conversation, &page.tenant, other),
            _ => Ok(None),
        }
    }
}
