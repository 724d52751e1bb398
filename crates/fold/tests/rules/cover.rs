//! INV-COVER: the cost of a read mark, counted in page reads. It depends on the newly covered
//! messages, not on the length of the conversation.

use crate::watched::Watched;
use receipts_event::{Body, ConversationRead, Event, MembersChanged, MessageSent, UpTo};
use receipts_fold::effects::Effects;
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};

const GROUP: &str = "g";

/// A group with one writer, who sends a message every 10 ms.
struct Group {
    fold: State<Watched>,
    sent: u64,
}

impl Group {
    fn of(members: &[&'static str]) -> Self {
        let mut group = Self { fold: State::open(Watched::empty(), Limits::default()).unwrap(), sent: 0 };
        group.join(members);
        group
    }

    fn apply(&mut self, body: Body<'static>) -> Effects {
        let event = Event { tenant: "default".into(), event_id: None, body };
        let (key, value) = (event.key(), event.to_json());
        let at = RecordMetadata { partition: 0, offset: self.fold.next_offset(), timestamp_ms: 1_000_000_000 };
        let mut effects = Effects::default();
        let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
        self.fold.pages().take_reads();
        self.fold.apply(at, &event, raw, &mut effects).unwrap();
        effects
    }

    fn join(&mut self, members: &[&'static str]) {
        let joined = members.iter().map(|id| (*id).into()).collect();
        let (left, observers) = (Vec::new(), Vec::new());
        self.apply(Body::MembersChanged(MembersChanged { conversation_id: GROUP.into(), joined, left, observers }));
    }

    fn send(&mut self, messages: u64) {
        for _ in 0..messages {
            self.apply(Body::MessageSent(MessageSent {
                conversation_id: GROUP.into(),
                message_id: format!("m{}", self.sent).into(),
                sender_id: "writer".into(),
                sent_at_ms: 10 * self.sent,
                need_read_receipt: true,
                recipients: None,
            }));
            self.sent += 1;
        }
    }

    /// Marks up to the message of this number. Returns the number of page reads and of newly read
    /// messages.
    fn mark(&mut self, reader: &'static str, up_to: u64) -> (u64, usize) {
        let effects = self.apply(Body::ConversationRead(ConversationRead {
            conversation_id: GROUP.into(),
            reader_id: reader.into(),
            up_to: UpTo::Message(format!("m{up_to}").into()),
            read_at_ms: None,
            hidden: false,
        }));
        (self.fold.pages().take_reads().len() as u64, effects.changed.len())
    }
}

/// Page reads per message (its link, its bits and, in a large group, its chunk), and once for the
/// mark itself.
const EACH: u64 = 5;
const ONCE: u64 = 24;

/// Page reads of the search for the first covered message: two per step of the skip list.
fn search(messages: u64) -> u64 {
    4 * (64 - messages.leading_zeros() as u64)
}

#[test]
fn mark_costs_what_it_newly_covers() {
    let mut costs = Vec::new();
    for length in [1_000, 10_000, 100_000] {
        let mut group = Group::of(&["writer", "reader", "other"]);
        group.send(length);
        let all = group.mark("reader", length - 1);
        assert_eq!(all.1 as u64, length);
        let mut cost = Vec::new();
        for newly in [1, 10, 100] {
            group.send(newly);
            let (looks, read) = group.mark("reader", group.sent - 1);
            assert_eq!(read as u64, newly);
            assert!(looks <= ONCE + EACH * newly, "{looks} page reads for {newly} of {length} messages");
            cost.push(looks);
        }
        // The mark covers no new message, or an old message, or half of the new ones.
        for (up_to, newly) in [(group.sent - 1, 0), (length / 2, 0)] {
            let (looks, read) = group.mark("reader", up_to);
            assert_eq!(read, newly);
            assert!(looks <= ONCE + search(length), "{looks} page reads for no new one of {length} messages");
        }
        group.send(2_000);
        let (looks, read) = group.mark("reader", group.sent - 1_991);
        assert_eq!(read, 10);
        assert!(
            looks <= ONCE + 10 * EACH + search(length),
            "{looks} page reads for 10 of {length} before 1,990 others"
        );
        costs.push(cost);
    }
    assert!(
        costs.windows(2).all(|pair| pair[0] == pair[1]),
        "the cost depends on the length of the conversation: {costs:?}"
    );
}

#[test]
fn newcomers_first_mark_skips_earlier_messages() {
    for length in [1_000, 50_000] {
        let mut group = Group::of(&["writer", "reader"]);
        group.send(length);
        group.join(&["newcomer"]);
        group.send(10);
        let (looks, read) = group.mark("newcomer", group.sent - 1);
        assert_eq!(read, 10);
        assert!(looks <= ONCE + 10 * EACH, "{looks} page reads for 10 of {length} messages");
    }
}
