//! Wraps the embedded log with faults on demand, and tests how the projector handles them.

use crate::harness::{Harness, eventually};
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

type Held = oneshot::Sender<Result<Location, AppendError>>;

/// The embedded log with faults.
pub(crate) struct Faulty {
    log: Arc<EmbeddedLog>,
    /// Reading the headers of the record whose value contains this text panics.
    panic_at: Option<&'static str>,
    /// Once true, the log cannot be read any further.
    ends: Arc<AtomicBool>,
    updates: Arc<UpdateFaults>,
}

/// The faults of appended updates.
#[derive(Default)]
pub(crate) struct UpdateFaults {
    /// The first update is not written. Its append stays open until a test sends on `held`.
    hold_first: bool,
    held: Mutex<Option<Held>>,
    fail_every: Option<u64>,
    seen: AtomicU64,
}

impl Faulty {
    pub(crate) fn new(harness: &Harness, updates: UpdateFaults) -> Self {
        Self { log: Arc::clone(&harness.log), panic_at: None, ends: Arc::default(), updates: Arc::new(updates) }
    }
}

impl UpdateFaults {
    /// Fails each `every`th append, alternately before and after it is written.
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
        let reader = self.log.reader(group, assignment)?;
        Ok(Box::new(FaultyReader { reader, panic_at: self.panic_at, ends: Arc::clone(&self.ends) }))
    }

    fn writer(&self) -> Arc<dyn Writer> {
        Arc::new(FaultyWriter { writer: self.log.writer(), faults: Arc::clone(&self.updates) })
    }
}

struct FaultyReader {
    reader: Box<dyn Reader>,
    panic_at: Option<&'static str>,
    ends: Arc<AtomicBool>,
}

struct Panics;

impl Headers for Panics {
    fn to_vec(&self) -> Vec<(String, Option<bytes::Bytes>)> {
        panic!("a fault of the test");
    }
}

impl Reader for FaultyReader {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if self.ends.load(Ordering::SeqCst) {
            return Err(ReadError::Stop("a fault of the test".into()));
        }
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
        let (outcome, appended) = oneshot::channel();
        if self.faults.hold_first && seen == 0 {
            *self.faults.held.lock() = Some(outcome);
            return appended;
        }
        match self.faults.fail_every {
            Some(every) if seen.is_multiple_of(2 * every) => {
                _ = outcome.send(Err(AppendError::NotWritten("a fault of the test".into())));
                appended
            }
            Some(every) if seen.is_multiple_of(every) => {
                let written = self.writer.append(entry);
                assert!(written.blocking_recv().unwrap().is_ok());
                _ = outcome.send(Err(AppendError::Unknown("a fault of the test".into())));
                appended
            }
            _ => self.writer.append(entry),
        }
    }

    fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
        self.writer.flush(timeout)
    }
}

/// INV-PREFIX: a read of a message that has not been sent yet is parked with its headers. Without
/// read-ahead, headers that panic do so in the middle of that record, when the state's next offset
/// is already past it.
#[test]
fn a_record_that_panics_is_folded_at_restart() {
    let harness = Harness::new(1);
    let faulty = harness_with_a_record_that_panics(&harness);
    let fold = AssertUnwindSafe(|| {
        let sled = SledSettings { cache_bytes: 1 << 20, sync: false };
        let store = Arc::new(SledStore::open(harness.dir(), sled).unwrap());
        let (settings, lag) = (harness.settings.clone(), Duration::from_secs(1));
        let mut worker = Worker::inline(store, &faulty, "receipts.events", settings, lag).unwrap();
        while worker.step().is_ok() {}
    });
    assert!(catch_unwind(fold).is_err());
    assert_folded_at_restart(&harness);
}

/// With read-ahead, the reader thread copies headers, and its panic stops the projector.
#[test]
fn a_panic_of_the_reader_thread_stops_the_projector() {
    let harness = Harness::new(1);
    let faulty = harness_with_a_record_that_panics(&harness);
    assert!(matches!(harness.start_over(&faulty).stopped(), ProjectError::Panicked));
    assert_folded_at_restart(&harness);
}

fn harness_with_a_record_that_panics(harness: &Harness) -> Faulty {
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    harness.post(&json!({"type": "message.read", "conversation_id": "g1", "reader_id": "b", "message_ids": ["early"]}));
    Faulty { panic_at: Some("early"), ..Faulty::new(harness, UpdateFaults::default()) }
}

fn assert_folded_at_restart(harness: &Harness) {
    harness.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "early", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    let running = harness.start();
    running.folded();
    assert_eq!(running.receipt("g1", "early").counts.unwrap().read_count, 1);
    running.stop().unwrap();
}

/// INV-SAME-LOG: the log may be another one by now, so no worker saves what was folded since the
/// last checkpoint, whichever of them learns of it first.
#[test]
fn failed_log_leaves_the_store_as_last_checkpointed() {
    for _ in 0..20 {
        let harness = Harness::new(4);
        let faulty = Faulty::new(&harness, UpdateFaults::default());
        let joined = |id| json!({"type": "members.changed", "conversation_id": id, "joined": ["a", "b"]});
        (0..12).for_each(|number| harness.post(&joined(format!("g{number}"))));
        let running = harness.start_over(&faulty);
        running.folded();
        faulty.ends.store(true, Ordering::SeqCst);
        assert!(matches!(running.stopped(), ProjectError::Log(ReadError::Stop(_))));
        assert!(!SledStore::has_state(harness.dir()).unwrap(), "nothing is saved");
    }
}

/// INV-UPDATE-LAST: an update that the log refuses late is rendered again, because a newer one may
/// have been written since.
#[test]
fn a_failed_update_is_rendered_again() {
    let harness = Harness::new(1);
    let faulty = Faulty::new(&harness, UpdateFaults { hold_first: true, ..UpdateFaults::default() });
    let held = || faulty.updates.held.lock();
    let running = harness.start_over(&faulty);
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": ["a", "b"]}));
    harness.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "a",
        "sent_at_ms": 1, "need_read_receipt": true}));
    eventually("the first update is held", || held().is_some());
    harness.post(&json!({"type": "message.read", "conversation_id": "g1", "reader_id": "b", "message_ids": ["m1"]}));
    eventually("the second update is written", || harness.updates().len() == 1);
    let outcome = held().take().unwrap();
    outcome.send(Err(AppendError::NotWritten("a fault of the test".into()))).unwrap();
    eventually("the first update is rendered again and written", || harness.updates().len() == 2);
    running.stop().unwrap();
    let updates = harness.updates();
    let reads: Vec<_> = updates.iter().map(|update| update["read_count"].as_u64().unwrap()).collect();
    assert_eq!(reads, [1, 1], "the last one is the state");
}
