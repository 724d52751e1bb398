//! Spells the workload's events: decoded, borrowing from a scratch buffer, or as JSON bytes of
//! equal meaning. Plans no event.

use std::borrow::Cow;
use std::fmt::Write as _;

use receipts_event::{
    Body, ConversationConfigured, Event, Kind, MembersChanged, MessageRead, MessageSent, TENANT_DEFAULT,
};

use super::{Compact, MEMBERS_PER_EVENT, Setup, Workload};

/// The text that a decoded event borrows from. It is reused for each event, so ids cost no
/// allocation.
#[derive(Debug, Default)]
pub struct Scratch {
    text: String,
    /// The end of each id in the text.
    ends: Vec<usize>,
}

impl Scratch {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn conversation(&mut self, workload: &Workload, conversation: u32) {
        self.id(format_args!("g{:09}", workload.plan.numbers[conversation as usize]));
    }

    fn user(&mut self, workload: &Workload, conversation: u32, slot: u32) {
        self.id(format_args!("u{:09}", workload.plan.user_number(conversation, slot)));
    }

    fn message(&mut self, workload: &Workload, burst: u32, i: usize) {
        self.id(format_args!("{}", workload.plan.message_number(burst, i)));
    }

    fn id(&mut self, id: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        _ = self.text.write_fmt(id);
        self.ends.push(self.text.len());
    }

    /// Returns the ids in the order of their writing.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.text[from..*to])
    }
}

impl Workload {
    /// Returns event `i`, decoded. Allocates only the lists that an event owns.
    pub fn event<'a>(&'a self, i: usize, scratch: &'a mut Scratch) -> Event<'a> {
        self.write_ids(i, scratch);
        let mut ids = scratch.ids().map(Cow::Borrowed);
        let mut next = || ids.next().unwrap_or_default();
        let conversation_id = next();
        let body = match self.kind(i) {
            Spelled::Setup(Setup::Configured(conversation)) => Body::ConversationConfigured(ConversationConfigured {
                conversation_id,
                kind: self.conversation_kind(conversation),
                group_type: None,
            }),
            Spelled::Setup(Setup::Joined(..)) => Body::MembersChanged(MembersChanged {
                conversation_id,
                joined: ids.collect(),
                left: vec![],
                observers: vec![],
            }),
            Spelled::Send(event) => Body::MessageSent(MessageSent {
                conversation_id,
                message_id: next(),
                sender_id: next(),
                sent_at_ms: self.plan.sent_at_ms(event.burst, event.what.message()),
                need_read_receipt: true,
                recipients: None,
            }),
            Spelled::Read(event, _) => Body::MessageRead(MessageRead {
                conversation_id,
                reader_id: next(),
                message_ids: ids.collect(),
                read_at_ms: Some(event.at_ms),
                hidden: false,
            }),
        };
        Event { tenant: Cow::Borrowed(TENANT_DEFAULT), event_id: None, body }
    }

    /// Writes event `i` as the record's value into the buffer, replacing its contents.
    pub fn json(&self, i: usize, value: &mut Vec<u8>) {
        let mut scratch = Scratch { text: String::with_capacity(64), ends: Vec::with_capacity(4) };
        self.json_with(i, &mut scratch, value);
    }

    /// Does the same as [`Self::json`], without allocation once both buffers have grown.
    pub fn json_with(&self, i: usize, scratch: &mut Scratch, value: &mut Vec<u8>) {
        self.write_ids(i, scratch);
        let mut ids = scratch.ids();
        value.clear();
        let mut text = |piece: &str| value.extend_from_slice(piece.as_bytes());
        let kind = self.kind(i);
        text(match kind {
            Spelled::Setup(Setup::Configured(_)) => r#"{"type":"conversation.configured","conversation_id":""#,
            Spelled::Setup(Setup::Joined(..)) => r#"{"type":"members.changed","conversation_id":""#,
            Spelled::Send(_) => r#"{"type":"message.sent","conversation_id":""#,
            Spelled::Read(..) => r#"{"type":"message.read","conversation_id":""#,
        });
        text(ids.next().unwrap_or_default());
        match kind {
            Spelled::Setup(Setup::Configured(conversation)) => text(match self.conversation_kind(conversation) {
                Kind::Direct => r#"","kind":"direct"}"#,
                Kind::Group => r#"","kind":"group"}"#,
            }),
            Spelled::Setup(Setup::Joined(..)) => {
                text(r#"","joined":["#);
                list(&mut text, ids);
                text("]}");
            }
            Spelled::Send(event) => {
                text(r#"","message_id":""#);
                text(ids.next().unwrap_or_default());
                text(r#"","sender_id":""#);
                text(ids.next().unwrap_or_default());
                text(r#"","sent_at_ms":"#);
                number(value, self.plan.sent_at_ms(event.burst, event.what.message()));
                value.extend_from_slice(br#","need_read_receipt":true}"#);
            }
            Spelled::Read(event, _) => {
                text(r#"","reader_id":""#);
                text(ids.next().unwrap_or_default());
                text(r#"","message_ids":["#);
                list(&mut text, ids);
                text(r#"],"read_at_ms":"#);
                number(value, event.at_ms);
                value.push(b'}');
            }
        }
    }

    /// Writes the key of event `i`'s record, `{tenant}/{conversation_id}`, into the buffer,
    /// replacing its contents.
    pub fn key(&self, i: usize, key: &mut Vec<u8>) {
        let conversation = match self.kind(i) {
            Spelled::Setup(Setup::Configured(conversation) | Setup::Joined(conversation, _)) => conversation,
            Spelled::Send(event) | Spelled::Read(event, _) => self.plan.bursts[event.burst as usize].conversation,
        };
        key.clear();
        // Writing to a vector cannot fail.
        _ = std::io::Write::write_fmt(
            key,
            format_args!("{TENANT_DEFAULT}/g{:09}", self.plan.numbers[conversation as usize]),
        );
    }

    /// Writes the event's ids in the order of its fields, the conversation first.
    fn write_ids(&self, i: usize, scratch: &mut Scratch) {
        scratch.clear();
        match self.kind(i) {
            Spelled::Setup(Setup::Configured(conversation)) => scratch.conversation(self, conversation),
            Spelled::Setup(Setup::Joined(conversation, from)) => {
                scratch.conversation(self, conversation);
                let to = self.plan.sizes[conversation as usize].min(from + MEMBERS_PER_EVENT as u32);
                (from..to).for_each(|slot| scratch.user(self, conversation, slot));
            }
            Spelled::Send(event) => {
                let (conversation, message) =
                    (self.plan.bursts[event.burst as usize].conversation, event.what.message());
                scratch.conversation(self, conversation);
                scratch.message(self, event.burst, message);
                scratch.user(self, conversation, self.plan.senders_of(event.burst)[message]);
            }
            Spelled::Read(event, slot) => {
                let conversation = self.plan.bursts[event.burst as usize].conversation;
                scratch.conversation(self, conversation);
                scratch.user(self, conversation, slot);
                self.named(event, slot).for_each(|message| scratch.message(self, event.burst, message));
            }
        }
    }

    fn kind(&self, i: usize) -> Spelled {
        match i.checked_sub(self.setup.len()).map(|i| self.events[i]) {
            None => Spelled::Setup(self.setup[i]),
            Some(event) => event.what.reader().map_or(Spelled::Send(event), |slot| Spelled::Read(event, slot)),
        }
    }

    fn conversation_kind(&self, conversation: u32) -> Kind {
        if self.plan.sizes[conversation as usize] == 2 { Kind::Direct } else { Kind::Group }
    }
}

/// The kind of an event, with its data.
#[derive(Clone, Copy)]
enum Spelled {
    Setup(Setup),
    Send(Compact),
    /// A read, and the reader's slot.
    Read(Compact, u32),
}

fn list<'a>(text: &mut impl FnMut(&str), ids: impl Iterator<Item = &'a str>) {
    for (i, id) in ids.enumerate() {
        text(if i > 0 { ",\"" } else { "\"" });
        text(id);
        text("\"");
    }
}

fn number(value: &mut Vec<u8>, n: u64) {
    // Writing to a vector cannot fail.
    _ = std::io::Write::write_fmt(value, format_args!("{n}"));
}

#[cfg(test)]
mod tests {
    use super::super::Params;
    use super::*;

    #[test]
    fn json_and_decoded_events_say_the_same() {
        for ids_per_event in [1, 3, 50] {
            let params = Params { messages: 2_000, size_max: 300, ids_per_event, ..Params::default() };
            let workload = Workload::generate(&params);
            let (mut scratch, mut json, mut key) = (Scratch::default(), vec![], vec![]);
            for i in 0..workload.len() {
                workload.json(i, &mut json);
                workload.key(i, &mut key);
                let event = workload.event(i, &mut scratch);
                assert_eq!(receipts_event::decode(&json).expect("an event of the format"), event);
                assert!(event.key_matches(&key));
            }
        }
    }

    #[test]
    fn oversized_group_joins_in_several_events() {
        let params = Params { messages: 200, receipts_per_message: 5_000.0, size_max: 25_000, ..Params::default() };
        let workload = Workload::generate(&params);
        let mut scratch = Scratch::default();
        let mut joined = 0;
        for i in 0..workload.setup_len() {
            if let Body::MembersChanged(body) = workload.event(i, &mut scratch).body {
                assert!((1..=MEMBERS_PER_EVENT).contains(&body.joined.len()));
                joined += body.joined.len();
            }
        }
        assert_eq!(joined, workload.sizes().iter().map(|size| *size as usize).sum::<usize>());
        assert!(workload.sizes().iter().any(|size| *size as usize > MEMBERS_PER_EVENT));
    }
}
