//! Finds messages by id: the newest in memory, older ones in sealed stretches of 65,536, sorted by hash.
//!
//! Answers with candidates; only the message itself says whether it is the one. A stretch is written once and never
//! changed, so that a message costs no random write; what of it is in memory is rebuilt from the messages when a store opens.

use crate::page::{Page, PageKey, Table, TableId};
use crate::wire::{Malformed, Reader, Writer};
use hashbrown::HashTable;
use std::collections::VecDeque;

/// Messages of a stretch.
pub const STRETCH: u64 = 1 << 16;
const PAGES_PER_RUN: u32 = 256;
/// Two keys a message. Every send asks every filter whether its id is new, and each that claims wrongly costs a page.
const FILTER_BITS_PER_MESSAGE: usize = 32;
const FILTER_BITS_PER_KEY: u32 = 7;
const NONE: u32 = u32::MAX;
/// Stands for a message that was removed.
pub(crate) const BLANK: (u64, u32) = (0, u32::MAX);

/// The hash of a message id; part of the store's format.
pub fn id_hash(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

/// Spreads an id hash over conversations; part of the store's format.
fn with_conversation(hash: u64, conversation: u32) -> u64 {
    let x = (hash ^ u64::from(conversation).wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ x >> 32
}

/// hashbrown takes its tag from the highest bits and the place from the lowest.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn tag(conversation: u32) -> u16 {
    (conversation ^ conversation >> 16) as u16
}

struct Entry {
    hash: u64,
    conversation: u32,
    /// The entry before it with the same hash, in any conversation.
    older: u32,
}

/// Up to 65,536 messages in memory.
struct Young {
    first: u64,
    entries: Vec<Entry>,
    /// Half a hash over id and conversation, and the place: what is found here is nearly always right, and only the
    /// message itself knows, so that a look-up touches nothing in between.
    by_conversation: HashTable<(u32, u32)>,
    /// The newest of each hash; the others follow by [`Entry::older`], for ids may be as common as "1".
    anywhere: HashTable<u32>,
}

impl Young {
    fn new(first: u64) -> Self {
        Self { first, entries: Vec::new(), by_conversation: HashTable::new(), anywhere: HashTable::new() }
    }

    fn insert(&mut self, hash: u64, conversation: u32) {
        let at = self.entries.len() as u32;
        let key = with_conversation(hash, conversation);
        self.by_conversation.insert_unique(spread(key as u32), (key as u32, at), |(half, _)| spread(*half));
        let older = match self.anywhere.find_mut(hash, |i| self.entries[*i as usize].hash == hash) {
            Some(newest) => std::mem::replace(newest, at),
            None => {
                // The new entry is not in `entries` yet, so it must not be rehashed: make room first.
                self.anywhere.reserve(1, |i| self.entries[*i as usize].hash);
                self.anywhere.insert_unique(hash, at, |i| self.entries[*i as usize].hash);
                NONE
            }
        };
        self.entries.push(Entry { hash, conversation, older });
    }

    /// The places of messages that may have that id in that conversation, in no order.
    fn places(&self, hash: u64, conversation: u32) -> impl Iterator<Item = u32> {
        let half = with_conversation(hash, conversation) as u32;
        self.by_conversation.iter_hash(spread(half)).filter(move |(h, _)| *h == half).map(|(_, at)| *at)
    }

    fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + 9 * self.by_conversation.capacity()
            + 5 * self.anywhere.capacity()
    }
}

/// A sealed stretch: its messages stand in pages by the top byte of their id's hash.
struct Run {
    number: u64,
    filter: Filter,
}

/// All of a partition's messages by id.
pub struct Index {
    runs: VecDeque<Run>,
    young: VecDeque<Young>,
}

impl Index {
    /// An index whose sealed stretches have those numbers and filters, in order; messages from `next_sealed` on are to be
    /// [inserted](Self::insert) in order.
    pub fn new(runs: impl IntoIterator<Item = (u64, Filter)>, next_sealed: u64) -> Self {
        let runs = runs.into_iter().map(|(number, filter)| Run { number, filter }).collect();
        Self { runs, young: VecDeque::from([Young::new(next_sealed * STRETCH)]) }
    }

    /// Adds the next message, and seals the oldest stretch in memory when there are two full ones.
    pub fn insert<S: Table<IndexPage> + Table<Filter>>(
        &mut self,
        pages: &mut S,
        message: u64,
        hash: u64,
        conversation: u32,
    ) {
        let newest = self.young.back_mut().expect("there is always one");
        assert_eq!(message, newest.first + newest.entries.len() as u64, "messages are numbered without a gap");
        newest.insert(hash, conversation);
        if newest.entries.len() as u64 == STRETCH {
            self.young.push_back(Young::new(message + 1));
            if self.young.len() > 2 {
                let oldest = self.young.pop_front().expect("there are three");
                self.runs.push_back(seal(pages, &oldest));
            }
        }
    }

    /// The message with that id hash in a conversation that `accept` says is the one: at most one may be.
    ///
    /// # Errors
    /// Where the store fails, or `accept` does.
    pub fn find<S: Table<IndexPage>, T, E: From<S::Error>>(
        &self,
        pages: &mut S,
        hash: u64,
        conversation: u32,
        mut accept: impl FnMut(&mut S, u64) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        for young in self.young.iter().rev() {
            for at in young.places(hash, conversation) {
                if let Some(found) = accept(pages, young.first + u64::from(at))? {
                    return Ok(Some(found));
                }
            }
        }
        let key = with_conversation(hash, conversation);
        for run in self.runs.iter().rev().filter(|r| r.filter.may_hold(key)) {
            let Some(page) = Table::<IndexPage>::hot(pages, run_key(run.number, hash))? else { continue };
            let found: Vec<u64> = page.messages(hash, Some(conversation)).collect();
            for message in found.into_iter().rev() {
                if let Some(found) = accept(pages, run.number * STRETCH + message)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// All messages that may have that id hash, in one conversation or in any; for readers side by side.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn candidates<S: Table<IndexPage>>(
        &self,
        pages: &S,
        hash: u64,
        conversation: Option<u32>,
    ) -> Result<Vec<u64>, S::Error> {
        let mut found = Vec::new();
        for young in self.young.iter().rev() {
            if let Some(conversation) = conversation {
                found.extend(young.places(hash, conversation).map(|at| young.first + u64::from(at)));
                continue;
            }
            let newest = young.anywhere.find(hash, |i| young.entries[*i as usize].hash == hash);
            let mut at = newest.copied().unwrap_or(NONE);
            while at != NONE {
                found.push(young.first + u64::from(at));
                at = young.entries[at as usize].older;
            }
        }
        let key = conversation.map_or(hash, |c| with_conversation(hash, c));
        for run in self.runs.iter().rev().filter(|r| r.filter.may_hold(key)) {
            let page = Table::<IndexPage>::get(pages, run_key(run.number, hash))?;
            let first = found.len();
            found.extend(page.iter().flat_map(|p| p.messages(hash, conversation)).map(|m| run.number * STRETCH + m));
            found[first..].reverse();
        }
        Ok(found)
    }

    /// Forgets messages in memory that were removed, so that the stretch is sealed as if the store had been opened since.
    pub fn blank(&mut self, messages: std::ops::Range<u64>) {
        for young in &mut self.young {
            let end = young.first + young.entries.len() as u64;
            for message in messages.start.max(young.first)..messages.end.min(end) {
                let entry = &mut young.entries[(message - young.first) as usize];
                (entry.hash, entry.conversation) = BLANK;
            }
        }
    }

    /// Forgets the sealed stretches that lie wholly below a message.
    pub fn forget_below<S: Table<IndexPage> + Table<Filter>>(&mut self, pages: &mut S, message: u64) {
        while self.runs.front().is_some_and(|r| (r.number + 1) * STRETCH <= message) {
            let run = self.runs.pop_front().expect("there is one");
            for page in 0..PAGES_PER_RUN {
                Table::<IndexPage>::remove(pages, PageKey::new(run.number, page));
            }
            Table::<Filter>::remove(pages, PageKey::new(run.number, 0));
        }
    }

    /// Bytes of memory it takes beside the cached pages.
    pub fn memory_bytes(&self) -> usize {
        self.young.iter().map(Young::memory_bytes).sum::<usize>()
            + self.runs.iter().map(|r| 8 * r.filter.words.len()).sum::<usize>()
    }
}

fn run_key(run: u64, hash: u64) -> PageKey {
    PageKey::new(run, (hash >> 56) as u32)
}

fn seal<S: Table<IndexPage> + Table<Filter>>(pages: &mut S, young: &Young) -> Run {
    let number = young.first / STRETCH;
    let mut filter = Filter { words: vec![0; STRETCH as usize * FILTER_BITS_PER_MESSAGE / 64] };
    let mut sealed: Vec<IndexPage> = (0..PAGES_PER_RUN).map(|_| IndexPage::default()).collect();
    for (i, entry) in young.entries.iter().enumerate() {
        filter.insert(entry.hash);
        filter.insert(with_conversation(entry.hash, entry.conversation));
        sealed[(entry.hash >> 56) as usize].entries.push((
            (entry.hash >> 24) as u32,
            tag(entry.conversation),
            i as u16,
        ));
    }
    for (i, mut page) in sealed.into_iter().enumerate() {
        page.entries.sort_unstable();
        page.entries.shrink_to_fit();
        pages.put(PageKey::new(number, i as u32), page);
    }
    pages.put(PageKey::new(number, 0), filter.clone());
    Run { number, filter }
}

/// The messages of a stretch whose id hashes share the top byte: (next 32 bits of the hash, tag of the conversation,
/// place in the stretch), sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IndexPage {
    entries: Vec<(u32, u16, u16)>,
}

impl IndexPage {
    fn messages(&self, hash: u64, conversation: Option<u32>) -> impl Iterator<Item = u64> {
        let hash = (hash >> 24) as u32;
        let from = self.entries.partition_point(|e| (e.0, e.1) < (hash, conversation.map_or(0, tag)));
        let same = move |e: &&(u32, u16, u16)| e.0 == hash && conversation.is_none_or(|c| e.1 == tag(c));
        self.entries[from..].iter().take_while(same).map(|e| u64::from(e.2))
    }
}

impl Page for IndexPage {
    const TABLE: TableId = TableId::Index;

    fn encode(&self, to: &mut Writer) {
        to.number(self.entries.len() as u64);
        for (hash, tag, place) in &self.entries {
            to.bytes.extend_from_slice(&hash.to_le_bytes());
            to.bytes.extend_from_slice(&tag.to_le_bytes());
            to.bytes.extend_from_slice(&place.to_le_bytes());
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut entries = Vec::with_capacity(from.count(8)?);
        for _ in 0..entries.capacity() {
            let word = from.word()?;
            entries.push((word as u32, (word >> 32) as u16, (word >> 48) as u16));
        }
        if !entries.is_sorted() {
            return Err(Malformed("an index out of order"));
        }
        Ok(Self { entries })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 8 * self.entries.capacity()
    }
}

/// A blocked Bloom filter: 7 bits of one 512-bit block a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    words: Vec<u64>,
}

impl Filter {
    fn bits(&self, key: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let blocks = self.words.len() as u64 / 8;
        let mixed = key.wrapping_mul(0x94D0_49BB_1331_11EB);
        let block = ((u128::from(mixed) * u128::from(blocks)) >> 64) as usize * 8;
        let bits = (mixed ^ key >> 29).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (0..FILTER_BITS_PER_KEY)
            .map(move |i| bits >> (9 * i) & 511)
            .map(move |bit| (block + bit as usize / 64, 1 << (bit % 64)))
    }

    fn insert(&mut self, key: u64) {
        for (word, bit) in self.bits(key) {
            self.words[word] |= bit;
        }
    }

    fn may_hold(&self, key: u64) -> bool {
        !self.words.is_empty() && self.bits(key).all(|(word, bit)| self.words[word] & bit != 0)
    }
}

impl Page for Filter {
    const TABLE: TableId = TableId::Filters;

    fn encode(&self, to: &mut Writer) {
        to.number(self.words.len() as u64);
        self.words.iter().for_each(|w| to.word(*w));
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut words = Vec::with_capacity(from.count(8)?);
        for _ in 0..words.capacity() {
            words.push(from.word()?);
        }
        if words.len() % 8 != 0 {
            return Err(Malformed("a filter with half a block"));
        }
        Ok(Self { words })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 8 * self.words.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_never_denies_what_it_holds_and_rarely_claims_what_it_does_not() {
        let mut filter = Filter { words: vec![0; STRETCH as usize * FILTER_BITS_PER_MESSAGE / 64] };
        let key = |i: u64| id_hash(&i.to_string());
        (0..2 * STRETCH).for_each(|i| filter.insert(key(i)));
        assert!((0..2 * STRETCH).all(|i| filter.may_hold(key(i))));
        let wrong = (0..100_000).filter(|i| filter.may_hold(key(i + (1 << 40)))).count();
        assert!(wrong < 300, "{wrong} of 100,000");
    }
}
