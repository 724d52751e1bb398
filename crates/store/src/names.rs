//! Conversation names and their numbers in memory: those new since the last checkpoint, and those asked for lately.

use rustc_hash::FxBuildHasher;

type Map = hashbrown::HashMap<Box<[u8]>, u32, FxBuildHasher>;

/// A cache in two halves: what is asked for moves to the young one, and the old one goes as a whole.
#[derive(Default)]
pub(crate) struct Names {
    unsaved: Map,
    /// Saved, not readable yet, with the batch that will be.
    saved: Map,
    batch: u64,
    young: Map,
    old: Map,
    bytes: usize,
    old_bytes: usize,
}

impl Names {
    pub(crate) fn get(&self, name: &[u8]) -> Option<u32> {
        [&self.young, &self.unsaved, &self.old, &self.saved].into_iter().find_map(|m| m.get(name)).copied()
    }

    pub(crate) fn hot(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(number) = self.young.get(name) {
            return Some(*number);
        }
        let number = self.get(name)?;
        self.load(name, number);
        Some(number)
    }

    pub(crate) fn load(&mut self, name: &[u8], number: u32) {
        if self.young.insert(name.into(), number).is_none() {
            self.bytes += name.len() + 40;
        }
    }

    pub(crate) fn put(&mut self, name: &[u8], number: u32) {
        self.unsaved.insert(name.into(), number);
        self.load(name, number);
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.unsaved.iter().map(|(name, number)| (&**name, *number))
    }

    pub(crate) fn saved(&mut self, batch: u64) {
        self.saved.extend(self.unsaved.drain());
        self.batch = batch;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes + self.old_bytes + 64 * (self.unsaved.len() + self.saved.len())
    }

    /// Keeps the halves below a bound each, and forgets what the medium has by now.
    pub(crate) fn trim(&mut self, half_bytes_max: usize, applied: u64) {
        if self.batch <= applied {
            self.saved = Map::default();
        }
        if self.bytes > half_bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.bytes);
        }
    }
}
