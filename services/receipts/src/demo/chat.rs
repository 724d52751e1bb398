//! Builds a chat: takes actions such as "send" and "read", and returns records of the event log in
//! the order of their times. Knows the format of events; must not know their meaning.

use super::random::Random;
use receipts_event::{
    Body, ConversationConfigured, ConversationRead, Event, Kind, LISTED_IDS_MAX, MESSAGE_IDS_MAX, MembersChanged,
    MessageRead, MessageRecalled, MessageSent, PolicyChanged, UpTo, control_key, copies, key,
};
use std::borrow::Cow;

/// An event as it is written into the log.
pub(crate) struct ChatEvent {
    at_ms: u64,
    /// The record's key.
    pub(crate) key: Vec<u8>,
    /// The record's value; for a control event the copies for partitions 0, 1, …
    pub(crate) values: Vec<Vec<u8>>,
    /// True if the values are copies of one event, one per partition.
    pub(crate) is_control: bool,
}

/// A message that the demo shows.
#[derive(Debug, Clone)]
pub(crate) struct Featured {
    pub(crate) conversation_id: String,
    pub(crate) message_id: String,
    pub(crate) sender_id: String,
    /// Its text, which no event holds.
    pub(crate) text: &'static str,
    /// The feature that its receipt demonstrates.
    pub(crate) remark: &'static str,
}

/// A message that later actions refer to.
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
    events: Vec<ChatEvent>,
    conversations: u64,
    featured: Vec<Featured>,
}

/// The events to feed, and the messages to show.
pub(crate) struct Story {
    pub(crate) events: Vec<ChatEvent>,
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
            events: Vec::new(),
            conversations: 0,
            featured: Vec::new(),
        }
    }

    /// Returns the time `seconds` before now, Unix milliseconds.
    pub(crate) fn ago(&self, seconds: u64) -> u64 {
        self.now_ms.saturating_sub(seconds * 1_000)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Creates a conversation with its first members, in as few events as possible.
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
        self.push(
            at_ms,
            Body::ConversationConfigured(ConversationConfigured { conversation_id: owned(id), kind, group_type }),
        );
        for joined in members.chunks(LISTED_IDS_MAX) {
            self.members(at_ms, id, joined, &[], &[]);
        }
    }

    /// Changes the members of a conversation; at most [`LISTED_IDS_MAX`] people at once.
    pub(crate) fn members(&mut self, at_ms: u64, id: &str, joined: &[String], left: &[String], observers: &[String]) {
        let list = |people: &[String]| people.iter().map(|person| owned(person)).collect();
        let body = MembersChanged {
            conversation_id: owned(id),
            joined: list(joined),
            left: list(left),
            observers: list(observers),
        };
        self.push(at_ms, Body::MembersChanged(body));
    }

    /// Sends a message that asks for a receipt.
    pub(crate) fn send(&mut self, at_ms: u64, id: &str, message_id: &str, sender_id: &str) -> Message {
        self.send_to(at_ms, id, message_id, sender_id, true, None)
    }

    /// Sends a message with all options.
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
        self.push(at_ms, Body::MessageSent(body));
        Message { id: message_id.to_owned(), sender_id: sender_id.to_owned(), at_ms }
    }

    /// Marks a message to be shown.
    pub(crate) fn feature(&mut self, id: &str, message: &Message, text: &'static str, remark: &'static str) {
        self.featured.push(Featured {
            conversation_id: id.to_owned(),
            message_id: message.id.clone(),
            sender_id: message.sender_id.clone(),
            text,
            remark,
        });
    }

    /// Reads messages.
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
            self.push(at_ms, Body::MessageRead(body));
        }
    }

    /// Reads all messages up to one.
    pub(crate) fn read_up_to(&mut self, at_ms: u64, id: &str, reader_id: &str, message_id: &str) {
        let body = ConversationRead {
            conversation_id: owned(id),
            reader_id: owned(reader_id),
            up_to: UpTo::Message(owned(message_id)),
            read_at_ms: Some(at_ms),
            hidden: false,
        };
        self.push(at_ms, Body::ConversationRead(body));
    }

    /// Recalls a message.
    pub(crate) fn recall(&mut self, at_ms: u64, id: &str, message_id: &str) {
        self.push(
            at_ms,
            Body::MessageRecalled(MessageRecalled { conversation_id: owned(id), message_id: owned(message_id) }),
        );
    }

    /// Sets which group types support receipts from now on.
    pub(crate) fn policy(&mut self, at_ms: u64, read_receipts: &[(&'static str, bool)]) {
        let read_receipts = read_receipts.iter().map(|(group_type, is_on)| (Cow::Borrowed(*group_type), *is_on));
        let body = Body::PolicyChanged(PolicyChanged { read_receipts: read_receipts.collect(), partition: None });
        let event = Event { tenant: Cow::Borrowed(self.tenant.as_str()), event_id: None, body };
        let values = copies(&event.to_json(), self.partition_count).map(|(_, copy)| copy).collect();
        self.events.push(ChatEvent { at_ms, key: control_key(&self.tenant), values, is_control: true });
    }

    /// Simulates a reader, who opens the chat at random times and reads the new messages, until now
    /// or `until_ms`. `messages` are in the order of their times.
    pub(crate) fn simulate_reader(
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

    /// Returns all events in the order of their times.
    pub(crate) fn into_story(mut self) -> Story {
        // The sort is stable: events of the same time keep their order.
        self.events.sort_by_key(|event| event.at_ms);
        Story { events: self.events, conversations: self.conversations, featured: self.featured }
    }

    fn push(&mut self, at_ms: u64, body: Body<'static>) {
        let event = Event { tenant: Cow::Borrowed(self.tenant.as_str()), event_id: None, body };
        let key = key(&self.tenant, event.conversation_id().unwrap_or_default());
        let values = vec![event.to_json()];
        self.events.push(ChatEvent { at_ms, key, values, is_control: false });
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}
