//! Groups of all layouts, with bits in chunks and people on several pages: they keep the rules of
//! small groups. Also the counters of each record.

use receipts_event::decode;
use receipts_fold::effects::{Counters, Effects};
use receipts_fold::pages::{Chunk, INLINE_SLOTS, Table};
use receipts_fold::view::{MemberFilter, Receipt};
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Entry, MemoryBackend, Paged};
use serde_json::{Value, json};

struct Chat {
    fold: State<Paged<MemoryBackend>>,
    effects: Effects,
}

impl Chat {
    fn new(limits: Limits) -> Self {
        let pages = Paged::new(MemoryBackend::default(), 0, 1 << 20);
        // Short segments: messages are found in active and in sealed ones.
        Self { fold: State::open_with_segments(pages, limits, 64).unwrap(), effects: Effects::default() }
    }

    /// Folds an event with this timestamp; returns its counters.
    fn at(&mut self, timestamp_ms: u64, event: &Value) -> Counters {
        let value = serde_json::to_vec(event).unwrap();
        let event = decode(&value).unwrap();
        let at = RecordMetadata { partition: 0, offset: self.fold.next_offset(), timestamp_ms };
        let key = event.key();
        self.effects = Effects::default();
        self.fold
            .apply(at, &event, RawRecord { key: Some(&key), value: &value, headers: &Vec::new }, &mut self.effects)
            .unwrap();
        self.effects.counters
    }

    fn post(&mut self, event: &Value) -> Counters {
        self.at(1_000, event)
    }

    fn receipt(&self, message_id: &str) -> Receipt {
        self.fold.receipt("default", "g", message_id).unwrap()
    }

    /// Makes a checkpoint; returns the keys that it writes.
    fn checkpoint(&mut self) -> Vec<Vec<u8>> {
        self.fold.write_meta();
        let batch = self.fold.pages().batch(self.fold.next_offset());
        let keys = batch.iter().map(|entry| match entry {
            Entry::Write(key, _) | Entry::Remove(key) => key.to_vec(),
        });
        let keys = keys.collect();
        let number = self.fold.pages().backend().clone().commit(batch).unwrap();
        self.fold.pages_mut().mark_saved(number);
        keys
    }

    fn list(&self, message_id: &str, filter: MemberFilter) -> Vec<String> {
        let members = self.fold.members("default", "g", message_id, filter, 0, 10_000).unwrap().members;
        members.into_iter().map(|member| member.user_id).collect()
    }

    /// Returns the counts: audience, read, unread, hidden and departed.
    fn counts(&self, message_id: &str) -> [u32; 5] {
        let c = self.receipt(message_id).counts.expect("counts");
        [c.audience_count, c.read_count, c.unread_count, c.hidden_count, c.departed_count]
    }
}

fn sent(message_id: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": "g", "message_id": message_id, "sender_id": "u0", "sent_at_ms": 900,
        "need_read_receipt": true})
}

fn read(reader_id: &str, message_ids: &[&str], hidden: bool) -> Value {
    json!({"type": "message.read", "conversation_id": "g", "reader_id": reader_id, "message_ids": message_ids,
        "hidden": hidden})
}

fn mark(reader_id: &str, up_to_ms: u64) -> Value {
    json!({"type": "conversation.read", "conversation_id": "g", "reader_id": reader_id, "up_to_sent_at_ms": up_to_ms})
}

fn members(field: &str, ids: &[String]) -> Value {
    json!({"type": "members.changed", "conversation_id": "g", field: ids})
}

fn user(n: u32) -> String {
    format!("u{n}")
}

/// The counters of a record without another effect.
const RECORD: Counters =
    Counters { records: 1, messages: 0, reads: 0, repeated: 0, not_in_audience: 0, expired: 0, parked: 0 };
const READ: Counters = Counters { reads: 1, ..RECORD };
const REPEATED: Counters = Counters { repeated: 1, ..RECORD };
const OUTSIDE: Counters = Counters { not_in_audience: 1, ..RECORD };
const EXPIRED: Counters = Counters { expired: 1, ..RECORD };
const PARKED: Counters = Counters { parked: 1, ..RECORD };

/// Group sizes of every layout and around their bounds: one page, bits in one chunk, bits in three
/// chunks.
const SIZES: [u32; 9] = [10, 63, 64, 65, 70, 128, 512, 513, 1_300];

#[test]
fn only_named_recipients_read_in_any_group_size() {
    for people in SIZES {
        let mut chat = Chat::new(Limits::default());
        let all: Vec<String> = (0..people).map(user).collect();
        let last = people - 1;
        chat.post(&members("joined", &all));
        // Recipients at both ends, and none in the middle chunk.
        let named = [user(1), user(2), user(last), user(last), user(0), "guest".to_owned()];
        let mut send = sent("m");
        send["recipients"] = json!(named);
        assert_eq!(chat.post(&send), Counters { messages: 1, ..RECORD });
        assert_eq!(chat.counts("m"), [4, 0, 4, 0, 0], "each once, without the sender");
        // The guest has a slot too.
        let chunks = Table::<Chunk>::keys(chat.fold.pages()).unwrap().len();
        assert_eq!(chunks > 0, people + 1 > INLINE_SLOTS, "{chunks} chunks of {people} and a guest");
        let outsiders = [user(0), user(3), user(people / 2), user(last - 1), "stranger".to_owned()];
        for outsider in &outsiders {
            assert_eq!(chat.post(&read(outsider, &["m"], false)), OUTSIDE, "{outsider} of {people}");
            assert_eq!(chat.post(&read(outsider, &["m"], true)), OUTSIDE, "{outsider} of {people}, hidden");
        }
        assert_eq!(chat.post(&read(&user(last), &["m"], false)), READ);
        assert_eq!(chat.effects.changed.len(), 1);
        assert_eq!(chat.post(&read(&user(last), &["m"], true)), REPEATED, "an open read stays open");
        assert_eq!(chat.post(&read("guest", &["m"], true)), READ);
        assert_eq!(chat.post(&read("guest", &["m"], false)), REPEATED, "a hidden read stays hidden");
        assert_eq!(chat.post(&read("guest", &["m"], true)), REPEATED);
        assert!(chat.effects.changed.is_empty());
        chat.post(&members("left", &[user(2), user(3)]));
        assert_eq!(chat.counts("m"), [4, 1, 1, 1, 1]);
        assert_eq!(chat.list("m", MemberFilter::Read), [user(last)]);
        assert_eq!(chat.list("m", MemberFilter::Unread), [user(1)]);
        assert_eq!(chat.list("m", MemberFilter::Departed), [user(2)]);
        assert_eq!(chat.fold.audit(0).unwrap(), None);
    }
}

#[test]
fn roster_audience_is_exact_in_any_group_size() {
    for people in SIZES {
        let mut chat = Chat::new(Limits::default());
        let all: Vec<String> = (0..people).map(user).collect();
        let last = people - 1;
        chat.post(&members("joined", &all));
        chat.post(&members("left", &[user(last), user(4)]));
        chat.post(&members("observers", &[user(5)]));
        chat.post(&sent("m"));
        chat.post(&members("joined", &[user(last), "late".to_owned()]));
        let audience = people - 4;
        assert_eq!(chat.counts("m"), [audience, 0, audience, 0, 0], "of {people}");
        for outsider in [user(0), user(4), user(5), user(last), "late".to_owned()] {
            assert_eq!(chat.post(&read(&outsider, &["m"], false)), OUTSIDE, "{outsider} of {people}");
        }
        assert_eq!(chat.post(&read(&user(last - 1), &["m"], false)), READ);
        assert_eq!(chat.post(&read(&user(last - 2), &["m"], true)), READ);
        assert_eq!(chat.post(&mark(&user(1), 899)), RECORD, "covers no message");
        assert_eq!(chat.post(&mark(&user(1), 900)), READ);
        assert_eq!(chat.post(&mark(&user(1), 900)), RECORD, "a covered message is not read again");
        assert_eq!(chat.post(&mark("stranger", 900)), OUTSIDE);
        // Some leave after the send, one of them for the second time. A rejoin does not change the
        // message.
        chat.post(&members("left", &[user(1), user(2), user(3)]));
        chat.post(&members("left", &[user(last)]));
        chat.post(&members("joined", &[user(3)]));
        chat.post(&members("left", &[user(3)]));
        chat.post(&members("joined", &[user(3)]));
        assert_eq!(chat.counts("m"), [audience, 2, audience - 5, 1, 2], "of {people}");
        assert_eq!(chat.list("m", MemberFilter::Read), [user(1), user(last - 1)]);
        assert_eq!(chat.list("m", MemberFilter::Departed), [user(2), user(3)]);
        let unread: Vec<String> = (6..last - 2).map(user).collect();
        assert_eq!(chat.list("m", MemberFilter::Unread), unread);
        // An erased member departs. Other erased people change nothing, before and after the roster
        // applies the erasure.
        for erased in [user(6), user(last), user(2)] {
            chat.post(&json!({"type": "user.erased", "user_id": erased, "partition": 0}));
        }
        assert_eq!(chat.counts("m"), [audience, 2, audience - 6, 1, 3], "of {people}");
        assert!(!chat.fold.is_member("default", "g", &user(6)).unwrap());
        chat.post(&members("joined", &["later".to_owned()]));
        assert_eq!(chat.counts("m"), [audience, 2, audience - 6, 1, 3], "of {people}, after the roster has applied it");
        assert_eq!(chat.list("m", MemberFilter::Departed), [user(3)]);
        assert_eq!(chat.fold.audit(0).unwrap(), None);
    }
}

/// A list skips whole pages of people who had all left before the message.
#[test]
fn unread_list_is_exact_after_whole_pages_have_left() {
    let mut chat = Chat::new(Limits::default());
    let all: Vec<String> = (0..1_000).map(user).collect();
    chat.post(&members("joined", &all));
    chat.post(&sent("before"));
    chat.post(&members("left", &all[64..900]));
    chat.post(&sent("after"));
    // One person comes back, and one is named: neither changes an earlier audience.
    chat.post(&members("joined", &[user(500)]));
    let mut named = sent("named");
    named["recipients"] = json!([user(200), user(300)]);
    chat.post(&named);
    chat.post(&sent("last"));
    chat.post(&read(&user(5), &["before", "after", "last"], false));
    for reopened in [false, true] {
        if reopened {
            chat.checkpoint();
            let pages = Paged::new(chat.fold.pages().backend().clone(), 0, 0);
            chat.fold = State::open_with_segments(pages, Limits::default(), 64).unwrap();
        }
        let present = |extra: &[u32]| {
            let mut slots: Vec<u32> =
                (1..64).chain(900..1_000).chain(extra.iter().copied()).filter(|n| *n != 5).collect();
            slots.sort_unstable();
            slots.into_iter().map(user).collect::<Vec<_>>()
        };
        // The person who came back is on the roster, and has departed from messages before the
        // leave.
        assert_eq!(chat.list("before", MemberFilter::Unread), present(&[]));
        assert_eq!(chat.list("before", MemberFilter::Departed).len(), 836);
        assert_eq!(chat.list("after", MemberFilter::Unread), present(&[]));
        assert_eq!(chat.list("named", MemberFilter::Unread), [user(200), user(300)]);
        assert_eq!(chat.list("last", MemberFilter::Unread), present(&[500]));
        assert_eq!(chat.counts("last"), [164, 1, 163, 0, 0]);
    }
}

/// Rule 3: an event without an effect is counted.
#[test]
fn every_record_is_counted_by_its_effect() {
    let mut chat = Chat::new(Limits { retention_ms: 5_000, parked_age_ms: 1_000, ..Limits::default() });
    assert_eq!(chat.post(&mark("u1", 5)), OUTSIDE, "of a conversation that there is not");
    assert_eq!(chat.post(&members("joined", &[user(0), user(1), user(2)])), RECORD);
    assert_eq!(chat.post(&sent("m")), Counters { messages: 1, ..RECORD });
    assert_eq!(chat.post(&sent("m")), RECORD, "a repeated send changes nothing");
    let mixed = read("u1", &["m", "m", "early", "early"], false);
    assert_eq!(chat.post(&mixed), Counters { reads: 1, repeated: 1, parked: 1, ..RECORD });
    assert_eq!(chat.post(&read("nobody", &["early"], false)), PARKED);
    assert_eq!(chat.post(&read("u2", &["early"], true)), PARKED);
    assert_eq!(chat.fold.parked(), 3);
    let early = Counters { messages: 1, reads: 2, not_in_audience: 1, ..RECORD };
    assert_eq!(chat.post(&sent("early")), early, "a stranger's receipt waited for it too");
    assert_eq!(chat.post(&json!({"type": "message.recalled", "conversation_id": "g", "message_id": "early"})), RECORD);
    assert_eq!(chat.post(&read("u1", &["early"], false)), OUTSIDE, "a recalled message has no audience");
    // The retention is exact to the millisecond.
    assert_eq!(chat.at(6_000, &read("u2", &["m"], false)), READ);
    assert_eq!(chat.at(6_001, &read("u2", &["m"], false)), EXPIRED);
    let up_to =
        json!({"type": "conversation.read", "conversation_id": "g", "reader_id": "u2", "up_to_message_id": "m"});
    assert_eq!(chat.at(6_001, &up_to), EXPIRED);
    let recall = json!({"type": "message.recalled", "conversation_id": "g", "message_id": "m"});
    assert_eq!(chat.at(6_001, &recall), EXPIRED);
    assert_eq!(
        chat.at(6_001, &mark("u1", 2_000)),
        Counters { expired: 2, ..RECORD },
        "the mark covers two expired messages"
    );
    assert_eq!(chat.at(1_001, &sent("on time")), Counters { messages: 1, ..RECORD });
    assert_eq!(chat.at(1_000, &sent("too late")), RECORD);
}

/// `read_mark.updated` also goes to the other member of a direct chat, if there is exactly one.
#[test]
fn peer_is_the_only_other_member() {
    let mut chat = Chat::new(Limits::default());
    chat.post(&json!({"type": "conversation.configured", "conversation_id": "g", "kind": "direct"}));
    chat.post(&members("joined", &[user(0), user(1)]));
    let peer_of = |chat: &mut Chat, reader: u32, up_to_ms: u64| {
        chat.post(&mark(&user(reader), up_to_ms));
        let moved = chat.effects.marks[0];
        chat.fold.peer_of(moved.conversation, moved.slot).unwrap()
    };
    assert_eq!(peer_of(&mut chat, 0, 1), Some(user(1)));
    assert_eq!(peer_of(&mut chat, 1, 1), Some(user(0)));
    chat.post(&members("observers", &[user(2)]));
    assert_eq!(peer_of(&mut chat, 1, 2), Some(user(0)), "an observer is not a peer");
    assert_eq!(peer_of(&mut chat, 2, 2), None, "an observer has two peers");
    chat.post(&members("joined", &[user(3)]));
    assert_eq!(peer_of(&mut chat, 1, 3), None, "there are two others");
    chat.post(&members("left", &[user(3)]));
    // One page of people is full, and one more person follows.
    let guests: Vec<String> = (4..64).map(user).collect();
    chat.post(&members("joined", &guests));
    chat.post(&members("left", &guests));
    assert_eq!(peer_of(&mut chat, 0, 4), Some(user(1)));
    chat.post(&json!({"type": "user.erased", "user_id": user(1), "partition": 0}));
    assert_eq!(peer_of(&mut chat, 0, 5), None, "an erased member is not a peer");
    chat.post(&members("joined", &[user(3)]));
    assert_eq!(peer_of(&mut chat, 0, 6), Some(user(3)));
    chat.post(&members("observers", &[user(64)]));
    assert_eq!(peer_of(&mut chat, 0, 7), None);
}

/// The detail names the limit and the quoted ids.
#[test]
fn dead_letter_names_the_missing_messages() {
    let mut chat = Chat::new(Limits { parked_max: 1, parked_age_ms: 500, ..Limits::default() });
    chat.post(&read("u1", &["m1", "m2", "m1"], false));
    assert!(chat.effects.dead_letters.is_empty());
    chat.post(&read("u2", &["m3"], false));
    let said = |chat: &Chat| chat.effects.dead_letters.iter().map(|l| l.detail.clone()).collect::<Vec<_>>();
    assert_eq!(
        said(&chat),
        [
            r#""m1", "m2" did not come, and of the more than 1 records that wait (projector.parked_count) the tenant's take the most bytes"#
        ]
    );
    chat.at(2_000, &members("joined", &[user(0)]));
    assert_eq!(said(&chat), [r#""m3" did not come within 500 ms (projector.parked_age_ms)"#]);
}

/// A batch may have any order and repeated ids. Each answer equals that of a single question.
#[test]
fn batch_of_receipts_equals_single_receipts() {
    let mut chat = Chat::new(Limits::default());
    chat.post(&members("joined", &[user(0), user(1)]));
    (0..200).for_each(|i| _ = chat.post(&sent(&format!("m{i}"))));
    // In sealed and active segments.
    for i in (0..200).step_by(3) {
        assert_eq!(chat.post(&read("u1", &[&format!("m{i}")], false)), READ, "m{i}");
    }
    let ids: Vec<String> = (0..100).map(|i| format!("m{}", i * 37 % 210)).chain(["m5".into(), "m199".into()]).collect();
    let wanted: Vec<Receipt> = ids.iter().map(|id| chat.receipt(id)).collect();
    assert_eq!(chat.fold.receipts("default", "g", &ids).unwrap(), wanted);
}

/// An event without an effect makes no page dirty, because repeated reads are far more frequent
/// than first ones.
#[test]
fn repetition_writes_counters_only() {
    for people in SIZES {
        let mut chat = Chat::new(Limits::default());
        chat.post(&members("joined", &(0..people).map(user).collect::<Vec<_>>()));
        let mut named = sent("named");
        named["recipients"] = json!([user(1), user(2)]);
        let events = [
            sent("m"),
            named,
            read("u1", &["m", "named"], false),
            read("u2", &["m", "named"], true),
            read(&user(people - 1), &["m"], false),
        ];
        events.iter().for_each(|event| _ = chat.post(event));
        let changed = chat.checkpoint();
        let counters = chat.checkpoint();
        assert!(changed.len() > counters.len());
        let outsiders = [read("u0", &["m"], false), read("u3", &["named"], true), read("stranger", &["m"], false)];
        for event in events.iter().chain(&outsiders) {
            chat.post(event);
            assert_eq!(chat.checkpoint(), counters, "{event} in {people}");
        }
        for event in [read("u1", &["m", "named"], true), read("u2", &["m", "named"], false)] {
            chat.post(&event);
            assert_eq!(chat.checkpoint(), counters, "{event} in {people}");
        }
    }
}
