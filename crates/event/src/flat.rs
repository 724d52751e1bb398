//! An event during decoding: one value per field of any type, and the rules that concern several
//! fields. A source provides the values; this file parses nothing.

use std::borrow::Cow;

use crate::field::{EventType, Field, Fields};
use crate::rejection::{Findings, Reason};
use crate::{
    Body, ConversationConfigured, ConversationRead, Event, Kind, LISTED_IDS_MAX, MESSAGE_IDS_MAX, MembersChanged,
    MessageRead, MessageRecalled, MessageSent, PolicyChanged, TENANT_DEFAULT, UpTo, UserErased,
};

/// Group types and whether they support receipts, in the order of the record.
pub(crate) type PolicyEntries<'a> = Vec<(Cow<'a, str>, bool)>;

/// Provides the value of one field in the form that the field needs; `None` stands for `null`.
pub(crate) trait Source<'a>: Sized {
    /// Why there is no valid value.
    type Error;

    fn event_type(self) -> Result<Option<EventType>, Self::Error>;
    fn id(self) -> Result<Option<Cow<'a, str>>, Self::Error>;
    fn ids(self, count_max: usize) -> Result<Option<Vec<Cow<'a, str>>>, Self::Error>;
    fn kind(self) -> Result<Option<Kind>, Self::Error>;
    fn flag(self) -> Result<Option<bool>, Self::Error>;
    fn time_ms(self) -> Result<Option<u64>, Self::Error>;
    fn partition(self) -> Result<Option<u32>, Self::Error>;
    fn policy(self) -> Result<Option<PolicyEntries<'a>>, Self::Error>;
}

/// The fields of an event before the rules for whole events are checked.
#[derive(Default)]
pub(crate) struct Flat<'a> {
    /// The fields that the object has, `null` or not.
    pub(crate) seen: Fields,
    /// The fields with an invalid value; they do not count as missing.
    pub(crate) bad: Fields,
    pub(crate) event_type: Option<EventType>,
    tenant: Option<Cow<'a, str>>,
    event_id: Option<Cow<'a, str>>,
    conversation_id: Option<Cow<'a, str>>,
    kind: Option<Kind>,
    group_type: Option<Cow<'a, str>>,
    joined: Option<Vec<Cow<'a, str>>>,
    left: Option<Vec<Cow<'a, str>>>,
    observers: Option<Vec<Cow<'a, str>>>,
    message_id: Option<Cow<'a, str>>,
    sender_id: Option<Cow<'a, str>>,
    sent_at_ms: Option<u64>,
    need_read_receipt: Option<bool>,
    recipients: Option<Vec<Cow<'a, str>>>,
    reader_id: Option<Cow<'a, str>>,
    message_ids: Option<Vec<Cow<'a, str>>>,
    read_at_ms: Option<u64>,
    hidden: Option<bool>,
    up_to_message_id: Option<Cow<'a, str>>,
    up_to_sent_at_ms: Option<u64>,
    read_receipts: Option<PolicyEntries<'a>>,
    partition: Option<u32>,
    user_id: Option<Cow<'a, str>>,
}

impl<'a> Flat<'a> {
    /// Reads the value of `field`. Only this function says which form each field has.
    #[inline]
    pub(crate) fn read<S: Source<'a>>(&mut self, field: Field, source: S) -> Result<(), S::Error> {
        match field {
            Field::Type => self.event_type = source.event_type()?,
            Field::Tenant => self.tenant = source.id()?,
            Field::EventId => self.event_id = source.id()?,
            Field::ConversationId => self.conversation_id = source.id()?,
            Field::Kind => self.kind = source.kind()?,
            Field::GroupType => self.group_type = source.id()?,
            Field::Joined => self.joined = source.ids(LISTED_IDS_MAX)?,
            Field::Left => self.left = source.ids(LISTED_IDS_MAX)?,
            Field::Observers => self.observers = source.ids(LISTED_IDS_MAX)?,
            Field::MessageId => self.message_id = source.id()?,
            Field::SenderId => self.sender_id = source.id()?,
            Field::SentAtMs => self.sent_at_ms = source.time_ms()?,
            Field::NeedReadReceipt => self.need_read_receipt = source.flag()?,
            Field::Recipients => self.recipients = source.ids(LISTED_IDS_MAX)?,
            Field::ReaderId => self.reader_id = source.id()?,
            Field::MessageIds => self.message_ids = source.ids(MESSAGE_IDS_MAX)?,
            Field::ReadAtMs => self.read_at_ms = source.time_ms()?,
            Field::Hidden => self.hidden = source.flag()?,
            Field::UpToMessageId => self.up_to_message_id = source.id()?,
            Field::UpToSentAtMs => self.up_to_sent_at_ms = source.time_ms()?,
            Field::ReadReceipts => self.read_receipts = source.policy()?,
            Field::Partition => self.partition = source.partition()?,
            Field::UserId => self.user_id = source.id()?,
        }
        Ok(())
    }

    /// Builds the event, and adds every broken rule to `findings`: required fields and rules that
    /// concern several fields. If no field is `bad`, returns an event if and only if it added
    /// nothing.
    #[inline]
    pub(crate) fn build(self, findings: &mut Findings) -> Option<Event<'a>> {
        let needs = Needs { seen: self.seen, bad: self.bad };
        if self.tenant.as_ref().is_some_and(|tenant| tenant.as_bytes().contains(&b'/')) {
            findings.add(Reason::InvalidField, Field::Tenant.pointer(), "must not contain a slash");
        }
        let event_type = needs.get(findings, Field::Type, self.event_type)?;
        let is_control = matches!(event_type, EventType::PolicyChanged | EventType::UserErased);
        let conversation_id =
            if is_control { None } else { needs.get(findings, Field::ConversationId, self.conversation_id) };
        let body = match event_type {
            EventType::ConversationConfigured => {
                let kind = needs.get(findings, Field::Kind, self.kind);
                Body::ConversationConfigured(ConversationConfigured {
                    conversation_id: conversation_id?,
                    kind: kind?,
                    group_type: self.group_type,
                })
            }
            EventType::MembersChanged => {
                let joined = self.joined.unwrap_or_default();
                let left = self.left.unwrap_or_default();
                let observers = self.observers.unwrap_or_default();
                let count = joined.len() + left.len() + observers.len();
                if count > LISTED_IDS_MAX {
                    let detail = format!(
                        "has {count} ids in joined, left and observers, at most {LISTED_IDS_MAX} are allowed in all"
                    );
                    findings.add(Reason::LimitExceeded, "", detail);
                }
                Body::MembersChanged(MembersChanged { conversation_id: conversation_id?, joined, left, observers })
            }
            EventType::MessageSent => {
                let message_id = needs.get(findings, Field::MessageId, self.message_id);
                let sender_id = needs.get(findings, Field::SenderId, self.sender_id);
                let sent_at_ms = needs.get(findings, Field::SentAtMs, self.sent_at_ms);
                Body::MessageSent(MessageSent {
                    conversation_id: conversation_id?,
                    message_id: message_id?,
                    sender_id: sender_id?,
                    sent_at_ms: sent_at_ms?,
                    need_read_receipt: self.need_read_receipt.unwrap_or(false),
                    recipients: self.recipients,
                })
            }
            EventType::MessageRead => {
                let reader_id = needs.get(findings, Field::ReaderId, self.reader_id);
                let message_ids = needs.get(findings, Field::MessageIds, self.message_ids);
                if message_ids.as_ref().is_some_and(Vec::is_empty) {
                    findings.add(Reason::InvalidField, Field::MessageIds.pointer(), "must not be empty");
                }
                Body::MessageRead(MessageRead {
                    conversation_id: conversation_id?,
                    reader_id: reader_id?,
                    message_ids: message_ids?,
                    read_at_ms: self.read_at_ms,
                    hidden: self.hidden.unwrap_or(false),
                })
            }
            EventType::ConversationRead => {
                let reader_id = needs.get(findings, Field::ReaderId, self.reader_id);
                let up_to = needs.up_to(findings, self.up_to_message_id, self.up_to_sent_at_ms);
                Body::ConversationRead(ConversationRead {
                    conversation_id: conversation_id?,
                    reader_id: reader_id?,
                    up_to: up_to?,
                    read_at_ms: self.read_at_ms,
                    hidden: self.hidden.unwrap_or(false),
                })
            }
            EventType::MessageRecalled => {
                let message_id = needs.get(findings, Field::MessageId, self.message_id);
                Body::MessageRecalled(MessageRecalled { conversation_id: conversation_id?, message_id: message_id? })
            }
            EventType::PolicyChanged => Body::PolicyChanged(PolicyChanged {
                read_receipts: needs.get(findings, Field::ReadReceipts, self.read_receipts)?,
                partition: self.partition,
            }),
            EventType::UserErased => Body::UserErased(UserErased {
                user_id: needs.get(findings, Field::UserId, self.user_id)?,
                partition: self.partition,
            }),
        };
        let tenant = self.tenant.unwrap_or(Cow::Borrowed(TENANT_DEFAULT));
        findings.is_empty().then_some(Event { tenant, event_id: self.event_id, body })
    }
}

/// The seen and the invalid fields, which explain why a required value is absent.
#[derive(Clone, Copy)]
struct Needs {
    seen: Fields,
    bad: Fields,
}

impl Needs {
    #[inline]
    fn get<T>(self, findings: &mut Findings, field: Field, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.explain(findings, field);
        }
        value
    }

    #[cold]
    fn explain(self, findings: &mut Findings, field: Field) {
        if self.bad.contains(field) {
            return;
        }
        if self.seen.contains(field) {
            findings.add(Reason::InvalidField, field.pointer(), "must not be null");
        } else {
            findings.add(Reason::MissingField, field.pointer(), "is missing");
        }
    }

    fn up_to<'a>(
        self,
        findings: &mut Findings,
        message_id: Option<Cow<'a, str>>,
        sent_at_ms: Option<u64>,
    ) -> Option<UpTo<'a>> {
        match (message_id, sent_at_ms) {
            (Some(message_id), None) => Some(UpTo::Message(message_id)),
            (None, Some(sent_at_ms)) => Some(UpTo::SentAt(sent_at_ms)),
            (Some(_), Some(_)) => {
                let detail = "must not appear with up_to_message_id: exactly one of the two";
                findings.add(Reason::InvalidField, Field::UpToSentAtMs.pointer(), detail);
                None
            }
            (None, None) => {
                let is_explained = self.bad.contains(Field::UpToMessageId) || self.bad.contains(Field::UpToSentAtMs);
                if !is_explained {
                    findings.add(
                        Reason::MissingField,
                        Field::UpToMessageId.pointer(),
                        "is missing, and so is up_to_sent_at_ms: exactly one of the two",
                    );
                }
                None
            }
        }
    }
}
