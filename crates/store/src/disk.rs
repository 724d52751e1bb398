//! The port to what a store stands on: files of one directory, and a map of keys to values for each partition. So that the
//! order of writes, syncs and removals can be held to every death that it must survive, without a disk.

use crate::error::Error;
use std::fmt;
use std::io;

/// What a store stands on. What a call has done survives the death of the process, unless it says otherwise; what is to
/// survive the loss of power has to be synced.
pub trait Disk: Send + Sync {
    /// The map of a partition, made where there is none.
    ///
    /// # Errors
    /// Where the disk fails or is damaged.
    fn map(&self, partition: u32) -> Result<Box<dyn Map>, Error>;

    /// Removes the map of a partition.
    ///
    /// # Errors
    /// Where the disk fails.
    fn drop_map(&self, partition: u32) -> Result<(), Error>;

    /// Bytes on disk.
    fn bytes(&self) -> u64;

    /// Names of the files.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A file as a whole.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Writes a file as a whole, not atomically, and not through to the disk.
    ///
    /// # Errors
    /// Where the disk fails or is full: the file may be there in part.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Syncs a file that was written.
    ///
    /// # Errors
    /// Where the disk fails: what of the file survives the loss of power is not known.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in the place of what had it.
    ///
    /// # Errors
    /// Where the disk fails.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Syncs the names of files: those made, renamed and removed.
    ///
    /// # Errors
    /// Where the disk fails.
    fn sync_names(&self) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Where the disk fails.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Where the file is, for people.
    fn place(&self, name: &str) -> String;
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// The values of a partition.
pub trait Map: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// Where the disk fails.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Error>;

    /// All keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// Where the disk fails.
    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error>;

    /// The first values from a key on, in order: fewer than `most` where there are no more.
    ///
    /// # Errors
    /// Where the disk fails.
    fn values(&self, from: &[u8], most: usize) -> Result<Vec<KeyValue>, Error>;

    /// Writes a value; returns the one that it replaced. It survives anything only after [`Self::flush`]; of what was not
    /// flushed a death leaves the first few changes, or none.
    ///
    /// # Errors
    /// Where the disk fails.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<Value>, Error>;

    /// The same for a map that is filled by keys in order: what becomes stale on the way goes by itself.
    ///
    /// # Errors
    /// Where the disk fails.
    fn fill(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.insert(key, value).map(drop)
    }

    /// Removes a value and returns it; survives as [`Self::insert`] does.
    ///
    /// # Errors
    /// Where the disk fails.
    fn remove(&self, key: &[u8]) -> Result<Option<Value>, Error>;

    /// Makes the changes so far survive the death of the process, with `sync` the loss of power.
    ///
    /// # Errors
    /// Where the disk fails.
    fn flush(&self, sync: bool) -> Result<(), Error>;
}

/// A value as a disk has it; cheap where it is sled's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(pub(crate) sled::IVec);

impl Value {
    /// The bytes of a value.
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
