//! A log that misbehaves as told, around the embedded one, and what the projector makes of it.

use crate::bench::{Bench, eventually};
use parking_lot::Mutex;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{
    AppendError, Assignment, Entry, Headers, Location, Log, PendingAppend, Polled, ReadError, Reader, Record, Topic,
    Writer,
};
use receipts_projection::{ProjectError, Worker};
use receipts_store::{SledSettings, SledStore};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

type Held = oneshot::Sender<Result<Location, AppendError>>;

/// The embedded log with faults.
pub(crate) struct Faulty {
    log: Arc<EmbeddedLog>,
    /// The record with these bytes in its value has headers that panic.
    panic_at: Option<&'static str>,
    updates: Arc<UpdateFaults>,
}

/// What happens to updates.
#[derive(Default)]
pub(crate) struct UpdateFaults {
    /// The first one is not written, and that is told only when the sender is taken from here.
    hold_first: bool,
    held: Mutex<Option<Held>>,
    fail_every: Option<u64>,
    seen: AtomicU64,
}

impl Faulty {
    pub(crate) fn new(bench: &Bench, updates: UpdateFaults) -> Self {
        Self { log: Arc::clone(&bench.log), panic_at: None, updates: Arc::new(updates) }
    }
}

impl UpdateFaults {
    /// Every so many fail, by turns before and after they are written.
    pub(crate) fn fail_every(every: u64) -> Self {
        Self { fail_every: Some(every), ..Self::default() }
    }
}

#[async_trait::async_trait]
impl Log for Faulty {
    fn partition_count(&self) -> u32 {
        self.log.partition_count()
    }

    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(FaultyReader { reader: self.log.reader(group, assignment)?, panic_at: self.panic_at }))
    }

    fn writer(&self) -> Arc<dyn Writer> {
        Arc::new(FaultyWriter { writer: self.log.writer(), faults: Arc::clone(&self.updates) })
    }
}

struct FaultyReader {
    reader: Box<dyn Reader>,
    panic_at: Option<&'static str>,
}

struct Panics;

impl Headers for Panics {
    fn to_vec(&self) -> Vec<(String, Option<bytes::Bytes>)> {
        panic!("as the test wants it");
    }
}

impl Reader for FaultyReader {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        let panic_at = self.panic_at;
        let panics = |record: &Record<'_>| {
            panic_at.is_some_and(|at| String::from_utf8_lossy(record.value.unwrap()).contains(at))
        };
        self.reader.poll(max, timeout, &mut |polled| match polled {
            Polled::Records(records) => {
                let headers = |record| if panics(record) { &Panics } else { record.headers };
                let with_faults = records.iter().map(|record| Record { headers: headers(record), ..*record });
                each(Polled::Records(&with_faults.collect::<Vec<_>>()));
            }
            polled => each(polled),
        })
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        self.reader.commit(partition, next_offset);
    }
}

struct FaultyWriter {
    writer: Arc<dyn Writer>,
    faults: Arc<UpdateFaults>,
}

impl Writer for FaultyWriter {
    fn append(&self, entry: Entry) -> PendingAppend {
        if entry.topic != Topic::Updates {
            return self.writer.append(entry);
        }
        let seen = self.faults.seen.fetch_add(1, Ordering::SeqCst);
        let (told, appended) = oneshot::channel();
        if self.faults.hold_first && seen == 0 {
            *self.faults.held.lock() = Some(told);
            return appended;
        }
        match self.faults.fail_every {
            Some(every) if seen.is_multiple_of(2 * every) => {
                _ = told.send(Err(AppendError::NotWritten("as the test wants it".into())));
                appended
            }
            Some(every) if seen.is_multiple_of(every) => {
                let written = self.writer.append(entry);
                assert!(written.blocking_recv().unwrap().is_ok());
                _ = told.send(Err(AppendError::Unknown("as the test wants it".into())));
                appended
            }
            _ => self.writer.append(entry),
        }
    }

    fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
        self.writer.flush(timeout)
    }
}

/// A read of a message that has not come is parked with its headers: where they panic, and no thread reads ahead, the fold
/// does in the middle of that record, when the next offset is already past it.
#[test]
fn a_record_that_panics_is_folded_again_by_the_next_start() {
    let bench = Bench::new(1);
    let faulty = bench_with_a_record_that_panics(&bench);
    let fold = AssertUnwindSafe(|| {
        let sled = SledSettings { cache_bytes: 1 << 20, sync: false };
        let store = Arc::new(SledStore::open(&bench.settings.dir, sled).unwrap());
        let (settings, lag) = (bench.settings.clone(), Duration::from_secs(1));
        let mut worker = Worker::inline(store, &faulty, "receipts.events", settings, lag).unwrap();
        while worker.step().is_ok() {}
    });
    assert!(catch_unwind(fold).is_err());
    must_be_folded_by_the_next_start(&bench);
}

/// Where a thread reads ahead, headers are copied there: its panic is the projector's.
#[test]
fn a_panic_of_the_thread_that_reads_stops_the_projector() {
    let bench = Bench::new(1);
    let faulty = bench_with_a_record_that_panics(&bench);
    assert!(matches!(bench.start_over(&faulty).stopped(), ProjectError::Panicked));
    must_be_folded_by_the_next_start(&bench);
}

fn bench_with_a_record_that_panics(bench: &Bench) -> Faulty {
    bench.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    bench.post(&json!({"type": "message.read", "conversation_id": "g1", "reader_id": "b", "message_ids": ["early"]}));
    Faulty { panic_at: Some("early"), ..Faulty::new(bench, UpdateFaults::default()) }
}

fn must_be_folded_by_the_next_start(bench: &Bench) {
    bench.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "early", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    let running = bench.start();
    running.folded();
    assert_eq!(running.receipt("g1", "early").counts.unwrap().read_count, 1);
    running.stop().unwrap();
}

/// INV-UPDATE-LAST: an update that the log refuses late is not sent as it was, behind a newer one.
#[test]
fn an_update_that_failed_is_rendered_anew() {
    let bench = Bench::new(1);
    let faulty = Faulty::new(&bench, UpdateFaults { hold_first: true, ..UpdateFaults::default() });
    let held = || faulty.updates.held.lock();
    let running = bench.start_over(&faulty);
    bench.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    bench.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    eventually("the first update is held", || held().is_some());
    bench.post(&json!({"type": "message.read", "conversation_id": "g1", "reader_id": "b", "message_ids": ["m1"]}));
    eventually("the second update is written", || bench.updates().len() == 1);
    let told = held().take().unwrap();
    told.send(Err(AppendError::NotWritten("as the test wants it".into()))).unwrap();
    eventually("the first update is written after all", || bench.updates().len() == 2);
    running.stop().unwrap();
    let updates = bench.updates();
    let reads: Vec<_> = updates.iter().map(|update| update["read_count"].as_u64().unwrap()).collect();
    assert_eq!(reads, [1, 1], "the last one is the state");
}
