//! Groups rows into as few events as possible: people of one conversation, and messages that one
//! reader read at one time. Buffers a bounded number of rows and keeps the order where it matters.

use crate::rows::{Conversation, Mark, Member, Message, Read, Role};
use receipts_event::{
    Body, ConversationConfigured, ConversationRead, Event, Kind, MESSAGE_IDS_MAX, MembersChanged, MessageRead,
    MessageRecalled, MessageSent,
};
use std::collections::{HashMap, HashSet};

/// The maximum number of people in one event. With the longest ids the event stays far below
/// Kafka's default record limit.
const PEOPLE_MAX: usize = 1_000;
/// The number of buffered rows of reads that forces a flush.
pub(crate) const WINDOW_ROWS: usize = 50_000;

fn event(conversation: &Conversation, body: Body<'static>) -> Event<'static> {
    Event { tenant: conversation.tenant.clone().into(), event_id: None, body }
}

/// Buffered rows of members: consecutive rows of one conversation.
#[derive(Default)]
pub(crate) struct People {
    rows: Vec<Member>,
    named: HashSet<String>,
}

impl People {
    /// Adds a row. If it cannot join the event of the buffered rows, returns their events first.
    pub(crate) fn push(&mut self, member: Member) -> Vec<Event<'static>> {
        let fits = self.rows.first().is_none_or(|first| {
            first.conversation == member.conversation
                && first.configured == member.configured
                // An event applies `left` first, so two rows of one person need two events.
                && !self.named.contains(&member.user_id)
                && self.rows.len() < PEOPLE_MAX
        });
        let events = if fits { Vec::new() } else { self.flush() };
        self.named.insert(member.user_id.clone());
        self.rows.push(member);
        events
    }

    /// Returns the events of all buffered rows.
    pub(crate) fn flush(&mut self) -> Vec<Event<'static>> {
        self.named.clear();
        let members = std::mem::take(&mut self.rows);
        let Some(first) = members.first() else { return Vec::new() };
        let conversation = first.conversation.clone();
        let conversation_id = || conversation.conversation_id.clone().into();
        let configured = first.configured.clone().map(|(kind, group_type)| {
            let group_type = group_type.filter(|_| kind == Kind::Group).map(Into::into);
            event(
                &conversation,
                Body::ConversationConfigured(ConversationConfigured {
                    conversation_id: conversation_id(),
                    kind,
                    group_type,
                }),
            )
        });
        let mut changed = MembersChanged {
            conversation_id: conversation_id(),
            joined: Vec::new(),
            left: Vec::new(),
            observers: Vec::new(),
        };
        for member in members {
            match member.role {
                Role::Member => &mut changed.joined,
                Role::Observer => &mut changed.observers,
                Role::Left => &mut changed.left,
            }
            .push(member.user_id.into());
        }
        configured.into_iter().chain([event(&conversation, Body::MembersChanged(changed))]).collect()
    }
}

/// Returns the events of a message: its send, and its recall if it was recalled.
pub(crate) fn message(message: Message) -> Vec<Event<'static>> {
    let Message { conversation, message_id, sender_id, sent_at_ms, need_read_receipt, recipients, is_recalled } =
        message;
    let conversation_id = || conversation.conversation_id.clone().into();
    let recalled = is_recalled.then(|| {
        let body = MessageRecalled { conversation_id: conversation_id(), message_id: message_id.clone().into() };
        event(&conversation, Body::MessageRecalled(body))
    });
    let sent = MessageSent {
        conversation_id: conversation_id(),
        message_id: message_id.clone().into(),
        sender_id: sender_id.into(),
        sent_at_ms,
        need_read_receipt,
        recipients: recipients.map(|ids| ids.into_iter().map(Into::into).collect()),
    };
    [event(&conversation, Body::MessageSent(sent))].into_iter().chain(recalled).collect()
}

/// Returns the event of a read mark.
pub(crate) fn mark(mark: Mark) -> Event<'static> {
    let Mark { conversation, reader_id, up_to, read_at_ms, hidden } = mark;
    let body = ConversationRead {
        conversation_id: conversation.conversation_id.clone().into(),
        reader_id: reader_id.into(),
        up_to,
        read_at_ms,
        hidden,
    };
    event(&conversation, Body::ConversationRead(body))
}

/// The key by which reads share an event: conversation, reader, time, hidden.
type Group = (Conversation, String, Option<u64>, bool);

/// Buffered rows of reads, grouped by reader and time.
#[derive(Default)]
pub(crate) struct Window {
    rows: usize,
    groups: Vec<(Group, Vec<String>)>,
    number_of: HashMap<Group, usize>,
    seen: HashSet<(Conversation, String, String)>,
}

impl Window {
    /// Adds a row. Returns false if the window already has that message and reader: the first row
    /// counts, as for two events.
    pub(crate) fn push(&mut self, read: Read) -> bool {
        self.rows += 1;
        if !self.seen.insert((read.conversation.clone(), read.message_id.clone(), read.reader_id.clone())) {
            return false;
        }
        let group = (read.conversation, read.reader_id, read.read_at_ms, read.hidden);
        let number = *self.number_of.entry(group).or_insert_with_key(|group| {
            self.groups.push((group.clone(), Vec::new()));
            self.groups.len() - 1
        });
        self.groups[number].1.push(read.message_id);
        true
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows >= WINDOW_ROWS
    }

    /// Returns the events of all buffered rows, in the order of their first rows.
    pub(crate) fn flush(&mut self) -> Vec<Event<'static>> {
        let groups = std::mem::take(self).groups;
        let events = groups.iter().flat_map(|((conversation, reader_id, read_at_ms, hidden), messages)| {
            messages.chunks(MESSAGE_IDS_MAX).map(move |messages| {
                let body = MessageRead {
                    conversation_id: conversation.conversation_id.clone().into(),
                    reader_id: reader_id.clone().into(),
                    message_ids: messages.iter().map(|id| id.clone().into()).collect(),
                    read_at_ms: *read_at_ms,
                    hidden: *hidden,
                };
                event(conversation, Body::MessageRead(body))
            })
        });
        events.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(id: &str) -> Conversation {
        Conversation { tenant: "t".to_owned(), conversation_id: id.to_owned() }
    }

    fn read(message: usize, reader: &str, at: Option<u64>) -> Read {
        Read {
            conversation: conversation("c"),
            message_id: format!("m{message}"),
            reader_id: reader.to_owned(),
            read_at_ms: at,
            hidden: false,
        }
    }

    fn member(id: &str, user: &str, role: Role) -> Member {
        Member { conversation: conversation(id), user_id: user.to_owned(), role, configured: None, at_ms: None }
    }

    #[test]
    fn reads_of_one_reader_and_time_share_events() {
        let mut window = Window::default();
        for message in 0..150 {
            assert!(window.push(read(message, "a", Some(1))) && window.push(read(message, "b", Some(message as u64))));
        }
        assert!(!window.push(read(3, "a", Some(99))), "a second row of a message and reader");
        let events = window.flush();
        let of_a = events.iter().filter_map(|event| match &event.body {
            Body::MessageRead(read) if read.reader_id == "a" => Some(read.message_ids.len()),
            _ => None,
        });
        assert_eq!((of_a.collect::<Vec<_>>(), events.len()), (vec![100, 50], 152));
        assert!(window.flush().is_empty());
    }

    #[test]
    fn people_share_an_event_while_their_order_is_kept() {
        let mut people = People::default();
        let mut events = Vec::new();
        for (conversation, user, role) in [
            ("c", "a", Role::Member),
            ("c", "bot", Role::Observer),
            ("c", "a", Role::Left),
            ("c", "a", Role::Member),
            ("d", "a", Role::Member),
        ] {
            events.extend(people.push(member(conversation, user, role)));
        }
        events.extend(people.flush());
        let counts = events.iter().map(|event| match &event.body {
            Body::MembersChanged(c) => (c.joined.len(), c.left.len(), c.observers.len()),
            _ => panic!("{event:?}"),
        });
        assert_eq!(counts.collect::<Vec<_>>(), [(1, 0, 1), (0, 1, 0), (1, 0, 0), (1, 0, 0)]);
    }
}
