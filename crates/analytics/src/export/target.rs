//! The target of an export: a directory or a bucket. Each file is complete or absent, and an
//! unchanged file is not written again. It does not know datasets.

use super::v2::FileEntry;
use crate::Error;
use receipts_objects::{Destination, Error as ObjectsError};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The target of an export. Names use `/` between folders.
#[derive(Debug, Clone)]
pub enum Target {
    /// A directory; created if it does not exist.
    Directory(PathBuf),
    /// A bucket, given by a URL.
    Objects(Destination),
}

impl Target {
    /// Opens a directory path or a URL: `s3://`, `gs://`, `az://`, `file://`. Credentials come from
    /// the environment.
    ///
    /// # Errors
    /// If the URL names no known kind of bucket.
    pub fn open(text: &str) -> Result<Self, ObjectsError> {
        if text.contains("://") { Destination::open(text).map(Self::Objects) } else { Ok(Self::Directory(text.into())) }
    }

    /// Returns the path or URL of a file, for display.
    pub fn shown(&self, name: &str) -> String {
        match self {
            Self::Directory(path) => path.join(name).display().to_string(),
            Self::Objects(objects) => objects.location(&key(name)),
        }
    }

    /// Writes a file; a file of a directory that already has these bytes is not written again.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Directory(out) => {
                let path = out.join(name);
                put(&path, &bytes).map_err(Error::io(format!("writing {}", path.display())))
            }
            Self::Objects(objects) => Ok(objects.put_bytes(&key(name), bytes)?),
        }
    }

    /// Reads a small file; `None` if it does not exist.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let read = match self {
            Self::Directory(out) => fs::read(out.join(name)),
            Self::Objects(objects) => match objects.read(&key(name)) {
                Ok(mut download) => {
                    let mut bytes = Vec::new();
                    download.read_to_end(&mut bytes).map(|_| bytes)
                }
                Err(ObjectsError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("reading {}", self.shown(name)))(error)),
        }
    }

    /// Moves a complete local file to its name; the file's bytes are on disk first.
    pub(super) fn put_file(&self, name: &str, file: &Path) -> Result<(), Error> {
        match self {
            Self::Directory(out) => {
                let path = out.join(name);
                let moved = || {
                    if let Some(folder) = path.parent() {
                        fs::create_dir_all(folder)?;
                    }
                    File::open(file)?.sync_all()?;
                    fs::rename(file, &path)
                };
                moved().map_err(Error::io(format!("writing {}", path.display())))
            }
            Self::Objects(objects) => {
                objects.put_file(&key(name), file, &mut |_| {})?;
                fs::remove_file(file).map_err(Error::io(format!("removing {}", file.display())))
            }
        }
    }

    /// Returns whether a file is there with the size and the checksum that it was written with.
    pub(super) fn holds(&self, file: &FileEntry) -> Result<bool, Error> {
        let reading = || Error::io(format!("reading {}", self.shown(&file.name)));
        let mut held: Box<dyn io::Read> = match self {
            Self::Directory(out) => match File::open(out.join(&file.name)) {
                Ok(held) => Box::new(held),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(reading()(error)),
            },
            Self::Objects(objects) => match objects.read(&key(&file.name)) {
                Ok(held) => Box::new(held),
                Err(ObjectsError::Missing { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            },
        };
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut held, &mut hash).map_err(reading())?;
        Ok(bytes == file.bytes && receipts_event::hex(&hash.finalize()) == file.sha256)
    }

    /// Lists the files named `part-…` of a dataset, of either layout, by the names that
    /// [`Self::key_of`] returns.
    fn parts(&self, dataset: &str) -> Result<Vec<String>, Error> {
        let mut parts = Vec::new();
        match self {
            Self::Directory(out) => {
                let folder = out.join(dataset);
                let files = names(&folder)?.into_iter().filter(|name| folder.join(name).is_file());
                parts.extend(files.map(|part| format!("{dataset}/{part}")));
                for tenant in folders(&folder, "tenant=")? {
                    for day in folders(&folder.join(&tenant), "day=")? {
                        for part in names(&folder.join(&tenant).join(&day))? {
                            parts.push(format!("{dataset}/{tenant}/{day}/{part}"));
                        }
                    }
                }
            }
            Self::Objects(objects) => {
                let objects = objects.list(dataset)?;
                parts.extend(objects.into_iter().map(|object| object.name).filter(|name| {
                    let folders: Vec<&str> = name.split('/').collect();
                    match &*folders {
                        [_, _] => true,
                        [_, tenant, day, _] => tenant.starts_with("tenant=") && day.starts_with("day="),
                        _ => false,
                    }
                }));
            }
        }
        parts.retain(|name| name.rsplit('/').next().is_some_and(|name| name.starts_with("part-")));
        Ok(parts)
    }

    /// Returns the name under which [`Self::parts`] lists a file that was written.
    fn key_of(&self, name: &str) -> String {
        match self {
            Self::Directory(_) => name.to_owned(),
            Self::Objects(_) => key(name),
        }
    }

    /// Checks that a dataset's folder is no live table, whose files an export would remove.
    ///
    /// # Errors
    /// If it is one.
    pub(super) fn check_no_live_table(&self, dataset: &str) -> Result<(), Error> {
        let log = format!("{dataset}/_delta_log");
        let is_live = match self {
            Self::Directory(out) => out.join(&log).exists(),
            Self::Objects(objects) => !objects.list(&log)?.is_empty(),
        };
        if !is_live {
            return Ok(());
        }
        Err(Error::io(format!("writing to {}", self.shown(dataset)))(io::Error::other(
            "it is a live table of --follow: choose another --out",
        )))
    }

    /// Checks that each written name is a file of its own.
    ///
    /// # Errors
    /// If the directory ignores case and has one file for two names.
    pub(super) fn check_distinct(&self, written: &BTreeSet<String>) -> Result<(), Error> {
        let Self::Directory(out) = self else { return Ok(()) };
        let doing = || format!("writing to {}", out.display());
        match same_file(out, written).map_err(Error::io(doing()))? {
            None => Ok(()),
            Some((a, b)) => Err(Error::io(doing())(io::Error::other(format!(
                "this folder ignores case, and {a} and {b} are one file: leave out --layout v1"
            )))),
        }
    }

    /// Removes the files of earlier exports of a dataset, those that are not among `written`.
    /// Returns their number.
    pub(super) fn remove_others(&self, dataset: &str, written: &BTreeSet<String>) -> Result<u64, Error> {
        let mut removed = 0;
        for name in others(self.parts(dataset)?, written.iter().map(|name| self.key_of(name))) {
            self.remove(&name)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes a file by its listed name, and folders that become empty.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let out = match self {
            Self::Directory(out) => out,
            Self::Objects(objects) => return Ok(objects.delete(name)?),
        };
        let path = out.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io(format!("removing {}", path.display()))(error));
            }
            _ => {}
        }
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != out).take(2) {
            match fs::remove_dir(folder) {
                Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                    return Err(Error::io(format!("removing {}", folder.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns two names that differ only in case and are one file, because the file system ignores
/// case: then one tenant's rows have replaced another's.
fn same_file<'n>(out: &Path, written: &'n BTreeSet<String>) -> io::Result<Option<(&'n str, &'n str)>> {
    let mut met: BTreeMap<String, &str> = BTreeMap::new();
    for name in written {
        let Some(other) = met.insert(name.to_lowercase(), name) else { continue };
        let (a, b) = (fs::metadata(out.join(other))?, fs::metadata(out.join(name))?);
        if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
            return Ok(Some((other, name)));
        }
    }
    Ok(None)
}

/// Returns the listed names that were not written. A file system that ignores case may list a
/// written file with the letters of an older one, so names that differ only in case are kept.
fn others(listed: Vec<String>, written: impl Iterator<Item = String>) -> Vec<String> {
    let written: BTreeSet<String> = written.map(|name| name.to_lowercase()).collect();
    listed.into_iter().filter(|name| !written.contains(&name.to_lowercase())).collect()
}

/// Returns a file's name in a bucket. Buckets escape `%` and `~` again, so `!` replaces them.
fn key(name: &str) -> String {
    name.replace('!', "%21").replace('~', "%7E").replace('%', "!")
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|held| held.len() == bytes.len() as u64) && fs::read(path)? == bytes {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut while_made = path.as_os_str().to_owned();
    while_made.push(".tmp");
    let mut file = File::create(&while_made)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&while_made, path)
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    match list() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(Error::io(format!("listing {}", dir.display()))),
    }
}

fn folders(dir: &Path, prefix: &str) -> Result<Vec<String>, Error> {
    let names = names(dir)?;
    Ok(names.into_iter().filter(|name| name.starts_with(prefix) && dir.join(name).is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_no_other_in_any_case() {
        let listed = ["m/tenant=Acme/day=1/part-0", "m/tenant=b/day=1/part-0", "m/part-1"].map(str::to_owned);
        let written = ["m/tenant=acme/day=1/part-0".to_owned()].into_iter();
        assert_eq!(others(listed.to_vec(), written), ["m/tenant=b/day=1/part-0", "m/part-1"]);
    }

    /// A hard link is what two names of one file look like where case is ignored.
    #[test]
    fn two_names_of_one_file_are_refused() {
        let out = tempfile::tempdir().unwrap();
        for name in ["acme", "Other", "OTHER"] {
            fs::write(out.path().join(name), name).unwrap();
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let target = Target::Directory(out.path().to_owned());
        target.check_distinct(&names(&["acme", "Other", "OTHER"])).unwrap();
        fs::hard_link(out.path().join("acme"), out.path().join("Acme")).unwrap();
        let refused = target.check_distinct(&names(&["acme", "Acme", "Other"])).unwrap_err().to_string();
        assert!(refused.contains("Acme and acme are one file"), "{refused}");
    }
}
