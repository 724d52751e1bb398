//! One partition of the store: reads values, and commits batches. Applies no batch itself.

use super::apply::{Job, Progress, Shared, Work};
use super::journal::JournalFile;
use crate::backend::Backend;
use crate::batch::Batch;
use crate::cow::{SnapshotBarrier, SnapshotSource};
use crate::disk::{Map, Value};
use crate::error::Error;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

/// The values of one partition on disk.
pub struct SledBackend {
    barrier: Arc<SnapshotBarrier>,
    shared: Arc<Shared>,
    map: Arc<dyn Map>,
    partition: u32,
    queue: Mutex<Sender<Work>>,
    /// The number of the next batch.
    next: AtomicU64,
    progress: Arc<Progress>,
}

impl SledBackend {
    pub(super) fn new(
        barrier: Arc<SnapshotBarrier>,
        shared: Arc<Shared>,
        map: Arc<dyn Map>,
        partition: u32,
        queue: Sender<Work>,
    ) -> Self {
        let (queue, next, progress) = (Mutex::new(queue), AtomicU64::new(1), Arc::default());
        Self { barrier, shared, map, partition, queue, next, progress }
    }

    /// Returns the source of snapshots of the partition. Batches go on while one is taken.
    pub fn snapshot_source(&self) -> SnapshotSource {
        SnapshotSource { barrier: Arc::clone(&self.barrier), map: Arc::clone(&self.map) }
    }

    /// Waits until all batches so far are in sled.
    ///
    /// # Errors
    /// If one of them failed.
    pub fn wait(&self) -> Result<(), Error> {
        self.shared.apply_queued();
        let last = self.next.load(Ordering::Acquire) - 1;
        let mut failed = self.progress.failed.lock();
        loop {
            if let Some(e) = &*failed {
                return Err(cannot_apply(e.clone()));
            }
            if self.progress.applied.load(Ordering::Acquire) >= last {
                return Ok(());
            }
            self.progress.changed.wait(&mut failed);
        }
    }
}

impl Backend for SledBackend {
    type Value = Value;

    fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.map.get(key)
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.map.keys(prefix)
    }

    /// Waits for the previous batch, so that at most one is on its way into sled. The caller waits
    /// meanwhile, and with it the fold.
    fn commit(&self, batch: Batch) -> Result<u64, Error> {
        self.wait()?;
        let number = self.next.load(Ordering::Acquire);
        let disk = &*self.shared.disk;
        let file = JournalFile::new(self.partition, number);
        disk.write(&file.part, batch.bytes())
            .inspect_err(|_| _ = disk.remove(&file.part))
            .map_err(Error::io(format!("writing {}", disk.path(&file.part))))?;
        self.next.store(number + 1, Ordering::Release);
        let (barrier, map, progress) = (Arc::clone(&self.barrier), Arc::clone(&self.map), Arc::clone(&self.progress));
        let job = Job { barrier, map, batch, number, file, progress };
        if self.queue.lock().send(Work::Apply(job)).is_err() {
            return Err(cannot_apply("the store is closed".into()));
        }
        Ok(number)
    }

    fn applied(&self) -> u64 {
        self.progress.applied.load(Ordering::Acquire)
    }
}

fn cannot_apply(why: String) -> Error {
    Error::Io { doing: "applying a checkpoint".into(), source: std::io::Error::other(why) }
}
