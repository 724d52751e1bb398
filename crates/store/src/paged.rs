//! All tables of a partition over a medium: hot pages decoded in memory, checkpoints that hold what changed.
//!
//! One thread changes pages; any number look at them meanwhile under a lock that the owner keeps. A page not in memory is
//! read and decoded for the one look, so that readers never wait for one another.

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
    ReadMarks, Ref, Store, Table,
};
use receipts_fold::{Origin, State};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The pages of one partition.
pub struct Paged<B> {
    backend: B,
    partition: u32,
    memory_bytes_max: usize,
    made_room: MadeRoom,
    /// What the next batch may take, by the last one.
    batch_bytes: AtomicUsize,
    /// Whether pages are being encoded for the next batch.
    is_drafting: bool,
    names: Names,
    meta: Cache<Meta>,
    heads: Cache<ConversationPage>,
    people: Cache<People>,
    people_index: Cache<PeopleIndex>,
    marks: Cache<ReadMarks>,
    leaves: Cache<Departures>,
    messages: Cache<Messages>,
    chunks: Cache<Chunk>,
    index: Cache<IndexPage>,
    filters: Cache<BloomFilter>,
    parked: Cache<Parked>,
    erased: Cache<Erasure>,
    origin: Cache<Origin>,
}

/// When room was last made.
#[derive(Default)]
struct MadeRoom {
    /// The batches applied by then.
    applied: u64,
    /// Bytes that pages might take then.
    bytes_max: usize,
    /// Up to how many bytes it need not be made again.
    enough_to: usize,
}

/// Pages that may have changed before their memory is measured again.
const TOUCHED_MAX: usize = 16_384;

/// What share of the memory must have come since room was made before it is made again. Where most of the memory is what only
/// a checkpoint frees, each attempt looks at every page, and lets go of the few that are asked for next.
const MORE_SHARE: usize = 16;

/// How much sooner than others messages and what belongs to them make room: they are large and soon old, where a
/// conversation is small and comes back.
const OF_MESSAGES: u128 = 8;
const OF_CONVERSATIONS: u128 = 1;

/// Calls a macro with every table's field, and how readily it makes room.
macro_rules! each_table {
    ($each:ident, $self:ident) => {
        $each!($self.meta, OF_CONVERSATIONS);
        $each!($self.heads, OF_CONVERSATIONS);
        $each!($self.people, OF_CONVERSATIONS);
        $each!($self.people_index, OF_CONVERSATIONS);
        $each!($self.marks, OF_CONVERSATIONS);
        $each!($self.leaves, OF_CONVERSATIONS);
        $each!($self.messages, OF_MESSAGES);
        $each!($self.chunks, OF_MESSAGES);
        $each!($self.index, OF_MESSAGES);
        $each!($self.filters, OF_MESSAGES);
        $each!($self.parked, OF_MESSAGES);
        $each!($self.erased, OF_CONVERSATIONS);
        $each!($self.origin, OF_CONVERSATIONS);
    };
}

/// Keeps a state, its pages and what the fold holds beside them, within the memory that it may take: [`Paged::trim`].
pub fn trim<B: Backend>(state: &mut State<Paged<B>>) {
    let beside = state.memory_bytes();
    state.pages_mut().trim(beside);
}

impl<B: Backend> Paged<B> {
    /// The pages of a partition that a medium holds, in about `memory_bytes_max` of memory.
    pub fn new(backend: B, partition: u32, memory_bytes_max: usize) -> Self {
        Self {
            backend,
            partition,
            memory_bytes_max,
            made_room: MadeRoom::default(),
            batch_bytes: AtomicUsize::new(0),
            is_drafting: false,
            names: Names::default(),
            meta: Cache::default(),
            heads: Cache::default(),
            people: Cache::default(),
            people_index: Cache::default(),
            marks: Cache::default(),
            leaves: Cache::default(),
            messages: Cache::default(),
            chunks: Cache::default(),
            index: Cache::default(),
            filters: Cache::default(),
            parked: Cache::default(),
            erased: Cache::default(),
            origin: Cache::default(),
        }
    }

    /// The medium.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// From here on pages may take so much memory, in about.
    pub fn allow(&mut self, memory_bytes_max: usize) {
        self.memory_bytes_max = memory_bytes_max;
    }

    /// Bytes of memory the pages take, as last measured, and the names of conversations.
    pub fn memory_bytes(&self) -> usize {
        let mut bytes = self.names.memory_bytes();
        macro_rules! add {
            ($self:ident.$table:ident, $readily:expr) => {
                bytes += $self.$table.bytes();
            };
        }
        each_table!(add, self);
        bytes
    }

    /// Whether so much has changed that only a checkpoint can keep memory within its bound.
    pub fn needs_checkpoint(&self) -> bool {
        let mut bytes = 0;
        macro_rules! add {
            ($self:ident.$table:ident, $readily:expr) => {
                bytes += $self.$table.changed_bytes();
            };
        }
        each_table!(add, self);
        bytes > self.memory_bytes_max / 2
    }

    /// Encodes pages that the next batch will write, in about `bytes_max`; true once all are encoded that had changed when
    /// that was begun. A batch can be made before that, and holds the same: it only takes longer.
    pub fn draft(&mut self, bytes_max: usize) -> bool {
        if !std::mem::replace(&mut self.is_drafting, true) {
            macro_rules! begin {
                ($self:ident.$table:ident, $readily:expr) => {
                    $self.$table.begin_draft();
                };
            }
            each_table!(begin, self);
        }
        let (mut left, mut is_whole) = (bytes_max, true);
        macro_rules! draft {
            ($self:ident.$table:ident, $readily:expr) => {
                is_whole &= $self.$table.draft(&mut left);
            };
        }
        each_table!(draft, self);
        self.is_drafting = !is_whole;
        is_whole
    }

    /// What changed since the last checkpoint, as a sealed batch. Readers go on meanwhile.
    pub fn batch(&self, next_offset: u64) -> Batch {
        let mut batch = Batch::new(self.partition, next_offset, self.batch_bytes.load(Ordering::Relaxed));
        let mut writer = Writer::default();
        for (name, number) in self.names.changes() {
            writer.bytes.clear();
            writer.number(u64::from(number));
            wrap(&name_key(name), next_offset, &writer.bytes, |k, v| batch.write(k, v));
        }
        macro_rules! write {
            ($self:ident.$table:ident, $readily:expr) => {
                write_table(&$self.$table, next_offset, &mut writer, &mut batch);
            };
        }
        each_table!(write, self);
        batch.seal();
        self.batch_bytes.store(batch.bytes().len() * 9 / 8, Ordering::Relaxed);
        batch
    }

    /// All changes are in the batch of that number: its pages may go once it is readable.
    pub fn saved(&mut self, number: u64) {
        self.names.saved(number);
        macro_rules! saved {
            ($self:ident.$table:ident, $readily:expr) => {
                $self.$table.saved(number);
            };
        }
        each_table!(saved, self);
        self.is_drafting = false;
        // What could not go may now, or soon.
        self.made_room.enough_to = 0;
    }

    /// Makes room where the pages, and `beside` bytes that their owner holds, take more memory than they may. Cheap to call
    /// often: it looks only when so many pages have changed that it may matter.
    pub fn trim(&mut self, beside: usize) {
        let (mut touched, applied) = (0, self.backend.applied());
        self.names.forget_saved(applied);
        macro_rules! look {
            ($self:ident.$table:ident, $readily:expr) => {
                $self.$table.forget_removed(applied);
                touched += $self.$table.touched();
            };
        }
        each_table!(look, self);
        let bytes_max = self.memory_bytes_max.saturating_sub(beside);
        let bytes = self.memory_bytes();
        let made = &self.made_room;
        let is_worth_it = || {
            bytes > made.enough_to
                || self.backend.applied() > made.applied
                || bytes_max + bytes_max / MORE_SHARE < made.bytes_max
        };
        let is_over = || bytes > bytes_max && is_worth_it();
        if touched >= TOUCHED_MAX || is_over() {
            // Before, so that what is applied meanwhile is looked at again.
            let applied = self.backend.applied();
            self.make_room(bytes_max);
            let enough_to = self.memory_bytes() + bytes_max / MORE_SHARE;
            self.made_room = MadeRoom { applied, bytes_max, enough_to };
        }
    }

    /// Lets pages go, from each table by its share, and somewhat more than must be, so that this is rare.
    fn make_room(&mut self, bytes_max: usize) {
        let mut weight = 0;
        macro_rules! measure {
            ($self:ident.$table:ident, $readily:expr) => {
                $self.$table.measure();
                weight += $self.$table.bytes() as u128 * $readily;
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
        // Names may be all there is.
        let weight = weight.max(1);
        macro_rules! evict {
            ($self:ident.$table:ident, $readily:expr) => {
                let share = excess as u128 * $self.$table.bytes() as u128 * $readily / weight;
                if share > 0 {
                    $self.$table.evict(share as usize, applied);
                }
            };
        }
        each_table!(evict, self);
        // Where messages could not make room, for they are not saved yet, the others do.
        let excess = self.memory_bytes().saturating_sub(bytes_max);
        if excess > 0 {
            macro_rules! evict_evenly {
                ($self:ident.$table:ident, $readily:expr) => {
                    let share = excess as u128 * $self.$table.bytes() as u128 / bytes as u128;
                    if share > 0 {
                        $self.$table.evict(share as usize, applied);
                    }
                };
            }
            each_table!(evict_evenly, self);
        }
    }

    /// Bytes of all values the medium holds, as encoded: what the disk is measured against.
    ///
    /// # Errors
    /// Where the medium fails.
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
                    Some(place) => Ok(self.$field.at(place).map(Ref::Cached)),
                    None => Ok(self.load(key)?.map(|page| Ref::Loaded(Box::new(page)))),
                }
            }

            fn peek(&self, key: PageKey) -> Option<&$page> {
                self.$field.find(key).and_then(|place| self.$field.at(place))
            }

            fn load_mut(&mut self, key: PageKey) -> Result<Option<Mut<'_, $page>>, Error> {
                let place = match self.$field.find(key) {
                    Some(place) => place,
                    None => match self.load(key)? {
                        Some(page) => self.$field.load(key, page),
                        None => return Ok(None),
                    },
                };
                Ok(self.$field.at_mut(place))
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
table!(ConversationPage, heads);
table!(People, people);
table!(PeopleIndex, people_index);
table!(ReadMarks, marks);
table!(Departures, leaves);
table!(Messages, messages);
table!(Chunk, chunks);
table!(IndexPage, index);
table!(BloomFilter, filters);
table!(Parked, parked);
table!(Erasure, erased);
table!(Origin, origin);
