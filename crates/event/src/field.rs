//! The names of the format: event types, their fields, and the fields of each type. It knows no
//! values.

/// The event types, as values of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    ConversationConfigured,
    MembersChanged,
    MessageSent,
    MessageRead,
    ConversationRead,
    MessageRecalled,
    PolicyChanged,
    UserErased,
}

impl EventType {
    pub(crate) const ALL: [Self; 8] = [
        Self::ConversationConfigured,
        Self::MembersChanged,
        Self::MessageSent,
        Self::MessageRead,
        Self::ConversationRead,
        Self::MessageRecalled,
        Self::PolicyChanged,
        Self::UserErased,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ConversationConfigured => "conversation.configured",
            Self::MembersChanged => "members.changed",
            Self::MessageSent => "message.sent",
            Self::MessageRead => "message.read",
            Self::ConversationRead => "conversation.read",
            Self::MessageRecalled => "message.recalled",
            Self::PolicyChanged => "policy.changed",
            Self::UserErased => "user.erased",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "conversation.configured" => Self::ConversationConfigured,
            "members.changed" => Self::MembersChanged,
            "message.sent" => Self::MessageSent,
            "message.read" => Self::MessageRead,
            "conversation.read" => Self::ConversationRead,
            "message.recalled" => Self::MessageRecalled,
            "policy.changed" => Self::PolicyChanged,
            "user.erased" => Self::UserErased,
            _ => return None,
        })
    }

    /// Returns the fields of this type; all other fields of such an event are ignored.
    pub(crate) const fn fields(self) -> Fields {
        use Field as F;
        let own = match self {
            Self::ConversationConfigured => Fields::of(&[F::ConversationId, F::Kind, F::GroupType]),
            Self::MembersChanged => Fields::of(&[F::ConversationId, F::Joined, F::Left, F::Observers]),
            Self::MessageSent => Fields::of(&[
                F::ConversationId,
                F::MessageId,
                F::SenderId,
                F::SentAtMs,
                F::NeedReadReceipt,
                F::Recipients,
            ]),
            Self::MessageRead => Fields::of(&[F::ConversationId, F::ReaderId, F::MessageIds, F::ReadAtMs, F::Hidden]),
            Self::ConversationRead => {
                Fields::of(&[F::ConversationId, F::ReaderId, F::UpToMessageId, F::UpToSentAtMs, F::ReadAtMs, F::Hidden])
            }
            Self::MessageRecalled => Fields::of(&[F::ConversationId, F::MessageId]),
            Self::PolicyChanged => Fields::of(&[F::ReadReceipts, F::Partition]),
            Self::UserErased => Fields::of(&[F::UserId, F::Partition]),
        };
        Fields(own.0 | Fields::COMMON.0)
    }
}

/// Every field of any event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Field {
    Type,
    Tenant,
    EventId,
    ConversationId,
    Kind,
    GroupType,
    Joined,
    Left,
    Observers,
    MessageId,
    SenderId,
    SentAtMs,
    NeedReadReceipt,
    Recipients,
    ReaderId,
    MessageIds,
    ReadAtMs,
    Hidden,
    UpToMessageId,
    UpToSentAtMs,
    ReadReceipts,
    Partition,
    UserId,
}

impl Field {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Tenant => "tenant",
            Self::EventId => "event_id",
            Self::ConversationId => "conversation_id",
            Self::Kind => "kind",
            Self::GroupType => "group_type",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Observers => "observers",
            Self::MessageId => "message_id",
            Self::SenderId => "sender_id",
            Self::SentAtMs => "sent_at_ms",
            Self::NeedReadReceipt => "need_read_receipt",
            Self::Recipients => "recipients",
            Self::ReaderId => "reader_id",
            Self::MessageIds => "message_ids",
            Self::ReadAtMs => "read_at_ms",
            Self::Hidden => "hidden",
            Self::UpToMessageId => "up_to_message_id",
            Self::UpToSentAtMs => "up_to_sent_at_ms",
            Self::ReadReceipts => "read_receipts",
            Self::Partition => "partition",
            Self::UserId => "user_id",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "type" => Self::Type,
            "tenant" => Self::Tenant,
            "event_id" => Self::EventId,
            "conversation_id" => Self::ConversationId,
            "kind" => Self::Kind,
            "group_type" => Self::GroupType,
            "joined" => Self::Joined,
            "left" => Self::Left,
            "observers" => Self::Observers,
            "message_id" => Self::MessageId,
            "sender_id" => Self::SenderId,
            "sent_at_ms" => Self::SentAtMs,
            "need_read_receipt" => Self::NeedReadReceipt,
            "recipients" => Self::Recipients,
            "reader_id" => Self::ReaderId,
            "message_ids" => Self::MessageIds,
            "read_at_ms" => Self::ReadAtMs,
            "hidden" => Self::Hidden,
            "up_to_message_id" => Self::UpToMessageId,
            "up_to_sent_at_ms" => Self::UpToSentAtMs,
            "read_receipts" => Self::ReadReceipts,
            "partition" => Self::Partition,
            "user_id" => Self::UserId,
            _ => return None,
        })
    }

    /// Returns the JSON Pointer to this field of an event.
    pub(crate) fn pointer(self) -> String {
        format!("/{}", self.name())
    }
}

/// A set of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fields(u32);

impl Fields {
    /// Every field of any type.
    pub(crate) const ALL: Self = Self((1 << (Field::UserId as u32 + 1)) - 1);
    /// The fields of all types.
    pub(crate) const COMMON: Self = Self::of(&[Field::Type, Field::Tenant, Field::EventId]);

    const fn of(fields: &[Field]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < fields.len() {
            bits |= 1 << fields[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    pub(crate) const fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }

    /// Adds a field; returns true if it was not in the set.
    pub(crate) const fn insert(&mut self, field: Field) -> bool {
        let is_new = !self.contains(field);
        self.0 |= 1 << field as u32;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_fields() -> Vec<Field> {
        EventType::ALL.iter().flat_map(|event_type| fields_of(event_type.fields())).collect()
    }

    fn fields_of(fields: Fields) -> Vec<Field> {
        use Field as F;
        let all = [
            F::Type,
            F::Tenant,
            F::EventId,
            F::ConversationId,
            F::Kind,
            F::GroupType,
            F::Joined,
            F::Left,
            F::Observers,
            F::MessageId,
            F::SenderId,
            F::SentAtMs,
            F::NeedReadReceipt,
            F::Recipients,
            F::ReaderId,
            F::MessageIds,
            F::ReadAtMs,
            F::Hidden,
            F::UpToMessageId,
            F::UpToSentAtMs,
            F::ReadReceipts,
            F::Partition,
            F::UserId,
        ];
        all.into_iter().filter(|field| fields.contains(*field)).collect()
    }

    #[test]
    fn names_and_types_find_each_other() {
        for event_type in EventType::ALL {
            assert_eq!(EventType::of(event_type.name()), Some(event_type));
        }
        for field in all_fields() {
            assert_eq!(Field::of(field.name()), Some(field));
        }
        assert_eq!((EventType::of("message.edited"), Field::of("text")), (None, None));
    }

    #[test]
    fn every_field_belongs_to_a_type_or_all() {
        let mut met = Fields::default();
        for event_type in EventType::ALL {
            for field in fields_of(event_type.fields()) {
                met.insert(field);
            }
            assert!(fields_of(Fields::COMMON).into_iter().all(|field| event_type.fields().contains(field)));
        }
        assert_eq!(met, Fields::ALL);
    }
}
