//! Which records the caller wants to see. Reads no topic.

use receipts_event::{Body, Event, UpTo};
use serde_json::Value;

/// A filter; a record passes if all of its parts that are set agree.
pub(super) struct Filter {
    pub(super) conversation: Option<String>,
    pub(super) message: Option<String>,
    pub(super) user: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) tenant: Option<String>,
}

/// The judgement of one record.
pub(super) enum Verdict<T> {
    /// It passes.
    Passes(T),
    /// It does not.
    Fails,
    /// The record cannot be read, so nobody knows.
    Unjudged,
}

impl Filter {
    /// Judges an event.
    pub(super) fn admits_event(&self, event: &Event<'_>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        is(&self.tenant, Some(&event.tenant))
            && is(&self.conversation, event.conversation_id())
            && is(&self.kind, Some(event.type_name()))
            && self.message.as_deref().is_none_or(|message| names_message(&event.body, message))
            && self.user.as_deref().is_none_or(|user| names_user(&event.body, user))
    }

    /// Judges an update.
    pub(super) fn admits_update(&self, update: &Value) -> bool {
        let is = |wanted: &Option<String>, field: &str| wanted.is_none() || wanted.as_deref() == update[field].as_str();
        let any = |wanted: &Option<String>, fields: &[&str]| {
            wanted.is_none() || fields.iter().any(|field| wanted.as_deref() == update[field].as_str())
        };
        let is_new_reader = || {
            let readers = update["newly_read"].as_array().into_iter().flatten();
            readers.into_iter().any(|reader| reader["user_id"].as_str() == self.user.as_deref())
        };
        is(&self.tenant, "tenant")
            && is(&self.conversation, "conversation_id")
            && is(&self.kind, "type")
            && any(&self.message, &["message_id", "up_to_message_id"])
            && (any(&self.user, &["sender_id", "user_id", "reader_id", "peer_id"]) || is_new_reader())
    }

    /// Judges a record whose value cannot be read, by its key `TENANT/CONVERSATION`.
    pub(super) fn admits_key<T>(&self, key: Option<&[u8]>, row: impl FnOnce() -> T) -> Verdict<T> {
        let parts = key.and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.split_once('/'));
        // A key of another form may be anybody's.
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || found.is_none() || wanted.as_deref() == found
        };
        if !is(&self.tenant, parts.map(|parts| parts.0)) || !is(&self.conversation, parts.map(|parts| parts.1)) {
            Verdict::Fails
        } else if self.message.is_some() || self.user.is_some() || self.kind.is_some() {
            Verdict::Unjudged
        } else {
            Verdict::Passes(row())
        }
    }
}

fn names_message(body: &Body<'_>, message: &str) -> bool {
    match body {
        Body::MessageSent(body) => body.message_id == message,
        Body::MessageRead(body) => body.message_ids.iter().any(|id| id == message),
        Body::ConversationRead(body) => matches!(&body.up_to, UpTo::Message(id) if id == message),
        Body::MessageRecalled(body) => body.message_id == message,
        Body::ConversationConfigured(_) | Body::MembersChanged(_) | Body::PolicyChanged(_) | Body::UserErased(_) => {
            false
        }
    }
}

fn names_user(body: &Body<'_>, user: &str) -> bool {
    match body {
        Body::MembersChanged(body) => {
            [&body.joined, &body.left, &body.observers].into_iter().flatten().any(|id| id == user)
        }
        Body::MessageSent(body) => {
            body.sender_id == user || body.recipients.iter().flatten().any(|recipient| recipient == user)
        }
        Body::MessageRead(body) => body.reader_id == user,
        Body::ConversationRead(body) => body.reader_id == user,
        Body::UserErased(body) => body.user_id == user,
        Body::ConversationConfigured(_) | Body::MessageRecalled(_) | Body::PolicyChanged(_) => false,
    }
}
