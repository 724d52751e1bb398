//! INV-SLICES: a long record is applied in slices of bounded work, counted in messages and in page
//! reads. Between two slices the state answers; only the whole record may be written.

use crate::watched::Watched;
use receipts_event::decode;
use receipts_fold::effects::Effects;
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use serde_json::{Value, json};

/// Messages per slice.
const SLICE: u32 = 100;
/// Page reads per message, and once per slice: the search for the first message of a mark, parked
/// records and the page of marks.
const EACH: usize = 5;
const ONCE: usize = 100;

struct Group {
    fold: State<Watched>,
    effects: Effects,
}

/// What one slice did.
struct Slice {
    read: u64,
    page_reads: usize,
}

impl Group {
    fn new(members: u64) -> Self {
        let fold = State::open(Watched::empty(), Limits::default()).unwrap();
        let mut group = Self { fold, effects: Effects::default() };
        let joined: Vec<String> = (0..members).map(user).collect();
        group.post(&json!({"type": "members.changed", "conversation_id": "g", "joined": joined}));
        group
    }

    /// Begins a record; returns true if it is applied.
    fn begin(&mut self, event: &Value) -> bool {
        let value = serde_json::to_vec(event).unwrap();
        let event = decode(&value).unwrap();
        let at = RecordMetadata { partition: 0, offset: self.fold.next_offset(), timestamp_ms: 1_000_000 };
        let key = event.key();
        let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
        self.effects = Effects::default();
        self.fold.pages().take_reads();
        self.fold.begin(at, &event, raw, SLICE, &mut self.effects).unwrap()
    }

    /// Folds a record; returns what each of its slices did.
    fn post(&mut self, event: &Value) -> Vec<Slice> {
        let (mut slices, mut read) = (Vec::new(), 0);
        let mut is_whole = self.begin(event);
        loop {
            let reads = self.effects.counters.reads;
            slices.push(Slice { read: reads - read, page_reads: self.fold.pages().take_reads().len() });
            read = reads;
            if is_whole {
                return slices;
            }
            is_whole = self.fold.proceed(SLICE, &mut self.effects).unwrap();
        }
    }

    fn send(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.post(&sent(number));
        }
    }

    fn read_count(&self, number: u64) -> u32 {
        self.fold.receipt("default", "g", &format!("m{number}")).unwrap().counts.unwrap().read_count
    }
}

fn user(number: u64) -> String {
    format!("u{number}")
}

fn sent(number: u64) -> Value {
    json!({"type": "message.sent", "conversation_id": "g", "message_id": format!("m{number}"), "sender_id": "u0",
        "sent_at_ms": number, "need_read_receipt": true})
}

fn mark(reader: u64, up_to: u64) -> Value {
    json!({"type": "conversation.read", "conversation_id": "g", "reader_id": user(reader),
        "up_to_message_id": format!("m{up_to}")})
}

fn assert_bounded(slices: &[Slice], read: u64) {
    assert_eq!(slices.iter().map(|slice| slice.read).sum::<u64>(), read);
    assert!(slices.len() as u64 >= read / u64::from(SLICE));
    for (number, slice) in slices.iter().enumerate() {
        assert!(slice.read <= SLICE.into(), "slice {number} reads {} messages", slice.read);
        let most = ONCE + EACH * SLICE as usize;
        assert!(slice.page_reads <= most, "slice {number} reads {} pages", slice.page_reads);
    }
}

#[test]
fn long_mark_is_applied_in_bounded_slices() {
    for members in [3, 200] {
        let mut group = Group::new(members);
        group.send(0..5_000);
        assert_bounded(&group.post(&mark(1, 4_999)), 5_000);
        // A walk that reads nothing is divided too: an earlier mark covered all but one message.
        group.send(5_000..5_001);
        assert_bounded(&group.post(&mark(1, 5_000)), 1);
    }
}

#[test]
fn waiting_marks_are_applied_in_bounded_slices() {
    let mut group = Group::new(300);
    group.send(0..500);
    for reader in 1..300 {
        group.post(&mark(reader, 500));
    }
    assert_eq!(group.fold.parked(), 299);
    assert_bounded(&group.post(&sent(500)), 299 * 501);
    assert_eq!((group.fold.parked(), group.read_count(0), group.read_count(500)), (0, 299, 299));
}

#[test]
fn readers_between_slices_see_a_part_of_a_mark() {
    let mut group = Group::new(2);
    group.send(0..1_000);
    assert!(!group.begin(&mark(1, 999)));
    let read = |group: &Group| (0..1_000).filter(|number| group.read_count(*number) == 1).count();
    assert_eq!(read(&group), SLICE as usize);
    assert_eq!(group.fold.read_mark("default", "g", "u1").unwrap(), None, "the mark moves last");
    assert_eq!(group.fold.audit(0).unwrap(), None);
    assert!(!group.fold.proceed(SLICE, &mut group.effects).unwrap());
    assert_eq!(read(&group), 2 * SLICE as usize);
    while !group.fold.proceed(SLICE, &mut group.effects).unwrap() {}
    assert_eq!(read(&group), 1_000);
    assert!(group.fold.read_mark("default", "g", "u1").unwrap().is_some());
}

/// INV-PREFIX
#[test]
#[should_panic(expected = "a checkpoint holds whole records")]
fn record_applied_in_part_is_never_written() {
    let mut group = Group::new(2);
    group.send(0..1_000);
    assert!(!group.begin(&mark(1, 999)));
    group.fold.write_meta();
}
