//! The name under which a consumer group knows the process of a data directory across restarts.
//! Joins no group. Keeps INV-MEMBER.
//!
//! ```text
//! receipts-52f1c09d3ab84e76   random, made at the first start
//! 1835412                     the inode of this file
//! ```
//!
//! A copy of the file has another inode, so a copied or restored directory gets a name of its own.
//! Two processes of one name would push each other out of the group. A copy of a whole volume keeps
//! the inode; there the broker lets the process that joins last go on, and the other one forgets
//! its name as it ends.

use super::DataDir;
use super::files::{random, read_if_exists, write_numbered};
use anyhow::{Context as _, Result};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

impl DataDir {
    /// Returns the name of this directory's process; makes it the first time, and anew in a copy.
    ///
    /// # Errors
    /// If the file cannot be read or made.
    pub(crate) fn instance(&self) -> Result<String> {
        let path = self.instance_file();
        if let Some(held) = read_if_exists(&path)? {
            if let Some(name) = name_of(&String::from_utf8_lossy(&held), &path)? {
                return Ok(name);
            }
            tracing::info!(
                path = %path.display(),
                "the data directory is a copy or was moved, so this process takes a new name in its consumer group"
            );
        }
        let name = format!("receipts-{}", receipts_event::hex(&random::<8>()?));
        write_numbered(&path, |inode| format!("{name}\n{inode}\n").into_bytes())?;
        Ok(name)
    }

    /// Forgets the name, because another process has it: the next start takes a new one.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub(crate) fn forget_instance(&self) -> Result<()> {
        let path = self.instance_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn instance_file(&self) -> PathBuf {
        self.path.join("instance")
    }
}

/// Reads the name from the text of a file; `None` if the text was written to another file.
fn name_of(text: &str, path: &Path) -> Result<Option<String>> {
    let mut lines = text.lines();
    let (name, inode) = (lines.next().unwrap_or_default(), lines.next().and_then(|line| line.parse().ok()));
    let held = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.ino();
    Ok((inode == Some(held) && !name.is_empty()).then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::opened;
    use super::*;

    #[test]
    fn name_is_made_once_and_forgotten_on_demand() {
        let (_folder, data) = opened();
        let name = data.instance().expect("made");
        assert_eq!(data.instance().expect("read"), name);
        data.forget_instance().expect("removed");
        data.forget_instance().expect("nothing to remove");
        assert_ne!(data.instance().expect("made anew"), name);
    }

    #[test]
    fn copied_directory_gets_another_name() {
        let (folder, data) = opened();
        let name = data.instance().expect("made");
        let (copy, path) = (folder.path().join("copy"), data.instance_file());
        fs::create_dir(&copy).expect("made");
        fs::copy(&path, copy.join("instance")).expect("copied");
        let copy = DataDir::open(&copy).expect("opened");
        let other = copy.instance().expect("made anew");
        assert_ne!(other, name);
        assert_eq!((copy.instance().expect("kept"), data.instance().expect("kept")), (other, name.clone()));
        for damaged in ["", "receipts-1", "receipts-1\nx\n", "\n1\n"] {
            fs::write(&path, damaged).expect("written");
            assert!(data.instance().expect("made anew").starts_with("receipts-"), "{damaged:?}");
        }
    }
}
