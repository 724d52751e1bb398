//! The disk of a process: a directory, and sled in it. Knows nothing of checkpoints.

use crate::disk::{Disk, KeyValue, Map, Value};
use crate::error::Error;
use crate::sled_backend::SledSettings;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) struct SledDisk {
    db: sled::Db,
    dir: PathBuf,
}

impl SledDisk {
    pub(crate) fn open(dir: &Path, settings: SledSettings) -> Result<Self, Error> {
        let path = dir.join("sled");
        fs::create_dir_all(&path).map_err(Error::io(format!("creating {}", path.display())))?;
        Ok(Self { db: open_sled(&path, settings)?, dir: dir.to_owned() })
    }
}

impl Disk for SledDisk {
    fn map(&self, partition: u32) -> Result<Box<dyn Map>, Error> {
        let tree = self.db.open_tree(tree_name(partition)).map_err(sled_error("opening a partition"))?;
        Ok(Box::new(SledMap { tree, file: self.dir.join("sled").join("db") }))
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
        fs::write(self.dir.join(name), bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.dir.join(name))?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn place(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

struct SledMap {
    tree: sled::Tree,
    /// sled's own flush leaves the bytes with the kernel.
    file: PathBuf,
}

impl Map for SledMap {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        careful(|| Ok(self.tree.get(key).map_err(sled_error("reading the store"))?.map(Value)))
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        careful(|| {
            let keys = self.tree.scan_prefix(prefix).keys();
            keys.map(|k| k.map(|k| k.to_vec()).map_err(sled_error("reading the store"))).collect()
        })
    }

    fn values(&self, from: &[u8], most: usize) -> Result<Vec<KeyValue>, Error> {
        careful(|| {
            let entries = self.tree.range(from..).take(most);
            entries.map(|e| e.map(|(k, v)| (k.to_vec(), v.to_vec())).map_err(sled_error("reading the store"))).collect()
        })
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<Value>, Error> {
        careful(|| Ok(self.tree.insert(key, value).map_err(sled_error("writing the store"))?.map(Value)))
    }

    fn remove(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        careful(|| Ok(self.tree.remove(key).map_err(sled_error("writing the store"))?.map(Value)))
    }

    fn flush(&self, sync: bool) -> Result<(), Error> {
        self.tree.flush().map_err(sled_error("flushing the store"))?;
        if sync {
            let doing = || format!("syncing {}", self.file.display());
            File::open(&self.file).and_then(|file| file.sync_data()).map_err(Error::io(doing()))?;
        }
        Ok(())
    }
}

/// sled panics on some kinds of damage that it meets after it was opened.
fn careful<T>(act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    done.unwrap_or_else(|_| Err(Error::corrupt("sled", "panicked over its file")))
}

fn tree_name(partition: u32) -> String {
    format!("p{partition}")
}

/// How long the lock of a store may outlive the store: sled's own threads let go of its file a moment after the last handle.
const LOCK_LINGERS: Duration = Duration::from_secs(2);

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
    let deadline = Instant::now() + LOCK_LINGERS;
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
