//! `conversation.configured` and `members.changed`: the kind of a conversation, and joins and
//! departures from its roster.

use crate::pages::{ConversationPage, DEPARTURES_PER_PAGE, Departures, PEOPLE_PER_PAGE, PageKey, Pages, Role, Table};
use crate::record::RecordMetadata;
use crate::state::{Error, Result, State};
use receipts_event::{ConversationConfigured, GROUP_TYPE_DEFAULT, Kind, MembersChanged};

impl<S: Pages> State<S> {
    /// Returns the number of a conversation, and creates the conversation if the partition does not
    /// know it.
    pub(super) fn conversation_or_new(&mut self, tenant: &str, conversation_id: &str) -> Result<u32, S::Error> {
        if let Some(number) = self.find_conversation(tenant, conversation_id)? {
            return Ok(number);
        }
        let number = self.meta.next_conversation;
        self.meta.next_conversation += 1;
        // `find_conversation` has left the name in the buffer.
        self.pages.name_conversation(&self.name, number);
        self.pages.put(PageKey::new(number, 0), ConversationPage::new(tenant, conversation_id, self.meta.next_erasure));
        Ok(number)
    }

    pub(super) fn configure(&mut self, tenant: &str, e: &ConversationConfigured<'_>) -> Result<(), S::Error> {
        let number = self.conversation_or_new(tenant, &e.conversation_id)?;
        let mut page = self.conversation_page(number)?;
        page.kind = e.kind;
        page.group_type = match e.kind {
            Kind::Group => e.group_type.as_deref().unwrap_or(GROUP_TYPE_DEFAULT).into(),
            Kind::Direct => GROUP_TYPE_DEFAULT.into(),
        };
        Ok(())
    }

    pub(super) fn change_members(
        &mut self,
        tenant: &str,
        e: &MembersChanged<'_>,
        at: RecordMetadata,
    ) -> Result<(), S::Error> {
        let number = self.conversation_or_new(tenant, &e.conversation_id)?;
        self.apply_erasures(number)?;
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

    /// Gives a slot a role. Counts members, and logs the departure of a person who leaves.
    pub(super) fn take_role(&mut self, conversation: u32, slot: u32, role: Role, offset: u64) -> Result<(), S::Error> {
        let mut people = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        let index = slot % PEOPLE_PER_PAGE;
        let before = people.at(index).ok_or(Error::Broken("a person"))?.role;
        if before == role {
            return Ok(());
        }
        if !people.take_role(index, role, offset) {
            return Err(Error::Broken("a person"));
        }
        let mut page = self.conversation_page(conversation)?;
        let others = page.members.checked_sub(u32::from(before == Role::Member));
        page.members =
            others.ok_or(Error::Broken("the number of members"))?.saturating_add(u32::from(role == Role::Member));
        page.ever_roster |= role != Role::None;
        if role == Role::None { self.log_departure(conversation, offset, slot) } else { Ok(()) }
    }

    pub(super) fn log_departure(&mut self, conversation: u32, offset: u64, slot: u32) -> Result<(), S::Error> {
        let mut page = self.conversation_page(conversation)?;
        page.last_departure = Some(offset);
        let number = page.departures;
        page.departures += 1;
        let key = PageKey::new(conversation, number / DEPARTURES_PER_PAGE);
        match Table::<Departures>::load_mut(&mut self.pages, key)? {
            Some(page) if page.departures.len() != (number % DEPARTURES_PER_PAGE) as usize => {
                return Err(Error::Broken("departures"));
            }
            Some(mut page) => page.departures.push((offset, slot)),
            None => self.pages.put(key, Departures { departures: vec![(offset, slot)] }),
        }
        Ok(())
    }
}
