//! The data directory: its lock and its layout. Knows the formats of neither log nor store.
//!
//! ```text
//! lock         held by the process that uses the directory: its process id and, if it serves, URL
//! instance     the name under which a consumer group of Kafka knows the process across restarts
//! cursor.key   32 random bytes that sign cursors of member lists, so that they survive a restart
//! log/         the embedded log, and `id`, which distinguishes it from every other log
//! store/       the state, and `log.json`, which names the log that it was folded from
//! rebuild/     a store that is folded anew; once `ready` is in it, the next start switches to it
//! store-before-N/  a store that a rebuilt one has replaced, kept until an operator confirms
//! spool/       snapshots on their way to their destination; worthless once no process uses them
//! ```

mod cursor_key;
mod files;
mod instance;
mod log_identity;
mod look;
mod rebuilt;

pub use files::random;
use files::{FILE_MODE, close_folder, make_folder};
pub use log_identity::LogIdentity;

use anyhow::{Context as _, Result, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// An open data directory. While it lives, no other process uses the directory.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock is released when this file is closed.
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
    /// The directory.
    pub path: PathBuf,
    /// The holder's name for people: `process 4711`.
    pub holder: String,
    /// The URL at which the holder answers over HTTP, if it does.
    pub url: Option<String>,
}

/// Whether a name in a data directory is one of those above.
fn is_ours(name: &str) -> bool {
    const NAMES: [&str; 9] =
        ["lock", "instance", "instance.part", "cursor.key", "cursor.part", "log", "store", "rebuild", "spool"];
    NAMES.contains(&name) || name.starts_with("store-before-") || name.starts_with("store.")
}

/// Reads the name of the holder of a lock.
fn holder_in(path: &Path, lock: &mut File) -> InUse {
    let mut held = String::new();
    _ = lock.read_to_string(&mut held);
    let mut lines = held.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
    let holder = lines.next().map_or("another process".to_owned(), |number| format!("process {number}"));
    InUse { path: path.to_owned(), holder, url: lines.next() }
}

impl DataDir {
    /// Opens a data directory; makes it if it is missing. Only its owner may enter it.
    ///
    /// # Errors
    /// If it cannot be made or written; [`InUse`] if another process uses it.
    pub fn open(path: &Path) -> Result<Self> {
        let hint = || format!("cannot use the data directory {}; choose another --data-dir", path.display());
        make_folder(path).with_context(hint)?;
        close_folder(path, is_ours).with_context(hint)?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .with_context(hint)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(holder_in(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(error).with_context(hint),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).with_context(hint)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Writes this process's URL into the lock, for processes that find the directory in use.
    ///
    /// # Errors
    /// If the lock cannot be written.
    pub fn note_url(&self, url: &str) -> Result<()> {
        writeln!(&self.lock, "{url}").with_context(|| format!("cannot write the lock in {}", self.path.display()))
    }

    /// The folder of the embedded log in a data directory that need not be open.
    pub fn log_in(path: &Path) -> PathBuf {
        path.join("log")
    }

    /// The folder of the embedded log.
    pub fn log(&self) -> PathBuf {
        Self::log_in(&self.path)
    }

    /// The folder of the state in a data directory that need not be open.
    pub fn store_in(path: &Path) -> PathBuf {
        path.join("store")
    }

    /// The folder of the state.
    pub fn store(&self) -> PathBuf {
        Self::store_in(&self.path)
    }

    /// The folder in which snapshots wait to be sent to their destination.
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn opened() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataDir::open(&folder.path().join("data")).expect("opened");
        (folder, data)
    }

    #[test]
    fn one_process_at_a_time_uses_a_directory() {
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
    fn the_lock_names_the_url_of_its_present_holder() {
        let (folder, data) = opened();
        let url = || {
            let error = DataDir::open(&folder.path().join("data")).expect_err("in use");
            error.downcast::<InUse>().expect("in use").url
        };
        assert_eq!(url(), None);
        data.note_url("http://127.0.0.1:4711").expect("written");
        assert_eq!(url().as_deref(), Some("http://127.0.0.1:4711"));
        drop(data);
        let _other = DataDir::open(&folder.path().join("data")).expect("free again");
        assert_eq!(url(), None, "the next holder has another URL");
    }

    #[test]
    fn an_unusable_directory_is_refused_with_advice() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let sentence = format!("{:#}", DataDir::open(&file.path().join("data")).expect_err("below a file"));
        assert!(sentence.contains("--data-dir"), "{sentence}");
    }
}
