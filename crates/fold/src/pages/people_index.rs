//! The hash index of people: finds slots by user id in a conversation with more than one page of
//! people.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// The average number of entries per page at which the index doubles.
pub const INDEX_ENTRIES_PER_PAGE: u32 = 192;

/// Returns the page of the hash index that holds a hash; part of the store's format.
pub(crate) fn index_page(hash: u32, pages: u32) -> u32 {
    ((u64::from(hash) * u64::from(pages)) >> 32) as u32
}

/// A page of the hash index: (hash, slot), sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PeopleIndex {
    entries: Vec<(u32, u32)>,
}

impl PeopleIndex {
    /// Makes a page of sorted entries.
    pub fn from_sorted(entries: Vec<(u32, u32)>) -> Self {
        assert!(entries.is_sorted(), "an index out of order");
        Self { entries }
    }

    /// Adds an entry.
    pub fn insert(&mut self, hash: u32, slot: u32) {
        let at = self.entries.partition_point(|e| *e < (hash, slot));
        self.entries.insert(at, (hash, slot));
    }

    /// Returns the slots whose user ids have the hash.
    pub fn slots(&self, hash: u32) -> impl Iterator<Item = u32> {
        let from = self.entries.partition_point(|e| e.0 < hash);
        self.entries[from..].iter().take_while(move |e| e.0 == hash).map(|e| e.1)
    }
}

impl Page for PeopleIndex {
    const TABLE: TableId = TableId::PeopleIndex;

    fn encode(&self, to: &mut Writer) {
        to.number(self.entries.len() as u64);
        let mut last = 0;
        for (hash, slot) in &self.entries {
            to.number(u64::from(*hash) - last);
            last = u64::from(*hash);
            to.number(u64::from(*slot));
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut entries = Vec::with_capacity(from.count(2)?);
        let mut last = 0u32;
        for _ in 0..entries.capacity() {
            last = last.checked_add(from.small()?).ok_or(Malformed("a hash beyond 32 bits"))?;
            entries.push((last, from.small()?));
        }
        if !entries.is_sorted() {
            return Err(Malformed("an index out of order"));
        }
        Ok(Self { entries })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 8 * self.entries.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn index_page_accounts_for_its_entries() {
        accounts_for(&PeopleIndex::from_sorted(Vec::with_capacity(100)), 800);
    }

    /// Part of the store's format: hashes lie in order, evenly over the pages.
    #[test]
    fn index_spreads_hashes_evenly_over_its_pages() {
        let quarter = |hash| index_page(hash, 4);
        assert_eq!([0, (1 << 30) - 1, 1 << 30, 1 << 31, 3 << 30, u32::MAX].map(quarter), [0, 0, 1, 2, 3, 3]);
        assert_eq!(index_page(u32::MAX, 1), 0);
    }
}
