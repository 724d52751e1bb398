//! The types of events and their fields. Holds what a record says; what it means is the fold's matter.

use std::borrow::Cow;

use crate::field::EventType;

/// What happened, by `type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// `conversation.configured`
    ConversationConfigured(ConversationConfigured<'a>),
    /// `members.changed`
    MembersChanged(MembersChanged<'a>),
    /// `message.sent`
    MessageSent(MessageSent<'a>),
    /// `message.read`
    MessageRead(MessageRead<'a>),
    /// `conversation.read`
    ConversationRead(ConversationRead<'a>),
    /// `message.recalled`
    MessageRecalled(MessageRecalled<'a>),
    /// `policy.changed`
    PolicyChanged(PolicyChanged<'a>),
    /// `user.erased`
    UserErased(UserErased<'a>),
}

/// Direct chat or group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Two people.
    Direct,
    /// Any number of people.
    Group,
}

/// Creates or changes a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationConfigured<'a> {
    /// Which conversation.
    pub conversation_id: Cow<'a, str>,
    /// Direct chat or group.
    pub kind: Kind,
    /// The type that policies speak of; `None` stands for `"default"`.
    pub group_type: Option<Cow<'a, str>>,
}

/// Joins and leaves; `left` takes effect first, then `joined`, then `observers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersChanged<'a> {
    /// Which conversation.
    pub conversation_id: Cow<'a, str>,
    /// Who joined as a member.
    pub joined: Vec<Cow<'a, str>>,
    /// Who left.
    pub left: Vec<Cow<'a, str>>,
    /// Who is on the roster as an observer from here on.
    pub observers: Vec<Cow<'a, str>>,
}

/// A message was sent; freezes its audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSent<'a> {
    /// Which conversation.
    pub conversation_id: Cow<'a, str>,
    /// The message, unique in its conversation.
    pub message_id: Cow<'a, str>,
    /// Who sent it.
    pub sender_id: Cow<'a, str>,
    /// When, Unix milliseconds, by the sender's server.
    pub sent_at_ms: u64,
    /// Whether the sender asked for a receipt.
    pub need_read_receipt: bool,
    /// The audience where the event names one itself.
    pub recipients: Option<Vec<Cow<'a, str>>>,
}

/// A reader has read some messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRead<'a> {
    /// Which conversation.
    pub conversation_id: Cow<'a, str>,
    /// Who has read.
    pub reader_id: Cow<'a, str>,
    /// What: 1 to 100 messages.
    pub message_ids: Vec<Cow<'a, str>>,
    /// When, Unix milliseconds, by the reader's device.
    pub read_at_ms: Option<u64>,
    /// Whether the reader is not to be named.
    pub hidden: bool,
}

/// A reader has read everything up to a message or a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationRead<'a> {
    /// Which conversation.
    pub conversation_id: Cow<'a, str>,
    /// Who has read.
    pub reader_id: Cow<'a, str>,
    /// Up to where.
    pub up_to: UpTo<'a>,
    /// When, Unix milliseconds, by the reader's device.
    pub read_at_ms: Option<u64>,
    /// Whether the reader is not to be named.
    pub hidden: bool,
}

/// Up to where a read mark reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpTo<'a> {
    /// `up_to_message_id`
    Message(Cow<'a, str>),
    /// `up_to_sent_at_ms`
    SentAt(u64),
}

/// A message was recalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecalled<'a> {
    /// Which conversation.
    pub conversation_id: Cow<'a, str>,
    /// Which message.
    pub message_id: Cow<'a, str>,
}

/// Which group types support receipts from here on; replaces the tenant's policy before it as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyChanged<'a> {
    /// Group type to support; `"*"` stands for all types not listed. In the order of the record, no type twice.
    pub read_receipts: Vec<(Cow<'a, str>, bool)>,
    /// The partition that this copy is for.
    pub partition: Option<u32>,
}

/// A person is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserErased<'a> {
    /// Who.
    pub user_id: Cow<'a, str>,
    /// The partition that this copy is for.
    pub partition: Option<u32>,
}

impl Body<'_> {
    /// Returns the conversation the event belongs to; `None` for the control events.
    pub fn conversation_id(&self) -> Option<&str> {
        match self {
            Self::ConversationConfigured(body) => Some(&body.conversation_id),
            Self::MembersChanged(body) => Some(&body.conversation_id),
            Self::MessageSent(body) => Some(&body.conversation_id),
            Self::MessageRead(body) => Some(&body.conversation_id),
            Self::ConversationRead(body) => Some(&body.conversation_id),
            Self::MessageRecalled(body) => Some(&body.conversation_id),
            Self::PolicyChanged(_) | Self::UserErased(_) => None,
        }
    }

    /// Returns the `type` of such an event.
    pub fn type_name(&self) -> &'static str {
        let event_type = match self {
            Self::ConversationConfigured(_) => EventType::ConversationConfigured,
            Self::MembersChanged(_) => EventType::MembersChanged,
            Self::MessageSent(_) => EventType::MessageSent,
            Self::MessageRead(_) => EventType::MessageRead,
            Self::ConversationRead(_) => EventType::ConversationRead,
            Self::MessageRecalled(_) => EventType::MessageRecalled,
            Self::PolicyChanged(_) => EventType::PolicyChanged,
            Self::UserErased(_) => EventType::UserErased,
        };
        event_type.name()
    }

    pub(crate) fn into_owned(self) -> Body<'static> {
        match self {
            Self::ConversationConfigured(body) => Body::ConversationConfigured(ConversationConfigured {
                conversation_id: owned(body.conversation_id),
                kind: body.kind,
                group_type: body.group_type.map(owned),
            }),
            Self::MembersChanged(body) => Body::MembersChanged(MembersChanged {
                conversation_id: owned(body.conversation_id),
                joined: all_owned(body.joined),
                left: all_owned(body.left),
                observers: all_owned(body.observers),
            }),
            Self::MessageSent(body) => Body::MessageSent(MessageSent {
                conversation_id: owned(body.conversation_id),
                message_id: owned(body.message_id),
                sender_id: owned(body.sender_id),
                sent_at_ms: body.sent_at_ms,
                need_read_receipt: body.need_read_receipt,
                recipients: body.recipients.map(all_owned),
            }),
            Self::MessageRead(body) => Body::MessageRead(MessageRead {
                conversation_id: owned(body.conversation_id),
                reader_id: owned(body.reader_id),
                message_ids: all_owned(body.message_ids),
                read_at_ms: body.read_at_ms,
                hidden: body.hidden,
            }),
            Self::ConversationRead(body) => Body::ConversationRead(ConversationRead {
                conversation_id: owned(body.conversation_id),
                reader_id: owned(body.reader_id),
                up_to: match body.up_to {
                    UpTo::Message(message_id) => UpTo::Message(owned(message_id)),
                    UpTo::SentAt(sent_at_ms) => UpTo::SentAt(sent_at_ms),
                },
                read_at_ms: body.read_at_ms,
                hidden: body.hidden,
            }),
            Self::MessageRecalled(body) => Body::MessageRecalled(MessageRecalled {
                conversation_id: owned(body.conversation_id),
                message_id: owned(body.message_id),
            }),
            Self::PolicyChanged(body) => Body::PolicyChanged(PolicyChanged {
                read_receipts: body.read_receipts.into_iter().map(|(name, is_on)| (owned(name), is_on)).collect(),
                partition: body.partition,
            }),
            Self::UserErased(body) => {
                Body::UserErased(UserErased { user_id: owned(body.user_id), partition: body.partition })
            }
        }
    }
}

pub(crate) fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

fn all_owned(texts: Vec<Cow<'_, str>>) -> Vec<Cow<'static, str>> {
    texts.into_iter().map(owned).collect()
}
