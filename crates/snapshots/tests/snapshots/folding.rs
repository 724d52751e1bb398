//! A random history folded into a store on disk, and snapshots of it. Asserts nothing.

use receipts_event::Event;
use receipts_fold::effects::Effects;
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_snapshots::{Requirements, SnapshotReport, Snapshots};
use receipts_store::snapshot::{PendingSnapshot, Provenance, Summary};
use receipts_store::{Backend as _, Paged, SledBackend, SledSettings, SledStore, trim};
use receipts_testkit::history::{History, Shape};
use std::ops::Range;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const LOG: &str = "the log of the tests";
pub(crate) const LIMITS: Limits = Limits {
    retention_ms: 30 * 86_400_000,
    parked_max: 20,
    parked_bytes: 1 << 20,
    parked_age_ms: 60_000,
    read_times: true,
    unwrap: receipts_event::Unwrap::None,
    erasures_max: 1_000,
    policy_types_max: 1_000,
};
const MEMORY_BYTES: usize = 1 << 20;

pub(crate) type Made = Vec<(receipts_testkit::At, Event<'static>)>;

pub(crate) fn history(seed: u64, events: usize) -> Made {
    History::generate(seed, &Shape { events, conversations: 40, p_large_group: 0.1, ..Shape::wild() })
}

/// A store with one partition. The fields drop the state before its store.
pub(crate) struct Folding {
    pub(crate) state: State<Paged<SledBackend>>,
    pub(crate) store: SledStore,
    pub(crate) dir: TempDir,
}

pub(crate) fn store_in(dir: &Path) -> SledStore {
    SledStore::open(dir, SledSettings { cache_bytes: 8 << 20, sync: false }).unwrap()
}

impl Folding {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store_in(dir.path());
        Self::over(store, dir)
    }

    /// Opens the state of a store.
    pub(crate) fn over(store: SledStore, dir: TempDir) -> Self {
        let pages = Paged::new(store.partition(0).unwrap(), 0, MEMORY_BYTES);
        Self { state: State::open(pages, LIMITS).unwrap(), store, dir }
    }

    /// Folds records, with a checkpoint after every `checkpoint_every` of them and one at the end.
    pub(crate) fn fold(&mut self, made: &Made, records: Range<usize>, checkpoint_every: usize) {
        let mut effects = Effects::default();
        for (number, (at, event)) in made[records].iter().enumerate() {
            let at = RecordMetadata { partition: at.partition, offset: at.offset, timestamp_ms: at.timestamp_ms };
            let (key, value) = (event.key(), event.to_json());
            let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
            self.state.apply(at, event, raw, &mut effects).unwrap();
            effects.clear();
            if (number + 1).is_multiple_of(checkpoint_every) {
                self.checkpoint();
            }
        }
        self.checkpoint();
    }

    fn checkpoint(&mut self) {
        self.state.write_meta();
        let batch = self.state.pages().batch(self.state.next_offset());
        let saved = self.state.pages().backend().commit(batch).unwrap();
        self.state.pages_mut().mark_saved(saved);
        trim(&mut self.state);
    }

    /// Returns a snapshot of the store as bytes.
    pub(crate) fn snapshot(&self) -> (Vec<u8>, Summary) {
        self.state.pages().backend().wait().unwrap();
        let taking =
            PendingSnapshot::begin(&self.state.pages().backend().snapshot_source(), provenance()).unwrap().unwrap();
        let (bytes, summary, length) = taking.write(Vec::new(), |_| Ok(())).unwrap();
        assert_eq!(bytes.len() as u64, length);
        (bytes, summary)
    }

    /// Uploads a snapshot of the store to a destination.
    pub(crate) fn send(&self, snapshots: &Snapshots) -> SnapshotReport {
        self.state.pages().backend().wait().unwrap();
        let taking =
            PendingSnapshot::begin(&self.state.pages().backend().snapshot_source(), provenance()).unwrap().unwrap();
        snapshots.take(taking, &self.dir.path().join("spool"), &()).unwrap()
    }
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        log: LOG.into(),
        partition: 0,
        partition_count: 1,
        limits: LIMITS,
        taken_ms: 7,
        program: "a test".into(),
    }
}

pub(crate) fn wanted(next_offset: std::ops::RangeInclusive<u64>) -> Requirements {
    Requirements { partition: 0, partition_count: Some(1), limits: Some(LIMITS), next_offset }
}
