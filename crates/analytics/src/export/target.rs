//! The target of an export: a directory or a bucket. Each file is complete or absent, and an
//! unchanged file is not written again. It does not know datasets.

use crate::Error;
use receipts_objects::{Destination, Error as ObjectsError};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
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

    /// Lists the files named `part-…` of a dataset, by the names that [`Self::key_of`] returns.
    pub(super) fn parts(&self, dataset: &str) -> Result<Vec<String>, Error> {
        let mut parts = Vec::new();
        match self {
            Self::Directory(out) => {
                for tenant in folders(&out.join(dataset), "tenant=")? {
                    for day in folders(&out.join(dataset).join(&tenant), "day=")? {
                        for part in names(&out.join(dataset).join(&tenant).join(&day))? {
                            parts.push(format!("{dataset}/{tenant}/{day}/{part}"));
                        }
                    }
                }
            }
            Self::Objects(objects) => {
                let objects = objects.list(dataset)?;
                parts.extend(objects.into_iter().map(|object| object.name).filter(|name| {
                    let folders: Vec<&str> = name.split('/').collect();
                    matches!(&*folders, [_, tenant, day, _] if tenant.starts_with("tenant=") && day.starts_with("day="))
                }));
            }
        }
        parts.retain(|name| name.rsplit('/').next().is_some_and(|name| name.starts_with("part-")));
        Ok(parts)
    }

    /// Returns the name under which [`Self::parts`] lists a file that [`Self::put`] wrote.
    pub(super) fn key_of(&self, name: &str) -> String {
        match self {
            Self::Directory(_) => name.to_owned(),
            Self::Objects(_) => key(name),
        }
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
