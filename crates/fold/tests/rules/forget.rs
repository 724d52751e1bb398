//! INV-EXPIRED, page by page: with each page of messages begun, up to four pages that have expired as a whole are given back,
//! with their bits and what finds them, and nothing else.

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
    stretch: u64,
    now_ms: u64,
}

fn limits() -> Limits {
    Limits { retention_ms: RETENTION_MS, ..Limits::default() }
}

impl Log {
    /// A group of 70, whose messages have a chunk each once somebody has read.
    fn new(stretch: u64) -> Self {
        let pages = Paged::new(MemoryBackend::default(), 0, 1 << 30);
        let fold = State::open_with_segments(pages, limits(), stretch).unwrap();
        let mut log = Self { fold, stretch, now_ms: 10_000 };
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
        self.fold.pages_mut().saved(number);
    }

    /// As after a restart: what is in memory beside the pages is built anew.
    fn reopen(mut self) -> Self {
        self.checkpoint();
        let pages = Paged::new(self.fold.pages().backend().clone(), 0, 1 << 30);
        let fold = State::open_with_segments(pages, limits(), self.stretch).unwrap();
        Self { fold, ..self }
    }

    /// Numbers of the message pages, of the messages with a chunk, of the stretches in the index, and of those with a filter.
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
fn with_each_page_begun_four_that_have_expired_go_with_all_that_is_theirs() {
    let mut log = Log::new(64);
    log.send("g", 10 * 64);
    // The newest full stretch is in memory, and one is begun.
    assert_eq!(log.held(), [(0..10).collect(), (0..640).collect(), (0..9).collect(), (0..9).collect::<Vec<_>>()]);
    log.now_ms += RETENTION_MS;
    log.send("g", 1);
    assert_eq!(log.fold.first_message(), 0, "to the millisecond");
    log.now_ms += 1;
    log.send("g", 63);
    assert_eq!(log.fold.first_message(), 0, "no page was begun");
    for (sent, oldest) in [(1, 4), (63, 4), (1, 8), (63, 8), (1, 10), (63, 10), (64, 10)] {
        log.send("g", sent);
        assert_eq!(log.fold.first_message(), oldest * 64, "of {} messages", log.fold.messages());
        let messages = log.fold.messages();
        let sealed: Vec<u64> = (oldest..messages / 64 - 1).collect();
        let pages = (oldest..messages.div_ceil(64)).collect();
        assert_eq!(log.held(), [pages, (oldest * 64..messages).collect(), sealed.clone(), sealed]);
    }
    // All but the message that begins a page.
    log.now_ms += RETENTION_MS + 1;
    for _ in 0..2 {
        log.send("g", 64);
    }
    assert_eq!(log.fold.first_message(), 10 * 64 + 5 * 64, "{}", log.fold.messages());
}

/// A stretch goes once all of it has, and a conversation forgets the runs of stretches that have gone.
#[test]
fn a_stretch_of_several_pages_goes_as_a_whole() {
    let mut log = Log::new(3 * 64);
    log.send("g", 3 * 64);
    log.send("other", 3 * 64);
    log.send("g", 6 * 64);
    assert_eq!(log.held()[2..], [vec![0, 1, 2], vec![0, 1, 2]]);
    let stretches = |log: &Log| {
        let head = Table::<ConversationPage>::read(log.fold.pages(), PageKey::new(0u32, 0)).unwrap().unwrap();
        head.segments.newest_first().collect::<Vec<_>>()
    };
    assert_eq!(stretches(&log), [3, 2, 0]);
    log.now_ms += RETENTION_MS + 1;
    log.send("g", 1);
    assert_eq!(log.held()[2..], [vec![1, 2], vec![1, 2]], "four pages, of which the first stretch has three");
    log.send("g", 64);
    assert_eq!(log.held()[2..], [vec![2], vec![2]]);
    log.send("g", 5 * 64);
    assert_eq!(stretches(&log), [6, 5, 4, 3, 2], "a run goes as a whole");
    // What lives is found, in memory and sealed; what has gone is not.
    for number in 0..log.fold.messages() {
        let status = log.fold.receipt("default", "g", &format!("m{number}")).unwrap().status;
        assert_eq!(status == receipts_fold::view::Status::Ok, number >= 12 * 64, "m{number}");
    }
}

/// INV-PREFIX: what is sealed is the same whether or not the store was opened since its messages went.
#[test]
fn a_stretch_is_sealed_without_what_went_before() {
    for stretch in [6 * 64, 9 * 64] {
        let folded = |reopens: bool| {
            let mut log = Log::new(stretch);
            log.send("g", 7 * 64);
            log.now_ms += RETENTION_MS + 1;
            log.send("g", 1);
            assert_eq!(log.fold.first_message(), 4 * 64);
            if reopens {
                log = log.reopen();
            }
            log.send("g", 3 * stretch);
            log.checkpoint();
            log.sealed()
        };
        assert!(folded(false).iter().any(|page| page.len() > 1));
        assert!(folded(false) == folded(true), "of {stretch}");
    }
}

/// INV-MEMORY: what was removed takes no memory either, once the medium has removed it, though there is room for it.
#[test]
fn what_has_expired_takes_no_memory_however_long_the_log() {
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
    // What is found by number takes four bytes a page of messages, and tables of memory double: so much is let be.
    let (early, late) = (after(4), after(36));
    assert!(late < early * 3 / 2, "{late} bytes after 40 retentions, {early} after 4");
}
