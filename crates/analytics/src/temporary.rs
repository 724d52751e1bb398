//! Temporary folders that outlive no process for long. A folder is locked while its process lives,
//! and the next process that makes one removes those that a kill left. Must not remove a folder of
//! another user, or one without this module's name.

use crate::Error;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Once;
use tempfile::TempDir;

/// The beginning of the folders' names.
const PREFIX: &str = "receipts-temporary-";
const LOCK: &str = "lock";

/// A folder in `TMPDIR` that only its owner may enter: it holds ids and read times. Dropping it
/// removes it.
#[derive(Debug)]
pub struct TemporaryFolder {
    content: PathBuf,
    // Dropped before the lock, so that no other process sees it unlocked.
    _folder: TempDir,
    _lock: File,
}

impl TemporaryFolder {
    /// Makes an empty folder. The first call of a process also removes folders of killed ones.
    ///
    /// # Errors
    /// If `TMPDIR` cannot be written.
    pub fn new() -> Result<Self, Error> {
        static SWEEP: Once = Once::new();
        let parent = std::env::temp_dir();
        let make = || {
            let made = Self::new_in(&parent)?;
            let user = fs::metadata(made.path())?.uid();
            SWEEP.call_once(|| sweep(&parent, user));
            Ok(made)
        };
        make().map_err(Error::io("creating a temporary directory (set TMPDIR to choose another location)"))
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(parent)?;
        let content = folder.path().join("content");
        fs::create_dir(&content)?;
        let while_made = folder.path().join("lock.tmp");
        let lock = File::create(&while_made)?;
        // The lock has its name only once it is held. Without locks in the file system it has none,
        // and the folder is never taken for a left one.
        if lock.try_lock().is_ok() {
            fs::rename(&while_made, folder.path().join(LOCK))?;
        }
        Ok(Self { content, _folder: folder, _lock: lock })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.content
    }
}

/// Removes a user's folders whose processes are gone. A failure is no reason to stop.
fn sweep(parent: &Path, user: u32) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        match remove_left(&path, user) {
            Ok(false) => {}
            Ok(true) => tracing::info!(path = %path.display(), "removed the temporary files of a killed process"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "temporary files of a killed process cannot be removed");
            }
        }
    }
}

/// Removes a user's folder whose process is gone; returns whether it did.
fn remove_left(folder: &Path, user: u32) -> io::Result<bool> {
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != user {
        return Ok(false);
    }
    // Without a lock the folder is about to get one, or its file system has none.
    let Ok(lock) = File::open(folder.join(LOCK)) else { return Ok(false) };
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as a kill leaves it: with its files, and without a lock that is held.
    fn left(parent: &Path) -> PathBuf {
        let folder = parent.join(format!("{PREFIX}left"));
        fs::create_dir_all(folder.join("content")).unwrap();
        fs::write(folder.join("content/rows"), "ids").unwrap();
        fs::write(folder.join(LOCK), "").unwrap();
        folder
    }

    #[test]
    fn folders_of_killed_processes_are_removed_alone() {
        let parent = tempfile::tempdir().unwrap();
        let held = TemporaryFolder::new_in(parent.path()).unwrap();
        fs::write(held.path().join("rows"), "ids").unwrap();
        let (left, unlocked, other) =
            (left(parent.path()), parent.path().join(format!("{PREFIX}new")), parent.path().join("other"));
        fs::create_dir(&unlocked).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK), "").unwrap();
        let user = fs::metadata(parent.path()).unwrap().uid();
        sweep(parent.path(), user + 1);
        assert!(left.exists(), "another user's");
        sweep(parent.path(), user);
        assert!(!left.exists());
        assert!(held.path().join("rows").exists() && unlocked.exists() && other.exists());
        assert_eq!(fs::metadata(held.path().parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        drop(held);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "only those that it must not remove");
    }
}
