//! The member lists of a message, page by page in slot order, and membership of a roster. A hidden
//! reader is in no list.

use crate::pages::{PEOPLE_PER_PAGE, Pages, Role};
use crate::questions::audience::Audience;
use crate::questions::find::{Found, not_found};
use crate::questions::view::{Member, MemberFilter, Members, Status};
use crate::state::{Error, Result, State};

impl<S: Pages> State<S> {
    /// Returns a page of a member list in slot order: at most `limit` members, from the slot
    /// `from_slot` on. The page has no members if the receipt's status is not `ok`.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Members, S::Error> {
        let Some(found) = self.find_in_conversation(tenant, conversation_id, message_id)? else {
            let receipt = not_found(tenant, Some(conversation_id), message_id);
            return Ok(Members { members: Vec::new(), next_slot: None, receipt });
        };
        found.list(filter, from_slot, limit)
    }

    /// Returns a page of a member list of a message by its number, as [`Self::members`]; `None`
    /// once it has expired.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn members_of(
        &self,
        message: u64,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Option<Members>, S::Error> {
        self.find_number(message)?.map(|found| found.list(filter, from_slot, limit)).transpose()
    }

    /// Whether a person is on a roster now, as a member or an observer.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn is_member(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Result<bool, S::Error> {
        let Some((conversation, page, slot)) = self.find_person(tenant, conversation_id, user_id)? else {
            return Ok(false);
        };
        let people = self.read_people(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = people.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        let own = self.erased.of(tenant);
        Ok(person.role != Role::None && own.is_none_or(|own| own.unseen(user_id, page.erasures_seen).is_none()))
    }
}

impl<S: Pages> Found<'_, S> {
    fn list(&self, filter: MemberFilter, from_slot: u32, limit: usize) -> Result<Members, S::Error> {
        let (receipt, mut departed) = self.receipt_and_departed()?;
        if receipt.status != Status::Ok {
            return Ok(Members { members: Vec::new(), next_slot: None, receipt });
        }
        let (members, next_slot) = match filter {
            MemberFilter::Read | MemberFilter::Unread => {
                self.members(filter, from_slot, limit, |audience, from| audience.next(from, filter))?
            }
            // The receipt has found the slots of the departed. A search by bits would visit every
            // slot without a read.
            MemberFilter::Departed => {
                departed.sort_unstable();
                let next = |from| departed.get(departed.partition_point(|slot| *slot < from)).copied();
                self.members(filter, from_slot, limit, |_, from| Ok(next(from)))?
            }
        };
        Ok(Members { members, next_slot, receipt })
    }

    /// The members from a slot on, and the slot after the last of them. `find` returns the first
    /// slot of the list at or after a given slot.
    fn members<'a>(
        &'a self,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
        find: impl Fn(&mut Audience<'a, S>, u32) -> Result<Option<u32>, S::Error>,
    ) -> Result<(Vec<Member>, Option<u32>), S::Error> {
        let m = self.message();
        let mut audience = self.audience();
        let mut members = Vec::with_capacity(limit.min(m.slots as usize));
        let mut slot = from_slot;
        while let Some(next) = find(&mut audience, slot)? {
            if members.len() == limit {
                return Ok((members, Some(next)));
            }
            slot = next + 1;
            let person = audience.person(next)?;
            if self.state.is_erased(&self.conversation_page.tenant, &person.id) {
                continue;
            }
            let left = person.is_former_member();
            let mut member = Member { user_id: person.id.as_ref().into(), read_at_ms: None, left };
            if filter == MemberFilter::Read {
                let after = audience.after_ms(next)?;
                member.read_at_ms = after.map(|after| m.sent_at_ms.saturating_add(after));
            }
            members.push(member);
        }
        Ok((members, None))
    }
}
