//! Builders of events: one function per type, with required fields as arguments and optional fields
//! as methods. They check nothing; the service reports errors.
//!
//! ```
//! use receipts_client::event;
//!
//! let sent = event::message_sent("g1", "m1", "alice", 1_780_000_000_000).need_read_receipt().build();
//! let read = event::message_read("g1", "bob", ["m1"]).read_at_ms(1_780_000_004_000).hidden().build();
//! # assert_eq!(sent.to_json(), br#"{"type":"message.sent","conversation_id":"g1","message_id":"m1","sender_id":"alice","sent_at_ms":1780000000000,"need_read_receipt":true}"#);
//! # assert_eq!(read.to_json(), br#"{"type":"message.read","conversation_id":"g1","reader_id":"bob","message_ids":["m1"],"read_at_ms":1780000004000,"hidden":true}"#);
//! ```

pub use receipts_event::{
    Body, ConversationConfigured, ConversationRead, Event, Kind, MembersChanged, MessageRead, MessageRecalled,
    MessageSent, PolicyChanged, UpTo, UserErased,
};

use std::borrow::Cow;

/// The maximum number of messages of one `message.read` (contract).
pub const MESSAGE_IDS_MAX: usize = 100;

/// An owned id of an event.
type Id = Cow<'static, str>;

/// An event that is being built; `B` is its type.
#[derive(Debug, Clone)]
#[must_use = "post events with Client::post_events"]
pub struct Draft<B> {
    tenant: Option<String>,
    event_id: Option<String>,
    body: B,
    wrap: fn(B) -> Body<'static>,
}

impl<B> Draft<B> {
    const fn new(body: B, wrap: fn(B) -> Body<'static>) -> Self {
        Self { tenant: None, event_id: None, body, wrap }
    }

    /// Sets the tenant, which must be the caller's. Default: the caller's tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the producer's own id, which is kept for tracing.
    pub fn event_id(mut self, event_id: impl Into<String>) -> Self {
        self.event_id = Some(event_id.into());
        self
    }

    /// Returns the event.
    pub fn build(self) -> Event<'static> {
        Event {
            tenant: self.tenant.map_or(Cow::Borrowed(receipts_event::TENANT_DEFAULT), Cow::Owned),
            event_id: self.event_id.map(Cow::Owned),
            body: (self.wrap)(self.body),
        }
    }
}

impl<B> From<Draft<B>> for Event<'static> {
    fn from(draft: Draft<B>) -> Self {
        draft.build()
    }
}

fn id(id: impl Into<String>) -> Id {
    Cow::Owned(id.into())
}

fn ids<I: Into<String>>(ids: impl IntoIterator<Item = I>) -> Vec<Id> {
    ids.into_iter().map(id).collect()
}

/// `conversation.configured`: creates or changes a conversation. Default: a group of type
/// `default`.
pub fn conversation_configured(
    conversation_id: impl Into<String>,
    kind: Kind,
) -> Draft<ConversationConfigured<'static>> {
    let body = ConversationConfigured { conversation_id: id(conversation_id), kind, group_type: None };
    Draft::new(body, Body::ConversationConfigured)
}

impl Draft<ConversationConfigured<'static>> {
    /// Sets the group type, which policies refer to. Default: `default`.
    pub fn group_type(mut self, group_type: impl Into<String>) -> Self {
        self.body.group_type = Some(id(group_type));
        self
    }
}

/// `members.changed`: members join and leave. `left` is applied first. At most 10,000 ids in all.
pub fn members_changed(conversation_id: impl Into<String>) -> Draft<MembersChanged<'static>> {
    let (joined, left, observers) = (Vec::new(), Vec::new(), Vec::new());
    Draft::new(MembersChanged { conversation_id: id(conversation_id), joined, left, observers }, Body::MembersChanged)
}

impl Draft<MembersChanged<'static>> {
    /// Adds people who join as members.
    pub fn joined<I: Into<String>>(mut self, people: impl IntoIterator<Item = I>) -> Self {
        self.body.joined.extend(ids(people));
        self
    }

    /// Adds people who leave.
    pub fn left<I: Into<String>>(mut self, people: impl IntoIterator<Item = I>) -> Self {
        self.body.left.extend(ids(people));
        self
    }

    /// Adds observers: people on the roster who are in no audience by roster, such as bots and
    /// auditors.
    pub fn observers<I: Into<String>>(mut self, people: impl IntoIterator<Item = I>) -> Self {
        self.body.observers.extend(ids(people));
        self
    }
}

/// `message.sent`: freezes the audience of a message. `sent_at_ms` is in Unix milliseconds.
pub fn message_sent(
    conversation_id: impl Into<String>,
    message_id: impl Into<String>,
    sender_id: impl Into<String>,
    sent_at_ms: u64,
) -> Draft<MessageSent<'static>> {
    let body = MessageSent {
        conversation_id: id(conversation_id),
        message_id: id(message_id),
        sender_id: id(sender_id),
        sent_at_ms,
        need_read_receipt: false,
        recipients: None,
    };
    Draft::new(body, Body::MessageSent)
}

impl Draft<MessageSent<'static>> {
    /// Requests a receipt.
    pub const fn need_read_receipt(mut self) -> Self {
        self.body.need_read_receipt = true;
        self
    }

    /// Sets the audience instead of the roster; an empty audience is allowed.
    pub fn recipients<I: Into<String>>(mut self, people: impl IntoIterator<Item = I>) -> Self {
        self.body.recipients.get_or_insert_default().extend(ids(people));
        self
    }
}

/// `message.read`: a reader has read 1 to 100 messages. [`Draft::split`] turns more messages into
/// several events.
pub fn message_read<I: Into<String>>(
    conversation_id: impl Into<String>,
    reader_id: impl Into<String>,
    message_ids: impl IntoIterator<Item = I>,
) -> Draft<MessageRead<'static>> {
    let body = MessageRead {
        conversation_id: id(conversation_id),
        reader_id: id(reader_id),
        message_ids: ids(message_ids),
        read_at_ms: None,
        hidden: false,
    };
    Draft::new(body, Body::MessageRead)
}

impl Draft<MessageRead<'static>> {
    /// Sets the read time by the reader's device, Unix milliseconds. Default: the time of the
    /// write.
    pub const fn read_at_ms(mut self, read_at_ms: u64) -> Self {
        self.body.read_at_ms = Some(read_at_ms);
        self
    }

    /// Counts the read without naming the reader to anyone.
    pub const fn hidden(mut self) -> Self {
        self.body.hidden = true;
        self
    }

    /// Returns as many events as needed, with 100 messages each; none if there are no messages.
    pub fn split(self) -> Vec<Event<'static>> {
        let part = |some: &[Id]| {
            let mut draft = self.clone();
            draft.body.message_ids = some.to_vec();
            draft.build()
        };
        self.body.message_ids.chunks(MESSAGE_IDS_MAX).map(part).collect()
    }
}

/// `conversation.read`: moves a reader's mark forward and marks all messages before it as read.
///
/// ```
/// use receipts_client::event::{UpTo, conversation_read};
///
/// let up_to_a_message = conversation_read("d1", "bob", UpTo::Message("m7".into())).build();
/// let up_to_a_time = conversation_read("d1", "bob", UpTo::SentAt(1_780_000_000_000)).build();
/// ```
pub fn conversation_read(
    conversation_id: impl Into<String>,
    reader_id: impl Into<String>,
    up_to: UpTo<'static>,
) -> Draft<ConversationRead<'static>> {
    let body = ConversationRead {
        conversation_id: id(conversation_id),
        reader_id: id(reader_id),
        up_to,
        read_at_ms: None,
        hidden: false,
    };
    Draft::new(body, Body::ConversationRead)
}

impl Draft<ConversationRead<'static>> {
    /// Sets the read time by the reader's device, Unix milliseconds. Default: the time of the
    /// write.
    pub const fn read_at_ms(mut self, read_at_ms: u64) -> Self {
        self.body.read_at_ms = Some(read_at_ms);
        self
    }

    /// Counts the reads without naming the reader to anyone, and does not move the mark.
    pub const fn hidden(mut self) -> Self {
        self.body.hidden = true;
        self
    }
}

/// `message.recalled`: the message's receipt becomes `recalled`.
pub fn message_recalled(
    conversation_id: impl Into<String>,
    message_id: impl Into<String>,
) -> Draft<MessageRecalled<'static>> {
    let body = MessageRecalled { conversation_id: id(conversation_id), message_id: id(message_id) };
    Draft::new(body, Body::MessageRecalled)
}

/// `policy.changed`: says which group types support receipts, for later messages; `"*"` stands for
/// all other types. Replaces the tenant's whole policy.
pub fn policy_changed<I: Into<String>>(
    read_receipts: impl IntoIterator<Item = (I, bool)>,
) -> Draft<PolicyChanged<'static>> {
    let read_receipts = read_receipts.into_iter().map(|(group_type, is_on)| (id(group_type), is_on)).collect();
    Draft::new(PolicyChanged { read_receipts, partition: None }, Body::PolicyChanged)
}

impl Draft<PolicyChanged<'static>> {
    /// Writes the copy of one partition only. Default: the service writes a copy to every
    /// partition.
    pub const fn partition(mut self, partition: u32) -> Self {
        self.body.partition = Some(partition);
        self
    }
}

/// `user.erased`: removes the person's id and read times from every answer for ever; counts stay.
pub fn user_erased(user_id: impl Into<String>) -> Draft<UserErased<'static>> {
    Draft::new(UserErased { user_id: id(user_id), partition: None }, Body::UserErased)
}

impl Draft<UserErased<'static>> {
    /// Writes the copy of one partition only. Default: the service writes a copy to every
    /// partition.
    pub const fn partition(mut self, partition: u32) -> Self {
        self.body.partition = Some(partition);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_many_messages_are_several_events() {
        let of = |count: usize| message_read("g1", "bob", (0..count).map(|n| format!("m{n}"))).read_at_ms(5).split();
        assert!(of(0).is_empty());
        let sizes: Vec<usize> = of(250)
            .iter()
            .map(|event| match &event.body {
                Body::MessageRead(read) if read.read_at_ms == Some(5) => read.message_ids.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, [100, 100, 50]);
    }

    #[test]
    fn an_empty_audience_is_not_the_roster() {
        let named = |draft: Draft<MessageSent<'static>>| draft.body.recipients.map(|people| people.len());
        let sent = || message_sent("g1", "m1", "alice", 1);
        assert_eq!(named(sent()), None);
        assert_eq!(named(sent().recipients([] as [&str; 0])), Some(0));
        assert_eq!(named(sent().recipients(["bob"]).recipients(["carol"])), Some(2));
    }
}
