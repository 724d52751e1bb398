//! The port to the store: typed pages by number, got, changed and removed. Says nothing of how or where they are kept.

use crate::wire::{Malformed, Reader, Writer};
use std::ops::{Deref, DerefMut};

/// The number of a page within its table; what the two parts mean is the table's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageKey {
    /// A conversation, a message, an offset, …
    pub a: u64,
    /// A page or chunk within it.
    pub b: u32,
}

impl PageKey {
    /// A key of two parts.
    pub fn new(a: impl Into<u64>, b: u32) -> Self {
        Self { a: a.into(), b }
    }
}

/// The tables of a store. The numbers are on disk: never change one, never use one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TableId {
    /// The one page of counters and policies.
    Meta = 1,
    /// Conversation names to numbers.
    Names = 2,
    /// A page per conversation.
    Heads = 3,
    /// 64 people of a conversation.
    People = 4,
    /// Hashes of user ids to slots.
    PeopleIndex = 5,
    /// 64 read marks.
    Marks = 6,
    /// Leaves of a conversation in log order.
    Leaves = 7,
    /// 64 messages in log order.
    Messages = 8,
    /// 512 slots of one message.
    Chunks = 9,
    /// Message ids of a stretch of messages, by hash.
    Index = 10,
    /// What a stretch of messages may hold.
    Filters = 11,
    /// Events that wait for their message.
    Parked = 12,
    /// Erased people.
    Erased = 13,
    /// The one page of what the state was folded from.
    Origin = 14,
}

/// A page: kept decoded while hot, encoded at a checkpoint.
pub trait Page: Sized + Send + Sync + 'static {
    /// Its table.
    const TABLE: TableId;

    /// Appends its bytes.
    fn encode(&self, to: &mut Writer);

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Where the bytes are no such page; never panics.
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Bytes of memory it takes, roughly, heap included.
    fn memory_bytes(&self) -> usize;
}

/// A page to read: in the cache, or loaded for this look alone.
pub enum Ref<'a, P> {
    /// Lives in the cache.
    Hot(&'a P),
    /// Was loaded for this call.
    Cold(Box<P>),
}

impl<P> Deref for Ref<'_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        match self {
            Ref::Hot(page) => page,
            Ref::Cold(page) => page,
        }
    }
}

/// A page to look at and perhaps to change: taking it mutably is what marks it as changed.
pub struct Mut<'a, P> {
    page: &'a mut P,
    changed: &'a mut bool,
    changes: &'a mut Vec<u32>,
    slot: u32,
}

impl<'a, P> Mut<'a, P> {
    /// Lends a page out. `slot` is added to `changes` once, when `changed` becomes true.
    pub fn new(page: &'a mut P, changed: &'a mut bool, changes: &'a mut Vec<u32>, slot: u32) -> Self {
        Self { page, changed, changes, slot }
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
        if !*self.changed {
            *self.changed = true;
            self.changes.push(self.slot);
        }
        self.page
    }
}

/// What all tables of a store share.
pub trait Store {
    /// Why a page cannot be had: the medium failed, or holds something else than was written.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The number of the conversation of that name (`{tenant}/{conversation_id}`), for readers side by side.
    ///
    /// # Errors
    /// Where the medium fails.
    fn conversation(&self, name: &[u8]) -> Result<Option<u32>, Self::Error>;

    /// A hash of a conversation's name, for [`Self::conversation_probably`].
    fn conversation_hash(&self, name: &[u8]) -> u64;

    /// The number of a conversation whose name probably has that hash, if it is in memory: a guess, to look ahead with.
    fn conversation_probably(&self, hash: u64) -> Option<u32>;

    /// Reads some of the name that probably has that hash, if it is in memory, so that the processor has it at hand.
    fn touch_conversation(&self, hash: u64) -> u8;

    /// The same, keeping the answer at hand for the next time.
    ///
    /// # Errors
    /// Where the medium fails.
    fn conversation_hot(&mut self, name: &[u8]) -> Result<Option<u32>, Self::Error>;

    /// Names a conversation, once.
    fn name_conversation(&mut self, name: &[u8], number: u32);
}

/// One table of a store. Changes become durable at the store's next checkpoint, all or none.
pub trait Table<P: Page>: Store {
    /// Looks at a page without keeping it at hand: readers do so side by side.
    ///
    /// # Errors
    /// Where the medium fails.
    fn get(&self, key: PageKey) -> Result<Option<Ref<'_, P>>, Self::Error>;

    /// Looks at a page that is in memory; does not touch the medium.
    fn at_hand(&self, key: PageKey) -> Option<&P>;

    /// Keeps a page at hand, to look at and perhaps to change.
    ///
    /// # Errors
    /// Where the medium fails.
    fn hot(&mut self, key: PageKey) -> Result<Option<Mut<'_, P>>, Self::Error>;

    /// Writes a page anew.
    fn put(&mut self, key: PageKey, page: P);

    /// Removes a page, if there is one.
    fn remove(&mut self, key: PageKey);

    /// All keys of the table, in order. For small tables, when a store is opened.
    ///
    /// # Errors
    /// Where the medium fails.
    fn keys(&self) -> Result<Vec<PageKey>, Self::Error>;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// INV-MEMORY: a page says that it takes itself and what it has on the heap, and little more.
    pub(crate) fn accounts_for<P: Page>(page: &P, heap_bytes: usize) {
        let (least, said) = (size_of::<P>() + heap_bytes, page.memory_bytes());
        assert!((least..=least + heap_bytes / 8 + 64).contains(&said), "{said} for {least} bytes");
    }
}
