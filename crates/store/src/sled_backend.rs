//! The store on disk: sled, with a journal before it that makes a checkpoint of any size atomic.
//!
//! sled applies a batch atomically, but makes readers wait meanwhile and takes many times its size in memory. So a checkpoint is
//! one file first, complete or worthless; then its values go into sled in small batches on a thread of their own; then the file goes.
//! A file found at the start is applied again: its values are absolute, so twice is as good as once.

use crate::backend::Backend;
use crate::batch::{Batch, Entry};
use crate::envelope::wrap;
use crate::error::Error;
use crate::image::{Gate, ImageSource};
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// A store of all partitions of a process.
pub struct SledStore {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    applier: Option<JoinHandle<()>>,
}

struct Shared {
    db: sled::Db,
    dir: PathBuf,
    /// Whether a checkpoint waits for the disk itself, so that it survives the loss of power too.
    sync: bool,
    /// By partition, opened so far.
    gates: Mutex<HashMap<u32, Arc<Gate>>>,
}

struct Job {
    gate: Arc<Gate>,
    tree: sled::Tree,
    batch: Batch,
    number: u64,
    journal: PathBuf,
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
        let path = dir.join("sled");
        fs::create_dir_all(&path).map_err(Error::io(format!("creating {}", path.display())))?;
        let db = open_sled(&path, settings)?;
        let shared = Arc::new(Shared { db, dir: dir.to_owned(), sync: settings.sync, gates: Mutex::default() });
        let (jobs, queue) = channel::<Job>();
        let own = Arc::clone(&shared);
        let applier = std::thread::Builder::new()
            .name("store-apply".into())
            .spawn(move || queue.into_iter().for_each(|job| own.run(&job)))
            .map_err(Error::io("starting the store's thread"))?;
        Ok(Self { shared, jobs: Some(jobs), applier: Some(applier) })
    }

    /// The values of a partition, with the journals of its last checkpoints applied.
    ///
    /// # Errors
    /// Where the store fails or is damaged.
    pub fn partition(&self, partition: u32) -> Result<SledBackend, Error> {
        if restoring(&self.shared.dir, partition).exists() {
            return Err(Error::corrupt(
                format!("partition {partition}"),
                "holds a part of a snapshot: its restore was cut short",
            ));
        }
        let tree = self.shared.db.open_tree(format!("p{partition}")).map_err(sled_error("opening a partition"))?;
        let gate = self.shared.gate(partition);
        for (number, path) in journals(&self.shared.dir, partition)? {
            let bytes = fs::read(&path).map_err(Error::io(format!("reading {}", path.display())))?;
            match Batch::parse(bytes, partition)? {
                Some(batch) => {
                    tracing::info!(
                        partition,
                        number,
                        next_offset = batch.next_offset(),
                        "applying the journal of a checkpoint"
                    );
                    self.shared.apply(&gate, &tree, &batch)?;
                }
                // Under this name it was whole once: sled may hold some of it.
                None => return Err(Error::corrupt(format!("the journal {}", path.display()), "fails its checksum")),
            }
            fs::remove_file(&path).map_err(Error::io(format!("removing {}", path.display())))?;
        }
        gate.is_whole();
        let jobs = self.jobs.clone().expect("the store is open");
        Ok(SledBackend {
            gate,
            shared: Arc::clone(&self.shared),
            tree,
            partition,
            jobs: Mutex::new(jobs),
            next: AtomicU64::new(1),
            progress: Arc::default(),
        })
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.db.size_on_disk().unwrap_or(0)
    }

    /// Removes a partition's values, as for a rebuild from the log.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn drop_partition(&self, partition: u32) -> Result<(), Error> {
        self.empty(partition)?;
        // Last: until then what is left of a restore is known as such.
        remove(&restoring(&self.shared.dir, partition))
    }

    fn empty(&self, partition: u32) -> Result<(), Error> {
        self.shared.gate(partition).gone();
        for (_, path) in journals(&self.shared.dir, partition)? {
            fs::remove_file(&path).map_err(Error::io(format!("removing {}", path.display())))?;
        }
        self.shared.db.drop_tree(format!("p{partition}")).map_err(sled_error("dropping a partition"))?;
        Ok(())
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
        let marker = restoring(&self.shared.dir, partition);
        let writing = || format!("writing {}", marker.display());
        File::create(&marker).and_then(|file| file.sync_all()).map_err(Error::io(writing()))?;
        self.shared.sync_dir()?;
        self.empty(partition)?;
        let tree = self.shared.db.open_tree(format!("p{partition}")).map_err(sled_error("opening a partition"))?;
        let filled = fill(&mut |key, payload| {
            let mut result = Ok(());
            wrap(key, next_offset, payload, |key, value| {
                if result.is_ok() {
                    result = tree.insert(key, value).map(|_| ()).map_err(sled_error("writing the store"));
                }
            });
            result
        })?;
        self.shared.flush(&tree)?;
        remove(&marker)?;
        self.shared.sync_dir()?;
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

    fn sync_dir(&self) -> Result<(), Error> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(Error::io(format!("syncing {}", self.dir.display())))
    }

    fn run(&self, job: &Job) {
        let done = self.apply(&job.gate, &job.tree, &job.batch).and_then(|()| {
            fs::remove_file(&job.journal).map_err(Error::io(format!("removing {}", job.journal.display())))
        });
        // The journal stays where this failed: the next start applies it.
        let mut failed = job.progress.failed.lock();
        match done {
            Ok(()) => job.progress.applied.store(job.number, Ordering::Release),
            Err(e) => {
                tracing::error!(error = %e, journal = %job.journal.display(), "a checkpoint could not be applied to the store");
                *failed = Some(e.to_string());
            }
        }
        job.progress.changed.notify_all();
    }

    /// Entry by entry, and not as sled's batches, for which all readers of the process would have to wait: the journal
    /// makes them come into force together. By key, so that neighbours on a leaf of sled's are written one after the other.
    fn apply(&self, gate: &Gate, tree: &sled::Tree, batch: &Batch) -> Result<(), Error> {
        gate.applying(|| self.apply_entries(gate, tree, batch))
    }

    fn apply_entries(&self, gate: &Gate, tree: &sled::Tree, batch: &Batch) -> Result<(), Error> {
        let mut entries: Vec<Entry<'_>> = batch.iter().collect();
        entries.sort_by_key(Entry::key);
        for entry in entries {
            match entry {
                Entry::Write(key, value) => {
                    gate.change(key, || tree.insert(key, value).map_err(sled_error("writing the store")))?;
                }
                Entry::Remove(key) => {
                    for k in tree.scan_prefix(key).keys() {
                        let k = k.map_err(sled_error("reading the store"))?;
                        gate.change(&k, || tree.remove(&k).map_err(sled_error("writing the store")))?;
                    }
                }
            }
        }
        self.flush(tree)
    }

    fn flush(&self, tree: &sled::Tree) -> Result<(), Error> {
        tree.flush().map_err(sled_error("flushing the store"))?;
        if self.sync {
            // sled's flush leaves the bytes with the kernel.
            let path = self.dir.join("sled").join("db");
            File::open(&path).and_then(|f| f.sync_data()).map_err(Error::io(format!("syncing {}", path.display())))?;
        }
        Ok(())
    }
}

/// The values of one partition on disk.
pub struct SledBackend {
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    tree: sled::Tree,
    partition: u32,
    jobs: Mutex<Sender<Job>>,
    next: AtomicU64,
    progress: Arc<Progress>,
}

impl SledBackend {
    /// From which an image of the partition can be taken while batches go on.
    pub fn image_source(&self) -> ImageSource {
        ImageSource { gate: Arc::clone(&self.gate), tree: self.tree.clone() }
    }

    /// Waits until all batches so far are in sled.
    ///
    /// # Errors
    /// Where one of them failed.
    pub fn wait(&self) -> Result<(), Error> {
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
    type Value = sled::IVec;

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Error> {
        self.tree.get(key).map_err(sled_error("reading the store"))
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.tree
            .scan_prefix(prefix)
            .keys()
            .map(|k| k.map(|k| k.to_vec()).map_err(sled_error("reading the store")))
            .collect()
    }

    /// One batch at a time is on its way into sled: a second one waits here, where the log waits too.
    fn commit(&self, batch: Batch) -> Result<u64, Error> {
        self.wait()?;
        let number = self.next.load(Ordering::Acquire);
        let journal = self.shared.dir.join(format!("p{}.{number}.journal", self.partition));
        let part = journal.with_extension("part");
        let io = || format!("writing {}", journal.display());
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(batch.bytes())?;
            if self.shared.sync {
                file.sync_data()?;
            }
            fs::rename(&part, &journal)?;
            if self.shared.sync {
                File::open(&self.shared.dir)?.sync_all()?;
            }
            Ok(())
        };
        write().inspect_err(|_| _ = fs::remove_file(&part)).map_err(Error::io(io()))?;
        self.next.store(number + 1, Ordering::Release);
        let gate = Arc::clone(&self.gate);
        let job = Job { gate, tree: self.tree.clone(), batch, number, journal, progress: Arc::clone(&self.progress) };
        if self.jobs.lock().send(job).is_err() {
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

/// Says that a partition holds a part of a snapshot.
fn restoring(dir: &Path, partition: u32) -> PathBuf {
    dir.join(format!("p{partition}.restoring"))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("removing {}", path.display()))(e)),
        _ => Ok(()),
    }
}

/// Journals of a partition, oldest first.
fn journals(dir: &Path, partition: u32) -> Result<BTreeMap<u64, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(Error::io(format!("listing {}", dir.display())))? {
        let entry = entry.map_err(Error::io(format!("listing {}", dir.display())))?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(&format!("p{partition}."))) else { continue };
        if let Some(number) = rest.strip_suffix(".journal").and_then(|n| n.parse().ok()) {
            found.insert(number, entry.path());
        } else if rest.ends_with(".part") {
            fs::remove_file(entry.path()).map_err(Error::io(format!("removing {}", entry.path().display())))?;
        }
    }
    Ok(found)
}

fn open_sled(path: &Path, settings: SledSettings) -> Result<sled::Db, Error> {
    // A process that died while opening leaves these, and sled then takes them for its newest snapshot.
    for entry in fs::read_dir(path).map_err(Error::io(format!("listing {}", path.display())))?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(Error::io(format!("removing {}", entry.path().display())))?;
        }
    }
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(settings.cache_bytes)
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput);
    // sled panics on some kinds of damage.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()));
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(e))) if e.kind() == std::io::ErrorKind::WouldBlock || e.to_string().contains("lock") => {
            Err(Error::InUse { path: path.display().to_string() })
        }
        Ok(Err(e)) => Err(sled_error("opening the store")(e)),
        Err(_) => Err(Error::corrupt("sled", "panicked while opening")),
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

pub(crate) fn sled_error(doing: &'static str) -> impl Fn(sled::Error) -> Error {
    move |e| match e {
        sled::Error::Io(source) => Error::Io { doing: doing.into(), source },
        other => Error::corrupt("sled", format!("{doing}: {other}")),
    }
}
