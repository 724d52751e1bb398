//! The Bloom filter of a sealed segment: says that the segment lacks an id, or may hold it. Its
//! bits are part of the store's format.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// Each message has two keys. Every send asks every filter for its id, and each false positive
/// costs a page.
pub(super) const BITS_PER_MESSAGE: usize = 32;
const BITS_PER_KEY: u32 = 7;

/// A blocked Bloom filter: each key sets 7 bits of one 512-bit block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BloomFilter {
    words: Vec<u64>,
}

impl BloomFilter {
    /// Creates an empty filter with room for the keys of that number of messages.
    pub(crate) fn for_messages(messages: u64) -> Self {
        Self { words: vec![0; messages as usize * BITS_PER_MESSAGE / 64] }
    }

    /// The words and masks of a key's bits.
    fn bits(&self, key: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let blocks = self.words.len() as u64 / 8;
        let mixed = key.wrapping_mul(0x94D0_49BB_1331_11EB);
        let block = ((u128::from(mixed) * u128::from(blocks)) >> 64) as usize * 8;
        let bits = (mixed ^ key >> 29).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (0..BITS_PER_KEY)
            .map(move |i| bits >> (9 * i) & 511)
            .map(move |bit| (block + bit as usize / 64, 1 << (bit % 64)))
    }

    pub(crate) fn insert(&mut self, key: u64) {
        for (word, bit) in self.bits(key) {
            self.words[word] |= bit;
        }
    }

    /// Whether the key may have been inserted; false means that it was not.
    pub(crate) fn may_hold(&self, key: u64) -> bool {
        !self.words.is_empty() && self.bits(key).all(|(word, bit)| self.words[word] & bit != 0)
    }

    /// Bytes on the heap that the bits take.
    pub(crate) fn words_bytes(&self) -> usize {
        8 * self.words.len()
    }
}

impl Page for BloomFilter {
    const TABLE: TableId = TableId::BloomFilters;

    fn encode(&self, to: &mut Writer) {
        to.number(self.words.len() as u64);
        self.words.iter().for_each(|w| to.word(*w));
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut words = Vec::with_capacity(from.count(8)?);
        for _ in 0..words.capacity() {
            words.push(from.word()?);
        }
        if words.len() % 8 != 0 {
            return Err(Malformed("a filter with half a block"));
        }
        Ok(Self { words })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 8 * self.words.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{SEGMENT_MESSAGES, id_hash};
    use crate::pages::accounts_for;

    #[test]
    fn filter_never_denies_its_keys_and_rarely_claims_others() {
        let mut filter = BloomFilter::for_messages(SEGMENT_MESSAGES);
        let key = |i: u64| id_hash(&i.to_string());
        (0..2 * SEGMENT_MESSAGES).for_each(|i| filter.insert(key(i)));
        assert!((0..2 * SEGMENT_MESSAGES).all(|i| filter.may_hold(key(i))));
        let wrong = (0..100_000).filter(|i| filter.may_hold(key(i + (1 << 40)))).count();
        assert!(wrong < 300, "{wrong} of 100,000");
    }

    /// INV-MEMORY
    #[test]
    fn filter_accounts_for_its_words() {
        let filter = BloomFilter::for_messages(SEGMENT_MESSAGES);
        accounts_for(&filter, SEGMENT_MESSAGES as usize * BITS_PER_MESSAGE / 8);
    }
}
