//! A store in memory that notes which pages are looked at, for what is to be proven by counting or naming them. Judges nothing.

use receipts_fold::pages::{Mut, Page, PageKey, Ref, Store, Table, TableId};
use receipts_store::{Error, MemoryBackend, Paged};
use std::cell::RefCell;

/// Pages that note which ones are looked at.
pub(crate) struct Watched {
    pages: Paged<MemoryBackend>,
    /// Looked at to answer or to fold, one after the other.
    looks: RefCell<Vec<(TableId, PageKey)>>,
    /// Looked at only where in memory.
    peeked: RefCell<Vec<(TableId, PageKey)>>,
}

impl Watched {
    /// An empty store with memory for all that is to come.
    pub(crate) fn empty() -> Self {
        let pages = Paged::new(MemoryBackend::default(), 0, 1 << 30);
        Self { pages, looks: RefCell::default(), peeked: RefCell::default() }
    }

    /// The looks since the last time that this was asked.
    pub(crate) fn take_looks(&self) -> Vec<(TableId, PageKey)> {
        self.looks.take()
    }

    /// The looks at what is in memory since the last time that this was asked.
    pub(crate) fn take_peeked(&self) -> Vec<(TableId, PageKey)> {
        self.peeked.take()
    }
}

impl Store for Watched {
    type Error = Error;

    fn conversation_number(&self, name: &[u8]) -> Result<Option<u32>, Error> {
        self.pages.conversation_number(name)
    }

    fn conversation_hash(&self, name: &[u8]) -> u64 {
        self.pages.conversation_hash(name)
    }

    fn peek_conversation_number(&self, hash: u64) -> Option<u32> {
        self.pages.peek_conversation_number(hash)
    }

    fn prefetch_conversation(&self, hash: u64) -> u8 {
        self.pages.prefetch_conversation(hash)
    }

    fn load_conversation_number(&mut self, name: &[u8]) -> Result<Option<u32>, Error> {
        self.pages.load_conversation_number(name)
    }

    fn name_conversation(&mut self, name: &[u8], number: u32) {
        self.pages.name_conversation(name, number);
    }
}

impl<P: Page> Table<P> for Watched
where
    Paged<MemoryBackend>: Table<P, Error = Error>,
{
    fn read(&self, key: PageKey) -> Result<Option<Ref<'_, P>>, Error> {
        self.looks.borrow_mut().push((P::TABLE, key));
        self.pages.read(key)
    }

    fn peek(&self, key: PageKey) -> Option<&P> {
        self.peeked.borrow_mut().push((P::TABLE, key));
        self.pages.peek(key)
    }

    fn load_mut(&mut self, key: PageKey) -> Result<Option<Mut<'_, P>>, Error> {
        self.looks.borrow_mut().push((P::TABLE, key));
        self.pages.load_mut(key)
    }

    fn put(&mut self, key: PageKey, page: P) {
        self.pages.put(key, page);
    }

    fn remove(&mut self, key: PageKey) {
        Table::<P>::remove(&mut self.pages, key);
    }

    fn keys(&self) -> Result<Vec<PageKey>, Error> {
        Table::<P>::keys(&self.pages)
    }
}
