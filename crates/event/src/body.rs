//! The event types and their fields. The fold decides what they mean.

use std::borrow::Cow;

use crate::field::EventType;

/// The `type` of every event, in the order of [`Body`].
pub const TYPES: [&str; EventType::ALL.len()] = {
    let mut names = [""; EventType::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = EventType::ALL[index].name();
        index += 1;
    }
    names
};

/// The type of an event, with its fields.
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

/// The kind of a conversation.
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
    /// The conversation.
    pub conversation_id: Cow<'a, str>,
    /// Direct conversation or group.
    pub kind: Kind,
    /// The group type, which policies refer to; `None` stands for `"default"`.
    pub group_type: Option<Cow<'a, str>>,
}

/// Members join and leave: `left` is applied first, then `joined`, then `observers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersChanged<'a> {
    /// The conversation.
    pub conversation_id: Cow<'a, str>,
    /// People who join as members.
    pub joined: Vec<Cow<'a, str>>,
    /// People who leave.
    pub left: Vec<Cow<'a, str>>,
    /// People who are observers on the roster from now on.
    pub observers: Vec<Cow<'a, str>>,
}

/// A message was sent. Its audience is fixed by this event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSent<'a> {
    /// The conversation.
    pub conversation_id: Cow<'a, str>,
    /// The message; its id is unique in the conversation.
    pub message_id: Cow<'a, str>,
    /// The sender.
    pub sender_id: Cow<'a, str>,
    /// The sending time by the sender's server, Unix milliseconds.
    pub sent_at_ms: u64,
    /// True if the sender requests a receipt.
    pub need_read_receipt: bool,
    /// The audience, if the event names one.
    pub recipients: Option<Vec<Cow<'a, str>>>,
}

/// A reader read some messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRead<'a> {
    /// The conversation.
    pub conversation_id: Cow<'a, str>,
    /// The reader.
    pub reader_id: Cow<'a, str>,
    /// 1 to 100 messages.
    pub message_ids: Vec<Cow<'a, str>>,
    /// The read time by the reader's device, Unix milliseconds.
    pub read_at_ms: Option<u64>,
    /// True if the reader must not be named.
    pub hidden: bool,
}

/// A reader read everything up to a message or a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationRead<'a> {
    /// The conversation.
    pub conversation_id: Cow<'a, str>,
    /// The reader.
    pub reader_id: Cow<'a, str>,
    /// The end of the read messages.
    pub up_to: UpTo<'a>,
    /// The read time by the reader's device, Unix milliseconds.
    pub read_at_ms: Option<u64>,
    /// True if the reader must not be named.
    pub hidden: bool,
}

/// The end of a read mark.
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
    /// The conversation.
    pub conversation_id: Cow<'a, str>,
    /// The message.
    pub message_id: Cow<'a, str>,
}

/// Says which group types support receipts from now on. Replaces the tenant's whole policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyChanged<'a> {
    /// Pairs of group type and support, in the order of the record, no type twice. `"*"` stands for
    /// all types that are not listed.
    pub read_receipts: Vec<(Cow<'a, str>, bool)>,
    /// The partition of this copy.
    pub partition: Option<u32>,
}

/// A person must be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserErased<'a> {
    /// The person.
    pub user_id: Cow<'a, str>,
    /// The partition of this copy.
    pub partition: Option<u32>,
}

impl Body<'_> {
    /// Returns the event's conversation; `None` for control events.
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

    /// Returns the event's `type`.
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
