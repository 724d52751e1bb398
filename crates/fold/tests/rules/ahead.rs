//! The prefetch reads every cached page of people and messages that the fold then reads for the
//! next records. All other tests prove that it changes nothing (`life.rs`).

use crate::watched::Watched;
use receipts_event::{Event, decode};
use receipts_fold::effects::Effects;
use receipts_fold::pages::{PageKey, TableId};
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SEGMENT: u64 = 64;

struct Chat {
    fold: State<Watched>,
}

impl Chat {
    fn apply(&mut self, event: &Event<'_>) -> BTreeSet<(TableId, PageKey)> {
        self.fold.pages().take_reads();
        let (key, value) = (event.key(), event.to_json());
        let at = RecordMetadata { partition: 0, offset: self.fold.next_offset(), timestamp_ms: 1_000 };
        let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
        self.fold.apply(at, event, raw, &mut Effects::default()).unwrap();
        self.fold.pages().take_reads().into_iter().collect()
    }

    fn post(&mut self, event: &Value) {
        self.apply(&owned(event));
    }

    fn ahead(&mut self, events: &[Event<'static>]) -> BTreeSet<(TableId, PageKey)> {
        self.fold.pages().take_peeked();
        self.fold.prefetch(events.iter());
        self.fold.pages().take_peeked().into_iter().collect()
    }
}

fn owned(event: &Value) -> Event<'static> {
    decode(&serde_json::to_vec(event).unwrap()).unwrap().into_owned()
}

fn sent(conversation: &str, message_id: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation, "message_id": message_id, "sender_id": sender,
        "sent_at_ms": 900, "need_read_receipt": true})
}

fn read(conversation: &str, reader: &str, message_ids: &[&str]) -> Value {
    json!({"type": "message.read", "conversation_id": conversation, "reader_id": reader, "message_ids": message_ids})
}

/// Returns a small group and one of 700, with messages in sealed and active segments, and readers
/// of each.
fn chat() -> Chat {
    let fold = State::open_with_segments(Watched::empty(), Limits::default(), SEGMENT).unwrap();
    let mut chat = Chat { fold };
    for (conversation, people) in [("small", 10), ("large", 700)] {
        let all: Vec<String> = (0..people).map(|i| format!("u{i}")).collect();
        chat.post(&json!({"type": "members.changed", "conversation_id": conversation, "joined": all}));
    }
    for i in 0..4 * SEGMENT {
        chat.post(&sent(if i % 2 == 0 { "small" } else { "large" }, &format!("m{i}"), "u0"));
    }
    for message in ["m1", "m251"] {
        // Reads make a chunk.
        chat.post(&read("large", "u699", &[message]));
        chat.post(&read("large", "u1", &[message]));
    }
    chat
}

#[test]
fn prefetch_reads_every_page_a_record_needs() {
    use TableId::{Chunks, Conversations, Index, Messages, People, PeopleIndex};
    let up_to = |conversation: &str, reader: &str| json!({"type": "conversation.read", "conversation_id": conversation, "reader_id": reader, "up_to_sent_at_ms": 1});
    let (all, people) =
        (&[Chunks, Conversations, Index, Messages, People, PeopleIndex][..], &[People, PeopleIndex][..]);
    let events = [
        (read("small", "u3", &["m250", "m248"]), all),
        (read("small", "u3", &["m0", "m250"]), all),
        (read("small", "u3", &["m70", "m130"]), all),
        (read("large", "u650", &["m251"]), all),
        (read("large", "u651", &["m1", "m251"]), all),
        (read("large", "u5", &["m3", "m251"]), all),
        (read("large", "u6", &["m71", "m131"]), all),
        (sent("small", "new", "u9"), &[Conversations, People, PeopleIndex][..]),
        (sent("large", "new", "u333"), &[Conversations, People, PeopleIndex][..]),
        (up_to("small", "u4"), people),
        (up_to("large", "u444"), people),
    ]
    .map(|(event, tables)| (owned(&event), tables));
    // Each event alone, and all at once with other records in between.
    for (event, tables) in &events {
        let mut chat = chat();
        let ahead = chat.ahead(std::slice::from_ref(event));
        let taken: Vec<_> = chat.apply(event).into_iter().filter(|(table, _)| tables.contains(table)).collect();
        assert!(!taken.is_empty());
        let missed: Vec<_> = taken.iter().filter(|page| !ahead.contains(page)).collect();
        assert!(missed.is_empty(), "{event:?} reads {missed:?} of {taken:?} without prefetch");
    }
    let mut chat = chat();
    let other = owned(&json!({"type": "user.erased", "user_id": "nobody", "partition": 0}));
    let batch: Vec<_> = events.iter().flat_map(|(event, _)| [event.clone(), other.clone(), event.clone()]).collect();
    let ahead = chat.ahead(&batch);
    for (event, tables) in &events {
        let taken = chat.apply(event).into_iter().filter(|(table, _)| tables.contains(table));
        let missed: Vec<_> = taken.filter(|page| !ahead.contains(page)).collect();
        assert!(missed.is_empty(), "{event:?} reads {missed:?} without prefetch");
    }
}

/// A missing person, message or conversation is no error.
#[test]
fn prefetch_skips_missing_pages() {
    let mut chat = chat();
    let events = [
        read("small", "nobody", &["none"]),
        read("large", "nobody", &["none", "m1"]),
        read("nowhere", "u1", &["m1"]),
        sent("nowhere", "m1", "u1"),
        json!({"type": "message.recalled", "conversation_id": "small", "message_id": "m1"}),
    ];
    let read = chat.ahead(&events.map(|event| owned(&event)));
    assert!(read.iter().all(|(table, _)| *table != TableId::Chunks), "without a reader there are no bits: {read:?}");
}
