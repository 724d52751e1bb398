//! A chat in the making: what happens in it is said here in the words of a chat, and comes out as records of the event
//! log in the order of their times. Knows the events' form, and nothing of what they mean.

use super::random::Random;
use receipts_event::{
    Body, ConversationConfigured, ConversationRead, Event, Kind, LISTED_IDS_MAX, MESSAGE_IDS_MAX, MembersChanged,
    MessageRead, MessageRecalled, MessageSent, PolicyChanged, UpTo, control_key, copies, key,
};
use std::borrow::Cow;

/// An event as it is written into the log.
pub(crate) struct Happening {
    at_ms: u64,
    /// The record's key.
    pub(crate) key: Vec<u8>,
    /// The record's value; of a control event the copy for partition 0, 1, … each.
    pub(crate) values: Vec<Vec<u8>>,
    /// Whether the values are copies of one event, one for each partition.
    pub(crate) is_control: bool,
}

/// A message worth showing.
#[derive(Debug, Clone)]
pub(crate) struct Featured {
    pub(crate) conversation_id: String,
    pub(crate) message_id: String,
    pub(crate) sender_id: String,
    /// What it says; receipts never see that.
    pub(crate) text: &'static str,
    /// Why its receipt is worth a look.
    pub(crate) remark: &'static str,
}

/// A message as its conversation remembers it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) sender_id: String,
    pub(crate) at_ms: u64,
}

/// A chat that happened before `now_ms`.
pub(crate) struct Chat {
    tenant: String,
    partition_count: u32,
    now_ms: u64,
    pub(crate) random: Random,
    happenings: Vec<Happening>,
    conversations: u64,
    featured: Vec<Featured>,
}

/// What is fed and shown.
pub(crate) struct Told {
    pub(crate) happenings: Vec<Happening>,
    pub(crate) conversations: u64,
    pub(crate) featured: Vec<Featured>,
}

impl Chat {
    pub(crate) fn new(tenant: &str, partition_count: u32, seed: u64, now_ms: u64) -> Self {
        Self {
            tenant: tenant.to_owned(),
            partition_count,
            now_ms,
            random: Random::new(seed),
            happenings: Vec::new(),
            conversations: 0,
            featured: Vec::new(),
        }
    }

    /// The time so many seconds before now, Unix milliseconds.
    pub(crate) fn ago(&self, seconds: u64) -> u64 {
        self.now_ms.saturating_sub(seconds * 1_000)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Opens a conversation with its first members, in as many events as they need.
    pub(crate) fn open(
        &mut self,
        at_ms: u64,
        id: &str,
        kind: Kind,
        group_type: Option<&'static str>,
        members: &[String],
    ) {
        self.conversations += 1;
        let group_type = group_type.map(Cow::Borrowed);
        self.say(
            at_ms,
            Body::ConversationConfigured(ConversationConfigured { conversation_id: owned(id), kind, group_type }),
        );
        for joined in members.chunks(LISTED_IDS_MAX) {
            self.members(at_ms, id, joined, &[], &[]);
        }
    }

    /// Changes who is in a conversation; at most [`LISTED_IDS_MAX`] people at once.
    pub(crate) fn members(&mut self, at_ms: u64, id: &str, joined: &[String], left: &[String], observers: &[String]) {
        let list = |people: &[String]| people.iter().map(|person| owned(person)).collect();
        let body = MembersChanged {
            conversation_id: owned(id),
            joined: list(joined),
            left: list(left),
            observers: list(observers),
        };
        self.say(at_ms, Body::MembersChanged(body));
    }

    /// Sends a message that asks for a receipt.
    pub(crate) fn send(&mut self, at_ms: u64, id: &str, message_id: &str, sender_id: &str) -> Message {
        self.send_to(at_ms, id, message_id, sender_id, true, None)
    }

    /// Sends a message in full detail.
    pub(crate) fn send_to(
        &mut self,
        at_ms: u64,
        id: &str,
        message_id: &str,
        sender_id: &str,
        need_read_receipt: bool,
        recipients: Option<&[&str]>,
    ) -> Message {
        let body = MessageSent {
            conversation_id: owned(id),
            message_id: owned(message_id),
            sender_id: owned(sender_id),
            sent_at_ms: at_ms,
            need_read_receipt,
            recipients: recipients.map(|people| people.iter().map(|person| owned(person)).collect()),
        };
        self.say(at_ms, Body::MessageSent(body));
        Message { id: message_id.to_owned(), sender_id: sender_id.to_owned(), at_ms }
    }

    /// Remembers a message for the show.
    pub(crate) fn feature(&mut self, id: &str, message: &Message, text: &'static str, remark: &'static str) {
        self.featured.push(Featured {
            conversation_id: id.to_owned(),
            message_id: message.id.clone(),
            sender_id: message.sender_id.clone(),
            text,
            remark,
        });
    }

    /// Somebody reads messages.
    pub(crate) fn read<'m>(
        &mut self,
        at_ms: u64,
        id: &str,
        reader_id: &str,
        ids: impl IntoIterator<Item = &'m str>,
        hidden: bool,
    ) {
        let message_ids: Vec<Cow<'static, str>> = ids.into_iter().map(owned).collect();
        for message_ids in message_ids.chunks(MESSAGE_IDS_MAX) {
            let body = MessageRead {
                conversation_id: owned(id),
                reader_id: owned(reader_id),
                message_ids: message_ids.to_vec(),
                read_at_ms: Some(at_ms),
                hidden,
            };
            self.say(at_ms, Body::MessageRead(body));
        }
    }

    /// Somebody reads everything up to a message.
    pub(crate) fn read_up_to(&mut self, at_ms: u64, id: &str, reader_id: &str, message_id: &str) {
        let body = ConversationRead {
            conversation_id: owned(id),
            reader_id: owned(reader_id),
            up_to: UpTo::Message(owned(message_id)),
            read_at_ms: Some(at_ms),
            hidden: false,
        };
        self.say(at_ms, Body::ConversationRead(body));
    }

    /// Takes a message back.
    pub(crate) fn recall(&mut self, at_ms: u64, id: &str, message_id: &str) {
        self.say(
            at_ms,
            Body::MessageRecalled(MessageRecalled { conversation_id: owned(id), message_id: owned(message_id) }),
        );
    }

    /// Says which group types support receipts from here on.
    pub(crate) fn policy(&mut self, at_ms: u64, read_receipts: &[(&'static str, bool)]) {
        let read_receipts = read_receipts.iter().map(|(group_type, is_on)| (Cow::Borrowed(*group_type), *is_on));
        let body = Body::PolicyChanged(PolicyChanged { read_receipts: read_receipts.collect(), partition: None });
        let event = Event { tenant: Cow::Borrowed(self.tenant.as_str()), event_id: None, body };
        let values = copies(&event.to_json(), self.partition_count).map(|(_, copy)| copy).collect();
        self.happenings.push(Happening { at_ms, key: control_key(&self.tenant), values, is_control: true });
    }

    /// Lets people read as people do: each opens the chat at times of their own and reads what is new to them, up to now
    /// or `until_ms`. `messages` are in the order of their times.
    pub(crate) fn read_as_people_do(
        &mut self,
        id: &str,
        reader_id: &str,
        messages: &[Message],
        until_ms: u64,
        hidden: bool,
    ) {
        let until_ms = until_ms.min(self.now_ms);
        let delays = messages.iter().map(|message| message.at_ms + self.random.reading_delay_ms());
        let mut openings: Vec<u64> = delays.filter(|at| *at < until_ms).collect();
        openings.sort_unstable();
        let mut seen = 0;
        for opening in openings {
            let there = messages.partition_point(|message| message.at_ms <= opening);
            let new = messages[seen.min(there)..there].iter().filter(|message| message.sender_id != reader_id);
            let ids: Vec<&str> = new.map(|message| message.id.as_str()).collect();
            if !ids.is_empty() {
                self.read(opening, id, reader_id, ids, hidden);
            }
            seen = seen.max(there);
        }
    }

    /// Everything in the order of its time.
    pub(crate) fn tell(mut self) -> Told {
        // Stable: what was said first of the same moment happened first.
        self.happenings.sort_by_key(|happening| happening.at_ms);
        Told { happenings: self.happenings, conversations: self.conversations, featured: self.featured }
    }

    fn say(&mut self, at_ms: u64, body: Body<'static>) {
        let event = Event { tenant: Cow::Borrowed(self.tenant.as_str()), event_id: None, body };
        let key = key(&self.tenant, event.conversation_id().unwrap_or_default());
        let values = vec![event.to_json()];
        self.happenings.push(Happening { at_ms, key, values, is_control: false });
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}
