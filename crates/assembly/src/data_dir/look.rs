//! Looks into a data directory that another process may use. It makes, changes and removes nothing.

use super::files::read_if_exists;
use super::log_identity::{bound_log_of, other_log};
use super::{DataDir, InUse, LogIdentity, holder_in};
use anyhow::{Context as _, Result};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

impl DataDir {
    /// Returns the process that uses a data directory. Holds a shared lock for a moment, so a
    /// process that starts in that moment finds the directory in use.
    ///
    /// # Errors
    /// If the lock cannot be read.
    pub fn holder(path: &Path) -> Result<Option<InUse>> {
        let lock_path = path.join("lock");
        let mut lock = match File::open(&lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", lock_path.display())),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(holder_in(path, &mut lock))),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", lock_path.display()))
            }
        }
    }

    /// Returns the log that the store of a data directory was folded from; `None` if there is no
    /// store.
    ///
    /// # Errors
    /// If the store's note of it cannot be read.
    pub fn bound_log_in(path: &Path) -> Result<Option<LogIdentity>> {
        bound_log_of(&Self::store_in(path))
    }

    /// Returns the embedded log of a data directory; `None` if there is none.
    ///
    /// # Errors
    /// If its id cannot be read.
    pub fn embedded_log_in(path: &Path) -> Result<Option<LogIdentity>> {
        let id = read_if_exists(&Self::log_in(path).join("id"))?;
        Ok(id.map(|id| LogIdentity::Embedded { id: String::from_utf8_lossy(&id).trim().to_owned() }))
    }

    /// Says why the store of a data directory must not be folded on from a log; `None` if it may.
    ///
    /// # Errors
    /// As [`DataDir::bound_log_in`].
    pub fn other_log_than(path: &Path, log: &LogIdentity) -> Result<Option<String>> {
        let Some(bound) = Self::bound_log_in(path)? else { return Ok(None) };
        Ok((!bound.may_be(log))
            .then(|| bound.changed(log).unwrap_or_else(|| other_log(&Self::store_in(path), &bound, log))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::opened;
    use super::*;

    #[test]
    fn holder_is_told_and_nothing_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let absent = folder.path().join("absent");
        assert!(DataDir::holder(&absent).expect("looked at").is_none() && !absent.exists());
        assert_eq!(DataDir::bound_log_in(&absent).expect("read"), None);
        let (folder, data) = opened();
        let path = folder.path().join("data");
        data.note_url("http://127.0.0.1:4711").expect("written");
        let holder = DataDir::holder(&path).expect("looked at").expect("in use");
        assert_eq!(holder.holder, format!("process {}", std::process::id()));
        assert_eq!(holder.url.as_deref(), Some("http://127.0.0.1:4711"));
        drop(data);
        assert!(DataDir::holder(&path).expect("looked at").is_none());
        DataDir::open(&path).expect("a look leaves no lock");
    }

    #[test]
    fn another_log_is_told() {
        let (folder, data) = opened();
        let path = folder.path().join("data");
        let log = data.embedded_log().expect("made");
        data.bind_store(&log).expect("bound");
        assert_eq!(DataDir::embedded_log_in(&path).expect("read").as_ref(), Some(&log));
        assert_eq!(DataDir::other_log_than(&path, &log).expect("read"), None);
        let other = LogIdentity::Embedded { id: "other".into() };
        let sentence = DataDir::other_log_than(&path, &other).expect("read").expect("another");
        assert!(sentence.contains("--data-dir"), "{sentence}");
    }
}
