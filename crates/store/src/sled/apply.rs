//! Applies committed batches to sled, one after the other. Decides neither the content of a batch
//! nor when one is due.

use super::journal::JournalFile;
use crate::batch::{Batch, Entry};
use crate::cow::SnapshotBarrier;
use crate::disk::{Disk, Map};
use crate::error::Error;
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};

/// The parts of a store that its owner, its thread and its partitions use.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    /// Whether a checkpoint waits for the disk, so that it survives a power loss.
    pub(super) sync: bool,
    /// The queue of a store without a thread: a caller that waits for a batch applies it.
    manual_queue: Option<Mutex<Receiver<Work>>>,
    /// The barriers of the partitions that were opened so far.
    barriers: Mutex<HashMap<u32, Arc<SnapshotBarrier>>>,
}

/// Work for the store's thread.
pub(super) enum Work {
    Apply(Job),
    /// Notifies the sender's receiver that all earlier work is done.
    Notify(Sender<()>),
    /// Ends the store's thread. A partition that is still open can commit nothing any more.
    End,
}

/// A batch to apply, with its journal.
pub(super) struct Job {
    pub(super) barrier: Arc<SnapshotBarrier>,
    pub(super) map: Arc<dyn Map>,
    pub(super) batch: Batch,
    pub(super) number: u64,
    pub(super) file: JournalFile,
    pub(super) progress: Arc<Progress>,
}

/// How far the batches of a partition are applied.
#[derive(Default)]
pub(super) struct Progress {
    /// The number of the last batch in sled.
    pub(super) applied: AtomicU64,
    /// Why a batch could not be applied; no later one is applied then.
    pub(super) failed: Mutex<Option<String>>,
    pub(super) changed: Condvar,
}

impl Drop for Job {
    /// A batch that was queued behind [`Work::End`] is never applied, and nobody may wait for it.
    fn drop(&mut self) {
        let mut failed = self.progress.failed.lock();
        if failed.is_none() && self.progress.applied.load(Ordering::Acquire) < self.number {
            *failed = Some("the store is closed".to_owned());
            self.progress.changed.notify_all();
        }
    }
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, sync: bool, manual_queue: Option<Mutex<Receiver<Work>>>) -> Self {
        Self { disk, sync, manual_queue, barriers: Mutex::default() }
    }

    pub(super) fn barrier(&self, partition: u32) -> Arc<SnapshotBarrier> {
        Arc::clone(self.barriers.lock().entry(partition).or_default())
    }

    /// Does the next work; returns false if there is none after it.
    pub(super) fn run(&self, work: Work) -> bool {
        match work {
            Work::Apply(job) => self.complete(&job),
            Work::Notify(done) => _ = done.send(()),
            Work::End => return false,
        }
        true
    }

    /// Runs the queued work of a store without a thread.
    pub(super) fn apply_queued(&self) {
        if let Some(queue) = &self.manual_queue {
            let queue = queue.lock();
            while let Ok(work) = queue.try_recv() {
                self.run(work);
            }
        }
    }

    /// Gives the journal of a batch its name, applies the batch, and removes the journal.
    fn complete(&self, job: &Job) {
        let path = self.disk.path(&job.file.journal);
        let done = self
            .name_journal(&job.file)
            .and_then(|()| self.apply(&job.barrier, &*job.map, &job.batch))
            .and_then(|()| self.disk.remove(&job.file.journal).map_err(Error::io(format!("removing {path}"))));
        // If this failed, the journal stays, and the next start applies it.
        let mut failed = job.progress.failed.lock();
        match done {
            Ok(()) => job.progress.applied.store(job.number, Ordering::Release),
            Err(e) => {
                tracing::error!(error = %e, journal = path, "a checkpoint could not be applied to the store");
                *failed = Some(e.to_string());
            }
        }
        job.progress.changed.notify_all();
    }

    /// Applies a batch entry by entry: sled's own batches would block all readers of the process,
    /// and the journal makes the entries atomic (INV-ATOMIC). In the order of the keys, so that
    /// neighbours on one of sled's B-tree nodes are written together.
    pub(super) fn apply(&self, barrier: &SnapshotBarrier, map: &dyn Map, batch: &Batch) -> Result<(), Error> {
        barrier.apply(|| {
            let mut entries: Vec<Entry<'_>> = batch.iter().collect();
            entries.sort_by_key(Entry::key);
            for entry in entries {
                match entry {
                    Entry::Write(key, value) => barrier.change(key, || map.insert(key, value))?,
                    Entry::Remove(key) => {
                        for key in map.keys(key)? {
                            barrier.change(&key, || map.remove(&key))?;
                        }
                    }
                }
            }
            map.flush(self.sync)
        })
    }
}
