//! Small files that are there whole or not at all, and random bytes. Knows no path of the data
//! directory. Keeps INV-PRIVATE.

use anyhow::{Context as _, Result, anyhow};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Logs and states hold ids and read times, so only the service's own user may read them.
pub(super) const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Returns random bytes from the operating system.
///
/// # Errors
/// If the operating system has none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the operating system gives no random bytes: {error}"))?;
    Ok(bytes)
}

/// Writes a file that is there whole or not at all, for its owner alone.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_numbered(path, |_| bytes.to_vec())
}

/// As [`write_whole`], of bytes that may hold the inode of the file.
pub(super) fn write_numbered(path: &Path, bytes: impl FnOnce(u64) -> Vec<u8>) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&part)?;
        file.write_all(&bytes(file.metadata()?.ino()))?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a file; returns `None` if there is none.
pub(super) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Makes a folder and its parents, for their owner alone; does nothing if it is there. A power cut
/// afterwards does not lose them.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    make_synced(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

fn make_synced(path: &Path) -> io::Result<()> {
    let made: Vec<&Path> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
    for folder in made {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Closes a folder that was there before to its group and to others, if everything in it is ours.
/// A warning remains where that is impossible: the folder may be somebody's home.
pub(super) fn close_folder(path: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<()> {
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let names: Vec<_> = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    let all_ours = names.iter().all(|name| name.to_str().is_some_and(&is_ours));
    let shown = path.display();
    if all_ours && fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)).is_ok() {
        tracing::info!(mode = format!("{mode:03o}"), "closed the data directory {shown} to all users but its owner");
    } else {
        tracing::warn!(mode = format!("{mode:03o}"), "other users may enter the data directory: chmod 700 {shown}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o777
    }

    /// INV-PRIVATE
    #[test]
    fn folders_and_files_are_for_their_owner() {
        let home = tempfile::tempdir().expect("a folder");
        let deep = home.path().join("a/b");
        make_folder(&deep).expect("made with its parents");
        make_folder(&deep).expect("there");
        write_whole(&deep.join("f"), b"x").expect("written");
        assert_eq!([mode(&deep), mode(&home.path().join("a")), mode(&deep.join("f"))], [0o700, 0o700, 0o600]);
        let sentence = make_folder(&deep.join("f")).expect_err("a file").to_string();
        assert!(sentence.contains("cannot make the folder"), "{sentence}");
    }

    /// INV-PRIVATE
    #[test]
    fn open_folder_is_closed_unless_others_use_it() {
        let home = tempfile::tempdir().expect("a folder");
        let close = |is_ours: bool| {
            fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("opened");
            close_folder(home.path(), |_| is_ours).expect("looked at");
            mode(home.path())
        };
        assert_eq!(close(false), 0o700, "an empty folder is ours");
        fs::write(home.path().join("x"), "").expect("written");
        assert_eq!(close(true), 0o700);
        assert_eq!(close(false), 0o755);
    }
}
