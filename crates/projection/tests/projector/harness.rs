//! The harness of these tests: a log and a store in a directory, a projector over them, and helpers
//! to post, to wait and to query. Asserts only time limits.

use bytes::Bytes;
use receipts_cluster::SnapshotControl;
use receipts_event::decode;
use receipts_fold::Limits;
use receipts_fold::view::Receipt;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Inspect, Log, OwnedRecord, PendingAppend, Topic};
use receipts_projection::{APPEND_RETRY_MAX, PRE_ENCODE_BYTES, ProjectError, Projector, SLICE_MESSAGES, Settings};
use receipts_query::{Answers, Conversation, Positions, Unavailable};
use serde_json::Value;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than any wait here takes, even on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Record and send times start here, Unix milliseconds.
pub(crate) const EPOCH_MS: u64 = 1_780_000_000_000;

pub(crate) struct Harness {
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) settings: Settings,
    _dir: TempDir,
}

impl Harness {
    pub(crate) fn new(partitions: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(partitions)).unwrap();
        let settings = Settings {
            dir: Some(dir.path().join("store")),
            group: "g".into(),
            limits: Limits::default(),
            fold_threads: 3,
            memory_bytes: 64 << 20,
            checkpoint_records: 1 << 20,
            pre_encode_bytes: PRE_ENCODE_BYTES,
            slice_messages: SLICE_MESSAGES,
            checkpoint_interval: Duration::from_secs(3_600),
            sync: false,
            publish: true,
            answer_while_behind: true,
            candidates_max: 100,
            stale_max: Duration::from_secs(3_600),
            publish_updates: true,
            update_window: Duration::ZERO,
            publish_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(30),
            append_retry_max: APPEND_RETRY_MAX,
            now_ms: || EPOCH_MS,
            snapshots: None,
        };
        Self { log: Arc::new(log), settings, _dir: dir }
    }

    /// The directory of the store.
    pub(crate) fn dir(&self) -> &Path {
        self.settings.dir.as_deref().expect("the store is on the disk")
    }

    /// Writes an event into its partition; a control event names its own.
    pub(crate) fn post(&self, event: &Value) {
        self.post_at(EPOCH_MS, event);
    }

    pub(crate) fn post_at(&self, timestamp_ms: u64, event: &Value) {
        let value = serde_json::to_vec(event).unwrap();
        let event = decode(&value).expect("an event");
        let appended = self.append(event.partition(), timestamp_ms, event.key(), value.clone());
        appended.blocking_recv().unwrap().unwrap();
    }

    pub(crate) fn append(
        &self,
        partition: Option<u32>,
        timestamp_ms: u64,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> PendingAppend {
        let entry = Entry {
            topic: Topic::Events,
            partition,
            key: Some(key.into()),
            value: Some(Bytes::from(value)),
            headers: vec![("trace".into(), Some("t1".into()))],
            timestamp_ms: Some(timestamp_ms),
        };
        self.log.writer().append(entry)
    }

    /// Starts a projector over the harness's log.
    pub(crate) fn start(&self) -> Running {
        self.start_over(&*self.log)
    }

    pub(crate) fn start_over(&self, log: &dyn Log) -> Running {
        let projector =
            Projector::start(log, "receipts.events", self.settings.clone(), Duration::from_secs(1)).unwrap();
        Running { projector, log: Arc::clone(&self.log) }
    }

    /// Returns all records of a topic, in order within each partition.
    pub(crate) fn records(&self, topic: Topic) -> Vec<OwnedRecord> {
        (0..self.log.partition_count()).flat_map(|p| self.log.read(topic, p, 0, usize::MAX).unwrap()).collect()
    }

    /// Returns all updates published so far, in order within each conversation.
    pub(crate) fn updates(&self) -> Vec<Value> {
        let values = self.records(Topic::Updates).into_iter().map(|record| record.value.unwrap());
        values.map(|value| serde_json::from_slice(&value).unwrap()).collect()
    }
}

pub(crate) struct Running {
    projector: Projector,
    log: Arc<EmbeddedLog>,
}

impl Running {
    pub(crate) fn answers(&self) -> &dyn Answers {
        self.projector.partitions()
    }

    /// Waits until the whole log is folded; returns false if the projector stops by itself first.
    pub(crate) fn try_folded(&self) -> bool {
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let end = self.log.bounds(Topic::Events, 0).unwrap().end;
            if now(self.answers().wait(&Positions::applied(0, end), Duration::from_millis(200))).is_ok() {
                return true;
            }
            if self.projector.is_stopped() {
                return false;
            }
            assert!(Instant::now() < deadline, "neither folded nor stopped in time");
        }
    }

    /// Waits until the whole log is folded.
    pub(crate) fn folded(&self) {
        let mut end = Positions::default();
        for partition in 0..self.log.partition_count() {
            let bounds = self.log.bounds(Topic::Events, partition).unwrap();
            if !bounds.is_empty() {
                end.raise(partition, bounds.end);
            }
        }
        now(self.answers().wait(&end, TIME_LIMIT)).expect("folded in time");
    }

    pub(crate) fn try_receipt(&self, conversation_id: &str, message_id: &str) -> Result<Receipt, Unavailable> {
        let conversation = Conversation::locate("default", conversation_id, self.log.partition_count());
        let answer = now(self.answers().receipts(conversation, None, &[message_id.to_owned()]))?;
        Ok(answer.value.into_iter().next().unwrap())
    }

    pub(crate) fn receipt(&self, conversation_id: &str, message_id: &str) -> Receipt {
        self.try_receipt(conversation_id, message_id).unwrap()
    }

    pub(crate) fn snapshots(&self) -> Option<Arc<dyn SnapshotControl>> {
        self.projector.snapshots()
    }

    pub(crate) fn stop(self) -> Result<(), ProjectError> {
        self.projector.stop()
    }

    /// Waits until the projector stops by itself; returns the reason.
    pub(crate) fn stopped(mut self) -> ProjectError {
        now(async { tokio::time::timeout(TIME_LIMIT, self.projector.stopped()).await }).expect("stops in time");
        self.projector.stop().expect_err("a reason")
    }
}

/// Runs a future to completion.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
