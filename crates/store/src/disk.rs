//! The port below a store: the files of one directory, and a map of keys to values per partition.
//! Knows no checkpoint.
//!
//! Simulations implement it in memory. They cut the process or the power between any two writes,
//! syncs and removals.

use crate::error::Error;
use std::fmt;
use std::io;

/// The files and maps of a store. The effect of a call survives the death of the process, unless
/// the call says otherwise. Only synced data survives a power loss.
pub trait Disk: Send + Sync {
    /// Opens the map of a partition, and creates it if it is missing.
    ///
    /// # Errors
    /// If the disk fails or is damaged.
    fn map(&self, partition: u32) -> Result<Box<dyn Map>, Error>;

    /// Removes the map of a partition.
    ///
    /// # Errors
    /// If the disk fails.
    fn drop_map(&self, partition: u32) -> Result<(), Error>;

    /// Returns the bytes on disk.
    fn bytes(&self) -> u64;

    /// Returns the names of the files.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Reads a whole file.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Writes a whole file, neither atomically nor synced.
    ///
    /// # Errors
    /// If the disk fails or is full: a part of the file may be there.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Syncs the bytes of a file.
    ///
    /// # Errors
    /// If the disk fails: any part of the file may be lost with the power.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Renames a file, and replaces the file that had the new name.
    ///
    /// # Errors
    /// If the disk fails.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Syncs the names of the files, after files were created, renamed or removed.
    ///
    /// # Errors
    /// If the disk fails.
    fn sync_names(&self) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// If the disk fails.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns the path of a file, for messages.
    fn path(&self, name: &str) -> String;
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// The keys and values of a partition.
pub trait Map: Send + Sync {
    /// Returns the value of a key.
    ///
    /// # Errors
    /// If the disk fails.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Error>;

    /// Returns all keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// If the disk fails.
    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error>;

    /// Returns the first values from a key on, in order: fewer than `most` only at the end.
    ///
    /// # Errors
    /// If the disk fails.
    fn values(&self, from: &[u8], most: usize) -> Result<Vec<KeyValue>, Error>;

    /// Writes a value; returns the replaced one. The change is safe only after [`Self::flush`]: if
    /// the process dies before, the first few unflushed changes survive, or none.
    ///
    /// # Errors
    /// If the disk fails.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<Value>, Error>;

    /// Writes a value to a map that is filled in the order of its keys. Stale parts of the file
    /// need no cleaning then.
    ///
    /// # Errors
    /// If the disk fails.
    fn fill(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.insert(key, value).map(drop)
    }

    /// Removes a value and returns it; as safe as [`Self::insert`].
    ///
    /// # Errors
    /// If the disk fails.
    fn remove(&self, key: &[u8]) -> Result<Option<Value>, Error>;

    /// Makes the changes so far survive the death of the process; with `sync` a power loss too.
    ///
    /// # Errors
    /// If the disk fails.
    fn flush(&self, sync: bool) -> Result<(), Error>;
}

/// A value of a disk. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(pub(crate) sled::IVec);

impl Value {
    /// Copies bytes into a value.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
