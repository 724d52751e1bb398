//! Decoded pages of one table in memory. Those that changed stay until a checkpoint has them on disk; of the others, those
//! not looked at lately make room.

use hashbrown::HashTable;
use receipts_fold::pages::codec::Writer;
use receipts_fold::pages::{Mut, Page, PageKey};
use rustc_hash::FxHasher;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

struct Slot<P> {
    key: PageKey,
    /// `None` for a page that was removed.
    page: Option<P>,
    /// In [`Cache::changes`].
    changed: bool,
    /// In [`Cache::touched`].
    touched: bool,
    /// As it stands in [`Cache::draft`], unless it was touched since.
    drafted: bool,
    /// Looked at since the hand came by.
    recent: bool,
    /// The batch that must be readable before this may go.
    batch: u64,
    bytes: usize,
}

impl<P> Slot<P> {
    /// Whether it is in use, and the medium says the same.
    fn is_saved(&self, applied: u64) -> bool {
        self.bytes > 0 && !self.changed && !self.touched && self.batch <= applied
    }
}

/// The pages of a table.
pub(crate) struct Cache<P> {
    slots: Vec<Slot<P>>,
    free: Vec<u32>,
    /// Slots of keys whose second part is 0, by the first: conversations and pages of messages are numbered without gaps,
    /// so that the commonest look-ups are one step. [`NONE`] where there is none.
    direct: Vec<u32>,
    by_key: HashTable<u32>,
    /// Slots that changed since the last checkpoint, each once.
    changes: Vec<u32>,
    /// Slots that changed since they were last measured, each once.
    touched: Vec<u32>,
    /// Batches and slots of pages that they removed, in order, until they are readable. Some hold pages again by then.
    removed: VecDeque<(u64, u32)>,
    draft: Draft,
    bytes: usize,
    /// Of `bytes`, those of slots in `changes`.
    changed_bytes: usize,
    hand: usize,
}

/// Encodings of the first of [`Cache::changes`], for the next checkpoint. What changes again is encoded again then.
#[derive(Default)]
struct Draft {
    bytes: Writer,
    /// Where the encoding of each ends in `bytes`, in the order of the changes.
    ends: Vec<usize>,
    /// How many are to be encoded.
    count: usize,
}

impl Draft {
    fn get(&self, change: usize) -> &[u8] {
        let from = change.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes.bytes[from..self.ends[change]]
    }
}

/// What a checkpoint has to write of a page.
pub(crate) enum Change<'a, P> {
    /// It was removed.
    Removed,
    /// It is to be encoded.
    Page(&'a P),
    /// It is encoded already.
    Encoded(&'a [u8]),
}

impl<P> Default for Cache<P> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            direct: Vec::new(),
            by_key: HashTable::new(),
            changes: Vec::new(),
            touched: Vec::new(),
            removed: VecDeque::new(),
            draft: Draft::default(),
            bytes: 0,
            changed_bytes: 0,
            hand: 0,
        }
    }
}

fn hash(key: PageKey) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

const NONE: u32 = u32::MAX;
/// Numbers beyond are looked up by hash: 4 bytes each must stay little beside the pages themselves.
const DIRECT_MAX: u64 = 1 << 24;

fn is_direct(key: PageKey) -> bool {
    key.b == 0 && key.a < DIRECT_MAX
}

/// A place in the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(u32);

impl<P: Page> Cache<P> {
    /// The place of a key that the cache knows, be it as removed.
    pub(crate) fn find(&self, key: PageKey) -> Option<Place> {
        if is_direct(key) {
            return self.direct.get(key.a as usize).copied().filter(|at| *at != NONE).map(Place);
        }
        self.by_key.find(hash(key), |i| self.slots[*i as usize].key == key).copied().map(Place)
    }

    /// The page in a place, unless it was removed.
    pub(crate) fn at(&self, place: Place) -> Option<&P> {
        self.slots[place.0 as usize].page.as_ref()
    }

    /// The page in a place, to change.
    pub(crate) fn at_mut(&mut self, place: Place) -> Option<Mut<'_, P>> {
        let slot = &mut self.slots[place.0 as usize];
        slot.recent = true;
        slot.page.as_mut().map(|page| Mut::new(page, &mut slot.touched, &mut self.touched, place.0))
    }

    /// Adds a page that the medium has.
    pub(crate) fn load(&mut self, key: PageKey, page: P) -> Place {
        self.insert(key, Some(page))
    }

    /// Writes or, with `None`, removes a page.
    pub(crate) fn put(&mut self, key: PageKey, page: Option<P>) {
        let place = match self.find(key) {
            Some(place) => {
                self.slots[place.0 as usize].page = page;
                place
            }
            None => self.insert(key, page),
        };
        let slot = &mut self.slots[place.0 as usize];
        slot.recent = true;
        if !slot.touched {
            slot.touched = true;
            self.touched.push(place.0);
        }
    }

    fn insert(&mut self, key: PageKey, page: Option<P>) -> Place {
        let bytes = bytes_of(page.as_ref());
        let slot = Slot { key, page, changed: false, touched: false, drafted: false, recent: true, batch: 0, bytes };
        self.bytes += bytes;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        if is_direct(key) {
            if self.direct.len() <= key.a as usize {
                self.direct.resize(key.a as usize + 1, NONE);
            }
            self.direct[key.a as usize] = at;
        } else {
            self.by_key.insert_unique(hash(key), at, |i| hash(self.slots[*i as usize].key));
        }
        Place(at)
    }

    /// The keys that the cache knows, with whether they are pages or were removed.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (PageKey, bool)> {
        self.slots.iter().filter(|s| s.bytes > 0).map(|s| (s.key, s.page.is_some()))
    }

    /// What changed since the last checkpoint.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (PageKey, Change<'_, P>)> {
        let unmeasured = self.touched.iter().filter(|i| !self.slots[**i as usize].changed);
        self.changes.iter().chain(unmeasured).enumerate().map(|(change, i)| {
            let slot = &self.slots[*i as usize];
            let what = match &slot.page {
                None => Change::Removed,
                Some(_) if slot.drafted && !slot.touched => Change::Encoded(self.draft.get(change)),
                Some(page) => Change::Page(page),
            };
            (slot.key, what)
        })
    }

    /// From here on [`Self::draft`] encodes all that has changed so far.
    pub(crate) fn begin_draft(&mut self) {
        self.measure();
        self.draft.count = self.changes.len();
    }

    /// Encodes pages for the next checkpoint until `left`, the bytes that there is time for, is used up; true once all are
    /// encoded that are to be.
    pub(crate) fn draft(&mut self, left: &mut usize) -> bool {
        // What was touched is looked at as it is now.
        self.measure();
        let Draft { bytes, ends, count } = &mut self.draft;
        while ends.len() < *count && *left > 0 {
            let before = bytes.bytes.len();
            let slot = &mut self.slots[self.changes[ends.len()] as usize];
            if let Some(page) = &slot.page {
                page.encode(bytes);
                slot.drafted = true;
            }
            ends.push(bytes.bytes.len());
            *left = left.saturating_sub(bytes.bytes.len() - before);
        }
        ends.len() >= *count
    }

    /// All changes are in that batch.
    pub(crate) fn saved(&mut self, batch: u64) {
        self.measure();
        for at in self.changes.drain(..) {
            let slot = &mut self.slots[at as usize];
            slot.changed = false;
            slot.drafted = false;
            slot.batch = batch;
            if slot.page.is_none() {
                self.removed.push_back((batch, at));
            }
        }
        self.draft = Draft::default();
        self.changed_bytes = 0;
    }

    /// Bytes of memory, as last measured.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
            + self.slots.capacity() * size_of::<Slot<P>>()
            + self.by_key.capacity() * 5
            + self.direct.capacity() * 4
            + self.removed.capacity() * size_of::<(u64, u32)>()
            + self.draft.bytes.bytes.capacity()
            + self.draft.ends.capacity() * size_of::<usize>()
    }

    /// Bytes that only a checkpoint can free.
    pub(crate) fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Pages that changed since they were measured.
    pub(crate) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Accounts for pages that changed.
    pub(crate) fn measure(&mut self) {
        for at in self.touched.drain(..) {
            let slot = &mut self.slots[at as usize];
            let bytes = bytes_of(slot.page.as_ref());
            self.bytes = self.bytes + bytes - slot.bytes;
            self.changed_bytes = self.changed_bytes + bytes - if slot.changed { slot.bytes } else { 0 };
            slot.bytes = bytes;
            slot.touched = false;
            slot.drafted = false;
            if !slot.changed {
                slot.changed = true;
                self.changes.push(at);
            }
        }
    }

    /// Forgets pages that were removed once the medium has forgotten them too.
    pub(crate) fn forget_removed(&mut self, applied: u64) {
        while let Some((_, at)) = self.removed.pop_front_if(|(batch, _)| *batch <= applied) {
            let slot = &self.slots[at as usize];
            if slot.page.is_none() && slot.is_saved(applied) {
                self.release(at);
            }
        }
    }

    /// Makes room for about `bytes`: two rounds of the clock at most.
    pub(crate) fn evict(&mut self, bytes: usize, applied: u64) {
        let goal = self.bytes.saturating_sub(bytes);
        for _ in 0..2 * self.slots.len() {
            if self.bytes <= goal {
                return;
            }
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.is_saved(applied) && !std::mem::take(&mut slot.recent) {
                self.release(self.hand as u32);
            }
        }
    }

    /// Lets the page in a slot go.
    fn release(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        if is_direct(slot.key) {
            self.direct[slot.key.a as usize] = NONE;
        } else if let Ok(entry) = self.by_key.find_entry(hash(slot.key), |i| *i == at) {
            entry.remove();
        }
        self.bytes -= slot.bytes;
        slot.bytes = 0;
        slot.page = None;
        self.free.push(at);
    }
}

/// Never 0: that marks a free slot.
fn bytes_of<P: Page>(page: Option<&P>) -> usize {
    1 + page.map_or(0, Page::memory_bytes)
}
