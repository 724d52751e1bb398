//! The newest messages by id, in memory. Knows hashes only: the message itself says whether it is the one.

use crate::index::{BLANK, with_conversation};

const NONE: u32 = u32::MAX;

struct Entry {
    hash: u64,
    conversation: u32,
    /// The entry before it with the same hash, in any conversation.
    older: u32,
}

/// A stretch of neighbours in log order.
pub(crate) struct Young {
    /// Number of the first message.
    pub(crate) first: u64,
    entries: Vec<Entry>,
    /// By half a hash over id and conversation: what is found here is nearly always right.
    by_conversation: Halves,
    /// By half an id's hash, the newest of each hash; the others follow by [`Entry::older`], for ids may be as common as "1".
    by_id: Halves,
}

impl Young {
    pub(crate) fn new(first: u64) -> Self {
        Self { first, entries: Vec::new(), by_conversation: Halves::default(), by_id: Halves::default() }
    }

    /// Messages in it.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Id hash and conversation of each message.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u32)> {
        self.entries.iter().map(|e| (e.hash, e.conversation))
    }

    /// Adds the next message.
    pub(crate) fn insert(&mut self, hash: u64, conversation: u32) {
        let place = self.entries.len() as u32;
        self.by_conversation.insert(with_conversation(hash, conversation) as u32, place);
        let entries = &self.entries;
        let older = self.by_id.replace(hash as u32, place, |newest| entries[newest as usize].hash == hash);
        let older = older.unwrap_or(NONE);
        self.entries.push(Entry { hash, conversation, older });
    }

    /// The places of messages that may have that id in that conversation, in no order.
    pub(crate) fn places(&self, hash: u64, conversation: u32) -> impl Iterator<Item = u32> {
        self.by_conversation.iter(with_conversation(hash, conversation) as u32)
    }

    /// The places of messages with that id hash in any conversation, newest first.
    pub(crate) fn anywhere(&self, hash: u64) -> impl Iterator<Item = u32> {
        let newest = self.by_id.iter(hash as u32).find(|at| self.entries[*at as usize].hash == hash);
        std::iter::successors(newest, |at| Some(self.entries[*at as usize].older).filter(|older| *older != NONE))
    }

    /// Forgets a message that was removed. It is found all the same, and is not there.
    pub(crate) fn blank(&mut self, place: usize) {
        let entry = &mut self.entries[place];
        (entry.hash, entry.conversation) = BLANK;
    }

    /// Reads some of where [`Self::places`] looks.
    pub(crate) fn touch(&self, hash: u64, conversation: u32) -> u64 {
        self.by_conversation.touch(with_conversation(hash, conversation) as u32)
    }

    /// Reads some of where [`Self::anywhere`] looks.
    pub(crate) fn touch_anywhere(&self, hash: u64) -> u64 {
        self.by_id.touch(hash as u32)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.by_conversation.memory_bytes() + self.by_id.memory_bytes()
    }
}

/// Places by half a hash, in one array with linear probing, at most half full. A look-up touches one place of memory, and
/// where that is does not depend on what another place holds.
#[derive(Default)]
struct Halves {
    /// Half a hash and a place plus one; 0 where there is none. As many as a power of two, or none.
    slots: Vec<u64>,
    len: usize,
}

impl Halves {
    /// Adds a place beside others with the same half.
    fn insert(&mut self, half: u32, place: u32) {
        self.replace(half, place, |_| false);
    }

    /// Puts a place in that of the one with the same half of which `is_it` is true, which is handed back, or else adds it.
    fn replace(&mut self, half: u32, place: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if 2 * self.len >= self.slots.len() {
            let room = (2 * self.slots.len()).max(64);
            for slot in std::mem::replace(&mut self.slots, vec![0; room]).into_iter().filter(|slot| *slot != 0) {
                let mut at = self.start((slot >> 32) as u32);
                while self.slots[at] != 0 {
                    at = self.after(at);
                }
                self.slots[at] = slot;
            }
        }
        let mut at = self.start(half);
        while self.slots[at] != 0 {
            let before = self.slots[at] as u32 - 1;
            if (self.slots[at] >> 32) as u32 == half && is_it(before) {
                self.slots[at] = u64::from(half) << 32 | u64::from(place + 1);
                return Some(before);
            }
            at = self.after(at);
        }
        self.slots[at] = u64::from(half) << 32 | u64::from(place + 1);
        self.len += 1;
        None
    }

    /// The places with that half.
    fn iter(&self, half: u32) -> impl Iterator<Item = u32> {
        let (before, from) = self.slots.split_at(if self.slots.is_empty() { 0 } else { self.start(half) });
        let run = from.iter().chain(before).copied().take_while(|slot| *slot != 0);
        run.filter(move |slot| (slot >> 32) as u32 == half).map(|slot| slot as u32 - 1)
    }

    /// Reads the slot that a look-up begins with.
    fn touch(&self, half: u32) -> u64 {
        self.slots.get(half as usize & self.slots.len().wrapping_sub(1)).copied().unwrap_or(0)
    }

    fn start(&self, half: u32) -> usize {
        half as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::id_hash;

    #[test]
    fn ids_are_found_in_their_conversation_and_anywhere_as_a_plain_search_finds_them() {
        let mut young = Young::new(7);
        let messages: Vec<(u64, u32)> = (0..3_000).map(|i| (id_hash(&(i % 700).to_string()), i % 13)).collect();
        messages.iter().for_each(|(hash, conversation)| young.insert(*hash, *conversation));
        for (hash, conversation) in messages.iter().copied().chain([(id_hash("none"), 1), (messages[0].0, 13)]) {
            let places = |of: &dyn Fn(&(u64, u32)) -> bool| -> Vec<u32> {
                (0..).zip(&messages).filter(|(_, m)| of(m)).map(|(place, _)| place).collect()
            };
            let mut found: Vec<u32> = young.places(hash, conversation).collect();
            found.sort_unstable();
            assert_eq!(found, places(&|m| *m == (hash, conversation)));
            let mut wanted = places(&|m| m.0 == hash);
            wanted.reverse();
            assert_eq!(young.anywhere(hash).collect::<Vec<_>>(), wanted);
        }
        young.blank(2_999);
        assert_eq!(young.entries().last(), Some(BLANK));
    }

    #[test]
    fn halves_that_begin_at_the_end_of_the_array_go_on_at_its_beginning() {
        let mut halves = Halves::default();
        (0..20).for_each(|place| halves.insert(u32::MAX, place));
        assert!(halves.iter(u32::MAX).eq(0..20));
        assert_eq!(halves.iter(u32::MAX - 64).count(), 0);
        assert_eq!(halves.replace(u32::MAX, 77, |place| place == 5), Some(5));
        assert_eq!(halves.iter(u32::MAX).filter(|place| *place == 77).count(), 1);
    }

    /// INV-MEMORY
    #[test]
    fn ids_in_memory_account_for_entries_and_for_both_arrays() {
        let mut young = Young::new(0);
        (0..1_000).for_each(|i| young.insert(id_hash(&i.to_string()), 1));
        // Of a power of two, at most half full.
        assert_eq!(young.memory_bytes(), young.entries.capacity() * size_of::<Entry>() + 2 * 2_048 * 8);
        assert!(young.entries.capacity() >= 1_000);
    }

    #[test]
    fn what_stands_alone_stands_where_a_look_up_begins() {
        for half in [0, 1, 63, 64, 1_000, u32::MAX] {
            let mut halves = Halves::default();
            halves.insert(half, 7);
            assert_eq!(halves.slots.iter().position(|slot| *slot != 0), Some(half as usize % 64));
        }
    }
}
