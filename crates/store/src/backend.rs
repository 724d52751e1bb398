//! The port to a medium: values by key, and batches of which all or nothing counts. Knows no page.

use crate::batch::{Batch, Entry};
use crate::envelope::part_key;
use crate::error::Error;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Where a partition's values are kept.
///
/// A batch counts as a whole or not at all, through the death of the process at any moment: from some moment after
/// [`Self::commit`] has returned, and at the latest once [`Self::applied`] reaches the number that it returned. Then its values
/// are readable; until then the caller has to remember them.
pub trait Backend: Send + Sync + 'static {
    /// A value as the medium has it.
    type Value: AsRef<[u8]>;

    /// The value of a key, as of the batches applied so far.
    ///
    /// # Errors
    /// Where the medium fails.
    fn get(&self, key: &[u8]) -> Result<Option<Self::Value>, Error>;

    /// All keys that begin with `prefix`, in order.
    ///
    /// # Errors
    /// Where the medium fails.
    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error>;

    /// Takes a sealed batch, to make it count soon; returns its number, which rises by one from batch to batch.
    ///
    /// # Errors
    /// Where the medium fails: the batch does not count, and the next one must hold what this one held. Where an earlier batch
    /// could not be made to count: nothing is taken any more.
    fn commit(&self, batch: Batch) -> Result<u64, Error>;

    /// The number of the last batch whose values are readable.
    fn applied(&self) -> u64;
}

/// Values in memory: for tests, and for looking at a stretch of a log without leaving a trace.
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
    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.shared.read().values.iter().map(|(k, v)| k.len() + v.len()).sum()
    }

    /// Flips a bit of a value, for tests of what must then be found.
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
