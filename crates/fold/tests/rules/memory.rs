//! INV-MEMORY: by the store's own account, pages stay within their memory on a log of many times
//! that size. Only unsaved pages may exceed it, and the store says when a checkpoint is due.

use receipts_event::{Body, Event, MembersChanged, MessageRead, MessageSent};
use receipts_fold::effects::Effects;
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Batch, Error, MemoryBackend, Paged, trim};
use receipts_testkit::random::Random;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const MEMORY: usize = 1 << 20;
const CONVERSATIONS: u64 = 400;
const MESSAGES: u64 = 30_000;
const MEMBERS: u64 = 5;

type Fold = State<Paged<MemoryBackend>>;

fn apply<B: Backend>(fold: &mut State<Paged<B>>, body: Body<'static>) {
    let event = Event { tenant: "default".into(), event_id: None, body };
    let at = RecordMetadata { partition: 0, offset: fold.next_offset(), timestamp_ms: 1_780_000_000_000 };
    let raw = RawRecord { key: None, value: &[], headers: &Vec::new };
    fold.apply(at, &event, raw, &mut Effects::default()).unwrap();
}

fn checkpoint(fold: &mut Fold) {
    fold.write_meta();
    let batch = fold.pages().batch(fold.next_offset());
    let number = fold.pages().backend().clone().commit(batch).unwrap();
    fold.pages_mut().mark_saved(number);
}

#[test]
fn pages_stay_within_their_memory() {
    let pages = Paged::new(MemoryBackend::default(), 0, MEMORY);
    let mut fold = State::open_with_segments(pages, Limits::default(), 1_024).unwrap();
    let random = &mut Random::new(1);
    for conversation in 0..CONVERSATIONS {
        apply(
            &mut fold,
            Body::MembersChanged(MembersChanged {
                conversation_id: format!("g{conversation}").into(),
                joined: (0..MEMBERS).map(|member| format!("u{member}").into()).collect(),
                left: Vec::new(),
                observers: Vec::new(),
            }),
        );
    }
    let (mut checkpoints, mut most, mut most_between) = (0, 0, 0);
    for message in 0..MESSAGES {
        // Most events name recent messages, some name any.
        let of = |message: u64| format!("g{}", message % CONVERSATIONS);
        apply(
            &mut fold,
            Body::MessageSent(MessageSent {
                conversation_id: of(message).into(),
                message_id: format!("m{message}").into(),
                sender_id: "u0".into(),
                sent_at_ms: 1_780_000_000_000,
                need_read_receipt: true,
                recipients: None,
            }),
        );
        for reader in 1..MEMBERS {
            let back = if random.chance(0.95) { random.below(2_000) } else { random.below(MESSAGES) };
            let read = message.saturating_sub(back);
            apply(
                &mut fold,
                Body::MessageRead(MessageRead {
                    conversation_id: of(read).into(),
                    reader_id: format!("u{reader}").into(),
                    message_ids: vec![format!("m{read}").into()],
                    read_at_ms: None,
                    hidden: false,
                }),
            );
        }
        trim(&mut fold);
        most_between = most_between.max(fold.pages().memory_bytes());
        if fold.pages().needs_checkpoint() {
            checkpoint(&mut fold);
            trim(&mut fold);
            checkpoints += 1;
            most = most.max(fold.pages().memory_bytes() + fold.memory_bytes());
        }
    }
    checkpoint(&mut fold);
    let stored = fold.pages().stored_bytes().unwrap() as usize;
    eprintln!("{checkpoints} checkpoints; {most} bytes after one, {most_between} between; {stored} bytes stored");
    assert!(stored > MEMORY, "the pages must exceed the memory: {stored}");
    // Each sealed segment has a filter beside the pages, of four bytes per message.
    assert!(fold.memory_bytes() >= 27 * 1_024 * 4, "{} bytes beside the pages", fold.memory_bytes());
    assert!(checkpoints > 5, "{checkpoints} checkpoints");
    assert!(most <= MEMORY, "{most} bytes after a checkpoint, of {MEMORY}");
    assert!(most_between <= MEMORY * 3 / 2, "{most_between} bytes between checkpoints, of {MEMORY}");
    // The partition still answers.
    let receipt = fold.receipt("default", "g7", "m407").unwrap();
    assert_eq!(receipt.counts.map(|counts| counts.audience_count), Some(MEMBERS as u32 - 1));
}

/// A medium that counts reads.
struct Counting(MemoryBackend, Arc<AtomicUsize>);

impl Backend for Counting {
    type Value = <MemoryBackend as Backend>::Value;

    fn get(&self, key: &[u8]) -> Result<Option<Self::Value>, Error> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get(key)
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.0.keys(prefix)
    }

    fn commit(&self, batch: Batch) -> Result<u64, Error> {
        self.0.commit(batch)
    }

    fn applied(&self) -> u64 {
        self.0.applied()
    }
}

fn joined(conversation: &str, people: u64) -> Body<'static> {
    Body::MembersChanged(MembersChanged {
        conversation_id: conversation.to_owned().into(),
        joined: (0..people).map(|member| format!("u{member}").into()).collect(),
        left: Vec::new(),
        observers: Vec::new(),
    })
}

/// INV-MEMORY: if unsaved pages alone exceed the memory, other pages are not evicted and loaded
/// again with each record before the checkpoint.
#[test]
fn unsaved_memory_costs_no_repeated_reads() {
    const ROUNDS: usize = 1_000;
    let reads = Arc::new(AtomicUsize::new(0));
    let pages = Paged::new(Counting(MemoryBackend::default(), Arc::clone(&reads)), 0, MEMORY);
    let mut fold = State::open(pages, Limits::default()).unwrap();
    let sent = |conversation: &str, message: &str| {
        Body::MessageSent(MessageSent {
            conversation_id: conversation.to_owned().into(),
            message_id: message.to_owned().into(),
            sender_id: "u0".into(),
            sent_at_ms: 1_780_000_000_000,
            need_read_receipt: true,
            recipients: None,
        })
    };
    apply(&mut fold, joined("quiet", 100));
    apply(&mut fold, sent("quiet", "m"));
    fold.write_meta();
    let batch = fold.pages().batch(fold.next_offset());
    let number = fold.pages().backend().commit(batch).unwrap();
    fold.pages_mut().mark_saved(number);
    // Unsaved changes until they exceed the memory.
    for conversation in 0.. {
        apply(&mut fold, joined(&format!("g{conversation}"), 100));
        trim(&mut fold);
        if fold.pages().memory_bytes() > MEMORY {
            break;
        }
    }
    let before = reads.load(Ordering::Relaxed);
    for round in 0..ROUNDS {
        // A stranger's receipt changes nothing, but reads the conversation.
        apply(
            &mut fold,
            Body::MessageRead(MessageRead {
                conversation_id: "quiet".into(),
                reader_id: format!("stranger-{round}").into(),
                message_ids: vec!["m".into()],
                read_at_ms: None,
                hidden: false,
            }),
        );
        trim(&mut fold);
    }
    let each = (reads.load(Ordering::Relaxed) - before) as f64 / ROUNDS as f64;
    eprintln!("{each} values read per record");
    assert!(each < 1.5, "{each} values read per record");
}
