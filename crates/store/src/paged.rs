//! All tables of a partition on a medium: decoded pages in memory, and checkpoints of the changed
//! ones. Knows no rule of the fold.
//!
//! One thread changes pages, and any number of threads read them, under a lock of the owner. A
//! reader that needs a page which is not cached loads it for itself, so readers never wait for one
//! another.

use crate::backend::Backend;
use crate::batch::Batch;
use crate::cache::{Cache, Change};
use crate::envelope::{name_key, page_key, parse_page_key, part_key, unwrap, wrap};
use crate::error::Error;
use crate::names::Names;
use receipts_fold::index::{BloomFilter, IndexPage};
use receipts_fold::pages::codec::{Reader, Writer};
use receipts_fold::pages::{
    Chunk, ConversationPage, Departures, Erasure, Messages, Meta, Mut, Page, PageKey, Parked, People, PeopleIndex,
    Policy, ReadMarks, Ref, Store, Table,
};
use receipts_fold::{Origin, State};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The pages of one partition.
pub struct Paged<B> {
    backend: B,
    partition: u32,
    memory_bytes_max: usize,
    last_eviction: LastEviction,
    /// The expected size of the next batch, from the last one.
    batch_bytes: AtomicUsize,
    /// True while pages are being encoded ahead of the next batch.
    is_pre_encoding: bool,
    lookups: Lookups,
    names: Names,
    meta: Cache<Meta>,
    conversations: Cache<ConversationPage>,
    people: Cache<People>,
    people_index: Cache<PeopleIndex>,
    read_marks: Cache<ReadMarks>,
    departures: Cache<Departures>,
    messages: Cache<Messages>,
    chunks: Cache<Chunk>,
    index: Cache<IndexPage>,
    filters: Cache<BloomFilter>,
    parked: Cache<Parked>,
    erasures: Cache<Erasure>,
    origin: Cache<Origin>,
    policies: Cache<Policy>,
}

/// How often the fold has found a page in memory, and how often on the medium.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lookups {
    /// Pages found in memory, removed ones included.
    pub hits: u64,
    /// Pages read from the medium.
    pub loads: u64,
}

/// The state at the end of the last eviction.
#[derive(Default)]
struct LastEviction {
    /// The last batch applied by then.
    applied: u64,
    /// The memory bound of the pages then, bytes.
    bytes_max: usize,
    /// The next eviction waits until the pages take more than this, bytes.
    retry_above_bytes: usize,
}

/// The number of changed pages after which memory is measured again.
const DIRTY_MAX: usize = 16_384;

/// After an eviction, memory must grow by this share (1/16) of its bound before the next one. If
/// only a checkpoint can free most of the memory, each attempt scans every page and evicts the few
/// pages that are needed next.
const REGROWTH_SHARE: usize = 16;

/// The eviction weights. Pages of messages are evicted sooner, because they are large and soon old;
/// a conversation is small and comes back.
const MESSAGE_WEIGHT: u128 = 8;
const CONVERSATION_WEIGHT: u128 = 1;

/// Calls a macro with the field and the eviction weight of every table.
macro_rules! each_table {
    ($each:ident, $self:ident) => {
        $each!($self.meta, CONVERSATION_WEIGHT);
        $each!($self.conversations, CONVERSATION_WEIGHT);
        $each!($self.people, CONVERSATION_WEIGHT);
        $each!($self.people_index, CONVERSATION_WEIGHT);
        $each!($self.read_marks, CONVERSATION_WEIGHT);
        $each!($self.departures, CONVERSATION_WEIGHT);
        $each!($self.messages, MESSAGE_WEIGHT);
        $each!($self.chunks, MESSAGE_WEIGHT);
        $each!($self.index, MESSAGE_WEIGHT);
        $each!($self.filters, MESSAGE_WEIGHT);
        $each!($self.parked, MESSAGE_WEIGHT);
        $each!($self.erasures, CONVERSATION_WEIGHT);
        $each!($self.origin, CONVERSATION_WEIGHT);
        $each!($self.policies, CONVERSATION_WEIGHT);
    };
}

/// Keeps a state within its memory: its pages, and everything else that the fold holds. See
/// [`Paged::trim`].
pub fn trim<B: Backend>(state: &mut State<Paged<B>>) {
    let beside = state.memory_bytes();
    state.pages_mut().trim(beside);
}

impl<B: Backend> Paged<B> {
    /// Opens the pages of a partition on a medium. They take about `memory_bytes_max` of memory.
    pub fn new(backend: B, partition: u32, memory_bytes_max: usize) -> Self {
        Self {
            backend,
            partition,
            memory_bytes_max,
            last_eviction: LastEviction::default(),
            batch_bytes: AtomicUsize::new(0),
            is_pre_encoding: false,
            lookups: Lookups::default(),
            names: Names::default(),
            meta: Cache::default(),
            conversations: Cache::default(),
            people: Cache::default(),
            people_index: Cache::default(),
            read_marks: Cache::default(),
            departures: Cache::default(),
            messages: Cache::default(),
            chunks: Cache::default(),
            index: Cache::default(),
            filters: Cache::default(),
            parked: Cache::default(),
            erasures: Cache::default(),
            origin: Cache::default(),
            policies: Cache::default(),
        }
    }

    /// Returns the medium.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the lookups of the fold since the last call.
    pub fn take_lookups(&mut self) -> Lookups {
        std::mem::take(&mut self.lookups)
    }

    /// Sets the approximate memory that the pages may take, bytes.
    pub fn set_memory_max(&mut self, memory_bytes_max: usize) {
        self.memory_bytes_max = memory_bytes_max;
    }

    /// Returns the memory of the pages, as last measured, and of the names of conversations, bytes.
    pub fn memory_bytes(&self) -> usize {
        let mut bytes = self.names.memory_bytes();
        macro_rules! add {
            ($self:ident.$table:ident, $weight:expr) => {
                bytes += $self.$table.bytes();
            };
        }
        each_table!(add, self);
        bytes
    }

    /// Tells whether the unsaved pages take more than half the memory: then only a checkpoint keeps
    /// memory within its bound (INV-MEMORY).
    pub fn needs_checkpoint(&self) -> bool {
        let mut bytes = 0;
        macro_rules! add {
            ($self:ident.$table:ident, $weight:expr) => {
                bytes += $self.$table.unsaved_bytes();
            };
        }
        each_table!(add, self);
        bytes > self.memory_bytes_max / 2
    }

    /// Encodes pages ahead of the next batch, about `bytes_max` per call. Returns true once all
    /// pages that had changed at the first call are encoded. A batch that is made earlier holds the
    /// same bytes and only takes longer (ADR 0028).
    pub fn pre_encode(&mut self, bytes_max: usize) -> bool {
        if !std::mem::replace(&mut self.is_pre_encoding, true) {
            macro_rules! begin {
                ($self:ident.$table:ident, $weight:expr) => {
                    $self.$table.begin_pre_encode();
                };
            }
            each_table!(begin, self);
        }
        let (mut left, mut is_whole) = (bytes_max, true);
        macro_rules! pre_encode {
            ($self:ident.$table:ident, $weight:expr) => {
                is_whole &= $self.$table.pre_encode(&mut left);
            };
        }
        each_table!(pre_encode, self);
        self.is_pre_encoding = !is_whole;
        is_whole
    }

    /// Returns the changes since the last checkpoint as a sealed batch. Readers go on meanwhile.
    pub fn batch(&self, next_offset: u64) -> Batch {
        let mut batch = Batch::new(self.partition, next_offset, self.batch_bytes.load(Ordering::Relaxed));
        let mut writer = Writer::default();
        for (name, number) in self.names.changes() {
            writer.bytes.clear();
            writer.number(u64::from(number));
            wrap(&name_key(name), next_offset, &writer.bytes, |k, v| batch.write(k, v));
        }
        macro_rules! write {
            ($self:ident.$table:ident, $weight:expr) => {
                write_table(&$self.$table, next_offset, &mut writer, &mut batch);
            };
        }
        each_table!(write, self);
        batch.seal();
        self.batch_bytes.store(batch.bytes().len() * 9 / 8, Ordering::Relaxed);
        batch
    }

    /// Marks all changes as saved: the batch of this number holds them. Its pages may be evicted
    /// once the batch is readable.
    pub fn mark_saved(&mut self, number: u64) {
        self.names.mark_saved(number);
        macro_rules! mark_saved {
            ($self:ident.$table:ident, $weight:expr) => {
                $self.$table.mark_saved(number);
            };
        }
        each_table!(mark_saved, self);
        self.is_pre_encoding = false;
        // More pages can be evicted now, or soon.
        self.last_eviction.retry_above_bytes = 0;
    }

    /// Evicts pages if they, with `beside` bytes of their owner, exceed their memory (INV-MEMORY).
    /// Cheap to call often: it scans pages only after many of them have changed, or if memory is
    /// over its bound and an eviction is likely to help.
    pub fn trim(&mut self, beside: usize) {
        let (mut dirty, applied) = (0, self.backend.applied());
        self.names.forget_saved(applied);
        macro_rules! forget {
            ($self:ident.$table:ident, $weight:expr) => {
                $self.$table.forget_removed(applied);
                dirty += $self.$table.dirty_count();
            };
        }
        each_table!(forget, self);
        let bytes_max = self.memory_bytes_max.saturating_sub(beside);
        let bytes = self.memory_bytes();
        let last = &self.last_eviction;
        let is_worth_it = || {
            bytes > last.retry_above_bytes
                || self.backend.applied() > last.applied
                || bytes_max + bytes_max / REGROWTH_SHARE < last.bytes_max
        };
        let is_over = || bytes > bytes_max && is_worth_it();
        if dirty >= DIRTY_MAX || is_over() {
            // Read before the eviction: a batch that is applied meanwhile makes another eviction
            // worthwhile.
            let applied = self.backend.applied();
            self.evict(bytes_max);
            let retry_above_bytes = self.memory_bytes() + bytes_max / REGROWTH_SHARE;
            self.last_eviction = LastEviction { applied, bytes_max, retry_above_bytes };
        }
    }

    /// Evicts pages of each table by its weighted share, and a tenth more than needed, so that
    /// evictions are rare.
    fn evict(&mut self, bytes_max: usize) {
        let mut total = 0;
        macro_rules! measure {
            ($self:ident.$table:ident, $weight:expr) => {
                $self.$table.measure();
                total += $self.$table.bytes() as u128 * $weight;
            };
        }
        each_table!(measure, self);
        let bytes = self.memory_bytes();
        if bytes <= bytes_max {
            return;
        }
        let excess = bytes - bytes_max + bytes_max / 10;
        let applied = self.backend.applied();
        self.names.trim(bytes_max / 16);
        // All memory may be names.
        let total = total.max(1);
        macro_rules! evict {
            ($self:ident.$table:ident, $weight:expr) => {
                let share = excess as u128 * $self.$table.bytes() as u128 * $weight / total;
                if share > 0 {
                    $self.$table.evict(share as usize, applied);
                }
            };
        }
        each_table!(evict, self);
        // If messages could not be evicted because they are unsaved, the pages of other tables make
        // room.
        let excess = self.memory_bytes().saturating_sub(bytes_max);
        if excess > 0 {
            macro_rules! evict_evenly {
                ($self:ident.$table:ident, $weight:expr) => {
                    let share = excess as u128 * $self.$table.bytes() as u128 / bytes as u128;
                    if share > 0 {
                        $self.$table.evict(share as usize, applied);
                    }
                };
            }
            each_table!(evict_evenly, self);
        }
    }

    /// Returns the bytes of all values on the medium, as encoded: the measure for the space on
    /// disk.
    ///
    /// # Errors
    /// If the medium fails.
    pub fn stored_bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for key in self.backend.keys(&[])? {
            bytes += self.backend.get(&key)?.map_or(0, |v| v.as_ref().len() as u64);
        }
        Ok(bytes)
    }

    fn load<P: Page>(&self, key: PageKey) -> Result<Option<P>, Error> {
        let bytes = page_key(P::TABLE, key);
        let Some((_, payload)) = unwrap(&bytes, |part| self.backend.get(&part_key(&bytes, part)))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&payload);
        let page = P::decode(&mut reader).and_then(|page| reader.end().map(|()| page));
        page.map(Some).map_err(|e| Error::corrupt(format!("a page of {:?}", P::TABLE), e.to_string()))
    }

    fn load_name(&self, name: &[u8]) -> Result<Option<u32>, Error> {
        let key = name_key(name);
        let Some((_, payload)) = unwrap(&key, |part| self.backend.get(&part_key(&key, part)))? else { return Ok(None) };
        Reader::new(&payload).small().map(Some).map_err(|e| Error::corrupt("a conversation's number", e.to_string()))
    }

    fn load_keys<P: Page>(&self, cache: &Cache<P>) -> Result<Vec<PageKey>, Error> {
        let stored = self.backend.keys(&[P::TABLE as u8])?;
        let mut keys: std::collections::BTreeSet<PageKey> = stored.iter().filter_map(|k| parse_page_key(k)).collect();
        for (key, present) in cache.keys() {
            if present {
                keys.insert(key)
            } else {
                keys.remove(&key)
            };
        }
        Ok(keys.into_iter().collect())
    }
}

fn write_table<P: Page>(cache: &Cache<P>, next_offset: u64, writer: &mut Writer, batch: &mut Batch) {
    for (key, change) in cache.changes() {
        let key = page_key(P::TABLE, key);
        let payload = match change {
            Change::Removed => {
                batch.remove(&key);
                continue;
            }
            Change::Encoded(bytes) => bytes,
            Change::Page(page) => {
                writer.bytes.clear();
                page.encode(writer);
                &writer.bytes
            }
        };
        wrap(&key, next_offset, payload, |k, v| batch.write(k, v));
    }
}

impl<B: Backend> Store for Paged<B> {
    type Error = Error;

    fn conversation_number(&self, name: &[u8]) -> Result<Option<u32>, Error> {
        match self.names.get(name) {
            Some(number) => Ok(Some(number)),
            None => self.load_name(name),
        }
    }

    fn conversation_hash(&self, name: &[u8]) -> u64 {
        Names::hash(name)
    }

    fn peek_conversation_number(&self, hash: u64) -> Option<u32> {
        self.names.probably(hash).map(|(_, number)| number)
    }

    fn prefetch_conversation(&self, hash: u64) -> u8 {
        self.names.probably(hash).and_then(|(name, _)| name.first().copied()).unwrap_or(0)
    }

    fn load_conversation_number(&mut self, name: &[u8]) -> Result<Option<u32>, Error> {
        if let Some(number) = self.names.hot(name) {
            return Ok(Some(number));
        }
        let number = self.load_name(name)?;
        if let Some(number) = number {
            self.names.load(name, number);
        }
        Ok(number)
    }

    fn name_conversation(&mut self, name: &[u8], number: u32) {
        self.names.put(name, number);
    }
}

macro_rules! table {
    ($page:ty, $field:ident) => {
        impl<B: Backend> Table<$page> for Paged<B> {
            fn read(&self, key: PageKey) -> Result<Option<Ref<'_, $page>>, Error> {
                match self.$field.find(key) {
                    Some(id) => Ok(self.$field.at(id).map(Ref::Cached)),
                    None => Ok(self.load(key)?.map(|page| Ref::Loaded(Box::new(page)))),
                }
            }

            fn peek(&self, key: PageKey) -> Option<&$page> {
                self.$field.find(key).and_then(|id| self.$field.at(id))
            }

            fn load_mut(&mut self, key: PageKey) -> Result<Option<Mut<'_, $page>>, Error> {
                let id = match self.$field.find(key) {
                    Some(id) => {
                        self.lookups.hits += 1;
                        id
                    }
                    None => match self.load(key)? {
                        Some(page) => {
                            self.lookups.loads += 1;
                            self.$field.load(key, page)
                        }
                        None => return Ok(None),
                    },
                };
                Ok(self.$field.at_mut(id))
            }

            fn put(&mut self, key: PageKey, page: $page) {
                self.$field.put(key, Some(page));
            }

            fn remove(&mut self, key: PageKey) {
                self.$field.put(key, None);
            }

            fn keys(&self) -> Result<Vec<PageKey>, Error> {
                self.load_keys(&self.$field)
            }
        }
    };
}

table!(Meta, meta);
table!(ConversationPage, conversations);
table!(People, people);
table!(PeopleIndex, people_index);
table!(ReadMarks, read_marks);
table!(Departures, departures);
table!(Messages, messages);
table!(Chunk, chunks);
table!(IndexPage, index);
table!(BloomFilter, filters);
table!(Parked, parked);
table!(Erasure, erasures);
table!(Origin, origin);
table!(Policy, policies);
