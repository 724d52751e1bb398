//! Decoded pages of one table in memory. An unsaved page stays until a checkpoint has it on disk.
//! Pages that were not read lately make room for others. Reads and writes no medium.

use hashbrown::HashTable;
use receipts_fold::pages::codec::Writer;
use receipts_fold::pages::{Mut, Page, PageKey};
use rustc_hash::FxHasher;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

struct Entry<P> {
    key: PageKey,
    /// `None` for a page that was removed.
    page: Option<P>,
    /// True while it is in [`Cache::unsaved`].
    is_unsaved: bool,
    /// True while it is in [`Cache::dirty`].
    is_dirty: bool,
    /// True while [`Cache::pre_encoded`] has the encoding of the page as it is.
    is_pre_encoded: bool,
    /// True if it was read since the clock hand last passed it.
    is_recent: bool,
    /// The batch that must be readable before the page may be evicted.
    batch: u64,
    /// 0 for a free entry.
    bytes: usize,
}

impl<P> Entry<P> {
    /// Tells whether the entry is in use and the medium has the same page.
    fn is_saved(&self, applied: u64) -> bool {
        self.bytes > 0 && !self.is_unsaved && !self.is_dirty && self.batch <= applied
    }
}

/// The cached pages of a table.
pub(crate) struct Cache<P> {
    entries: Vec<Entry<P>>,
    /// Free entries.
    free: Vec<u32>,
    /// The entries of keys whose second part is 0, by the first part; [`NONE`] where there is none.
    /// Conversations and pages of messages are numbered without gaps, so the commonest lookups take
    /// one step. Empty where [`Page::IS_DENSE`] is false.
    direct: Vec<u32>,
    by_key: HashTable<u32>,
    /// Entries that changed since the last checkpoint, each once.
    unsaved: Vec<u32>,
    /// Entries that changed since their memory was last measured, each once.
    dirty: Vec<u32>,
    /// Batches and the entries of pages that they removed, in order, until the batch is readable.
    /// An entry may hold a page again by then.
    removed: VecDeque<(u64, u32)>,
    pre_encoded: PreEncoded,
    bytes: usize,
    /// The part of `bytes` in `unsaved` entries.
    unsaved_bytes: usize,
    /// The position of the eviction clock.
    clock_hand: usize,
}

/// The encodings of the first entries of [`Cache::unsaved`], for the next checkpoint. The
/// checkpoint encodes an entry again if it has changed since.
#[derive(Default)]
struct PreEncoded {
    bytes: Writer,
    /// The end of each encoding in `bytes`, in the order of [`Cache::unsaved`].
    ends: Vec<usize>,
    /// The number of entries to encode.
    count: usize,
}

impl PreEncoded {
    fn get(&self, change: usize) -> &[u8] {
        let from = change.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes.bytes[from..self.ends[change]]
    }
}

/// A change of a page, as a checkpoint writes it.
pub(crate) enum Change<'a, P> {
    /// The page was removed.
    Removed,
    /// The page, to be encoded.
    Page(&'a P),
    /// The encoding of the page.
    Encoded(&'a [u8]),
}

impl<P> Default for Cache<P> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            direct: Vec::new(),
            by_key: HashTable::new(),
            unsaved: Vec::new(),
            dirty: Vec::new(),
            removed: VecDeque::new(),
            pre_encoded: PreEncoded::default(),
            bytes: 0,
            unsaved_bytes: 0,
            clock_hand: 0,
        }
    }
}

fn hash(key: PageKey) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

const NONE: u32 = u32::MAX;
/// The first key part that is looked up by hash. Bounds `direct`, which takes 4 bytes per number.
const DIRECT_MAX: u64 = 1 << 24;

fn is_direct<P: Page>(key: PageKey) -> bool {
    P::IS_DENSE && key.b == 0 && key.a < DIRECT_MAX
}

/// An entry of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryId(u32);

impl<P: Page> Cache<P> {
    /// Finds the entry of a key, even if its page was removed.
    pub(crate) fn find(&self, key: PageKey) -> Option<EntryId> {
        if is_direct::<P>(key) {
            return self.direct.get(key.a as usize).copied().filter(|at| *at != NONE).map(EntryId);
        }
        self.by_key.find(hash(key), |i| self.entries[*i as usize].key == key).copied().map(EntryId)
    }

    /// Returns the page of an entry, unless it was removed.
    pub(crate) fn at(&self, id: EntryId) -> Option<&P> {
        self.entries[id.0 as usize].page.as_ref()
    }

    /// Returns the page of an entry for changes.
    pub(crate) fn at_mut(&mut self, id: EntryId) -> Option<Mut<'_, P>> {
        let entry = &mut self.entries[id.0 as usize];
        entry.is_recent = true;
        entry.page.as_mut().map(|page| Mut::new(page, &mut entry.is_dirty, &mut self.dirty, id.0))
    }

    /// Adds a page that was read from the medium.
    pub(crate) fn load(&mut self, key: PageKey, page: P) -> EntryId {
        self.insert(key, Some(page))
    }

    /// Writes a page or, with `None`, removes it.
    pub(crate) fn put(&mut self, key: PageKey, page: Option<P>) {
        let id = match self.find(key) {
            Some(id) => {
                self.entries[id.0 as usize].page = page;
                id
            }
            None => self.insert(key, page),
        };
        let entry = &mut self.entries[id.0 as usize];
        entry.is_recent = true;
        if !entry.is_dirty {
            entry.is_dirty = true;
            self.dirty.push(id.0);
        }
    }

    fn insert(&mut self, key: PageKey, page: Option<P>) -> EntryId {
        let bytes = bytes_of(page.as_ref());
        let entry = Entry {
            key,
            page,
            is_unsaved: false,
            is_dirty: false,
            is_pre_encoded: false,
            is_recent: true,
            batch: 0,
            bytes,
        };
        self.bytes += bytes;
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        if is_direct::<P>(key) {
            if self.direct.len() <= key.a as usize {
                self.direct.resize(key.a as usize + 1, NONE);
            }
            self.direct[key.a as usize] = at;
        } else {
            self.by_key.insert_unique(hash(key), at, |i| hash(self.entries[*i as usize].key));
        }
        EntryId(at)
    }

    /// Returns all keys in the cache, each with true if it has a page and false if the page was
    /// removed.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (PageKey, bool)> {
        self.entries.iter().filter(|s| s.bytes > 0).map(|s| (s.key, s.page.is_some()))
    }

    /// Returns the changes since the last checkpoint.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (PageKey, Change<'_, P>)> {
        let unmeasured = self.dirty.iter().filter(|i| !self.entries[**i as usize].is_unsaved);
        self.unsaved.iter().chain(unmeasured).enumerate().map(|(index, i)| {
            let entry = &self.entries[*i as usize];
            let change = match &entry.page {
                None => Change::Removed,
                Some(_) if entry.is_pre_encoded && !entry.is_dirty => Change::Encoded(self.pre_encoded.get(index)),
                Some(page) => Change::Page(page),
            };
            (entry.key, change)
        })
    }

    /// Begins to encode ahead: [`Self::pre_encode`] covers the changes so far.
    pub(crate) fn begin_pre_encode(&mut self) {
        self.measure();
        self.pre_encoded.count = self.unsaved.len();
    }

    /// Encodes pages for the next checkpoint until `left`, a budget in bytes, is used up. Returns
    /// true once all pages that [`Self::begin_pre_encode`] covered are encoded.
    pub(crate) fn pre_encode(&mut self, left: &mut usize) -> bool {
        // Drops the encodings of pages that have changed since.
        self.measure();
        let PreEncoded { bytes, ends, count } = &mut self.pre_encoded;
        while ends.len() < *count && *left > 0 {
            let before = bytes.bytes.len();
            let entry = &mut self.entries[self.unsaved[ends.len()] as usize];
            if let Some(page) = &entry.page {
                page.encode(bytes);
                entry.is_pre_encoded = true;
            }
            ends.push(bytes.bytes.len());
            *left = left.saturating_sub(bytes.bytes.len() - before);
        }
        ends.len() >= *count
    }

    /// Marks all changes as saved: the batch of this number holds them.
    pub(crate) fn mark_saved(&mut self, batch: u64) {
        self.measure();
        for at in self.unsaved.drain(..) {
            let entry = &mut self.entries[at as usize];
            entry.is_unsaved = false;
            entry.is_pre_encoded = false;
            entry.batch = batch;
            if entry.page.is_none() {
                self.removed.push_back((batch, at));
            }
        }
        self.pre_encoded = PreEncoded::default();
        self.unsaved_bytes = 0;
    }

    /// Returns the bytes of memory, as last measured.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
            + self.entries.capacity() * size_of::<Entry<P>>()
            + self.by_key.capacity() * 5
            + self.direct.capacity() * 4
            + self.removed.capacity() * size_of::<(u64, u32)>()
            + self.pre_encoded.bytes.bytes.capacity()
            + self.pre_encoded.ends.capacity() * size_of::<usize>()
    }

    /// Returns the bytes that only a checkpoint can free.
    pub(crate) fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes
    }

    /// Returns the number of pages that changed since they were measured.
    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// Measures the pages that changed.
    pub(crate) fn measure(&mut self) {
        for at in self.dirty.drain(..) {
            let entry = &mut self.entries[at as usize];
            let bytes = bytes_of(entry.page.as_ref());
            self.bytes = self.bytes + bytes - entry.bytes;
            self.unsaved_bytes = self.unsaved_bytes + bytes - if entry.is_unsaved { entry.bytes } else { 0 };
            entry.bytes = bytes;
            entry.is_dirty = false;
            entry.is_pre_encoded = false;
            if !entry.is_unsaved {
                entry.is_unsaved = true;
                self.unsaved.push(at);
            }
        }
    }

    /// Frees the entries of removed pages once the medium has removed the pages too.
    pub(crate) fn forget_removed(&mut self, applied: u64) {
        while let Some((_, at)) = self.removed.pop_front_if(|(batch, _)| *batch <= applied) {
            let entry = &self.entries[at as usize];
            if entry.page.is_none() && entry.is_saved(applied) {
                self.release(at);
            }
        }
    }

    /// Evicts about `bytes`, in at most two rounds of the clock.
    pub(crate) fn evict(&mut self, bytes: usize, applied: u64) {
        let goal = self.bytes.saturating_sub(bytes);
        for _ in 0..2 * self.entries.len() {
            if self.bytes <= goal {
                return;
            }
            self.clock_hand = (self.clock_hand + 1) % self.entries.len();
            let entry = &mut self.entries[self.clock_hand];
            if entry.is_saved(applied) && !std::mem::take(&mut entry.is_recent) {
                self.release(self.clock_hand as u32);
            }
        }
    }

    /// Frees an entry.
    fn release(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        if is_direct::<P>(entry.key) {
            self.direct[entry.key.a as usize] = NONE;
        } else if let Ok(found) = self.by_key.find_entry(hash(entry.key), |i| *i == at) {
            found.remove();
        }
        self.bytes -= entry.bytes;
        entry.bytes = 0;
        entry.page = None;
        self.free.push(at);
    }
}

/// Returns the memory of an entry. Never 0, which marks a free entry.
fn bytes_of<P: Page>(page: Option<&P>) -> usize {
    1 + page.map_or(0, Page::memory_bytes)
}
