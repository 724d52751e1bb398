//! Caches, by message, the slots of its audience that left after its send (ADR 0032). The sets only
//! grow, and a large group has many departures while readers ask for its messages again and again.
//!
//! Not a part of the state: every answer is the same without it.

use hashbrown::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Up to this number of departures, a look at all of them is cheaper than a cache entry.
pub(super) const FEW_DEPARTURES: u32 = 32;
/// The number of slots at which a generation is full.
const SLOTS_MAX: usize = 1 << 18;

/// The slots of a message's audience that left after its send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DepartedSlots {
    /// The number of the conversation's departures that were looked at.
    pub(super) departures: u32,
    /// In order, each once.
    pub(super) slots: Arc<Vec<u32>>,
}

/// Entries by message number, in two generations. An entry that no question reads while a
/// generation fills is dropped with the old one.
#[derive(Debug, Default)]
pub(crate) struct DepartedCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    recent: HashMap<u64, DepartedSlots>,
    recent_slots: usize,
    old: HashMap<u64, DepartedSlots>,
    old_slots: usize,
}

impl Generations {
    fn put(&mut self, message: u64, entry: DepartedSlots) {
        self.recent_slots += entry.slots.len();
        if let Some(before) = self.recent.insert(message, entry) {
            self.recent_slots -= before.slots.len();
        }
        if self.recent_slots > SLOTS_MAX {
            self.old = std::mem::take(&mut self.recent);
            self.old_slots = std::mem::take(&mut self.recent_slots);
        }
    }
}

impl DepartedCache {
    fn generations(&self) -> MutexGuard<'_, Generations> {
        // No method panics halfway through a change, so a poisoned lock still holds a consistent
        // cache.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the entry of a message, and moves it to the recent generation.
    pub(super) fn get(&self, message: u64) -> Option<DepartedSlots> {
        let mut generations = self.generations();
        if let Some(entry) = generations.recent.get(&message) {
            return Some(entry.clone());
        }
        let entry = generations.old.remove(&message)?;
        generations.old_slots -= entry.slots.len();
        generations.put(message, entry.clone());
        Some(entry)
    }

    /// Writes or replaces the entry of a message.
    pub(super) fn put(&self, message: u64, entry: DepartedSlots) {
        self.generations().put(message, entry);
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let generations = self.generations();
        let entries = generations.recent.capacity() + generations.old.capacity();
        entries * (size_of::<(u64, DepartedSlots)>() + 1) + 4 * (generations.recent_slots + generations.old_slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slots: usize) -> DepartedSlots {
        DepartedSlots { departures: slots as u32, slots: Arc::new((0..slots as u32).collect()) }
    }

    /// INV-MEMORY
    #[test]
    fn used_entries_stay_and_memory_stays_bounded() {
        let (all, of_each) = (DepartedCache::default(), 1_000);
        let messages = 4 * SLOTS_MAX / of_each;
        all.put(0, entry(of_each));
        for message in 1..messages as u64 {
            all.put(message, entry(of_each));
            assert_eq!(all.get(0), Some(entry(of_each)), "at message {message}");
            assert!(all.memory_bytes() < 3 * 4 * SLOTS_MAX, "{} bytes", all.memory_bytes());
        }
        assert_eq!(all.get(1), None);
        assert!(all.get(messages as u64 - 1).is_some());
    }

    #[test]
    fn new_entry_replaces_the_old_one() {
        let all = DepartedCache::default();
        (1..100).for_each(|slots| all.put(7, entry(slots)));
        assert_eq!(all.get(7), Some(entry(99)));
        assert_eq!(all.generations().recent_slots, 99);
    }
}
