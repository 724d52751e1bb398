//! Applies one record to the state: the only way in which a state changes, so that equal prefixes
//! give equal states (INV-PREFIX). Chooses the rule; the rules themselves are in the files beside
//! this one.
//!
//! Each rule gets its event's tenant and finds conversations by tenant and id, so no event changes
//! another tenant's data (INV-TENANT).

use crate::effects::{DeadLetter, Effects};
use crate::pages::Pages;
use crate::record::{RawRecord, RecordMetadata};
use crate::state::{Result, State};
use receipts_event::{Body, Event, Reason};

impl<S: Pages> State<S> {
    /// Folds the next record of the partition. A record below [`Self::next_offset`] was folded
    /// before and changes nothing.
    ///
    /// The caller has checked that the record's key and partition are those of its event.
    ///
    /// # Errors
    /// If the store fails or is broken. The state must not be used again.
    pub fn apply(
        &mut self,
        at: RecordMetadata,
        event: &Event<'_>,
        raw: RawRecord<'_>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let mut is_whole = self.begin(at, event, raw, u32::MAX, effects)?;
        while !is_whole {
            is_whole = self.proceed(u32::MAX, effects)?;
        }
        Ok(())
    }

    /// Folds the next record as [`Self::apply`] does, in slices: returns true if the whole record
    /// is applied, and false if the caller must call [`Self::proceed`] until that returns true.
    /// Until then the state belongs to no prefix of the log. It may be asked, and it must not be
    /// written or get another record (INV-PREFIX).
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn begin(
        &mut self,
        at: RecordMetadata,
        event: &Event<'_>,
        raw: RawRecord<'_>,
        messages_max: u32,
        effects: &mut Effects,
    ) -> Result<bool, S::Error> {
        if !self.advance(at, effects)? {
            return Ok(true);
        }
        let tenant = &*event.tenant;
        match &event.body {
            Body::ConversationConfigured(e) => self.configure(tenant, e)?,
            Body::MembersChanged(e) => self.change_members(tenant, e, at)?,
            Body::MessageSent(e) => self.send(tenant, e, at, effects)?,
            Body::MessageRead(e) => self.read(tenant, e, at, raw, effects)?,
            Body::ConversationRead(e) => self.read_conversation(tenant, e, at, raw, effects)?,
            Body::MessageRecalled(e) => self.recall(tenant, e, at, raw, effects)?,
            Body::PolicyChanged(e) => self.change_policy(tenant, e, effects),
            Body::UserErased(e) => self.erase(tenant, &e.user_id, at, effects),
        }
        if self.unfinished.is_empty() { Ok(true) } else { self.proceed(messages_max, effects) }
    }

    /// Skips a record that is no event, with a dead letter. Time and offset advance as with any
    /// other record.
    ///
    /// # Errors
    /// If the store fails or is broken. The state must not be used again.
    pub fn skip(
        &mut self,
        at: RecordMetadata,
        reason: Reason,
        detail: String,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        if self.advance(at, effects)? {
            effects.dead_letters.push(DeadLetter { reason, detail, ids: Vec::new(), parked: None });
        }
        Ok(())
    }

    /// Advances offset and time. Returns false for a record that was folded before (INV-REPLAY).
    fn advance(&mut self, at: RecordMetadata, effects: &mut Effects) -> Result<bool, S::Error> {
        assert!(self.unfinished.is_empty(), "the record before is applied in part");
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
}
