//! Finds messages by id. The newest ids are in memory; older ones are in sealed segments of 65,536,
//! sorted by hash.
//!
//! Returns candidates only: the message itself says whether it has the id. A sealed segment is
//! written once and never changes, so a message costs no random write. The store rebuilds the
//! active segments from the messages when it opens.

mod active;
mod bloom;
mod lookup;
mod sealed;
mod segment_set;

pub use bloom::BloomFilter;
pub use sealed::IndexPage;
pub use segment_set::SegmentSet;

pub(crate) use active::ActiveSegment;
pub(crate) use lookup::{Lookup, message_named};
pub(crate) use sealed::SealedSegment;

use crate::pages::{MESSAGES_PER_PAGE, Table};
use std::collections::VecDeque;

/// Messages per segment, part of the store's format. An index within a segment takes 16 bits.
pub const SEGMENT_MESSAGES: u64 = 1 << 16;
/// The hashes of the id and the conversation of a message that was removed.
pub(crate) const BLANK: (IdHash, u32) = (IdHash { plain: 0, in_tenant: 0 }, u32::MAX);

/// The hashes of a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdHash {
    /// Of the id alone, as [`id_hash`]: finds it in the active segments within a conversation,
    /// whose number stands for the tenant too.
    pub plain: u64,
    /// With the tenant, as [`in_tenant`]: finds it elsewhere.
    pub in_tenant: u64,
}

impl IdHash {
    /// Hashes an id of a tenant.
    pub fn of(tenant: &str, id: &str) -> Self {
        let plain = id_hash(id);
        Self { plain, in_tenant: in_tenant(plain, tenant) }
    }
}

/// Returns the hash of a message id.
pub fn id_hash(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

/// Returns the hash of a tenant's name.
pub(crate) fn tenant_hash(tenant: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(tenant.as_bytes())
}

/// Returns the hash of a tenant's message id from that of the id; part of the store's format. A
/// look-up of an id in any conversation so meets no other tenant's messages.
pub fn in_tenant(hash: u64, tenant: &str) -> u64 {
    hash ^ tenant_hash(tenant)
}

/// Returns the hash of an id within a conversation; part of the store's format.
pub(crate) fn with_conversation(hash: u64, conversation: u32) -> u64 {
    let x = (hash ^ u64::from(conversation).wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ x >> 32
}

/// All messages of a partition by id.
pub struct MessageIndex {
    /// Messages per segment: [`SEGMENT_MESSAGES`], fewer in tests.
    segment_messages: u64,
    /// In order, without a gap.
    sealed: VecDeque<SealedSegment>,
    /// At most one full segment, and after it the one that takes new messages.
    active: VecDeque<ActiveSegment>,
}

impl MessageIndex {
    /// Creates an index from the numbers and filters of its sealed segments, in order. The caller
    /// then [inserts](Self::insert) all messages from segment `first_active` on, in order.
    pub fn new(segment_messages: u64, sealed: impl IntoIterator<Item = (u64, BloomFilter)>, first_active: u64) -> Self {
        assert!(
            segment_messages <= SEGMENT_MESSAGES && segment_messages.is_multiple_of(MESSAGES_PER_PAGE),
            "a segment is whole pages of messages"
        );
        let sealed = sealed.into_iter().map(|(number, filter)| SealedSegment { number, filter }).collect();
        let active = VecDeque::from([ActiveSegment::new(first_active * segment_messages)]);
        Self { segment_messages, sealed, active }
    }

    /// Adds the next message. Seals the oldest active segment as soon as three are active.
    pub fn insert<S: Table<IndexPage> + Table<BloomFilter>>(
        &mut self,
        pages: &mut S,
        message: u64,
        hash: IdHash,
        conversation: u32,
    ) {
        let newest = self.active.back_mut().expect("there is always one");
        assert_eq!(message, newest.first + newest.len() as u64, "messages are numbered without a gap");
        newest.insert(hash, conversation);
        if newest.len() as u64 == self.segment_messages {
            self.active.push_back(ActiveSegment::new(message + 1));
            if self.active.len() > 2 {
                let oldest = self.active.pop_front().expect("there are three");
                self.sealed.push_back(SealedSegment::seal(pages, &oldest, self.segment_messages));
            }
        }
    }

    /// Finds the message of an active segment that has the [`id_hash`] in the conversation and that
    /// `accept` accepts.
    ///
    /// # Errors
    /// If `accept` fails.
    pub fn find_active<S, T, E>(
        &self,
        pages: &mut S,
        hash: u64,
        conversation: u32,
        mut accept: impl FnMut(&mut S, u64) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        for segment in self.active.iter().rev() {
            for index in segment.candidates(hash, conversation) {
                if let Some(found) = accept(pages, segment.first + u64::from(index))? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// As [`Self::find_active`] by the hash [`in_tenant`], among the sealed segments in which the
    /// conversation has messages, the newest first.
    ///
    /// # Errors
    /// If the store or `accept` fails.
    pub fn find_sealed<S: Table<IndexPage>, T, E: From<S::Error>>(
        &self,
        pages: &mut S,
        hash: u64,
        (conversation, segments): (u32, &SegmentSet),
        mut accept: impl FnMut(&mut S, u64) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        for segment in self.sealed_that_may_hold(hash, conversation, segments) {
            let Some(page) = Table::<IndexPage>::load_mut(pages, IndexPage::key(segment, hash))? else { continue };
            let found: Vec<u64> = page.candidates(hash, Some(conversation)).collect();
            for index in found.into_iter().rev() {
                if let Some(found) = accept(pages, segment * self.segment_messages + index)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The number of the segment that holds a message.
    pub(crate) fn segment_of(&self, message: u64) -> u32 {
        (message / self.segment_messages) as u32
    }

    /// Whether any segment is sealed.
    pub(crate) fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Numbers of the sealed segments of a conversation whose filters may hold the id, the newest
    /// first.
    fn sealed_that_may_hold(&self, hash: u64, conversation: u32, segments: &SegmentSet) -> impl Iterator<Item = u64> {
        let key = with_conversation(hash, conversation);
        let first = self.sealed.front().map_or(0, |segment| segment.number);
        let sealed = segments
            .newest_first(first..first + self.sealed.len() as u64)
            .filter_map(move |number| self.sealed.get((number - first) as usize));
        sealed.filter(move |segment| segment.filter.may_hold(key)).map(|segment| segment.number)
    }

    /// Reads a part of the memory that [`Self::find_active`] reads, so that it is in the
    /// processor's cache.
    pub(crate) fn prefetch(&self, hash: u64, conversation: u32) -> u64 {
        self.active.iter().fold(0, |all, segment| all | segment.prefetch(hash, conversation))
    }

    /// Reads a part of the memory that [`Self::insert`] changes, so that it is in the processor's
    /// cache.
    pub(crate) fn prefetch_insert(&self, in_tenant: u64) -> u64 {
        self.active.back().map_or(0, |segment| segment.prefetch_anywhere(in_tenant))
    }

    /// Returns a message of a sealed segment that probably has the id hash in the conversation.
    /// Looks at cached pages only.
    pub(crate) fn peek_sealed<S: Table<IndexPage>>(
        &self,
        pages: &S,
        hash: u64,
        (conversation, segments): (u32, &SegmentSet),
    ) -> Option<u64> {
        self.sealed_that_may_hold(hash, conversation, segments).find_map(|segment| {
            let page = Table::<IndexPage>::peek(pages, IndexPage::key(segment, hash))?;
            page.candidates(hash, Some(conversation)).next().map(|index| segment * self.segment_messages + index)
        })
    }

    /// Returns a message of an active segment that probably has the id hash in the conversation.
    pub(crate) fn peek_active(&self, hash: u64, conversation: u32) -> Option<u64> {
        self.active.iter().rev().find_map(|segment| {
            segment.candidates(hash, conversation).next().map(|index| segment.first + u64::from(index))
        })
    }

    /// Returns all messages that may have the id hash in a conversation, the newest first. Readers
    /// may call it side by side.
    ///
    /// # Errors
    /// If the store fails.
    pub fn candidates<S: Table<IndexPage>>(
        &self,
        pages: &S,
        hash: IdHash,
        (conversation, segments): (u32, &SegmentSet),
    ) -> Result<Vec<u64>, S::Error> {
        let mut found = Vec::new();
        for segment in self.active.iter().rev() {
            found.extend(segment.candidates(hash.plain, conversation).map(|index| segment.first + u64::from(index)));
        }
        let hash = hash.in_tenant;
        for segment in self.sealed_that_may_hold(hash, conversation, segments) {
            let page = Table::<IndexPage>::read(pages, IndexPage::key(segment, hash))?;
            let of_page = page.iter().flat_map(|page| page.candidates(hash, Some(conversation)));
            self.extend(&mut found, segment, of_page);
        }
        Ok(found)
    }

    /// As [`Self::candidates`], in any conversation. Stops at `most` messages, which then need not
    /// be the newest ones.
    ///
    /// # Errors
    /// If the store fails.
    pub fn candidates_anywhere<S: Table<IndexPage>>(
        &self,
        pages: &S,
        hash: u64,
        most: usize,
    ) -> Result<Vec<u64>, S::Error> {
        let mut found = Vec::new();
        for segment in self.active.iter().rev() {
            let left = most - found.len();
            found.extend(segment.anywhere(hash).take(left).map(|index| segment.first + u64::from(index)));
        }
        for segment in self.sealed.iter().rev().filter(|s| s.filter.may_hold(hash)) {
            let left = most - found.len();
            if left == 0 {
                break;
            }
            let page = Table::<IndexPage>::read(pages, IndexPage::key(segment.number, hash))?;
            let of_page = page.iter().flat_map(|page| page.candidates(hash, None)).take(left);
            self.extend(&mut found, segment.number, of_page);
        }
        Ok(found)
    }

    /// Adds messages of a sealed segment by their indexes, the newest first. A page sorts equal
    /// hashes by conversation before it sorts them by index.
    fn extend(&self, found: &mut Vec<u64>, segment: u64, indexes: impl Iterator<Item = u64>) {
        let first = found.len();
        found.extend(indexes.map(|index| segment * self.segment_messages + index));
        found[first..].sort_unstable_by(|one, other| other.cmp(one));
    }

    /// Blanks removed messages of active segments. A reopened store blanks them too, so a segment
    /// is sealed to the same bytes with or without a restart.
    pub fn blank(&mut self, messages: std::ops::Range<u64>) {
        for segment in &mut self.active {
            let end = segment.first + segment.len() as u64;
            for message in messages.start.max(segment.first)..messages.end.min(end) {
                segment.blank((message - segment.first) as usize);
            }
        }
    }

    /// Removes the sealed segments that lie wholly below a message.
    pub fn remove_below<S: Table<IndexPage> + Table<BloomFilter>>(&mut self, pages: &mut S, message: u64) {
        while self.sealed.front().is_some_and(|s| (s.number + 1) * self.segment_messages <= message) {
            self.sealed.pop_front().expect("there is one").remove(pages);
        }
    }

    /// Bytes of memory beside the cached pages.
    pub fn memory_bytes(&self) -> usize {
        self.active.iter().map(ActiveSegment::memory_bytes).sum::<usize>()
            + self.sealed.iter().map(|segment| segment.filter.words_bytes()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-MEMORY
    #[test]
    fn index_accounts_for_filters_and_active_segments() {
        let sealed = (0..3).map(|number| (number, BloomFilter::for_messages(1_024)));
        let mut index = MessageIndex::new(1_024, sealed, 3);
        let (empty, filters) = (index.memory_bytes(), 3 * 1_024 * bloom::BITS_PER_MESSAGE / 8);
        assert_eq!(empty, filters);
        index.active.push_back(ActiveSegment::new(4 * 1_024));
        index.active.iter_mut().for_each(|segment| segment.insert(IdHash { plain: 1, in_tenant: 1 }, 1));
        assert_eq!(index.memory_bytes(), filters + index.active.iter().map(ActiveSegment::memory_bytes).sum::<usize>());
    }
}
