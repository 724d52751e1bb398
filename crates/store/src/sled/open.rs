//! Opens the store of a directory and its partitions, and closes it again. Folds nothing and
//! commits nothing.

use super::apply::{Shared, Work};
use super::backend::SledBackend;
use super::disk::SledDisk;
use super::refill::restore_marker;
use crate::batch::Batch;
use crate::disk::{Disk, Map};
use crate::error::Error;
use crate::memory::MemoryDisk;
use parking_lot::Mutex;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The size of sled's cache while [`SledStore::write_sled_snapshot`] runs, bytes. It reads hardly
/// any value.
const SLED_SNAPSHOT_CACHE_BYTES: u64 = 8 << 20;

/// A store of all partitions of a process.
pub struct SledStore {
    pub(super) shared: Arc<Shared>,
    queue: Option<Sender<Work>>,
    applier: Option<JoinHandle<()>>,
}

/// The settings of a store.
#[derive(Debug, Clone, Copy)]
pub struct SledSettings {
    /// Memory for sled's own cache, bytes.
    pub cache_bytes: u64,
    /// Whether a checkpoint waits for the disk, so that it survives a power loss.
    pub sync: bool,
}

impl SledStore {
    /// Opens or creates the store of a directory. Moves a store that cannot be read to `damaged-N`:
    /// its partitions then start empty, to be rebuilt from the log.
    ///
    /// # Errors
    /// If the directory cannot be used, or another process has the store open.
    pub fn open(dir: &Path, settings: SledSettings) -> Result<Self, Error> {
        match Self::open_strict(dir, settings) {
            Err(e) if e.is_corruption() => {
                let aside = set_aside(dir)?;
                tracing::error!(
                    error = %e,
                    aside = %aside.display(),
                    "the store cannot be read; it was set aside and is rebuilt from the log"
                );
                Self::open_strict(dir, settings)
            }
            other => other,
        }
    }

    /// Opens or creates the store of a directory, and leaves a store that cannot be read where it
    /// is.
    ///
    /// # Errors
    /// As [`Self::open`], and where the store cannot be read.
    pub fn open_strict(dir: &Path, settings: SledSettings) -> Result<Self, Error> {
        Self::with_thread(Arc::new(SledDisk::open(dir, settings)?), settings.sync)
    }

    /// Opens an empty store in memory. It ends with the process and writes no file.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn in_memory() -> Result<Self, Error> {
        Self::with_thread(Arc::new(MemoryDisk::default()), false)
    }

    fn with_thread(disk: Arc<dyn Disk>, sync: bool) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(disk, sync, None));
        let (queue, work) = channel::<Work>();
        let own = Arc::clone(&shared);
        let applier = std::thread::Builder::new()
            .name("store-apply".into())
            .spawn(move || _ = work.into_iter().all(|work| own.run(work)))
            .map_err(Error::io("starting the store's thread"))?;
        Ok(Self { shared, queue: Some(queue), applier: Some(applier) })
    }

    /// Lets sled write a snapshot of its page table, which it does only while it opens. The next
    /// start then need not read everything that was written before. Takes as long as such a read.
    /// No process may have the store open.
    ///
    /// # Errors
    /// As [`Self::open_strict`].
    pub fn write_sled_snapshot(dir: &Path) -> Result<(), Error> {
        SledDisk::open(dir, SledSettings { cache_bytes: SLED_SNAPSHOT_CACHE_BYTES, sync: false }).map(drop)
    }

    /// Tells whether the store of a directory holds anything that was folded. No process may have
    /// the store open. Creates nothing where there is no store.
    ///
    /// # Errors
    /// As [`Self::open_strict`].
    pub fn has_state(dir: &Path) -> Result<bool, Error> {
        if !dir.join("sled").is_dir() {
            return Ok(false);
        }
        SledDisk::open(dir, SledSettings { cache_bytes: SLED_SNAPSHOT_CACHE_BYTES, sync: false })?.has_state()
    }

    /// Opens a store on another disk and without a thread, for simulations. A batch is applied once
    /// a caller waits for it or calls [`Self::apply_queued`].
    pub fn with_disk(disk: Arc<dyn Disk>, sync: bool) -> Self {
        let (queue, work) = channel::<Work>();
        let shared = Arc::new(Shared::new(disk, sync, Some(Mutex::new(work))));
        Self { shared, queue: Some(queue), applier: None }
    }

    /// Applies the queued batches of a store without a thread.
    pub fn apply_queued(&self) {
        self.shared.apply_queued();
    }

    /// Opens a partition. First applies its leftover journals.
    ///
    /// # Errors
    /// If the store fails or is damaged.
    pub fn partition(&self, partition: u32) -> Result<SledBackend, Error> {
        let shared = &self.shared;
        if shared.has_file(&restore_marker(partition))? {
            return Err(Error::corrupt(
                format!("partition {partition}"),
                "holds a part of a snapshot: its restore was cut short",
            ));
        }
        self.wait_for_queue();
        let map: Arc<dyn Map> = shared.disk.map(partition)?.into();
        let barrier = shared.barrier(partition);
        let journals = shared.journals(partition)?;
        if shared.sync && !journals.is_empty() {
            // The process that named a journal may have died or failed before it synced the name.
            // If that name were lost with the power while the journal is applied, a part of it
            // would be left in sled.
            shared.sync_names()?;
        }
        for (number, journal) in journals {
            let path = shared.disk.path(&journal);
            let bytes = shared.disk.read(&journal).map_err(Error::io(format!("reading {path}")))?;
            let Some(batch) = Batch::parse(bytes, partition)? else {
                // A file of this name was complete once, so sled may hold some of its values.
                return Err(Error::corrupt(format!("the journal {path}"), "fails its checksum"));
            };
            let next_offset = batch.next_offset();
            tracing::info!(partition, number, next_offset, "applying the journal of a checkpoint");
            shared.apply(&barrier, &*map, &batch)?;
            shared.disk.remove(&journal).map_err(Error::io(format!("removing {path}")))?;
        }
        barrier.mark_consistent();
        let queue = self.queue.clone().expect("the store is open");
        Ok(SledBackend::new(barrier, Arc::clone(shared), map, partition, queue))
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.disk.bytes()
    }

    /// Waits until every batch that was queued so far is applied or has failed: earlier owners of a
    /// partition may have left some.
    pub(super) fn wait_for_queue(&self) {
        let (done, wait) = channel();
        if self.queue.as_ref().is_some_and(|queue| queue.send(Work::Notify(done)).is_ok()) {
            self.shared.apply_queued();
            _ = wait.recv();
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // An open partition keeps the queue open too, so the thread is told to end.
        if let (Some(queue), Some(applier)) = (self.queue.take(), self.applier.take()) {
            _ = queue.send(Work::End);
            _ = applier.join();
        }
    }
}

fn set_aside(dir: &Path) -> Result<PathBuf, Error> {
    let aside = (1..).map(|n| dir.join(format!("damaged-{n}"))).find(|p| !p.exists()).expect("numbers go on");
    fs::create_dir(&aside).map_err(Error::io(format!("creating {}", aside.display())))?;
    for entry in fs::read_dir(dir).map_err(Error::io(format!("listing {}", dir.display())))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "sled" || name.ends_with(".journal") {
            fs::rename(entry.path(), aside.join(&*name))
                .map_err(Error::io(format!("moving {}", entry.path().display())))?;
        }
    }
    Ok(aside)
}
