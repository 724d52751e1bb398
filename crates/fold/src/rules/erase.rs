//! `user.erased`: a person's id disappears from all answers at once. The person departs from each
//! conversation at its next send, roster change or read mark.
//!
//! Visits no conversation by itself: an erasure costs the same in a partition of any size.

use crate::pages::{ConversationPage, Erasure, PEOPLE_PER_PAGE, PageKey, Pages, Role, Table};
use crate::record::RecordMetadata;
use crate::state::{Error, Result, State};

impl<S: Pages> State<S> {
    pub(super) fn erase(&mut self, tenant: &str, user_id: &str, at: RecordMetadata) {
        let erasure = Erasure { tenant: tenant.into(), user_id: user_id.into(), offset: at.offset };
        self.pages.put(PageKey::new(self.meta.erasures, 0), erasure.clone());
        self.meta.erasures += 1;
        self.remember_erasure(erasure);
    }

    pub(crate) fn remember_erasure(&mut self, erasure: Erasure) {
        self.erasures.push(erasure.clone());
        self.erased.entry(erasure.tenant.clone()).or_default().insert(erasure.user_id);
    }

    /// Whether a person was erased and must appear in no answer (INV-ERASED).
    pub fn is_erased(&self, tenant: &str, user_id: &str) -> bool {
        !self.erased.is_empty() && self.erased.get(tenant).is_some_and(|e| e.contains(user_id))
    }

    /// Applies the erasures that a conversation has not applied yet. An erased person who may be in
    /// one of its audiences departs, even if that person has departed before or was never on the
    /// roster.
    pub(super) fn apply_erasures(&mut self, conversation: u32) -> Result<(), S::Error> {
        let page = Table::<ConversationPage>::load_mut(&mut self.pages, PageKey::new(conversation, 0))?
            .ok_or(Error::Broken("a conversation"))?;
        if page.erasures_seen == self.meta.erasures {
            return Ok(());
        }
        let unseen = self.erasures.get(page.erasures_seen as usize..).ok_or(Error::Broken("an erasure"))?;
        let unseen: Vec<Erasure> = unseen.iter().filter(|e| e.tenant == page.tenant).cloned().collect();
        for erasure in unseen {
            if let Some(slot) = self.slot(conversation, &erasure.user_id)? {
                self.depart_by_erasure(conversation, slot, erasure.offset)?;
            }
        }
        let erasures = self.meta.erasures;
        self.conversation_page(conversation)?.erasures_seen = erasures;
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
