//! The answers of the oracle. Changes nothing, and names no erased person (rule 10).

use receipts_event::Event;
use receipts_fold::view::{Member, MemberFilter, ReadMark, Receipt, Status};

use super::state::{Bit, Conversation, Message, Standing, Tenant};
use super::{At, Oracle, OracleEffect};
use crate::subject::Subject;

impl Oracle {
    /// Returns the receipt of a message; `not_found` if there is none or it expired.
    pub fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Receipt {
        match self.live(tenant, conversation_id, message_id) {
            Some((home, conversation, message)) => describe(tenant, home, conversation_id, conversation, message),
            None => not_found(tenant, Some(conversation_id), message_id),
        }
    }

    /// Returns the receipt of the message of this id in all conversations of the tenant: of the
    /// live ones before the recalled ones, the one with the greatest `sent_at_ms`. Of too many it
    /// is ambiguous.
    // DECISION: of two with the same `sent_at_ms`, the later one in the log answers. DECISION:
    // expired messages count as long as their space is not freed, for a search looks at them too.
    pub fn find(&self, tenant: &str, message_id: &str) -> Receipt {
        let conversations = || self.tenants.get(tenant).into_iter().flat_map(|home| &home.conversations);
        let of_id = conversations().flat_map(|(_, conversation)| &conversation.messages).filter(|m| m.id == message_id);
        if of_id.count() > self.limits.candidates_max {
            return Receipt { status: Status::Ambiguous, ..not_found(tenant, None, message_id) };
        }
        conversations()
            .filter_map(|(id, _)| self.live(tenant, id, message_id).map(|found| (id, found)))
            .max_by_key(|(_, (_, _, message))| (message.status != Status::Recalled, message.sent_at_ms, message.offset))
            .map(|(id, (home, conversation, message))| describe(tenant, home, id, conversation, message))
            .unwrap_or_else(|| not_found(tenant, None, message_id))
    }

    /// Returns the whole list of read, unread or departed members by user id. Erased members and
    /// hidden readers are in no list, but in a direct chat a hidden reader counts as unread.
    ///
    /// # Errors
    /// The receipt's status if that is not `ok`.
    // DECISION: if read times are not kept, lists have none; the receipt's own times stay.
    pub fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
    ) -> Result<Vec<Member>, Status> {
        let (home, conversation, message) = self.live(tenant, conversation_id, message_id).ok_or(Status::NotFound)?;
        if message.status != Status::Ok {
            return Err(message.status);
        }
        let wanted = match filter {
            MemberFilter::Read => Standing::Read,
            MemberFilter::Unread => Standing::Unread,
            MemberFilter::Departed => Standing::Departed,
        };
        let audience = message.audience.iter().filter(|(user, _)| !home.erased.contains(*user));
        let listed = audience.filter(|(user, _)| conversation.standing(message, user) == wanted);
        let members = listed.map(|(user, bit)| Member {
            user_id: user.clone(),
            read_at_ms: if let Bit::Read(at_ms) = bit { self.limits.read_times.then_some(*at_ms) } else { None },
            left: conversation.left(user),
        });
        Ok(members.collect())
    }

    /// Returns the read mark of a person; `None` if there is none or the person is erased.
    pub fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Option<ReadMark> {
        let home = self.tenants.get(tenant).filter(|home| !home.erased.contains(user_id))?;
        home.conversations.get(conversation_id)?.marks.get(user_id).cloned()
    }

    fn live(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
    ) -> Option<(&Tenant, &Conversation, &Message)> {
        let home = self.tenants.get(tenant)?;
        let conversation = home.conversations.get(conversation_id)?;
        let message = &conversation.messages[conversation.message(message_id)?];
        (!self.is_expired(message)).then_some((home, conversation, message))
    }
}

fn describe(
    tenant: &str,
    home: &Tenant,
    conversation_id: &str,
    conversation: &Conversation,
    message: &Message,
) -> Receipt {
    let ok = message.status == Status::Ok;
    let named = |user: &String| (!home.erased.contains(user)).then(|| user.clone());
    let other = message.audience.first_key_value().filter(|_| ok && message.is_between_two());
    let last_read_at_ms = message.last_read_at_ms().filter(|_| ok);
    Receipt {
        tenant: tenant.into(),
        conversation_id: Some(conversation_id.into()),
        message_id: message.id.clone(),
        status: message.status,
        kind: Some(message.kind),
        sender_id: named(&message.sender_id),
        sent_at_ms: Some(message.sent_at_ms),
        counts: ok.then(|| conversation.counts(message)),
        last_read_at_ms,
        user_id: other.and_then(|(user, _)| named(user)),
        read_at_ms: other.and_then(|(user, _)| named(user)).and(last_read_at_ms),
        version: Some(conversation.version(message)),
    }
}

fn not_found(tenant: &str, conversation_id: Option<&str>, message_id: &str) -> Receipt {
    Receipt {
        tenant: tenant.into(),
        conversation_id: conversation_id.map(str::to_owned),
        message_id: message_id.into(),
        status: Status::NotFound,
        kind: None,
        sender_id: None,
        sent_at_ms: None,
        counts: None,
        last_read_at_ms: None,
        user_id: None,
        read_at_ms: None,
        version: None,
    }
}

impl Subject for Oracle {
    fn apply(&mut self, at: At, event: &Event<'_>) -> Vec<OracleEffect> {
        Oracle::apply(self, at, event)
    }

    fn pass(&mut self, at: At) -> Vec<OracleEffect> {
        Oracle::pass(self, at)
    }

    fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Receipt {
        Oracle::receipt(self, tenant, conversation_id, message_id)
    }

    fn find(&self, tenant: &str, message_id: &str) -> Receipt {
        Oracle::find(self, tenant, message_id)
    }

    fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
    ) -> Result<Vec<Member>, Status> {
        Oracle::members(self, tenant, conversation_id, message_id, filter)
    }

    fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Option<ReadMark> {
        Oracle::read_mark(self, tenant, conversation_id, user_id)
    }

    fn is_member(&self, tenant: &str, conversation_id: &str, user_id: &str) -> bool {
        let conversation = self.tenants.get(tenant).and_then(|home| home.conversations.get(conversation_id));
        conversation.is_some_and(|conversation| conversation.roster.contains_key(user_id))
    }
}
