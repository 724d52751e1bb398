//! The store on disk: sled, with a journal before it that makes a checkpoint of any size atomic.
//!
//! sled applies a batch atomically, but makes readers wait meanwhile and takes many times its size in memory. So a checkpoint is
//! one file first, complete or worthless; then its values go into sled one by one; then the file goes. A file found at the start is
//! applied again: its values are absolute, so twice is as good as once. Whoever commits only waits until the kernel has the
//! file: to sync it, which may take as long as the disk likes, and what comes after are the work of a thread of their own.

use crate::backend::Backend;
use crate::batch::{Batch, Entry};
use crate::disk::{Disk, Map, Value};
use crate::envelope::wrap;
use crate::error::Error;
use crate::image::{Gate, ImageSource};
use crate::sled_disk::SledDisk;
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// [`SledStore::note_places`] looks at next to no value.
const NOTING_CACHE_BYTES: u64 = 8 << 20;

/// A store of all partitions of a process.
pub struct SledStore {
    shared: Arc<Shared>,
    jobs: Option<Sender<Work>>,
    applier: Option<JoinHandle<()>>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    /// Whether a checkpoint waits for the disk itself, so that it survives the loss of power too.
    sync: bool,
    /// Batches that nobody's thread applies: whoever waits for them does.
    unattended: Option<Mutex<Receiver<Work>>>,
    /// By partition, opened so far.
    gates: Mutex<HashMap<u32, Arc<Gate>>>,
}

/// What the store's thread has to do.
enum Work {
    Apply(Job),
    /// To say that everything before is done.
    Say(Sender<()>),
}

struct Job {
    gate: Arc<Gate>,
    map: Arc<dyn Map>,
    batch: Batch,
    number: u64,
    /// The file as it was written, and its name once it counts.
    part: String,
    journal: String,
    progress: Arc<Progress>,
}

/// How far a partition's batches are applied.
#[derive(Default)]
struct Progress {
    applied: AtomicU64,
    failed: Mutex<Option<String>>,
    changed: Condvar,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct SledSettings {
    /// Memory for sled's own cache, bytes.
    pub cache_bytes: u64,
    /// Whether checkpoints wait for the disk.
    pub sync: bool,
}

impl SledStore {
    /// Opens or creates the store of a directory. A store that cannot be read is set aside as `damaged-N`: its
    /// partitions then start empty, to be rebuilt from the log.
    ///
    /// # Errors
    /// Where the directory cannot be used, or another process does.
    pub fn open(dir: &Path, settings: SledSettings) -> Result<Self, Error> {
        match Self::open_whole(dir, settings) {
            Err(e) if e.is_corruption() => {
                let aside = set_aside(dir)?;
                tracing::error!(error = %e, aside = %aside.display(), "the store cannot be read; it was set aside and is rebuilt from the log");
                Self::open_whole(dir, settings)
            }
            other => other,
        }
    }

    /// The same for who looks at a store and must not set it aside.
    ///
    /// # Errors
    /// As [`Self::open`], and where the store cannot be read.
    pub fn open_whole(dir: &Path, settings: SledSettings) -> Result<Self, Error> {
        let disk = Arc::new(SledDisk::open(dir, settings)?);
        let shared = Arc::new(Shared { disk, sync: settings.sync, unattended: None, gates: Mutex::default() });
        let (jobs, queue) = channel::<Work>();
        let own = Arc::clone(&shared);
        let applier = std::thread::Builder::new()
            .name("store-apply".into())
            .spawn(move || queue.into_iter().for_each(|work| own.run(work)))
            .map_err(Error::io("starting the store's thread"))?;
        Ok(Self { shared, jobs: Some(jobs), applier: Some(applier) })
    }

    /// Has sled note where the pages of a closed store stand, which it does only while it opens: whoever opens the store next
    /// does not have to read what was written before. Takes as long as that would.
    ///
    /// # Errors
    /// As [`Self::open_whole`].
    pub fn note_places(dir: &Path) -> Result<(), Error> {
        SledDisk::open(dir, SledSettings { cache_bytes: NOTING_CACHE_BYTES, sync: false }).map(drop)
    }

    /// A store over another disk, and without a thread: a batch is applied when somebody waits for it, or for
    /// [`Self::apply_queued`]. For simulations.
    pub fn over(disk: Arc<dyn Disk>, sync: bool) -> Self {
        let (jobs, queue) = channel::<Work>();
        let unattended = Some(Mutex::new(queue));
        let shared = Arc::new(Shared { disk, sync, unattended, gates: Mutex::default() });
        Self { shared, jobs: Some(jobs), applier: None }
    }

    /// Applies the batches that are queued, where no thread does.
    pub fn apply_queued(&self) {
        self.shared.apply_queued();
    }

    /// The values of a partition, with the journals of its last checkpoints applied.
    ///
    /// # Errors
    /// Where the store fails or is damaged.
    pub fn partition(&self, partition: u32) -> Result<SledBackend, Error> {
        let disk = &*self.shared.disk;
        if self.shared.is_there(&restoring(partition))? {
            return Err(Error::corrupt(
                format!("partition {partition}"),
                "holds a part of a snapshot: its restore was cut short",
            ));
        }
        self.finish();
        let map: Arc<dyn Map> = disk.map(partition)?.into();
        let gate = self.shared.gate(partition);
        let journals = self.shared.journals(partition)?;
        if self.shared.sync && !journals.is_empty() {
            // Whoever named it may have died, or failed, before the name was synced: lost with the power while it is applied, it
            // would leave a part of it in sled.
            self.shared.sync_names()?;
        }
        for (number, journal) in journals {
            let place = disk.place(&journal);
            let bytes = disk.read(&journal).map_err(Error::io(format!("reading {place}")))?;
            match Batch::parse(bytes, partition)? {
                Some(batch) => {
                    tracing::info!(
                        partition,
                        number,
                        next_offset = batch.next_offset(),
                        "applying the journal of a checkpoint"
                    );
                    self.shared.apply(&gate, &*map, &batch)?;
                }
                // Under this name it was whole once: sled may hold some of it.
                None => return Err(Error::corrupt(format!("the journal {place}"), "fails its checksum")),
            }
            disk.remove(&journal).map_err(Error::io(format!("removing {place}")))?;
        }
        gate.is_whole();
        let jobs = self.jobs.clone().expect("the store is open");
        Ok(SledBackend {
            gate,
            shared: Arc::clone(&self.shared),
            map,
            partition,
            jobs: Mutex::new(jobs),
            next: AtomicU64::new(1),
            progress: Arc::default(),
        })
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.disk.bytes()
    }

    /// Removes a partition's values, as for a rebuild from the log.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn drop_partition(&self, partition: u32) -> Result<(), Error> {
        self.empty(partition)?;
        // Last: until then what is left of a restore is known as such.
        self.shared.remove(&restoring(partition))
    }

    /// Waits for the batches of whoever had a partition before: what they have left is all there will be.
    fn finish(&self) {
        let (say, said) = channel();
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(Work::Say(say)).is_ok()) {
            self.shared.apply_queued();
            _ = said.recv();
        }
    }

    fn empty(&self, partition: u32) -> Result<(), Error> {
        self.finish();
        self.shared.gate(partition).gone();
        let disk = &*self.shared.disk;
        for journal in self.shared.journals(partition)?.into_values() {
            disk.remove(&journal).map_err(Error::io(format!("removing {}", disk.place(&journal))))?;
        }
        disk.drop_map(partition)
    }

    /// Fills a partition anew: `fill` hands over its pages, of a state after all records below `next_offset`, and has
    /// checked all of them once it returns. Until then, through the death of the process at any moment, the partition holds
    /// nothing that anybody would open.
    ///
    /// # Errors
    /// Those of `fill`, and where the store fails.
    pub fn refill<T>(
        &self,
        partition: u32,
        next_offset: u64,
        fill: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let disk = &*self.shared.disk;
        let marker = restoring(partition);
        disk.write(&marker, &[])
            .and_then(|()| disk.sync(&marker))
            .map_err(Error::io(format!("writing {}", disk.place(&marker))))?;
        self.shared.sync_names()?;
        self.empty(partition)?;
        let map = disk.map(partition)?;
        let filled = fill(&mut |key, payload| {
            let mut result = Ok(());
            wrap(key, next_offset, payload, |key, value| {
                if result.is_ok() {
                    result = map.fill(key, value);
                }
            });
            result
        })?;
        map.flush(self.shared.sync)?;
        self.shared.remove(&marker)?;
        self.shared.sync_names()?;
        Ok(filled)
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.jobs = None;
        // Partitions still open hold the queue open too: their owner drops them first.
        if let Some(applier) = self.applier.take() {
            _ = applier.join();
        }
    }
}

impl Shared {
    fn gate(&self, partition: u32) -> Arc<Gate> {
        Arc::clone(self.gates.lock().entry(partition).or_default())
    }

    fn sync_names(&self) -> Result<(), Error> {
        self.disk.sync_names().map_err(Error::io(format!("syncing {}", self.disk.place(""))))
    }

    fn is_there(&self, name: &str) -> Result<bool, Error> {
        let names = self.disk.list().map_err(Error::io(format!("listing {}", self.disk.place(""))))?;
        Ok(names.iter().any(|there| there == name))
    }

    /// Removes a file that may not be there.
    fn remove(&self, name: &str) -> Result<(), Error> {
        match self.disk.remove(name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", self.disk.place(name)))(e))
            }
            _ => Ok(()),
        }
    }

    fn run(&self, work: Work) {
        match work {
            Work::Apply(job) => self.complete(&job),
            Work::Say(to) => _ = to.send(()),
        }
    }

    /// Makes a batch count, and applies it.
    fn complete(&self, job: &Job) {
        let place = self.disk.place(&job.journal);
        let done = self
            .name_journal(job)
            .and_then(|()| self.apply(&job.gate, &*job.map, &job.batch))
            .and_then(|()| self.disk.remove(&job.journal).map_err(Error::io(format!("removing {place}"))));
        // The journal stays where this failed: the next start applies it.
        let mut failed = job.progress.failed.lock();
        match done {
            Ok(()) => job.progress.applied.store(job.number, Ordering::Release),
            Err(e) => {
                tracing::error!(error = %e, journal = place, "a checkpoint could not be applied to the store");
                *failed = Some(e.to_string());
            }
        }
        job.progress.changed.notify_all();
    }

    /// From here on the batch counts. Only what is synced may get a name that makes it count.
    fn name_journal(&self, job: &Job) -> Result<(), Error> {
        let Job { part, journal, .. } = job;
        let name = || -> std::io::Result<()> {
            if self.sync {
                self.disk.sync(part)?;
            }
            self.disk.rename(part, journal)?;
            if self.sync { self.disk.sync_names() } else { Ok(()) }
        };
        name().map_err(Error::io(format!("writing {}", self.disk.place(journal))))
    }

    /// Entry by entry, and not as sled's batches, for which all readers of the process would have to wait: the journal
    /// makes them come into force together. By key, so that neighbours on a leaf of sled's are written one after the other.
    fn apply(&self, gate: &Gate, map: &dyn Map, batch: &Batch) -> Result<(), Error> {
        gate.applying(|| self.apply_entries(gate, map, batch))
    }

    fn apply_entries(&self, gate: &Gate, map: &dyn Map, batch: &Batch) -> Result<(), Error> {
        let mut entries: Vec<Entry<'_>> = batch.iter().collect();
        entries.sort_by_key(Entry::key);
        for entry in entries {
            match entry {
                Entry::Write(key, value) => gate.change(key, || map.insert(key, value))?,
                Entry::Remove(key) => {
                    for key in map.keys(key)? {
                        gate.change(&key, || map.remove(&key))?;
                    }
                }
            }
        }
        map.flush(self.sync)
    }

    fn apply_queued(&self) {
        if let Some(queue) = &self.unattended {
            let queue = queue.lock();
            while let Ok(work) = queue.try_recv() {
                self.run(work);
            }
        }
    }

    /// Journals of a partition, oldest first; removes what was still being written.
    fn journals(&self, partition: u32) -> Result<BTreeMap<u64, String>, Error> {
        let disk = &*self.disk;
        let mut found = BTreeMap::new();
        for name in disk.list().map_err(Error::io(format!("listing {}", disk.place(""))))? {
            let Some(rest) = name.strip_prefix(&format!("p{partition}.")) else { continue };
            if let Some(number) = rest.strip_suffix(".journal").and_then(|n| n.parse().ok()) {
                found.insert(number, name);
            } else if rest.ends_with(".part") {
                disk.remove(&name).map_err(Error::io(format!("removing {}", disk.place(&name))))?;
            }
        }
        Ok(found)
    }
}

/// The values of one partition on disk.
pub struct SledBackend {
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    map: Arc<dyn Map>,
    partition: u32,
    jobs: Mutex<Sender<Work>>,
    next: AtomicU64,
    progress: Arc<Progress>,
}

impl SledBackend {
    /// From which an image of the partition can be taken while batches go on.
    pub fn image_source(&self) -> ImageSource {
        ImageSource { gate: Arc::clone(&self.gate), map: Arc::clone(&self.map) }
    }

    /// Waits until all batches so far are in sled.
    ///
    /// # Errors
    /// Where one of them failed.
    pub fn wait(&self) -> Result<(), Error> {
        self.shared.apply_queued();
        let last = self.next.load(Ordering::Acquire) - 1;
        let mut failed = self.progress.failed.lock();
        loop {
            if let Some(e) = &*failed {
                return Err(Error::Io {
                    doing: "applying a checkpoint".into(),
                    source: std::io::Error::other(e.clone()),
                });
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

    /// One batch at a time is on its way into sled: a second one waits here, where the log waits too.
    fn commit(&self, batch: Batch) -> Result<u64, Error> {
        self.wait()?;
        let number = self.next.load(Ordering::Acquire);
        let disk = &*self.shared.disk;
        let journal = format!("p{}.{number}.journal", self.partition);
        let part = format!("p{}.{number}.part", self.partition);
        disk.write(&part, batch.bytes())
            .inspect_err(|_| _ = disk.remove(&part))
            .map_err(Error::io(format!("writing {}", disk.place(&part))))?;
        self.next.store(number + 1, Ordering::Release);
        let (gate, map, progress) = (Arc::clone(&self.gate), Arc::clone(&self.map), Arc::clone(&self.progress));
        let job = Job { gate, map, batch, number, part, journal, progress };
        if self.jobs.lock().send(Work::Apply(job)).is_err() {
            return Err(Error::Io {
                doing: "applying a checkpoint".into(),
                source: std::io::Error::other("the store is closed"),
            });
        }
        Ok(number)
    }

    fn applied(&self) -> u64 {
        self.progress.applied.load(Ordering::Acquire)
    }
}

/// The file that says that a partition holds a part of a snapshot.
fn restoring(partition: u32) -> String {
    format!("p{partition}.restoring")
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
