//! INV-EXPIRED: each new page of messages removes up to four wholly expired pages, with their bits
//! and index entries, and nothing else.

use receipts_event::decode;
use receipts_fold::effects::Effects;
use receipts_fold::index::{BloomFilter, IndexPage};
use receipts_fold::pages::codec::Writer;
use receipts_fold::pages::{Chunk, ConversationPage, Messages, PageKey, Table};
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, MemoryBackend, Paged};
use serde_json::{Value, json};

const RETENTION_MS: u64 = 1_000;

struct Log {
    fold: State<Paged<MemoryBackend>>,
    segment: u64,
    now_ms: u64,
}

fn limits() -> Limits {
    Limits { retention_ms: RETENTION_MS, ..Limits::default() }
}

impl Log {
    /// Creates a group of 70. Each message has a chunk after its first read.
    fn new(segment: u64) -> Self {
        let pages = Paged::new(MemoryBackend::default(), 0, 1 << 30);
        let fold = State::open_with_segments(pages, limits(), segment).unwrap();
        let mut log = Self { fold, segment, now_ms: 10_000 };
        let all: Vec<String> = (0..70).map(|i| format!("u{i}")).collect();
        log.post(&json!({"type": "members.changed", "conversation_id": "g", "joined": all}));
        log
    }

    fn post(&mut self, event: &Value) {
        let value = serde_json::to_vec(event).unwrap();
        let event = decode(&value).unwrap();
        let at = RecordMetadata { partition: 0, offset: self.fold.next_offset(), timestamp_ms: self.now_ms };
        let key = event.key();
        let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
        self.fold.apply(at, &event, raw, &mut Effects::default()).unwrap();
    }

    fn send(&mut self, conversation: &str, messages: u64) {
        for _ in 0..messages {
            let id = format!("m{}", self.fold.messages());
            let of = json!({"conversation_id": conversation, "message_id": id});
            let (mut sent, mut read) = (of.clone(), of);
            sent["type"] = json!("message.sent");
            (sent["sender_id"], sent["sent_at_ms"], sent["need_read_receipt"]) = (json!("u0"), json!(1), json!(true));
            if conversation != "g" {
                sent["recipients"] = json!(["u1"]);
            }
            self.post(&sent);
            (read["type"], read["reader_id"]) = (json!("message.read"), json!("u1"));
            read["message_ids"] = json!([id]);
            self.post(&read);
        }
    }

    fn checkpoint(&mut self) {
        self.fold.write_meta();
        let batch = self.fold.pages().batch(self.fold.next_offset());
        let number = self.fold.pages().backend().clone().commit(batch).unwrap();
        self.fold.pages_mut().mark_saved(number);
    }

    /// Restarts: rebuilds the memory beside the pages.
    fn reopen(mut self) -> Self {
        self.checkpoint();
        let pages = Paged::new(self.fold.pages().backend().clone(), 0, 1 << 30);
        let fold = State::open_with_segments(pages, limits(), self.segment).unwrap();
        Self { fold, ..self }
    }

    /// Returns the numbers of the message pages, of the messages with a chunk, and of the segments
    /// with an index and a filter.
    fn held(&mut self) -> [Vec<u64>; 4] {
        self.checkpoint();
        let pages = self.fold.pages();
        let firsts = |keys: Vec<PageKey>| {
            let mut firsts: Vec<u64> = keys.into_iter().map(|key| key.a).collect();
            firsts.dedup();
            firsts
        };
        [
            firsts(Table::<Messages>::keys(pages).unwrap()),
            firsts(Table::<Chunk>::keys(pages).unwrap()),
            firsts(Table::<IndexPage>::keys(pages).unwrap()),
            firsts(Table::<BloomFilter>::keys(pages).unwrap()),
        ]
    }

    fn sealed(&self) -> Vec<Vec<u8>> {
        let pages = self.fold.pages();
        let keys = Table::<IndexPage>::keys(pages).unwrap();
        let bytes = keys.into_iter().map(|key| {
            let mut writer = Writer::default();
            receipts_fold::pages::Page::encode(&*Table::<IndexPage>::read(pages, key).unwrap().unwrap(), &mut writer);
            writer.bytes
        });
        bytes.collect()
    }
}

#[test]
fn each_new_page_removes_four_expired_pages() {
    let mut log = Log::new(64);
    log.send("g", 10 * 64);
    // The newest full segment is in memory, and another has begun.
    assert_eq!(log.held(), [(0..10).collect(), (0..640).collect(), (0..9).collect(), (0..9).collect::<Vec<_>>()]);
    log.now_ms += RETENTION_MS;
    log.send("g", 1);
    assert_eq!(log.fold.first_message(), 0, "exact to the millisecond");
    log.now_ms += 1;
    log.send("g", 63);
    assert_eq!(log.fold.first_message(), 0, "no new page");
    for (sent, oldest) in [(1, 4), (63, 4), (1, 8), (63, 8), (1, 10), (63, 10), (64, 10)] {
        log.send("g", sent);
        assert_eq!(log.fold.first_message(), oldest * 64, "of {} messages", log.fold.messages());
        let messages = log.fold.messages();
        let sealed: Vec<u64> = (oldest..messages / 64 - 1).collect();
        let pages = (oldest..messages.div_ceil(64)).collect();
        assert_eq!(log.held(), [pages, (oldest * 64..messages).collect(), sealed.clone(), sealed]);
    }
    // All are expired except the messages of the new page.
    log.now_ms += RETENTION_MS + 1;
    for _ in 0..2 {
        log.send("g", 64);
    }
    assert_eq!(log.fold.first_message(), 10 * 64 + 5 * 64, "{}", log.fold.messages());
}

/// A segment is removed once all its pages are, and a conversation forgets runs of removed
/// segments.
#[test]
fn segment_of_several_pages_is_removed_whole() {
    let mut log = Log::new(3 * 64);
    log.send("g", 3 * 64);
    log.send("other", 3 * 64);
    log.send("g", 6 * 64);
    assert_eq!(log.held()[2..], [vec![0, 1, 2], vec![0, 1, 2]]);
    let segments = |log: &Log| {
        let head = Table::<ConversationPage>::read(log.fold.pages(), PageKey::new(0u32, 0)).unwrap().unwrap();
        head.segments.newest_first(0..100).collect::<Vec<_>>()
    };
    assert_eq!(segments(&log), [3, 2, 0]);
    log.now_ms += RETENTION_MS + 1;
    log.send("g", 1);
    assert_eq!(log.held()[2..], [vec![1, 2], vec![1, 2]], "four pages, three of them in the first segment");
    log.send("g", 64);
    assert_eq!(log.held()[2..], [vec![2], vec![2]]);
    log.send("g", 5 * 64);
    assert_eq!(segments(&log), [6, 5, 4, 3, 2], "a run is removed as a whole");
    // Live messages are found in active and sealed segments; removed ones are not.
    for number in 0..log.fold.messages() {
        let status = log.fold.receipt("default", "g", &format!("m{number}")).unwrap().status;
        assert_eq!(status == receipts_fold::view::Status::Ok, number >= 12 * 64, "m{number}");
    }
}

/// INV-PREFIX: a sealed segment does not depend on a restart after its messages were removed.
#[test]
fn segment_is_sealed_without_expired_messages() {
    for segment in [6 * 64, 9 * 64] {
        let folded = |reopens: bool| {
            let mut log = Log::new(segment);
            log.send("g", 7 * 64);
            log.now_ms += RETENTION_MS + 1;
            log.send("g", 1);
            assert_eq!(log.fold.first_message(), 4 * 64);
            if reopens {
                log = log.reopen();
            }
            log.send("g", 3 * segment);
            log.checkpoint();
            log.sealed()
        };
        assert!(folded(false).iter().any(|page| page.len() > 1));
        assert!(folded(false) == folded(true), "of {segment}");
    }
}

/// INV-MEMORY: a removed page takes no memory once the medium has removed it, even if there is
/// room.
#[test]
fn expired_pages_take_no_memory() {
    let mut log = Log::new(64);
    let mut after = |retentions: u64| {
        for _ in 0..retentions {
            log.now_ms += RETENTION_MS + 1;
            for _ in 0..5 {
                log.send("g", 64);
                log.checkpoint();
                receipts_store::trim(&mut log.fold);
            }
        }
        log.fold.pages().memory_bytes()
    };
    // The lookup by number takes four bytes per page of messages, and hash tables double. The bound
    // allows for that.
    let (early, late) = (after(4), after(36));
    assert!(late < early * 3 / 2, "{late} bytes after 40 retentions, {early} after 4");
}
