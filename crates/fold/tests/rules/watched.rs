//! A store in memory that records which pages are read, for tests that count or name them. Judges
//! nothing.

use receipts_fold::pages::{Mut, Page, PageKey, Ref, Store, Table, TableId};
use receipts_store::{Error, MemoryBackend, Paged};
use std::cell::RefCell;

/// Pages that record their reads.
pub(crate) struct Watched {
    pages: Paged<MemoryBackend>,
    /// The reads for answers and for the fold, in order.
    reads: RefCell<Vec<(TableId, PageKey)>>,
    /// The reads of cached pages only.
    peeked: RefCell<Vec<(TableId, PageKey)>>,
}

impl Watched {
    /// Opens an empty store with memory for all pages.
    pub(crate) fn empty() -> Self {
        let pages = Paged::new(MemoryBackend::default(), 0, 1 << 30);
        Self { pages, reads: RefCell::default(), peeked: RefCell::default() }
    }

    /// Returns the reads since the last call.
    pub(crate) fn take_reads(&self) -> Vec<(TableId, PageKey)> {
        self.reads.take()
    }

    /// Returns the reads of cached pages since the last call.
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
        self.reads.borrow_mut().push((P::TABLE, key));
        self.pages.read(key)
    }

    fn peek(&self, key: PageKey) -> Option<&P> {
        self.peeked.borrow_mut().push((P::TABLE, key));
        self.pages.peek(key)
    }

    fn load_mut(&mut self, key: PageKey) -> Result<Option<Mut<'_, P>>, Error> {
        self.reads.borrow_mut().push((P::TABLE, key));
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
