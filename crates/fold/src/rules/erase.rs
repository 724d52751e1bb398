//! `user.erased`: a person's id disappears from all answers at once. The person departs from each
//! conversation at its next send, roster change or read mark.
//!
//! Visits no conversation by itself: an erasure costs the same in a partition of any size.

use crate::effects::Effects;
use crate::pages::{ConversationPage, Erasure, PEOPLE_PER_PAGE, PageKey, Pages, People, Role, Table};
use crate::record::RecordMetadata;
use crate::rules::Walk;
use crate::state::{Error, Result, State};

impl<S: Pages> State<S> {
    /// Erases a person. An erasure of an erased person replaces the older one. Beyond the budget
    /// the event is a dead letter.
    pub(super) fn erase(&mut self, tenant: &str, user_id: &str, at: RecordMetadata, effects: &mut Effects) {
        let own = self.erased.of(tenant);
        if own.is_none_or(|own| !own.contains(user_id)) {
            let (all, own) = (self.meta.erased_people, own.map_or(0, |own| own.people()));
            let (max, share) = (self.limits.erasures_max, self.limits.erasures_max / 4 * 3);
            if all >= max {
                return effects.refuse_over_budget(format!(
                    "the partition remembers {all} erased people, as many as projector.erasures_max allows ({max})"
                ));
            }
            if own >= share {
                return effects.refuse_over_budget(format!(
                    "the tenant has {own} erased people in the partition, three quarters of projector.erasures_max ({max})"
                ));
            }
            self.meta.erased_people += 1;
        }
        let number = self.meta.next_erasure;
        self.meta.next_erasure += 1;
        if let Some(older) = self.erased.insert(tenant, user_id, number, at.offset) {
            Table::<Erasure>::remove(&mut self.pages, PageKey::new(older, 0));
        }
        let erasure = Erasure { tenant: tenant.into(), user_id: user_id.into(), offset: at.offset };
        self.pages.put(PageKey::new(number, 0), erasure);
    }

    /// Reads the erasures from the store.
    pub(crate) fn load_erasures(&mut self) -> Result<(), S::Error> {
        let mut people = 0;
        for key in Table::<Erasure>::keys(&self.pages)? {
            let erasure = Table::<Erasure>::read(&self.pages, key)?.ok_or(Error::Broken("an erasure"))?;
            let older = self.erased.insert(&erasure.tenant, &erasure.user_id, key.a, erasure.offset);
            if older.is_some() || key.a >= self.meta.next_erasure {
                return Err(Error::Broken("the erasures"));
            }
            people += 1;
        }
        if people == self.meta.erased_people { Ok(()) } else { Err(Error::Broken("the number of erasures")) }
    }

    /// Whether a person was erased and must appear in no answer (INV-ERASED).
    pub fn is_erased(&self, tenant: &str, user_id: &str) -> bool {
        self.erased.of(tenant).is_some_and(|own| own.contains(user_id))
    }

    /// Applies the erasures that a conversation has not applied yet. An erased person who may be in
    /// one of its audiences departs, even if that person has departed before or was never on the
    /// roster.
    pub(super) fn apply_erasures(&mut self, conversation: u32) -> Result<(), S::Error> {
        let page = Table::<ConversationPage>::load_mut(&mut self.pages, PageKey::new(conversation, 0))?
            .ok_or(Error::Broken("a conversation"))?;
        let (from, people) = (page.erasures_seen, page.people);
        if from == self.meta.next_erasure {
            return Ok(());
        }
        if from > self.meta.next_erasure {
            return Err(Error::Broken("an erasure"));
        }
        let Some(own) = self.erased.of(&page.tenant) else { return Ok(()) };
        // Slots by the offset of the erasure.
        let mut departures = Vec::new();
        match own.walk(from, people) {
            Walk::Nothing => return Ok(()),
            Walk::People => {
                for number in 0..people.div_ceil(PEOPLE_PER_PAGE) {
                    let page = Table::<People>::load_mut(&mut self.pages, PageKey::new(conversation, number))?
                        .ok_or(Error::Broken("people of a conversation"))?;
                    let slots = (number * PEOPLE_PER_PAGE..).zip(page.iter());
                    departures.extend(slots.filter_map(|(slot, p)| Some((own.unseen(&p.id, from)?, slot))));
                }
                departures.sort_unstable();
            }
            Walk::Erasures(unseen) => {
                for (user_id, offset) in unseen {
                    departures.extend(self.slot(conversation, &user_id)?.map(|slot| (offset, slot)));
                }
            }
        }
        for (offset, slot) in departures {
            self.depart_by_erasure(conversation, slot, offset)?;
        }
        let seen = self.meta.next_erasure;
        self.conversation_page(conversation)?.erasures_seen = seen;
        Ok(())
    }

    fn depart_by_erasure(&mut self, conversation: u32, slot: u32, offset: u64) -> Result<(), S::Error> {
        let mut page = self.people(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = page.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        if person.role != Role::None {
            return self.take_role(conversation, slot, Role::None, offset);
        }
        if person.may_be_in_audience() {
            page.at_mut(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?.last_departure = Some(offset);
            self.log_departure(conversation, offset, slot)?;
        }
        Ok(())
    }
}
