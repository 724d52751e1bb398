//! A medium whose batches count at once but become readable later, entry by entry, as in sled. Uses
//! no disk.

use parking_lot::Mutex;
use receipts_store::{Backend, Batch, Entry, Error, MemoryBackend};
use std::collections::VecDeque;
use std::sync::Arc;

/// A medium whose readable values lag behind its batches.
#[derive(Default, Clone)]
pub(crate) struct Lagging {
    readable: MemoryBackend,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// Batches that count but are not wholly readable, and the number of readable entries of the
    /// first one.
    pending: VecDeque<Batch>,
    entries: usize,
    committed: u64,
}

impl Lagging {
    /// Makes a number of further entries readable, batch after batch.
    pub(crate) fn catch_up(&self, entries: usize) {
        let shared = &mut *self.shared.lock();
        for _ in 0..entries {
            let Some(first) = shared.pending.front() else { return };
            let Some(entry) = first.iter().nth(shared.entries) else {
                shared.pending.pop_front();
                shared.entries = 0;
                continue;
            };
            let mut one = Batch::new(0, 0, 0);
            match entry {
                Entry::Write(key, value) => one.write(key, value),
                Entry::Remove(key) => one.remove(key),
            }
            one.seal();
            self.readable.commit(one).expect("memory does not fail");
            shared.entries += 1;
        }
    }

    /// Applies all batches as a whole, as a start does with the journals that it finds.
    pub(crate) fn reopen(&self) {
        let shared = &mut *self.shared.lock();
        shared.entries = 0;
        for batch in shared.pending.drain(..) {
            self.readable.commit(batch).expect("memory does not fail");
        }
    }
}

impl Backend for Lagging {
    type Value = <MemoryBackend as Backend>::Value;

    fn get(&self, key: &[u8]) -> Result<Option<Self::Value>, Error> {
        self.readable.get(key)
    }

    fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.readable.keys(prefix)
    }

    fn commit(&self, batch: Batch) -> Result<u64, Error> {
        let shared = &mut *self.shared.lock();
        shared.pending.push_back(batch);
        shared.committed += 1;
        Ok(shared.committed)
    }

    fn applied(&self) -> u64 {
        let shared = self.shared.lock();
        shared.committed - shared.pending.len() as u64
    }
}
