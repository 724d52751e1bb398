//! Collects what the events of a round may have changed in the tables of one partition. Reads no
//! row and writes none: it may name more than has changed, never less (INV-LIVE).

use crate::Error;
use receipts_event::{Body, Event};
use receipts_fold::effects::Effects;
use receipts_fold::{Pages, State};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Messages or conversations whose rows stand in one file at least: the unit by which files are
/// cut.
pub(super) const PAGE: u64 = 64;
/// With more erased people in a round, every file is compared instead of looking for each of them.
const ERASED_MAX: usize = 64;

/// What the rows of a table are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Pages count messages by their number.
    Messages,
    /// Pages count conversations by their number.
    Conversations,
}

/// A conversation's name as a number. Equal numbers of two names cost a comparison more.
pub(super) fn name_hash(tenant: &str, conversation_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (tenant, conversation_id).hash(&mut hasher);
    hasher.finish()
}

/// The parts of a partition's tables that may have changed since a table's version.
#[derive(Debug, Default, Clone)]
pub(super) struct Changes {
    /// Pages of messages with a message that was sent, read or recalled.
    pub(super) message_pages: BTreeSet<u64>,
    /// Pages of conversations with a conversation that had an event, or knows an erased person.
    pub(super) conversation_pages: BTreeSet<u64>,
    /// Conversations of which any message may have changed, by [`name_hash`].
    pub(super) conversations: BTreeSet<u64>,
    /// Whether anything may have changed.
    pub(super) everything: bool,
    pub(super) erased: BTreeSet<(String, String)>,
}

impl Changes {
    /// Adds the changes by one event. Call it after the event is applied.
    pub(super) fn add<S: Pages<Error = receipts_store::Error>>(
        &mut self,
        state: &State<S>,
        partition: u32,
        event: &Event<'_>,
        effects: &Effects,
    ) -> Result<(), Error> {
        self.message_pages.extend(effects.changed.iter().map(|changed| changed.message / PAGE));
        if let Body::UserErased(erased) = &event.body {
            self.erased.insert((event.tenant.as_ref().into(), erased.user_id.as_ref().into()));
        }
        let Some(conversation_id) = event.conversation_id() else { return Ok(()) };
        let number = state.conversation_number(&event.tenant, conversation_id).map_err(Error::state(partition))?;
        self.conversation_pages.extend(number.map(|number| u64::from(number) / PAGE));
        match &event.body {
            Body::MessageSent(_) | Body::MessageRead(_) | Body::MessageRecalled(_) | Body::ConversationRead(_) => {}
            // Departures and a new group type show in all messages of the conversation.
            _ => _ = self.conversations.insert(name_hash(&event.tenant, conversation_id)),
        }
        Ok(())
    }

    /// Finds the conversations that know the erased people.
    pub(super) fn find_erased<S: Pages<Error = receipts_store::Error>>(
        &mut self,
        state: &State<S>,
        partition: u32,
    ) -> Result<(), Error> {
        let erased = std::mem::take(&mut self.erased);
        if erased.is_empty() || self.everything {
            return Ok(());
        }
        if erased.len() > ERASED_MAX {
            self.everything = true;
            return Ok(());
        }
        for number in 0..state.conversations() {
            let conversation = state.conversation(number).map_err(Error::state(partition))?;
            for (tenant, user_id) in &erased {
                if *tenant == conversation.tenant
                    && state.has_known(number, user_id).map_err(Error::state(partition))?
                {
                    self.conversations.insert(name_hash(tenant, &conversation.conversation_id));
                    self.conversation_pages.insert(u64::from(number) / PAGE);
                }
            }
        }
        Ok(())
    }
}
