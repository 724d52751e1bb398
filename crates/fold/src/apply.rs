//! One record into the state: the only way a state changes.

use crate::effects::{Changed, DeadLetter, Effects};
use crate::message::State as Fate;
use crate::park::Raw;
use crate::reads::Reads;
use crate::state::{At, Error, Named, Pages, Result, State, message_key};
use receipts_event::{Body, Event, MessageRecalled, PolicyChanged, Reason};

impl<S: Pages> State<S> {
    /// Folds the next record of the partition, whose key and partition were found to be those of its event. A record below [`Self::next_offset`] was folded before and changes nothing.
    ///
    /// # Errors
    /// Where the store fails or is broken: the state must not be used again.
    pub fn apply(&mut self, at: At, event: &Event<'_>, raw: Raw<'_>, effects: &mut Effects) -> Result<(), S::Error> {
        if !self.begin(at, effects)? {
            return Ok(());
        }
        let tenant = &*event.tenant;
        match &event.body {
            Body::ConversationConfigured(e) => self.configure(tenant, e),
            Body::MembersChanged(e) => self.change_members(tenant, e, at),
            Body::MessageSent(e) => self.send(tenant, e, at, effects),
            Body::MessageRead(e) => self.read(tenant, e, at, raw, effects),
            Body::ConversationRead(e) => self.read_conversation(tenant, e, at, raw, effects),
            Body::MessageRecalled(e) => self.recall(tenant, e, at, raw, effects),
            Body::PolicyChanged(e) => {
                self.change_policy(tenant, e);
                Ok(())
            }
            Body::UserErased(e) => {
                self.erase(tenant, &e.user_id, at);
                Ok(())
            }
        }
    }

    /// Passes over a record that is no event: time and offset go on all the same.
    ///
    /// # Errors
    /// Where the store fails or is broken: the state must not be used again.
    pub fn pass(&mut self, at: At, reason: Reason, detail: String, effects: &mut Effects) -> Result<(), S::Error> {
        if self.begin(at, effects)? {
            effects.dead_letters.push(DeadLetter { reason, detail, ids: Vec::new(), parked: None });
        }
        Ok(())
    }

    /// What every record does; false where it was folded before.
    fn begin(&mut self, at: At, effects: &mut Effects) -> Result<bool, S::Error> {
        if at.offset < self.meta.next_offset {
            return Ok(false);
        }
        effects.counters.records += 1;
        self.meta.next_offset = at.offset + 1;
        if at.timestamp_ms > self.meta.newest_timestamp_ms {
            self.meta.newest_timestamp_ms = at.timestamp_ms;
            self.expire_parked(effects)?;
        }
        Ok(true)
    }

    fn change_policy(&mut self, tenant: &str, e: &PolicyChanged<'_>) {
        let policy = e.read_receipts.iter().map(|(group_type, on)| (Box::from(&**group_type), *on)).collect();
        self.meta.policies.insert(tenant.into(), policy);
    }

    fn recall(
        &mut self,
        tenant: &str,
        e: &MessageRecalled<'_>,
        at: At,
        raw: Raw<'_>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let named = match self.find_conversation(tenant, &e.conversation_id)? {
            Some(conversation) => self.find_message(conversation, &e.message_id)?,
            None => Named::Nothing,
        };
        match named {
            Named::Message(message) => self.recall_message(message, at.offset, effects),
            Named::Expired => {
                effects.counters.expired += 1;
                Ok(())
            }
            Named::Nothing => self.park(at, raw, vec![(&*e.message_id).into()], effects),
        }
    }

    /// Makes a message recalled; its bits go.
    pub(crate) fn recall_message(&mut self, message: u64, offset: u64, effects: &mut Effects) -> Result<(), S::Error> {
        let Some(mut page) = self.message(message)? else { return Ok(()) };
        let place = message_key(message).1;
        if page.at(place).is_none_or(|m| m.state == Fate::Recalled) {
            return Ok(());
        }
        let m = page.at_mut(place).ok_or(Error::Broken("a message"))?;
        let chunks = m.chunks();
        m.state = Fate::Recalled;
        m.changed = offset;
        m.reads = Reads::default();
        (m.audience, m.read, m.hidden, m.last_read_at_ms) = (0, 0, 0, 0);
        self.remove_chunks(message, chunks);
        effects.changed.push(Changed { message, audience: 0, newly_read: None });
        Ok(())
    }
}
