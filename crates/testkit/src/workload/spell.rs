//! Spells the workload's events: decoded, borrowing from a scratch buffer, or as JSON bytes. Both say the same.

use std::borrow::Cow;
use std::fmt::Write as _;

use receipts_event::{
    Body, ConversationConfigured, Event, Kind, MembersChanged, MessageRead, MessageSent, TENANT_DEFAULT,
};

use super::{Compact, MEMBERS_PER_EVENT, Setup, Workload};

/// The text that a decoded event borrows from; used again for each event, so that ids cost no allocation.
#[derive(Debug, Default)]
pub struct Scratch {
    text: String,
    /// Where each id ends in the text.
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

    /// The ids in the order in which they were written.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.text[from..*to])
    }
}

impl Workload {
    /// Event `i`, decoded. Allocates the lists that an event owns and nothing else.
    pub fn event<'a>(&'a self, i: usize, scratch: &'a mut Scratch) -> Event<'a> {
        self.write_ids(i, scratch);
        let mut ids = scratch.ids().map(Cow::Borrowed);
        let mut next = || ids.next().unwrap_or_default();
        let conversation_id = next();
        let body = match self.kind(i) {
            Spelt::Setup(Setup::Configured(conversation)) => Body::ConversationConfigured(ConversationConfigured {
                conversation_id,
                kind: self.conversation_kind(conversation),
                group_type: None,
            }),
            Spelt::Setup(Setup::Joined(..)) => Body::MembersChanged(MembersChanged {
                conversation_id,
                joined: ids.collect(),
                left: vec![],
                observers: vec![],
            }),
            Spelt::Send(event) => Body::MessageSent(MessageSent {
                conversation_id,
                message_id: next(),
                sender_id: next(),
                sent_at_ms: self.plan.sent_at_ms(event.burst, event.what.message()),
                need_read_receipt: true,
                recipients: None,
            }),
            Spelt::Read(event, _) => Body::MessageRead(MessageRead {
                conversation_id,
                reader_id: next(),
                message_ids: ids.collect(),
                read_at_ms: Some(event.at_ms),
                hidden: false,
            }),
        };
        Event { tenant: Cow::Borrowed(TENANT_DEFAULT), event_id: None, body }
    }

    /// Event `i` as the record's value; replaces what the buffer holds.
    pub fn json(&self, i: usize, value: &mut Vec<u8>) {
        let mut scratch = Scratch { text: String::with_capacity(64), ends: Vec::with_capacity(4) };
        self.json_with(i, &mut scratch, value);
    }

    /// As [`Self::json`], without any allocation once both buffers have grown.
    pub fn json_with(&self, i: usize, scratch: &mut Scratch, value: &mut Vec<u8>) {
        self.write_ids(i, scratch);
        let mut ids = scratch.ids();
        value.clear();
        let mut text = |piece: &str| value.extend_from_slice(piece.as_bytes());
        let kind = self.kind(i);
        text(match kind {
            Spelt::Setup(Setup::Configured(_)) => r#"{"type":"conversation.configured","conversation_id":""#,
            Spelt::Setup(Setup::Joined(..)) => r#"{"type":"members.changed","conversation_id":""#,
            Spelt::Send(_) => r#"{"type":"message.sent","conversation_id":""#,
            Spelt::Read(..) => r#"{"type":"message.read","conversation_id":""#,
        });
        text(ids.next().unwrap_or_default());
        match kind {
            Spelt::Setup(Setup::Configured(conversation)) => text(match self.conversation_kind(conversation) {
                Kind::Direct => r#"","kind":"direct"}"#,
                Kind::Group => r#"","kind":"group"}"#,
            }),
            Spelt::Setup(Setup::Joined(..)) => {
                text(r#"","joined":["#);
                list(&mut text, ids);
                text("]}");
            }
            Spelt::Send(event) => {
                text(r#"","message_id":""#);
                text(ids.next().unwrap_or_default());
                text(r#"","sender_id":""#);
                text(ids.next().unwrap_or_default());
                text(r#"","sent_at_ms":"#);
                number(value, self.plan.sent_at_ms(event.burst, event.what.message()));
                value.extend_from_slice(br#","need_read_receipt":true}"#);
            }
            Spelt::Read(event, _) => {
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

    /// The key of event `i`'s record, `{tenant}/{conversation_id}`; replaces what the buffer holds.
    pub fn key(&self, i: usize, key: &mut Vec<u8>) {
        let conversation = match self.kind(i) {
            Spelt::Setup(Setup::Configured(conversation) | Setup::Joined(conversation, _)) => conversation,
            Spelt::Send(event) | Spelt::Read(event, _) => self.plan.bursts[event.burst as usize].conversation,
        };
        key.clear();
        // Writing to a vector cannot fail.
        _ = std::io::Write::write_fmt(
            key,
            format_args!("{TENANT_DEFAULT}/g{:09}", self.plan.numbers[conversation as usize]),
        );
    }

    /// The event's ids in the order of its fields, the conversation first.
    fn write_ids(&self, i: usize, scratch: &mut Scratch) {
        scratch.clear();
        match self.kind(i) {
            Spelt::Setup(Setup::Configured(conversation)) => scratch.conversation(self, conversation),
            Spelt::Setup(Setup::Joined(conversation, from)) => {
                scratch.conversation(self, conversation);
                let to = self.plan.sizes[conversation as usize].min(from + MEMBERS_PER_EVENT as u32);
                (from..to).for_each(|slot| scratch.user(self, conversation, slot));
            }
            Spelt::Send(event) => {
                let (conversation, message) =
                    (self.plan.bursts[event.burst as usize].conversation, event.what.message());
                scratch.conversation(self, conversation);
                scratch.message(self, event.burst, message);
                scratch.user(self, conversation, self.plan.senders_of(event.burst)[message]);
            }
            Spelt::Read(event, slot) => {
                let conversation = self.plan.bursts[event.burst as usize].conversation;
                scratch.conversation(self, conversation);
                scratch.user(self, conversation, slot);
                self.named(event, slot).for_each(|message| scratch.message(self, event.burst, message));
            }
        }
    }

    fn kind(&self, i: usize) -> Spelt {
        match i.checked_sub(self.setup.len()).map(|i| self.events[i]) {
            None => Spelt::Setup(self.setup[i]),
            Some(event) => event.what.reader().map_or(Spelt::Send(event), |slot| Spelt::Read(event, slot)),
        }
    }

    fn conversation_kind(&self, conversation: u32) -> Kind {
        if self.plan.sizes[conversation as usize] == 2 { Kind::Direct } else { Kind::Group }
    }
}

/// What an event is, with what there is to say.
#[derive(Clone, Copy)]
enum Spelt {
    Setup(Setup),
    Send(Compact),
    /// And the reader's slot.
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
                assert_eq!(receipts_event::decode(&json).expect("the workload keeps the format"), event);
                assert!(event.key_matches(&key));
            }
        }
    }

    #[test]
    fn a_group_beyond_what_one_event_may_list_joins_in_several() {
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
