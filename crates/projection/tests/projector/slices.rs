//! INV-SLICES: readers are let in between the slices of a long read mark. Counts messages, never
//! time: the log's writer, which the projector calls between two slices, is the reader.

use crate::harness::{EPOCH_MS, Harness, now};
use parking_lot::Mutex;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{AppendError, Assignment, Entry, Log, PendingAppend, ReadError, Reader, Topic, Writer};
use receipts_projection::{Partitions, Worker};
use receipts_query::{Answers as _, Conversation};
use receipts_store::{SledSettings, SledStore};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const MESSAGES: u64 = 6_000;
const SLICE: u32 = 250;

/// What the reader saw: the position, and how many messages were read, between two appends.
type Seen = Vec<(u64, usize)>;

#[derive(Default)]
struct Watch {
    partitions: OnceLock<Partitions>,
    seen: Mutex<Seen>,
}

impl Watch {
    /// Asks as a query does. The projector must not hold the partition's lock for writing.
    fn look(&self) {
        let Some(partitions) = self.partitions.get() else { return };
        let position = partitions.positions().next_offset(0);
        let conversation = Conversation::locate("default", "g", 1);
        let ids: Vec<String> = (0..MESSAGES).map(|number| format!("m{number}")).collect();
        let answer = now(partitions.receipts(conversation, None, &ids)).expect("answered between slices");
        let read = answer.value.iter().filter(|receipt| receipt.counts.as_ref().is_some_and(|c| c.read_count > 0));
        self.seen.lock().push((position, read.count()));
    }
}

struct WatchedLog {
    log: Arc<EmbeddedLog>,
    watch: Arc<Watch>,
}

#[async_trait::async_trait]
impl Log for WatchedLog {
    fn partition_count(&self) -> u32 {
        self.log.partition_count()
    }

    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        self.log.reader(group, assignment)
    }

    fn writer(&self) -> Arc<dyn Writer> {
        Arc::new(WatchedWriter { writer: self.log.writer(), watch: Arc::clone(&self.watch) })
    }
}

struct WatchedWriter {
    writer: Arc<dyn Writer>,
    watch: Arc<Watch>,
}

impl Writer for WatchedWriter {
    fn append(&self, entry: Entry) -> PendingAppend {
        assert_eq!(entry.topic, Topic::Updates);
        let update: Value = serde_json::from_slice(entry.value.as_ref().unwrap()).unwrap();
        // A look asks for all messages, so a few are enough.
        if update["message_id"].as_str().is_some_and(|id| id.ends_with("500")) {
            self.watch.look();
        }
        self.writer.append(entry)
    }

    fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
        self.writer.flush(timeout)
    }
}

#[test]
fn readers_are_let_in_between_slices_of_a_mark() {
    let mut harness = Harness::new(1);
    harness.settings.slice_messages = SLICE;
    // Pending updates soon take too much memory, and are published within the mark.
    harness.settings.memory_bytes = 0;
    harness.post(&json!({"type": "members.changed", "conversation_id": "g", "joined": ["a", "b"]}));
    let sent = |number: u64| {
        json!({"type": "message.sent", "conversation_id": "g", "message_id": format!("m{number}"), "sender_id": "a",
            "sent_at_ms": number, "need_read_receipt": true})
    };
    let append = |event: Value| harness.append(None, EPOCH_MS, b"default/g".to_vec(), event.to_string().into_bytes());
    let appended: Vec<_> = (0..MESSAGES).map(sent).map(append).collect();
    appended.into_iter().for_each(|outcome| _ = outcome.blocking_recv().unwrap().unwrap());
    let log = WatchedLog { log: Arc::clone(&harness.log), watch: Arc::default() };
    let sled = SledSettings { cache_bytes: 1 << 20, sync: false };
    let store = Arc::new(SledStore::open(harness.dir(), sled).unwrap());
    let settings = harness.settings.clone();
    let mut worker = Worker::inline(store, &log, "receipts.events", settings, Duration::from_secs(1)).unwrap();
    let folded = |worker: &Worker, end| worker.partitions().positions().next_offset(0) >= end;
    while !folded(&worker, 1 + MESSAGES) {
        worker.step().unwrap();
    }
    log.watch.partitions.set(worker.partitions().clone()).ok().unwrap();
    harness.post(&json!({"type": "conversation.read", "conversation_id": "g", "reader_id": "b",
        "up_to_message_id": format!("m{}", MESSAGES - 1)}));
    while !folded(&worker, 2 + MESSAGES) {
        worker.step().unwrap();
    }
    let seen = std::mem::take(&mut *log.watch.seen.lock());
    let (within, after): (Seen, Seen) = seen.into_iter().partition(|(position, _)| *position == 1 + MESSAGES);
    let mut reads: Vec<usize> = within.iter().map(|(_, read)| *read).collect();
    reads.dedup();
    assert!(reads.len() > 1 && reads.iter().all(|read| read % SLICE as usize == 0), "{reads:?}");
    assert!(reads.is_sorted() && reads[0] > 0 && *reads.last().unwrap() < MESSAGES as usize, "{reads:?}");
    assert!(!after.is_empty(), "the position moves when the whole mark is applied");
    assert!(after.iter().all(|seen| *seen == (2 + MESSAGES, MESSAGES as usize)), "{after:?}");
    worker.close(true).unwrap();
}
