//! Who of a message's audience left after it was sent, kept from one question to the next: it only grows, and a group of 100,000
//! has many leaves while its messages are asked for again and again. No part of the state: without it each answer is the same.

use hashbrown::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many leaves are looked through anew each time.
pub(crate) const FEW_LEAVES: u32 = 32;
/// Slots of a generation.
const SLOTS_MAX: usize = 1 << 18;

/// Who left after a message was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// The first so many leaves of the conversation were looked at.
    pub(crate) leaves: u32,
    /// In order, each once.
    pub(crate) slots: Arc<Vec<u32>>,
}

/// By number of the message, in two generations: what nobody asks for while a whole generation comes goes with the old one.
#[derive(Debug, Default)]
pub(crate) struct LeftSince(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Left>,
    young_slots: usize,
    old: HashMap<u64, Left>,
    old_slots: usize,
}

impl Generations {
    fn put(&mut self, message: u64, left: Left) {
        self.young_slots += left.slots.len();
        if let Some(before) = self.young.insert(message, left) {
            self.young_slots -= before.slots.len();
        }
        if self.young_slots > SLOTS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.old_slots = std::mem::take(&mut self.young_slots);
        }
    }
}

impl LeftSince {
    fn generations(&self) -> MutexGuard<'_, Generations> {
        // Each change is whole: whoever panicked elsewhere with the lock held has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a message.
    pub(crate) fn get(&self, message: u64) -> Option<Left> {
        let mut generations = self.generations();
        if let Some(left) = generations.young.get(&message) {
            return Some(left.clone());
        }
        let left = generations.old.remove(&message)?;
        generations.old_slots -= left.slots.len();
        generations.put(message, left.clone());
        Some(left)
    }

    /// Takes note of what was found out.
    pub(crate) fn put(&self, message: u64, left: Left) {
        self.generations().put(message, left);
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let generations = self.generations();
        let entries = generations.young.capacity() + generations.old.capacity();
        entries * (size_of::<(u64, Left)>() + 1) + 4 * (generations.young_slots + generations.old_slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(slots: usize) -> Left {
        Left { leaves: slots as u32, slots: Arc::new((0..slots as u32).collect()) }
    }

    /// INV-MEMORY
    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes_before_it_takes_much() {
        let (all, of_each) = (LeftSince::default(), 1_000);
        let messages = 4 * SLOTS_MAX / of_each;
        all.put(0, left(of_each));
        for message in 1..messages as u64 {
            all.put(message, left(of_each));
            assert_eq!(all.get(0), Some(left(of_each)), "at message {message}");
            assert!(all.memory_bytes() < 3 * 4 * SLOTS_MAX, "{} bytes", all.memory_bytes());
        }
        assert_eq!(all.get(1), None);
        assert!(all.get(messages as u64 - 1).is_some());
    }

    #[test]
    fn what_is_found_out_anew_takes_the_place_of_what_was_known() {
        let all = LeftSince::default();
        (1..100).for_each(|slots| all.put(7, left(slots)));
        assert_eq!(all.get(7), Some(left(99)));
        assert_eq!(all.generations().young_slots, 99);
    }
}
