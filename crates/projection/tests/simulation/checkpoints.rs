//! Checkpoints that must wait: for a dead letter that the log refuses, and for a descriptor. The
//! process lives, other partitions are checkpointed, and records are folded. Counts steps, not
//! time.

use crate::disk::{Faults, SimDisk};
use crate::log::SimLog;
use receipts_event::{decode, partition_of};
use receipts_fold::Limits;
use receipts_log::OwnedRecord;
use receipts_projection::{PRE_ENCODE_BYTES, SLICE_MESSAGES, Settings, Worker};
use receipts_store::SledStore;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const PARTITIONS: u32 = 2;
const STEPS: usize = 50;

/// A projector of all partitions, which checkpoints after each record.
struct Scene {
    log: SimLog,
    disk: SimDisk,
    running: Option<(Arc<SledStore>, Worker)>,
    /// A conversation of each partition.
    conversations: Vec<String>,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (log, disk, dir) = (SimLog::new(1, PARTITIONS as usize), SimDisk::new(2), tempfile::tempdir().unwrap());
        log.0.lock().wanted = vec![Some(0); PARTITIONS as usize];
        let of = |partition| {
            let mut names = (0..).map(|number| format!("g{number}"));
            names.find(|name| partition_of(format!("default/{name}").as_bytes(), PARTITIONS) == partition).unwrap()
        };
        let conversations = (0..PARTITIONS).map(of).collect();
        let mut scene = Self { log, disk, running: None, conversations, dir };
        scene.start();
        scene
    }

    fn start(&mut self) {
        let store = Arc::new(SledStore::with_disk(Arc::new(self.disk.clone()), true));
        let settings = Settings {
            dir: Some(self.dir.path().to_owned()),
            group: "0".into(),
            limits: Limits::default(),
            fold_threads: 1,
            memory_bytes: 64 << 20,
            checkpoint_records: 1,
            checkpoint_interval: Duration::from_secs(3_600),
            pre_encode_bytes: PRE_ENCODE_BYTES,
            slice_messages: SLICE_MESSAGES,
            sync: true,
            publish: true,
            publish_updates: true,
            update_window: Duration::ZERO,
            publish_timeout: Duration::ZERO,
            stop_timeout: Duration::ZERO,
            append_retry_max: Duration::ZERO,
            answer_while_behind: true,
            stale_max: Duration::from_secs(3_600),
            candidates_max: 100,
            now_ms: || receipts_testkit::history::EPOCH_MS,
            snapshots: None,
        };
        let worker = Worker::inline(Arc::clone(&store), &self.log, "receipts.events", settings, Duration::MAX).unwrap();
        self.running = Some((store, worker));
    }

    fn append(&self, partition: u32, value: Vec<u8>) {
        let key = format!("default/{}", self.conversations[partition as usize]);
        let held = &mut self.log.0.lock().partitions[partition as usize];
        let (offset, timestamp_ms) = (held.end(), receipts_testkit::history::EPOCH_MS);
        let (key, value) = (Some(key.into()), Some(value.into()));
        held.records.push(OwnedRecord { partition, offset, timestamp_ms, key, value, headers: Vec::new() });
    }

    fn post(&self, partition: u32, mut event: Value) {
        event["conversation_id"] = json!(self.conversations[partition as usize]);
        let value = event.to_string().into_bytes();
        assert!(decode(&value).is_ok());
        self.append(partition, value);
    }

    fn join(&self, partition: u32) {
        self.post(partition, json!({"type": "members.changed", "joined": ["a", "b"]}));
    }

    fn step(&mut self) {
        for _ in 0..STEPS {
            let (store, worker) = self.running.as_mut().unwrap();
            worker.step().expect("the projector lives");
            store.apply_queued();
        }
    }

    /// Returns how far each partition is folded, and how far its checkpoints reach.
    fn offsets(&self) -> Vec<(u64, u64)> {
        let positions = self.running.as_ref().unwrap().1.partitions().positions();
        let committed = self.log.0.lock().committed.clone();
        (0..PARTITIONS).zip(committed).map(|(number, [durable, _])| (positions.next_offset(number), durable)).collect()
    }

    fn stop(&mut self) {
        self.running.take().unwrap().1.close(true).expect("closes");
        self.disk.close();
        self.log.forget(0);
    }
}

/// INV-DEADLETTER
#[test]
fn refused_dead_letter_holds_up_only_its_partition() {
    let mut scene = Scene::new();
    scene.log.0.lock().refused_partition = Some(0);
    (0..PARTITIONS).for_each(|partition| scene.join(partition));
    (0..PARTITIONS).for_each(|partition| scene.append(partition, b"not JSON".to_vec()));
    scene.step();
    assert_eq!(scene.offsets(), [(2, 0), (2, 2)], "both are folded, and one is checkpointed");
    (0..PARTITIONS).for_each(|partition| scene.join(partition));
    scene.step();
    assert_eq!(scene.offsets(), [(3, 0), (3, 3)], "the fold goes on");
    scene.log.0.lock().refused_partition = None;
    scene.step();
    assert_eq!(scene.offsets(), [(3, 3), (3, 3)], "the letter was sent again");
    assert_eq!(scene.log.0.lock().dead_letters.len(), PARTITIONS as usize, "each once");
    scene.stop();
}

#[test]
fn stop_leaves_only_partitions_with_refused_letters() {
    let mut scene = Scene::new();
    scene.log.0.lock().refused_partition = Some(0);
    (0..PARTITIONS).for_each(|partition| scene.append(partition, b"not JSON".to_vec()));
    scene.step();
    scene.stop();
    scene.log.0.lock().refused_partition = None;
    assert_eq!(scene.log.0.lock().dead_letters.len(), 1);
    scene.start();
    scene.step();
    assert_eq!(scene.log.0.lock().dead_letters.len(), 2, "the next start sends the other letter, and none twice");
    scene.stop();
}

#[test]
fn checkpoint_without_descriptors_is_put_off() {
    let mut scene = Scene::new();
    scene.join(0);
    scene.step();
    assert_eq!(scene.offsets()[0], (1, 1));
    scene.disk.set(Faults { no_descriptors: true, ..Faults::default() });
    scene.join(0);
    scene.step();
    assert_eq!(scene.offsets()[0], (2, 1), "it is folded and not checkpointed");
    scene.disk.set(Faults::default());
    scene.step();
    assert_eq!(scene.offsets()[0], (2, 2));
    scene.stop();
}
