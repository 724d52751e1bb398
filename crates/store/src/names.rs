//! Conversation names and their numbers in memory: names that are new since the last checkpoint,
//! and recently used names. Reads no medium.

use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// Maps names to numbers.
#[derive(Default)]
struct Map(HashTable<(Box<[u8]>, u32)>);

fn hash(name: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(name);
    hasher.finish()
}

impl Map {
    fn get(&self, hash: u64, name: &[u8]) -> Option<u32> {
        self.0.find(hash, |(n, _)| **n == *name).map(|(_, number)| *number)
    }

    /// Inserts a name; returns true if it is new.
    fn insert(&mut self, of_name: u64, name: Box<[u8]>, number: u32) -> bool {
        match self.0.entry(of_name, |(n, _)| *n == name, |(n, _)| hash(n)) {
            hashbrown::hash_table::Entry::Occupied(mut found) => {
                found.get_mut().1 = number;
                false
            }
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert((name, number));
                true
            }
        }
    }
}

/// A cache of two generations. A name that is used moves to the recent one; the old one is dropped
/// as a whole.
#[derive(Default)]
pub(crate) struct Names {
    unsaved: Map,
    /// Names in `batch`, until the batch is readable.
    saved: Map,
    batch: u64,
    recent: Map,
    old: Map,
    bytes: usize,
    old_bytes: usize,
    /// The name that was used last. Receipts of one reader often come in a row, and then it is used
    /// again.
    last: (Vec<u8>, u32),
}

impl Names {
    pub(crate) fn get(&self, name: &[u8]) -> Option<u32> {
        let hash = hash(name);
        [&self.recent, &self.unsaved, &self.old, &self.saved].into_iter().find_map(|m| m.get(hash, name))
    }

    /// Returns the number of a cached name, and moves the name to the recent generation.
    pub(crate) fn hot(&mut self, name: &[u8]) -> Option<u32> {
        if self.last.0 == name {
            return Some(self.last.1);
        }
        let number = match self.recent.get(hash(name), name) {
            Some(number) => number,
            None => {
                let number = self.get(name)?;
                self.load(name, number);
                number
            }
        };
        self.last.0.clear();
        self.last.0.extend_from_slice(name);
        self.last.1 = number;
        Some(number)
    }

    /// Returns the name that probably has this hash, and its number, if it was used recently.
    pub(crate) fn probably(&self, hash: u64) -> Option<(&[u8], u32)> {
        self.recent.0.iter_hash(hash).next().map(|(name, number)| (&**name, *number))
    }

    pub(crate) fn hash(name: &[u8]) -> u64 {
        hash(name)
    }

    pub(crate) fn load(&mut self, name: &[u8], number: u32) {
        if self.recent.insert(hash(name), name.into(), number) {
            self.bytes += name.len() + 40;
        }
    }

    pub(crate) fn put(&mut self, name: &[u8], number: u32) {
        self.unsaved.insert(hash(name), name.into(), number);
        self.load(name, number);
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.unsaved.0.iter().map(|(name, number)| (&**name, *number))
    }

    pub(crate) fn mark_saved(&mut self, batch: u64) {
        for (name, number) in self.unsaved.0.drain() {
            self.saved.insert(hash(&name), name, number);
        }
        self.batch = batch;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes + self.old_bytes + 64 * (self.unsaved.0.len() + self.saved.0.len())
    }

    /// Drops saved names once the medium has them.
    pub(crate) fn forget_saved(&mut self, applied: u64) {
        if self.batch <= applied {
            self.saved = Map::default();
        }
    }

    /// Keeps each generation below a bound.
    pub(crate) fn trim(&mut self, half_bytes_max: usize) {
        if self.bytes > half_bytes_max {
            self.old = std::mem::take(&mut self.recent);
            self.old_bytes = std::mem::take(&mut self.bytes);
        }
    }
}
