//! An active segment of the message index: the newest messages by id, in memory. Holds hashes only;
//! the message itself says whether it has the id.

use crate::index::{BLANK, IdHash, with_conversation};

/// No older entry.
const NONE: u32 = u32::MAX;

struct Entry {
    /// Of the id in its tenant.
    hash: u64,
    conversation: u32,
    /// Index of the previous entry with the same hash, in any conversation; [`NONE`] for the first.
    older: u32,
}

/// Neighbouring messages in log order.
pub(crate) struct ActiveSegment {
    /// Number of the first message.
    pub(crate) first: u64,
    /// By index in the segment.
    entries: Vec<Entry>,
    /// Finds an entry by half of the hash of its id and conversation. A hit is nearly always right.
    by_conversation: ProbeTable,
    /// Finds the newest entry of each id hash, by half of the hash. [`Entry::older`] leads to the
    /// others, because an id may be as common as "1".
    by_id: ProbeTable,
}

impl ActiveSegment {
    pub(crate) fn new(first: u64) -> Self {
        Self { first, entries: Vec::new(), by_conversation: ProbeTable::default(), by_id: ProbeTable::default() }
    }

    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Hash of the id in its tenant and conversation of each message.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u32)> {
        self.entries.iter().map(|e| (e.hash, e.conversation))
    }

    /// Adds the next message.
    pub(crate) fn insert(&mut self, hash: IdHash, conversation: u32) {
        let index = self.entries.len() as u32;
        self.by_conversation.insert(with_conversation(hash.plain, conversation) as u32, index);
        let hash = hash.in_tenant;
        let entries = &self.entries;
        let older = self.by_id.replace(hash as u32, index, |newest| entries[newest as usize].hash == hash);
        let older = older.unwrap_or(NONE);
        self.entries.push(Entry { hash, conversation, older });
    }

    /// Indexes of the messages that may have the plain id hash in the conversation, in no order.
    pub(crate) fn candidates(&self, hash: u64, conversation: u32) -> impl Iterator<Item = u32> {
        self.by_conversation.iter(with_conversation(hash, conversation) as u32)
    }

    /// Indexes of the messages that have the id hash of their tenant in any conversation, the
    /// newest first.
    pub(crate) fn anywhere(&self, hash: u64) -> impl Iterator<Item = u32> {
        let newest = self.by_id.iter(hash as u32).find(|at| self.entries[*at as usize].hash == hash);
        std::iter::successors(newest, |at| Some(self.entries[*at as usize].older).filter(|older| *older != NONE))
    }

    /// Blanks the entry of a removed message. Look-ups may still return its index; the caller then
    /// finds no message there.
    pub(crate) fn blank(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        (entry.hash, entry.conversation) = (BLANK.0.in_tenant, BLANK.1);
    }

    /// Reads the memory where [`Self::candidates`] begins.
    pub(crate) fn prefetch(&self, hash: u64, conversation: u32) -> u64 {
        self.by_conversation.prefetch(with_conversation(hash, conversation) as u32)
    }

    /// Reads the memory where [`Self::anywhere`] begins.
    pub(crate) fn prefetch_anywhere(&self, hash: u64) -> u64 {
        self.by_id.prefetch(hash as u32)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.by_conversation.memory_bytes() + self.by_id.memory_bytes()
    }
}

/// A multimap from half a hash to indexes: one array with linear probing, at most half full.
///
/// A look-up reads one cache line in most cases. Half of the hash decides which one.
#[derive(Default)]
struct ProbeTable {
    /// A cell is half a hash, then an index plus one; an empty cell is 0. The number of cells is a
    /// power of two, or 0.
    cells: Vec<u64>,
    len: usize,
}

impl ProbeTable {
    /// Adds an index, even if the half already has others.
    fn insert(&mut self, half: u32, index: u32) {
        self.replace(half, index, |_| false);
    }

    /// Replaces the index of the half for which `is_it` is true, and returns the old index. If
    /// there is none, adds the new index and returns `None`.
    fn replace(&mut self, half: u32, index: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if 2 * self.len >= self.cells.len() {
            let room = (2 * self.cells.len()).max(64);
            for cell in std::mem::replace(&mut self.cells, vec![0; room]).into_iter().filter(|cell| *cell != 0) {
                let mut at = self.start((cell >> 32) as u32);
                while self.cells[at] != 0 {
                    at = self.after(at);
                }
                self.cells[at] = cell;
            }
        }
        let mut at = self.start(half);
        while self.cells[at] != 0 {
            let before = self.cells[at] as u32 - 1;
            if (self.cells[at] >> 32) as u32 == half && is_it(before) {
                self.cells[at] = u64::from(half) << 32 | u64::from(index + 1);
                return Some(before);
            }
            at = self.after(at);
        }
        self.cells[at] = u64::from(half) << 32 | u64::from(index + 1);
        self.len += 1;
        None
    }

    /// The indexes of a half.
    fn iter(&self, half: u32) -> impl Iterator<Item = u32> {
        let (before, from) = self.cells.split_at(if self.cells.is_empty() { 0 } else { self.start(half) });
        let probed = from.iter().chain(before).copied().take_while(|cell| *cell != 0);
        probed.filter(move |cell| (cell >> 32) as u32 == half).map(|cell| cell as u32 - 1)
    }

    /// Reads the cell with which a look-up begins.
    fn prefetch(&self, half: u32) -> u64 {
        self.cells.get(half as usize & self.cells.len().wrapping_sub(1)).copied().unwrap_or(0)
    }

    fn start(&self, half: u32) -> usize {
        half as usize & (self.cells.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.cells.len() - 1)
    }

    fn memory_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_finds_ids_as_a_plain_search_does() {
        let mut segment = ActiveSegment::new(7);
        let message = |i: u32| (IdHash::of("t", &(i % 700).to_string()), i % 13);
        let messages: Vec<(IdHash, u32)> = (0..3_000).map(message).collect();
        messages.iter().for_each(|(hash, conversation)| segment.insert(*hash, *conversation));
        let others = [(IdHash::of("t", "none"), 1), (messages[0].0, 13), (IdHash::of("u", "0"), 13)];
        for (hash, conversation) in messages.iter().copied().chain(others) {
            let indexes = |of: &dyn Fn(&(IdHash, u32)) -> bool| -> Vec<u32> {
                (0..).zip(&messages).filter(|(_, m)| of(m)).map(|(index, _)| index).collect()
            };
            let mut found: Vec<u32> = segment.candidates(hash.plain, conversation).collect();
            found.sort_unstable();
            assert_eq!(found, indexes(&|m| (m.0.plain, m.1) == (hash.plain, conversation)));
            let mut wanted = indexes(&|m| m.0.in_tenant == hash.in_tenant);
            wanted.reverse();
            assert_eq!(segment.anywhere(hash.in_tenant).collect::<Vec<_>>(), wanted);
        }
        segment.blank(2_999);
        assert_eq!(segment.entries().last(), Some((BLANK.0.in_tenant, BLANK.1)));
    }

    #[test]
    fn probing_wraps_from_the_end_to_the_beginning() {
        let mut table = ProbeTable::default();
        (0..20).for_each(|index| table.insert(u32::MAX, index));
        assert!(table.iter(u32::MAX).eq(0..20));
        assert_eq!(table.iter(u32::MAX - 64).count(), 0);
        assert_eq!(table.replace(u32::MAX, 77, |index| index == 5), Some(5));
        assert_eq!(table.iter(u32::MAX).filter(|index| *index == 77).count(), 1);
    }

    /// INV-MEMORY
    #[test]
    fn segment_accounts_for_entries_and_both_tables() {
        let mut segment = ActiveSegment::new(0);
        (0..1_000).for_each(|i| segment.insert(IdHash::of("t", &i.to_string()), 1));
        // A power of two, at most half full.
        assert_eq!(segment.memory_bytes(), segment.entries.capacity() * size_of::<Entry>() + 2 * 2_048 * 8);
        assert!(segment.entries.capacity() >= 1_000);
    }

    #[test]
    fn lone_index_stands_where_a_lookup_begins() {
        for half in [0, 1, 63, 64, 1_000, u32::MAX] {
            let mut table = ProbeTable::default();
            table.insert(half, 7);
            assert_eq!(table.cells.iter().position(|cell| *cell != 0), Some(half as usize % 64));
        }
    }
}
