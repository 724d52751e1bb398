//! The port to a medium: values by key, and atomic batches. Knows no page.

use crate::batch::{Batch, Entry};
use crate::envelope::part_key;
use crate::error::Error;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Stores the values of a partition.
///
/// A batch counts as a whole or not at all, even if the process dies at any moment (INV-ATOMIC). It
/// begins to count some time after [`Self::commit`] has returned, and at the latest once
/// [`Self::applied`] reaches the returned number. Its values are readable then; until then the
/// caller must keep them.
pub trait Backend: Send + Sync + 'static {
    /// A value of the medium.
    type Value: AsRef<[u8]>;

    /// Returns the value of a key, as of the batches applied so far.
    ///
    /// # Errors
    /// If the medium fails.
    fn get(&self, key: &[u8]) -> Result<Option<Self::Value>, Error>;

    /// Returns all keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// If the medium fails.
    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error>;

    /// Takes a sealed batch, which counts soon after. Returns its number, which rises by one per
    /// batch.
    ///
    /// # Errors
    /// If the medium fails: the batch does not count, and the next one must hold its entries
    /// too. Where an earlier batch failed after its commit: the medium takes no batch any more.
    fn commit(&self, batch: Batch) -> Result<u64, Error>;

    /// Returns the number of the last batch whose values are readable.
    fn applied(&self) -> u64;
}

/// A medium in memory: for tests, and to fold a range of a log without writing to the disk.
#[derive(Debug, Default, Clone)]
pub struct MemoryBackend {
    shared: Arc<RwLock<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    values: BTreeMap<Vec<u8>, Arc<[u8]>>,
    batches: u64,
}

impl MemoryBackend {
    /// Returns the bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.shared.read().values.iter().map(|(k, v)| k.len() + v.len()).sum()
    }

    /// Flips a bit of a value, for tests that must find the damage.
    pub fn flip(&self, key: &[u8], bit: usize) {
        if let Some(value) = self.shared.write().values.get_mut(key) {
            let mut bytes = value.to_vec();
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            *value = bytes.into();
        }
    }
}

impl Backend for MemoryBackend {
    type Value = Arc<[u8]>;

    fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>, Error> {
        Ok(self.shared.read().values.get(key).cloned())
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let shared = self.shared.read();
        let from = shared.values.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(from.take_while(|(k, _)| k.starts_with(prefix)).map(|(k, _)| k.clone()).collect())
    }

    fn commit(&self, batch: Batch) -> Result<u64, Error> {
        for entry in batch.iter() {
            match entry {
                Entry::Write(key, value) => _ = self.shared.write().values.insert(key.into(), value.into()),
                Entry::Remove(key) => {
                    for part in 0.. {
                        if self.shared.write().values.remove(&part_key(key, part)).is_none() {
                            break;
                        }
                    }
                }
            }
        }
        let mut shared = self.shared.write();
        shared.batches += 1;
        Ok(shared.batches)
    }

    fn applied(&self) -> u64 {
        self.shared.read().batches
    }
}
