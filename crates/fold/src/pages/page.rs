//! The port to the store: typed pages by number, which the fold reads, changes, writes and removes.
//! Says nothing of how or where a store keeps them.

use crate::pages::codec::{Malformed, Reader, Writer};
use std::ops::{Deref, DerefMut};

/// The number of a page within its table. Each table gives the two parts their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageKey {
    /// A conversation, a message, an offset, …
    pub a: u64,
    /// A page or chunk within it.
    pub b: u32,
}

impl PageKey {
    /// The key of the one page of a table that has only one.
    pub const ONLY: Self = Self { a: 0, b: 0 };

    /// Makes a key of two parts.
    pub fn new(a: impl Into<u64>, b: u32) -> Self {
        Self { a: a.into(), b }
    }
}

/// The tables of a store. The numbers are on disk: never change one, never use a retired one again
/// (INV-CODES).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TableId {
    /// The one page of counters.
    Meta = 1,
    /// Conversation names to numbers.
    Names = 2,
    /// One page per conversation.
    Conversations = 3,
    /// 64 people of a conversation.
    People = 4,
    /// Hashes of user ids to slots.
    PeopleIndex = 5,
    /// 64 read marks.
    ReadMarks = 6,
    /// Departures from a conversation in log order.
    Departures = 7,
    /// 64 messages in log order.
    Messages = 8,
    /// 512 slots of one message.
    Chunks = 9,
    /// The message ids of a segment, by hash.
    Index = 10,
    /// The Bloom filter of a segment's message ids.
    BloomFilters = 11,
    /// Records that wait for their message.
    Parked = 12,
    /// Erasures of people.
    Erasures = 13,
    /// The one page with the settings and the last record of the state.
    Origin = 14,
    /// Policies of tenants.
    Policies = 15,
}

/// A page: decoded while it is cached, encoded at a checkpoint.
pub trait Page: Sized + Send + Sync + 'static {
    /// The table of the page.
    const TABLE: TableId;

    /// Whether the table's first key parts have few gaps. Then a store may find a page by an array
    /// with an entry for every number.
    const IS_DENSE: bool = true;

    /// Appends the page's bytes.
    fn encode(&self, to: &mut Writer);

    /// Decodes the bytes that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no such page. Never panics.
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Approximate bytes of memory, heap included.
    fn memory_bytes(&self) -> usize;
}

/// A page to read.
pub enum Ref<'a, P> {
    /// A page in the cache.
    Cached(&'a P),
    /// A page that was loaded for this call alone.
    Loaded(Box<P>),
}

impl<P> Deref for Ref<'_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        match self {
            Ref::Cached(page) => page,
            Ref::Loaded(page) => page,
        }
    }
}

/// A cached page to read and perhaps to change. The first mutable access marks the page as dirty.
pub struct Mut<'a, P> {
    page: &'a mut P,
    is_dirty: &'a mut bool,
    dirty: &'a mut Vec<u32>,
    entry: u32,
}

impl<'a, P> Mut<'a, P> {
    /// Lends a page out. Its cache `entry` is added to `dirty` once, when `is_dirty` becomes true.
    pub fn new(page: &'a mut P, is_dirty: &'a mut bool, dirty: &'a mut Vec<u32>, entry: u32) -> Self {
        Self { page, is_dirty, dirty, entry }
    }
}

impl<P> Deref for Mut<'_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        self.page
    }
}

impl<P> DerefMut for Mut<'_, P> {
    fn deref_mut(&mut self) -> &mut P {
        if !*self.is_dirty {
            *self.is_dirty = true;
            self.dirty.push(self.entry);
        }
        self.page
    }
}

/// The parts that all tables of a store share: its error, and the numbers of conversations by name.
pub trait Store {
    /// Why a page is not available: the medium failed, or its bytes are not the ones that were
    /// written.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the number of the conversation named `{tenant}/{conversation_id}`. Readers may call
    /// it side by side.
    ///
    /// # Errors
    /// If the medium fails.
    fn conversation_number(&self, name: &[u8]) -> Result<Option<u32>, Self::Error>;

    /// Returns the hash of a conversation's name that [`Self::peek_conversation_number`] takes.
    fn conversation_hash(&self, name: &[u8]) -> u64;

    /// Returns the cached number of a conversation whose name probably has the hash: a guess, to
    /// prefetch with.
    fn peek_conversation_number(&self, hash: u64) -> Option<u32>;

    /// Reads a part of the cached name that probably has the hash, so that it is in the processor's
    /// cache.
    fn prefetch_conversation(&self, hash: u64) -> u8;

    /// Returns the number of the conversation of that name, and caches it.
    ///
    /// # Errors
    /// If the medium fails.
    fn load_conversation_number(&mut self, name: &[u8]) -> Result<Option<u32>, Self::Error>;

    /// Gives a new conversation its number, once.
    fn name_conversation(&mut self, name: &[u8], number: u32);
}

/// One table of a store. All changes become durable together at the store's next checkpoint, or
/// none of them.
pub trait Table<P: Page>: Store {
    /// Reads a page without caching it. Readers may call it side by side.
    ///
    /// # Errors
    /// If the medium fails.
    fn read(&self, key: PageKey) -> Result<Option<Ref<'_, P>>, Self::Error>;

    /// Returns a page if it is in memory. Never reads the medium.
    fn peek(&self, key: PageKey) -> Option<&P>;

    /// Loads a page into the cache, to read and perhaps to change it.
    ///
    /// # Errors
    /// If the medium fails.
    fn load_mut(&mut self, key: PageKey) -> Result<Option<Mut<'_, P>>, Self::Error>;

    /// Writes a page, or replaces it.
    fn put(&mut self, key: PageKey, page: P);

    /// Removes a page, if it exists.
    fn remove(&mut self, key: PageKey);

    /// Returns all keys of the table in order. For small tables, when a store opens.
    ///
    /// # Errors
    /// If the medium fails.
    fn keys(&self) -> Result<Vec<PageKey>, Self::Error>;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// INV-MEMORY: asserts that a page counts itself and its heap, and little more.
    pub(crate) fn accounts_for<P: Page>(page: &P, heap_bytes: usize) {
        let (least, counted) = (size_of::<P>() + heap_bytes, page.memory_bytes());
        assert!((least..=least + heap_bytes / 8 + 64).contains(&counted), "{counted} for {least} bytes");
    }
}
