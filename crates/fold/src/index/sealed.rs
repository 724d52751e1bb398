//! A sealed segment of the message index: 256 pages of id hashes and a Bloom filter. Never changes
//! once it is written.

use crate::index::{ActiveSegment, BloomFilter, with_conversation};
use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, PageKey, Table, TableId};

/// One page for each top byte of an id hash; part of the store's format.
const PAGES_PER_SEGMENT: u32 = 256;

/// A sealed segment. Its pages are in the store, its filter is in memory.
pub(crate) struct SealedSegment {
    /// Number of the first message, divided by the messages per segment.
    pub(crate) number: u64,
    pub(crate) filter: BloomFilter,
}

impl SealedSegment {
    /// Writes the pages and the filter of a full active segment.
    pub(crate) fn seal<S: Table<IndexPage> + Table<BloomFilter>>(
        pages: &mut S,
        active: &ActiveSegment,
        segment_messages: u64,
    ) -> Self {
        let number = active.first / segment_messages;
        let mut filter = BloomFilter::for_messages(segment_messages);
        let mut sealed: Vec<IndexPage> = (0..PAGES_PER_SEGMENT).map(|_| IndexPage::default()).collect();
        for (i, (hash, conversation)) in active.entries().enumerate() {
            filter.insert(hash);
            filter.insert(with_conversation(hash, conversation));
            sealed[(hash >> 56) as usize].entries.push(((hash >> 24) as u32, tag(conversation), i as u16));
        }
        for (i, mut page) in sealed.into_iter().enumerate() {
            page.entries.sort_unstable();
            page.entries.shrink_to_fit();
            pages.put(PageKey::new(number, i as u32), page);
        }
        pages.put(PageKey::new(number, 0), filter.clone());
        Self { number, filter }
    }

    /// Removes the pages and the filter from the store.
    pub(crate) fn remove<S: Table<IndexPage> + Table<BloomFilter>>(self, pages: &mut S) {
        for page in 0..PAGES_PER_SEGMENT {
            Table::<IndexPage>::remove(pages, PageKey::new(self.number, page));
        }
        Table::<BloomFilter>::remove(pages, PageKey::new(self.number, 0));
    }
}

/// Returns 16 bits that tell conversations apart in most cases; part of the store's format.
fn tag(conversation: u32) -> u16 {
    (conversation ^ conversation >> 16) as u16
}

/// The messages of a segment whose id hashes share the top byte, sorted.
///
/// An entry is the next 32 bits of the hash, the tag of the conversation, and the message's index
/// in the segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IndexPage {
    entries: Vec<(u32, u16, u16)>,
}

impl IndexPage {
    /// Returns the key of the page that holds a hash in a segment.
    pub(crate) fn key(segment: u64, hash: u64) -> PageKey {
        PageKey::new(segment, (hash >> 56) as u32)
    }

    /// Returns the indexes, within the segment, of the messages that may have the id hash: in one
    /// conversation, or in any.
    pub(crate) fn candidates(&self, hash: u64, conversation: Option<u32>) -> impl Iterator<Item = u64> {
        let hash = (hash >> 24) as u32;
        let from = self.entries.partition_point(|e| (e.0, e.1) < (hash, conversation.map_or(0, tag)));
        let same = move |e: &&(u32, u16, u16)| e.0 == hash && conversation.is_none_or(|c| e.1 == tag(c));
        self.entries[from..].iter().take_while(same).map(|e| u64::from(e.2))
    }
}

impl Page for IndexPage {
    const TABLE: TableId = TableId::Index;

    fn encode(&self, to: &mut Writer) {
        to.number(self.entries.len() as u64);
        for (hash, tag, index) in &self.entries {
            to.bytes.extend_from_slice(&hash.to_le_bytes());
            to.bytes.extend_from_slice(&tag.to_le_bytes());
            to.bytes.extend_from_slice(&index.to_le_bytes());
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut entries = Vec::with_capacity(from.count(8)?);
        for _ in 0..entries.capacity() {
            let word = from.word()?;
            entries.push((word as u32, (word >> 32) as u16, (word >> 48) as u16));
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

    /// INV-MEMORY
    #[test]
    fn index_page_accounts_for_its_entries() {
        accounts_for(&IndexPage { entries: Vec::with_capacity(100) }, 800);
    }

    /// Tags are part of the store's format.
    #[test]
    fn tag_of_a_conversation_folds_all_bits() {
        assert_eq!([7, 0x0003_0005, 0xFFFF_0000, u32::MAX].map(tag), [7, 6, 0xFFFF, 0]);
    }
}
