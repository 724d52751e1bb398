//! The state of one partition: its pages, its counters, and the indexes and caches in memory beside
//! them.
//!
//! A pure function of the log's prefix and the [`Limits`]. Must not read a clock, draw a random
//! number or do IO.

use crate::index::{BLANK, BloomFilter, IdHash, MessageIndex, SEGMENT_MESSAGES};
use crate::pages::{
    ConversationPage, LastRecord, MESSAGES_PER_PAGE, Messages, Meta, Mut, Origin, PageKey, Pages, People, Table,
    message_key, write_conversation_name,
};
use crate::prefetch::Scratch;
use crate::questions::DepartedCache;
use crate::rules::{Erased, Policies, Unfinished, Waiting};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use receipts_event::{Decoder, Unwrap};

/// Why a state is unusable. No event can cause this.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] E),
    /// The store lacks a page, or holds one that contradicts another: set it aside and rebuild it
    /// from the log.
    #[error("the store is damaged at {0}: set it aside and rebuild it from the log")]
    Broken(&'static str),
}

/// The result of a fold or a question.
pub type Result<T, E> = std::result::Result<T, Error<E>>;

/// The settings that decide answers: the same log gives other answers under other limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The age at which a message expires, against the newest record's timestamp, milliseconds.
    pub retention_ms: u64,
    /// The number of records that may be parked at once.
    pub parked_max: usize,
    /// The bytes of records that may be parked at once.
    pub parked_bytes: u64,
    /// The time that a record may be parked, milliseconds of record time.
    pub parked_age_ms: u64,
    /// Whether read times are kept.
    pub read_times: bool,
    /// The wrapping that is taken off a record's value.
    pub unwrap: Unwrap,
    /// The number of people who may be erased; three quarters of it for one tenant.
    pub erasures_max: u64,
    /// The number of group types that policies may name; a tenth of it for one tenant.
    pub policy_types_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retention_ms: 30 * 86_400_000,
            parked_max: 10_000,
            parked_bytes: 8 << 20,
            parked_age_ms: 3_600_000,
            read_times: true,
            unwrap: Unwrap::None,
            erasures_max: 1_000_000,
            policy_types_max: 100_000,
        }
    }
}

impl Limits {
    /// Returns how the records of a log with `partition_count` partitions are decoded.
    pub const fn decoder(&self, partition_count: u32) -> Decoder {
        Decoder { partition_count, unwrap: self.unwrap }
    }
}

/// One partition.
pub struct State<S> {
    pub(crate) pages: S,
    pub(crate) limits: Limits,
    /// As of the last checkpoint.
    origin: Option<Origin>,
    last: Option<LastRecord>,
    pub(crate) meta: Meta,
    pub(crate) index: MessageIndex,
    pub(crate) waiting: Waiting,
    /// The rest of the record that is being applied; empty between two records.
    pub(crate) unfinished: Unfinished,
    pub(crate) erased: Erased,
    pub(crate) policies: Policies,
    pub(crate) departed_cache: DepartedCache,
    /// A buffer for the name of a conversation.
    pub(crate) name: Vec<u8>,
    pub(crate) prefetch_scratch: Scratch,
}

impl<S: Pages> State<S> {
    /// Opens the state in a store. An empty store gives an empty partition.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn open(pages: S, limits: Limits) -> Result<Self, S::Error> {
        Self::open_with_segments(pages, limits, SEGMENT_MESSAGES)
    }

    /// Opens a state whose index segments have `segment_messages` messages. For tests, whose short
    /// histories then reach sealed segments. A store must always be opened with the same number.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn open_with_segments(pages: S, limits: Limits, segment_messages: u64) -> Result<Self, S::Error> {
        let meta = match Table::<Meta>::read(&pages, PageKey::ONLY)? {
            Some(meta) => (*meta).clone(),
            None => Meta::default(),
        };
        let origin = Table::<Origin>::read(&pages, PageKey::ONLY)?.map(|origin| *origin);
        let mut sealed = Vec::new();
        for key in Table::<BloomFilter>::keys(&pages)? {
            let filter = Table::<BloomFilter>::read(&pages, key)?.ok_or(Error::Broken("a filter"))?;
            sealed.push((key.a, (*filter).clone()));
        }
        // Without a sealed segment, the active ones are the last full one and the one after it. All
        // earlier ones have expired.
        let without_sealed = (meta.next_message / segment_messages).saturating_sub(1);
        let first_active = sealed.last().map_or(without_sealed, |(number, _)| number + 1);
        let first = first_active.saturating_mul(segment_messages);
        // At most two segments are unsealed. Without a sealed one, all messages before them must
        // have expired; and expiry never passes the newest message.
        let expired = meta.oldest_page.saturating_mul(MESSAGES_PER_PAGE);
        let has_gap = sealed.is_empty() && first > expired;
        let active = meta.next_message.checked_sub(first);
        if has_gap || expired > meta.next_message || active.is_none_or(|active| active >= 2 * segment_messages) {
            return Err(Error::Broken("the counters of messages"));
        }
        let mut state = Self {
            limits,
            origin,
            last: origin.and_then(|origin| origin.last),
            index: MessageIndex::new(segment_messages, sealed, first_active),
            waiting: Waiting::default(),
            unfinished: Unfinished::default(),
            erased: Erased::default(),
            policies: Policies::default(),
            departed_cache: DepartedCache::default(),
            name: Vec::new(),
            prefetch_scratch: Scratch::default(),
            meta,
            pages,
        };
        state.load_active_segments(first)?;
        state.load_erasures()?;
        state.load_policies()?;
        state.load_parked()?;
        Ok(state)
    }

    /// Returns how the records are decoded that this state folds.
    pub const fn decoder(&self, partition_count: u32) -> Decoder {
        self.limits.decoder(partition_count)
    }

    fn load_active_segments(&mut self, first: u64) -> Result<(), S::Error> {
        let mut message = first;
        // Tenants by conversation: the hash of an id takes the tenant's name.
        let mut tenants: HashMap<u32, Box<str>> = HashMap::new();
        while message < self.meta.next_message {
            let expected = MESSAGES_PER_PAGE.min(self.meta.next_message - message) as usize;
            let entries: Vec<(IdHash, u32)> = match Table::<Messages>::read(&self.pages, message_key(message).0)? {
                Some(page) if page.first() != message || page.len() != expected => {
                    return Err(Error::Broken("some of the newest messages"));
                }
                Some(page) => {
                    let mut entries = Vec::with_capacity(expected);
                    for (index, m) in page.iter().enumerate() {
                        let tenant = match tenants.entry(m.conversation) {
                            Entry::Occupied(known) => known.into_mut(),
                            Entry::Vacant(new) => {
                                let key = PageKey::new(m.conversation, 0);
                                let conversation = Table::<ConversationPage>::read(&self.pages, key)?;
                                new.insert(conversation.ok_or(Error::Broken("a conversation"))?.tenant.clone())
                            }
                        };
                        entries.push((IdHash::of(tenant, page.id(index)), m.conversation));
                    }
                    entries
                }
                // The page expired and was removed: its messages keep their numbers and are never
                // found.
                None => vec![BLANK; expected],
            };
            for (hash, conversation) in entries {
                self.index.insert(&mut self.pages, message, hash, conversation);
                message += 1;
            }
        }
        Ok(())
    }

    /// Returns the offset of the next record to fold.
    pub fn next_offset(&self) -> u64 {
        self.meta.next_offset
    }

    /// Returns the settings that it is folded with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the greatest record timestamp so far, Unix milliseconds.
    pub fn newest_timestamp_ms(&self) -> u64 {
        self.meta.newest_timestamp_ms
    }

    /// Returns the number of messages so far, expired ones included.
    pub fn messages(&self) -> u64 {
        self.meta.next_message
    }

    /// Returns the number of people whose erasure the partition remembers.
    pub fn erased_people(&self) -> u64 {
        self.meta.erased_people
    }

    /// Returns the number of group types that the policies of the partition name.
    pub fn policy_types(&self) -> u64 {
        self.meta.policy_types
    }

    /// Bytes of memory beside the pages: the active segments, the filters of the sealed ones, the
    /// departed cache, and the indexes of parked records, erased people and policies.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.departed_cache.memory_bytes()
            + self.waiting.memory_bytes()
            + self.erased.memory_bytes()
            + self.policies.memory_bytes()
    }

    /// Returns the store of the pages.
    pub fn pages(&self) -> &S {
        &self.pages
    }

    /// Returns the store of the pages, for checkpoints and eviction. The caller must not change a
    /// page.
    pub fn pages_mut(&mut self) -> &mut S {
        &mut self.pages
    }

    /// Returns the origin that the store held when it was opened. `None` for an empty store, and
    /// for one that a version without origins wrote.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Returns the last record folded, if it was noted.
    pub fn last_record(&self) -> Option<LastRecord> {
        self.last.or_else(|| self.origin.as_ref().and_then(|origin| origin.last))
    }

    /// Notes the last record folded, for [`Self::write_meta`]. Ignores every other record.
    pub fn note_last_record(&mut self, last: LastRecord) {
        if last.offset + 1 == self.meta.next_offset {
            self.last = Some(last);
        }
    }

    /// Writes the counters, the next offset among them, and the origin into the pages. The caller
    /// must do so before each checkpoint, which then saves state and offset in one write
    /// (INV-OFFSET).
    ///
    /// # Panics
    /// If a record is applied in part.
    pub fn write_meta(&mut self) {
        assert!(self.unfinished.is_empty(), "a checkpoint holds whole records");
        self.pages.put(PageKey::ONLY, self.meta.clone());
        self.pages.put(PageKey::ONLY, Origin { limits: self.limits, last: self.last });
    }

    pub(crate) fn conversation_page(&mut self, conversation: u32) -> Result<Mut<'_, ConversationPage>, S::Error> {
        Table::<ConversationPage>::load_mut(&mut self.pages, PageKey::new(conversation, 0))?
            .ok_or(Error::Broken("a conversation"))
    }

    pub(crate) fn people(&mut self, conversation: u32, page: u32) -> Result<Mut<'_, People>, S::Error> {
        Table::<People>::load_mut(&mut self.pages, PageKey::new(conversation, page))?
            .ok_or(Error::Broken("people of a conversation"))
    }

    /// The page of a message, expired or not; `None` once the page was removed.
    pub(crate) fn messages_page(&mut self, message: u64) -> Result<Option<Mut<'_, Messages>>, S::Error> {
        Ok(Table::<Messages>::load_mut(&mut self.pages, message_key(message).0)?)
    }

    /// The number of a conversation, if the partition knows it.
    pub(crate) fn find_conversation(&mut self, tenant: &str, conversation_id: &str) -> Result<Option<u32>, S::Error> {
        write_conversation_name(&mut self.name, tenant, conversation_id);
        Ok(self.pages.load_conversation_number(&self.name)?)
    }
}
