//! The disk of a process: a directory, and sled in it. Knows no checkpoint.

use super::open::SledSettings;
use crate::disk::{Disk, KeyValue, Map, Value};
use crate::error::Error;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) struct SledDisk {
    db: sled::Db,
    dir: PathBuf,
    /// The directory, to sync its names. Open all the time, as sled's file is: a checkpoint whose
    /// journal is written needs no further descriptor.
    names: File,
    /// sled's file, to sync: sled's own flush leaves the bytes with the kernel.
    file: Arc<File>,
    /// Files that were written and neither synced nor renamed: one journal per partition at most.
    written: Mutex<HashMap<String, File>>,
}

impl SledDisk {
    pub(crate) fn open(dir: &Path, settings: SledSettings) -> Result<Self, Error> {
        let path = dir.join("sled");
        fs::create_dir_all(&path).map_err(Error::io(format!("creating {}", path.display())))?;
        let db = open_sled(&path, settings)?;
        let open = |path: &Path| File::open(path).map_err(Error::io(format!("opening {}", path.display())));
        let (names, file) = (open(dir)?, Arc::new(open(&path.join("db"))?));
        Ok(Self { db, dir: dir.to_owned(), names, file, written: Mutex::default() })
    }

    /// Tells whether any partition has a value, or a file that is not applied or was set aside.
    pub(super) fn has_state(&self) -> Result<bool, Error> {
        let files = self.list().map_err(Error::io(format!("listing {}", self.dir.display())))?;
        if files.iter().any(|name| name.ends_with(".journal") || name.starts_with("damaged-")) {
            return Ok(true);
        }
        for name in self.db.tree_names() {
            let tree = self.db.open_tree(name).map_err(sled_error("opening a partition"))?;
            if !catching(|| Ok(tree.is_empty()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Disk for SledDisk {
    fn map(&self, partition: u32) -> Result<Box<dyn Map>, Error> {
        let tree = self.db.open_tree(tree_name(partition)).map_err(sled_error("opening a partition"))?;
        Ok(Box::new(SledMap { tree, dummy: (*self.db).clone(), file: Arc::clone(&self.file) }))
    }

    fn drop_map(&self, partition: u32) -> Result<(), Error> {
        self.db.drop_tree(tree_name(partition)).map_err(sled_error("dropping a partition"))?;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.dir.join(name))?;
        file.write_all(bytes)?;
        self.written.lock().insert(name.to_owned(), file);
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let written = self.written.lock().remove(name);
        written.map_or_else(|| File::open(self.dir.join(name)), Ok)?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.written.lock().remove(from);
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.names.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.written.lock().remove(name);
        fs::remove_file(self.dir.join(name))
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// Extra lookups per value that a scan reads. sled's cache evicts nothing from one of its 256
/// shards before nodes of that shard were accessed 64 times. A scan without extra lookups would
/// therefore leave 16,384 B-tree nodes of about 32 KiB in memory. A node has at least eight values.
const EXTRA_LOOKUPS: usize = 7;

/// For each written value, the dummy value gets these contents one after the other: see
/// [`SledMap::clean`].
const DUMMY_VALUES: [[u8; 1]; 4] = [[0], [1], [0], [1]];

struct SledMap {
    tree: sled::Tree,
    /// sled's default tree, which nothing else uses.
    dummy: sled::Tree,
    file: Arc<File>,
}

impl SledMap {
    /// Lets sled move live pages out of mostly stale segments of its file, so that the segments can
    /// be reused (INV-DISK, ADR 0030). sled moves one page each time it writes a whole page, which
    /// it does at every tenth change of a page. That is too seldom: the file would grow to many
    /// times its pages. sled's own thread would move more, but it syncs the file each time, even
    /// when idle. So this changes a tiny dummy value, whose page sled writes whole. Writing an
    /// equal value is no change.
    fn clean(&self) -> sled::Result<()> {
        DUMMY_VALUES.iter().try_for_each(|value| self.dummy.insert([], value).map(drop))
    }

    /// Changes a value by calling `change`, which returns the old value.
    fn write(&self, change: impl FnOnce() -> sled::Result<Option<sled::IVec>>) -> Result<Option<Value>, Error> {
        catching(|| {
            let old = change().and_then(|old| self.clean().map(|()| old));
            Ok(old.map_err(sled_error("writing the store"))?.map(Value))
        })
    }
}

impl Map for SledMap {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        catching(|| Ok(self.tree.get(key).map_err(sled_error("reading the store"))?.map(Value)))
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        catching(|| {
            let keys = self.tree.scan_prefix(prefix).keys();
            keys.map(|k| k.map(|k| k.to_vec()).map_err(sled_error("reading the store"))).collect()
        })
    }

    fn values(&self, from: &[u8], most: usize) -> Result<Vec<KeyValue>, Error> {
        catching(|| {
            let entries = self.tree.range(from..).take(most);
            let read = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
                let (key, value) = entry?;
                for _ in 0..EXTRA_LOOKUPS {
                    self.tree.contains_key(&key)?;
                }
                Ok((key.to_vec(), value.to_vec()))
            };
            entries.map(|entry| read(entry).map_err(sled_error("reading the store"))).collect()
        })
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<Value>, Error> {
        self.write(|| self.tree.insert(key, value))
    }

    /// Cleans nothing: stale pages are neighbours here, and sled reuses such segments as they are.
    fn fill(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        catching(|| self.tree.insert(key, value).map(drop).map_err(sled_error("writing the store")))
    }

    fn remove(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.write(|| self.tree.remove(key))
    }

    fn flush(&self, sync: bool) -> Result<(), Error> {
        self.tree.flush().map_err(sled_error("flushing the store"))?;
        if sync {
            self.file.sync_data().map_err(Error::io("syncing sled's file"))?;
        }
        Ok(())
    }
}

/// Turns a panic into an error: an open sled panics on some kinds of damage.
fn catching<T>(act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    done.unwrap_or_else(|_| Err(Error::corrupt("sled", "panicked while it used its file")))
}

fn tree_name(partition: u32) -> String {
    format!("p{partition}")
}

/// The longest wait for the lock of a store. sled's threads release the file a moment after the
/// last handle is dropped.
const LOCK_WAIT: Duration = Duration::from_secs(2);

fn open_sled(path: &Path, settings: SledSettings) -> Result<sled::Db, Error> {
    // A process that died during an open leaves these files, and sled would take one for its newest
    // snapshot.
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
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        // sled panics on some kinds of damage.
        return match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(sled::Error::Io(e))) if is_locked(&e) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            Ok(Err(sled::Error::Io(e))) if is_locked(&e) => Err(Error::InUse { path: path.display().to_string() }),
            Ok(Err(e)) => Err(sled_error("opening the store")(e)),
            Err(_) => Err(Error::corrupt("sled", "panicked while opening")),
        };
    }
}

fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("lock")
}

fn sled_error(doing: &'static str) -> impl Fn(sled::Error) -> Error {
    move |e| match e {
        sled::Error::Io(source) => Error::Io { doing: doing.into(), source },
        other => Error::corrupt("sled", format!("{doing}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 4_000;
    const VALUE_BYTES: usize = 2_000;
    const ROUNDS: u64 = 20;
    /// sled's file consists of whole segments.
    const SEGMENT_BYTES: u64 = 512 << 10;

    /// INV-DISK: without the cleaning the file takes more.
    #[test]
    fn file_stays_within_three_times_its_values() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SledDisk::open(dir.path(), SledSettings { cache_bytes: 1 << 20, sync: false }).unwrap();
        let map = disk.map(0).unwrap();
        for round in 0..ROUNDS {
            // Half of the keys, unordered, as checkpoints write them.
            for i in 0..KEYS / 2 {
                let key = (i * 2 + round).wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
                map.insert(&key.to_be_bytes(), &[round as u8; VALUE_BYTES]).unwrap();
            }
            map.flush(false).unwrap();
        }
        let values = KEYS * VALUE_BYTES as u64;
        assert!(disk.bytes() <= 3 * values + SEGMENT_BYTES, "{} bytes for {values} of values", disk.bytes());
    }
}
