//! The data directory: its lock, its layout, and what must survive a restart beside log and store. Knows the formats of
//! neither.
//!
//! ```text
//! lock         held by the process that uses the directory, with its number and, if it serves, its URL
//! cursor.key   32 random bytes that sign cursors of member lists, so that they survive a restart
//! log/         the embedded log, and `id`, which tells it from every other one
//! store/       the state, and `log.json`, which says of which log
//! rebuild/     a store being folded anew beside the other one; `ready` in it: the next start takes it
//! store-before-N/  what a rebuilt store has replaced, until an operator confirms that
//! spool/       snapshots on their way elsewhere; worthless once no process uses the directory
//! ```

use anyhow::{Context as _, Result, anyhow, bail};
use receipts_query::CursorKey;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const KEY_BYTES: usize = 32;
/// In a rebuilt store: it is whole.
const READY: &str = "ready";

fn before(number: u32) -> String {
    format!("store-before-{number}")
}

/// An open data directory. While it lives, no other process uses the directory.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock goes with the file.
    lock: File,
}

/// Another process uses the directory.
#[derive(Debug, thiserror::Error)]
#[error(
    "the data directory {} is in use by {}: stop that one, or choose another --data-dir",
    .path.display(),
    .holder
)]
pub struct InUse {
    /// Which.
    pub path: PathBuf,
    /// For people: `process 4711`.
    pub holder: String,
    /// Where that process answers over HTTP, if it does.
    pub url: Option<String>,
}

/// Which log a store was folded from. A store is never folded on from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "log", rename_all = "snake_case")]
pub enum LogIdentity {
    /// The embedded one that has this id.
    Embedded {
        /// Random, made with the log.
        id: String,
    },
    /// A topic of a Kafka. The projector compares offsets and a record as well.
    Kafka {
        /// Its name.
        events_topic: String,
        /// Its number of partitions, which decides where every conversation stands.
        partitions: u32,
        /// Its cluster's id; none where the cluster does not say, and in stores of before that was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster_id: Option<String>,
    },
}

impl LogIdentity {
    /// The name by which snapshots know the log: compared as a whole.
    pub fn name(&self) -> String {
        serde_json::to_string(self).expect("plain JSON")
    }

    /// The log of such a name.
    ///
    /// # Errors
    /// Where the text is no such name.
    pub fn of_name(name: &str) -> Result<Self> {
        serde_json::from_str(name).with_context(|| format!("{name} names no log"))
    }

    /// Whether they may be the same: an id that one of them lacks says nothing.
    fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kafka { cluster_id: Some(_), .. }, Self::Kafka { cluster_id: Some(_), .. }) => self == other,
            (
                Self::Kafka { events_topic, partitions, .. },
                Self::Kafka { events_topic: other_topic, partitions: other_partitions, .. },
            ) => (events_topic, partitions) == (other_topic, other_partitions),
            _ => self == other,
        }
    }
}

impl fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { id } => write!(f, "the embedded log {id}"),
            Self::Kafka { events_topic, partitions, cluster_id } => {
                write!(f, "the Kafka topic {events_topic} with {partitions} partitions")?;
                cluster_id.iter().try_for_each(|id| write!(f, " of the cluster {id}"))
            }
        }
    }
}

impl DataDir {
    /// Opens a data directory, or makes it.
    ///
    /// # Errors
    /// Where it cannot be made or written; [`InUse`] where another process uses it.
    pub fn open(path: &Path) -> Result<Self> {
        let hint = || format!("the data directory {} cannot be used; choose another --data-dir", path.display());
        fs::create_dir_all(path).with_context(hint)?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .with_context(hint)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut held = String::new();
                _ = lock.read_to_string(&mut held);
                let mut lines = held.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
                let holder = lines.next().map_or("another process".to_owned(), |number| format!("process {number}"));
                bail!(InUse { path: path.to_owned(), holder, url: lines.next() });
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(hint),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).with_context(hint)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Tells processes that find the directory in use where this one answers.
    ///
    /// # Errors
    /// Where the lock cannot be written.
    pub fn serves_at(&self, url: &str) -> Result<()> {
        writeln!(&self.lock, "{url}").with_context(|| format!("the lock in {} cannot be written", self.path.display()))
    }

    /// Where the embedded log of a data directory is, open or not.
    pub fn log_in(path: &Path) -> PathBuf {
        path.join("log")
    }

    /// Where the embedded log is.
    pub fn log(&self) -> PathBuf {
        Self::log_in(&self.path)
    }

    /// Where the state of a data directory is, open or not.
    pub fn store_in(path: &Path) -> PathBuf {
        path.join("store")
    }

    /// Where the state is.
    pub fn store(&self) -> PathBuf {
        Self::store_in(&self.path)
    }

    /// Where a store is folded anew beside the one in use.
    pub fn rebuild_in(path: &Path) -> PathBuf {
        path.join("rebuild")
    }

    /// The rebuilt store of a data directory takes the place of the other one at the next start.
    ///
    /// # Errors
    /// Where that cannot be written down.
    pub fn rebuilt_is_ready(path: &Path, log: &LogIdentity) -> Result<()> {
        let folder = Self::rebuild_in(path);
        write_whole(&folder.join("log.json"), &serde_json::to_vec(log)?, 0o644)?;
        write_whole(&folder.join(READY), b"", 0o644)
    }

    /// Puts a rebuilt store that is ready in the place of the other one, which is kept; returns where.
    ///
    /// # Errors
    /// Where a folder cannot be renamed: then the next start tries again.
    pub fn adopt_rebuilt(&self) -> Result<Option<PathBuf>> {
        let (rebuilt, store) = (Self::rebuild_in(&self.path), self.store());
        if !rebuilt.join(READY).exists() {
            return Ok(None);
        }
        let before = (1..).map(before).map(|name| self.path.join(name)).find(|path| !path.exists());
        let before = before.expect("numbers go on");
        let switch = || -> std::io::Result<()> {
            // Where an earlier attempt died between the two, the first is done.
            if store.exists() {
                fs::rename(&store, &before)?;
            }
            fs::rename(&rebuilt, &store)?;
            File::open(&self.path)?.sync_all()?;
            fs::remove_file(store.join(READY))
        };
        switch().with_context(|| format!("{} cannot take the place of {}", rebuilt.display(), store.display()))?;
        tracing::info!(before = %before.display(), "a rebuilt store takes over; what was there before is kept");
        Ok(Some(before))
    }

    /// What rebuilt stores have replaced, oldest first.
    pub fn replaced(&self) -> Vec<PathBuf> {
        (1..).map(before).map(|name| self.path.join(name)).take_while(|path| path.exists()).collect()
    }

    /// Where snapshots wait for their way elsewhere.
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// The log that the store was folded from; `None` where there is no store.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn bound_log(&self) -> Result<Option<LogIdentity>> {
        let path = self.store().join("log.json");
        match fs::read(&path) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// The key that signs cursors, made the first time.
    ///
    /// # Errors
    /// Where it cannot be read or made, or is none.
    pub fn cursor_key(&self) -> Result<CursorKey> {
        let path = self.path.join("cursor.key");
        if !path.exists() {
            write_whole(&path, &random::<KEY_BYTES>()?, 0o600)?;
        }
        Self::cursor_key_in(&self.path)
    }

    /// The key of a data directory, open or not.
    ///
    /// # Errors
    /// Where it is not there, cannot be read, or is none.
    pub fn cursor_key_in(path: &Path) -> Result<CursorKey> {
        let path = path.join("cursor.key");
        let bytes = fs::read(&path).with_context(|| format!("the key {} cannot be read", path.display()))?;
        if fs::metadata(&path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
            tracing::warn!(path = %path.display(), "others may read the key that signs cursors: chmod 600");
        }
        let key = <[u8; KEY_BYTES]>::try_from(bytes).map_err(|bytes| {
            let (path, held) = (path.display(), bytes.len());
            anyhow!("the key {path} has {held} bytes instead of {KEY_BYTES}: restore it, or remove it and open walks through lists begin anew")
        })?;
        Ok(CursorKey::new(key))
    }

    /// What tells the embedded log of this directory from every other one; made with the log.
    ///
    /// # Errors
    /// Where it cannot be read or made.
    pub fn embedded_log(&self) -> Result<LogIdentity> {
        let folder = self.log();
        fs::create_dir_all(&folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        let path = folder.join("id");
        match fs::read_to_string(&path) {
            Ok(id) => Ok(LogIdentity::Embedded { id: id.trim().to_owned() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let id: String = random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect();
                write_whole(&path, format!("{id}\n").as_bytes(), 0o644)?;
                Ok(LogIdentity::Embedded { id })
            }
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Binds the store to a log the first time, and holds it to that from then on.
    ///
    /// # Errors
    /// Where the store is another log's.
    pub fn bind_store(&self, log: &LogIdentity) -> Result<()> {
        let folder = self.store();
        fs::create_dir_all(&folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        let path = folder.join("log.json");
        let held = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<LogIdentity>(&bytes).with_context(|| {
                format!("{} is damaged; remove {} to fold the log from its beginning", path.display(), folder.display())
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return write_whole(&path, &serde_json::to_vec(log)?, 0o644);
            }
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        if !held.may_be(log) {
            let folder = folder.display();
            bail!(
                "the store in {folder} was folded from {held}, and the log is {log}: choose another --data-dir for this log, or remove {folder} to fold it from its beginning"
            );
        }
        if matches!(
            (&held, log),
            (LogIdentity::Kafka { cluster_id: None, .. }, LogIdentity::Kafka { cluster_id: Some(_), .. })
        ) {
            return write_whole(&path, &serde_json::to_vec(log)?, 0o644);
        }
        Ok(())
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random bytes: {error}"))?;
    Ok(bytes)
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataDir::open(&folder.path().join("data")).expect("opened");
        (folder, data)
    }

    #[test]
    fn a_directory_is_used_once_at_a_time() {
        let (folder, data) = opened();
        let sentence = DataDir::open(&folder.path().join("data")).expect_err("in use").to_string();
        assert!(
            sentence.contains(&format!("process {}", std::process::id())) && sentence.contains("--data-dir"),
            "{sentence}"
        );
        drop(data);
        DataDir::open(&folder.path().join("data")).expect("free again");
    }

    #[test]
    fn who_finds_a_directory_in_use_is_told_where_its_holder_answers_and_nothing_older() {
        let (folder, data) = opened();
        let url = || {
            let error = DataDir::open(&folder.path().join("data")).expect_err("in use");
            error.downcast::<InUse>().expect("in use").url
        };
        assert_eq!(url(), None);
        data.serves_at("http://127.0.0.1:4711").expect("written");
        assert_eq!(url().as_deref(), Some("http://127.0.0.1:4711"));
        drop(data);
        let _other = DataDir::open(&folder.path().join("data")).expect("free again");
        assert_eq!(url(), None, "the next holder is another one");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_refused_with_what_to_do() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let sentence = format!("{:#}", DataDir::open(&file.path().join("data")).expect_err("below a file"));
        assert!(sentence.contains("--data-dir"), "{sentence}");
    }

    #[test]
    fn the_cursor_key_is_made_once_and_for_its_owner_only() {
        let (_folder, data) = opened();
        data.cursor_key().expect("made");
        let path = data.path.join("cursor.key");
        let first = fs::read(&path).expect("a key");
        data.cursor_key().expect("read");
        assert_eq!((first.len(), fs::read(&path).expect("a key")), (KEY_BYTES, first));
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        fs::write(&path, "short").expect("written");
        assert!(data.cursor_key().expect_err("no key").to_string().contains("5 bytes"));
    }

    #[test]
    fn a_store_is_never_folded_on_from_another_log() {
        let (_folder, data) = opened();
        let log = data.embedded_log().expect("an id");
        assert_eq!(data.embedded_log().expect("the same"), log);
        data.bind_store(&log).expect("the first");
        data.bind_store(&log).expect("the same");
        fs::remove_file(data.log().join("id")).expect("removed with the log");
        let topic = |partitions| kafka(partitions, Some("c1"));
        for other in [data.embedded_log().expect("a new id"), topic(4)] {
            let sentence = data.bind_store(&other).expect_err("another log").to_string();
            assert!(sentence.contains(&log.to_string()) && sentence.contains(&other.to_string()), "{sentence}");
        }
    }

    fn kafka(partitions: u32, cluster_id: Option<&str>) -> LogIdentity {
        LogIdentity::Kafka {
            events_topic: "receipts.events".into(),
            partitions,
            cluster_id: cluster_id.map(Into::into),
        }
    }

    #[test]
    fn another_cluster_or_another_number_of_partitions_is_refused_and_a_cluster_not_recorded_is_added() {
        let (_folder, data) = opened();
        data.bind_store(&kafka(4, None)).expect("a store of before clusters were recorded");
        data.bind_store(&kafka(4, Some("c1"))).expect("recorded from now on");
        data.bind_store(&kafka(4, None)).expect("a cluster that does not say");
        data.bind_store(&kafka(4, Some("c1"))).expect("the same");
        let sentence = data.bind_store(&kafka(4, Some("c2"))).expect_err("another cluster").to_string();
        assert!(sentence.contains("of the cluster c1") && sentence.contains("of the cluster c2"), "{sentence}");
        let sentence = data.bind_store(&kafka(8, Some("c1"))).expect_err("another count").to_string();
        assert!(sentence.contains("with 4 partitions") && sentence.contains("with 8 partitions"), "{sentence}");
    }
}
