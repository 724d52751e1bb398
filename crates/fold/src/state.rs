//! The state of one partition: its pages, its counters, and what is kept in memory beside them.
//!
//! A pure function of the log's prefix and the [`Limits`]: no clock, no randomness, no network.

use crate::ahead::Scratch;
use crate::head::Head;
use crate::index::{BLANK, BloomFilter, Index, IndexPage, STRETCH, id_hash};
use crate::left::LeftSince;
use crate::message::{Chunk, MESSAGES_PER_PAGE, Message, Messages};
use crate::origin::{LastRecord, Origin};
use crate::page::{Mut, PageKey, Table};
use crate::park::Waiting;
use crate::people::{People, PeopleIndex};
use crate::small::{Erased, Leaves, Marks, Meta, Parked};
use hashbrown::{HashMap, HashSet};

/// A store with all the tables of a partition.
pub trait Pages:
    Table<Meta>
    + Table<Head>
    + Table<People>
    + Table<PeopleIndex>
    + Table<Marks>
    + Table<Leaves>
    + Table<Messages>
    + Table<Chunk>
    + Table<IndexPage>
    + Table<BloomFilter>
    + Table<Parked>
    + Table<Erased>
    + Table<Origin>
{
}

impl<S> Pages for S where
    S: Table<Meta>
        + Table<Head>
        + Table<People>
        + Table<PeopleIndex>
        + Table<Marks>
        + Table<Leaves>
        + Table<Messages>
        + Table<Chunk>
        + Table<IndexPage>
        + Table<BloomFilter>
        + Table<Parked>
        + Table<Erased>
        + Table<Origin>
{
}

/// Why a state cannot go on. Never the fault of an event.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] E),
    /// The store lacks a page that another one speaks of: set it aside and rebuild it from the log.
    #[error("the store lacks {0}: set it aside and rebuild it from the log")]
    Broken(&'static str),
}

/// The result of a fold or a question.
pub type Result<T, E> = std::result::Result<T, Error<E>>;

/// Settings that decide answers. With others the same log gives other answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How much older than the newest record a message may be, milliseconds.
    pub retention_ms: u64,
    /// How many records may wait for their messages.
    pub parked_max: usize,
    /// How long they may, milliseconds of record time.
    pub parked_age_ms: u64,
    /// Whether the time of every read is kept.
    pub read_times: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { retention_ms: 30 * 86_400_000, parked_max: 10_000, parked_age_ms: 3_600_000, read_times: true }
    }
}

/// What a message id stands for in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A message, by number.
    Message(u64),
    /// One that has expired and is remembered still: nothing can happen to it.
    Expired,
    /// Nothing that is known: not yet in the log, or expired and forgotten.
    Nothing,
}

/// How far back messages live: a copy, to ask beside a page that is lent out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Horizon {
    newest_timestamp_ms: u64,
    retention_ms: u64,
}

impl Horizon {
    /// Whether a message whose record has that timestamp has expired.
    pub(crate) fn is_past(self, timestamp_ms: u64) -> bool {
        self.newest_timestamp_ms.saturating_sub(timestamp_ms) > self.retention_ms
    }
}

/// Where a record stands in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The record's timestamp, Unix milliseconds.
    pub timestamp_ms: u64,
}

/// One partition.
pub struct State<S> {
    pub(crate) pages: S,
    pub(crate) limits: Limits,
    /// As the last checkpoint has it.
    origin: Option<Origin>,
    last: Option<LastRecord>,
    pub(crate) meta: Meta,
    pub(crate) index: Index,
    pub(crate) waiting: Waiting,
    /// By tenant, to keep them out of answers.
    pub(crate) erased: HashMap<Box<str>, HashSet<Box<str>>>,
    /// In log order: a roster has seen them up to some place.
    pub(crate) erasures: Vec<Erased>,
    pub(crate) left: LeftSince,
    pub(crate) name: Vec<u8>,
    pub(crate) ahead: Scratch,
}

pub(crate) const META: PageKey = PageKey { a: 0, b: 0 };

pub(crate) fn key(a: impl Into<u64>, b: u32) -> PageKey {
    PageKey::new(a, b)
}

pub(crate) fn message_key(message: u64) -> (PageKey, usize) {
    (PageKey::new(message / MESSAGES_PER_PAGE, 0), (message % MESSAGES_PER_PAGE) as usize)
}

impl<S: Pages> State<S> {
    /// Opens what a store holds; an empty store is an empty partition.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn open(pages: S, limits: Limits) -> Result<Self, S::Error> {
        Self::open_with_stretches(pages, limits, STRETCH)
    }

    /// The same with stretches of the id index of so many messages, for tests: a short history meets sealed ones then. A
    /// store keeps to the length that it was begun with.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn open_with_stretches(pages: S, limits: Limits, stretch: u64) -> Result<Self, S::Error> {
        let meta = match Table::<Meta>::get(&pages, META)? {
            Some(meta) => (*meta).clone(),
            None => Meta::default(),
        };
        let origin = Table::<Origin>::get(&pages, META)?.map(|origin| *origin);
        let mut runs = Vec::new();
        for k in Table::<BloomFilter>::keys(&pages)? {
            let filter = Table::<BloomFilter>::get(&pages, k)?.ok_or(Error::Broken("a filter"))?;
            runs.push((k.a, (*filter).clone()));
        }
        // Without a sealed stretch the young ones begin at the first, or, where all have expired, at the last two.
        let sealed = runs.last().map_or((meta.next_message / stretch).saturating_sub(1), |(number, _)| number + 1);
        // At most two stretches are in memory, those without a trace have expired, and nothing beyond the newest has.
        let first = sealed.saturating_mul(stretch);
        let expired = meta.oldest_page.saturating_mul(MESSAGES_PER_PAGE);
        let has_gap = runs.is_empty() && first > expired;
        let young = meta.next_message.checked_sub(first);
        if has_gap || expired > meta.next_message || young.is_none_or(|young| young >= 2 * stretch) {
            return Err(Error::Broken("the messages that its counters speak of"));
        }
        let mut state = Self {
            limits,
            origin,
            last: origin.and_then(|origin| origin.last),
            index: Index::new(stretch, runs, sealed),
            waiting: Waiting::default(),
            erased: HashMap::new(),
            erasures: Vec::new(),
            left: LeftSince::default(),
            name: Vec::new(),
            ahead: Scratch::default(),
            meta,
            pages,
        };
        state.load_young(sealed * stretch)?;
        for k in Table::<Erased>::keys(&state.pages)? {
            let erased = (*Table::<Erased>::get(&state.pages, k)?.ok_or(Error::Broken("an erasure"))?).clone();
            state.remember_erased(erased);
        }
        state.load_parked()?;
        Ok(state)
    }

    fn load_young(&mut self, first: u64) -> Result<(), S::Error> {
        let mut message = first;
        while message < self.meta.next_message {
            let expected = MESSAGES_PER_PAGE.min(self.meta.next_message - message) as usize;
            let entries: Vec<(u64, u32)> = match Table::<Messages>::get(&self.pages, message_key(message).0)? {
                Some(page) if page.first() != message || page.len() != expected => {
                    return Err(Error::Broken("some of the newest messages"));
                }
                Some(page) => {
                    page.iter().enumerate().map(|(place, m)| (id_hash(page.id(place)), m.conversation)).collect()
                }
                // Expired and removed: nobody will ask for these, but numbers go on.
                None => vec![BLANK; expected],
            };
            for (hash, conversation) in entries {
                self.index.insert(&mut self.pages, message, hash, conversation);
                message += 1;
            }
        }
        Ok(())
    }

    /// The offset of the next record to fold.
    pub fn next_offset(&self) -> u64 {
        self.meta.next_offset
    }

    /// The newest record timestamp so far, Unix milliseconds.
    pub fn newest_timestamp_ms(&self) -> u64 {
        self.meta.newest_timestamp_ms
    }

    /// Messages so far, expired ones included.
    pub fn messages(&self) -> u64 {
        self.meta.next_message
    }

    /// Bytes of memory beside the pages: the newest ids, the filters of the others, and who left since some messages were sent.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.left.memory_bytes()
    }

    /// The pages.
    pub fn pages(&self) -> &S {
        &self.pages
    }

    /// The pages, for their upkeep; whoever changes one by hand breaks the state.
    pub fn pages_mut(&mut self) -> &mut S {
        &mut self.pages
    }

    /// What the store says that it was folded from; none of an empty store, or one of a version that did not say.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Takes note of the last record folded, for whoever opens the store next. Any other one is passed over.
    pub fn saw(&mut self, last: LastRecord) {
        if last.offset + 1 == self.meta.next_offset {
            self.last = Some(last);
        }
    }

    /// Writes the counters into the pages, and what they were folded from: to be called before each checkpoint.
    pub fn settle(&mut self) {
        self.pages.put(META, self.meta.clone());
        self.pages.put(META, Origin { limits: self.limits, last: self.last });
    }

    pub(crate) fn head(&mut self, conversation: u32) -> Result<Mut<'_, Head>, S::Error> {
        Table::<Head>::hot(&mut self.pages, key(conversation, 0))?.ok_or(Error::Broken("a conversation"))
    }

    pub(crate) fn people(&mut self, conversation: u32, page: u32) -> Result<Mut<'_, People>, S::Error> {
        Table::<People>::hot(&mut self.pages, key(conversation, page))?.ok_or(Error::Broken("people of a conversation"))
    }

    /// A message that is there, expired or not; `None` once its page was removed.
    pub(crate) fn message(&mut self, message: u64) -> Result<Option<Mut<'_, Messages>>, S::Error> {
        Ok(Table::<Messages>::hot(&mut self.pages, message_key(message).0)?)
    }

    pub(crate) fn horizon(&self) -> Horizon {
        Horizon { newest_timestamp_ms: self.meta.newest_timestamp_ms, retention_ms: self.limits.retention_ms }
    }

    pub(crate) fn is_expired(&self, m: &Message) -> bool {
        self.horizon().is_past(m.timestamp_ms)
    }

    /// The number of a conversation, if there is one.
    pub(crate) fn find_conversation(&mut self, tenant: &str, conversation_id: &str) -> Result<Option<u32>, S::Error> {
        write_name(&mut self.name, tenant, conversation_id);
        Ok(self.pages.conversation_hot(&self.name)?)
    }
}

/// The name of a conversation, which is its records' key.
pub(crate) fn write_name(name: &mut Vec<u8>, tenant: &str, conversation_id: &str) {
    name.clear();
    name.extend_from_slice(tenant.as_bytes());
    name.push(b'/');
    name.extend_from_slice(conversation_id.as_bytes());
}

/// A message of a page, if it is the one of that conversation and id.
pub(crate) fn named_in_page<'a>(
    page: &'a Messages,
    message: u64,
    conversation: u32,
    message_id: &str,
) -> Option<&'a Message> {
    let place = message_key(message).1;
    page.at(place).filter(|m| m.conversation == conversation && page.id(place) == message_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Link;
    use crate::message::State as Fate;
    use receipts_event::Kind;

    /// Look-ups by hash find others too: the conversation decides as well as the id.
    #[test]
    fn a_message_is_named_by_its_conversation_and_its_id() {
        let mut page = Messages::new(64);
        let link = Link { sent_at_ms: 0, sent_at_max: 0, previous: None, skip: None };
        page.push("m", Message::new(5, 0, 0, 0, 0, Kind::Group, Fate::Ok), link);
        let named = |message, conversation, id| named_in_page(&page, message, conversation, id).is_some();
        assert!(named(64, 5, "m"));
        assert!(!named(64, 6, "m") && !named(64, 5, "n") && !named(65, 5, "m"));
    }
}
