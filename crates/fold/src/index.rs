//! Finds messages by id: the newest in memory, older ones in sealed stretches of 65,536, sorted by hash.
//!
//! Answers with candidates; only the message itself says whether it is the one. A stretch is written once and never
//! changed, so that a message costs no random write; what of it is in memory is rebuilt from the messages when a store opens.

use crate::message::MESSAGES_PER_PAGE;
use crate::page::{Page, PageKey, Table, TableId};
use crate::stretches::Stretches;
use crate::wire::{Malformed, Reader, Writer};
use crate::young::Young;
use std::collections::VecDeque;

/// Messages of a stretch; part of the store's format. Places within one take 16 bits.
pub const STRETCH: u64 = 1 << 16;
const PAGES_PER_RUN: u32 = 256;
/// Two keys a message. Every send asks every filter whether its id is new, and each that claims wrongly costs a page.
const FILTER_BITS_PER_MESSAGE: usize = 32;
const FILTER_BITS_PER_KEY: u32 = 7;
/// Stands for a message that was removed.
pub(crate) const BLANK: (u64, u32) = (0, u32::MAX);

/// The hash of a message id; part of the store's format.
pub fn id_hash(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

/// Spreads an id hash over conversations; part of the store's format.
pub(crate) fn with_conversation(hash: u64, conversation: u32) -> u64 {
    let x = (hash ^ u64::from(conversation).wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ x >> 32
}

fn tag(conversation: u32) -> u16 {
    (conversation ^ conversation >> 16) as u16
}

/// A sealed stretch: its messages stand in pages by the top byte of their id's hash.
struct Run {
    number: u64,
    filter: BloomFilter,
}

/// All of a partition's messages by id.
pub struct Index {
    /// [`STRETCH`], but for tests.
    stretch: u64,
    runs: VecDeque<Run>,
    young: VecDeque<Young>,
}

impl Index {
    /// An index of stretches of `stretch` messages, the sealed ones with those numbers and filters, in order; messages from
    /// `next_sealed` on are to be [inserted](Self::insert) in order.
    pub fn new(stretch: u64, runs: impl IntoIterator<Item = (u64, BloomFilter)>, next_sealed: u64) -> Self {
        assert!(
            stretch <= STRETCH && stretch.is_multiple_of(MESSAGES_PER_PAGE),
            "a stretch is whole pages of messages"
        );
        let runs = runs.into_iter().map(|(number, filter)| Run { number, filter }).collect();
        Self { stretch, runs, young: VecDeque::from([Young::new(next_sealed * stretch)]) }
    }

    /// Adds the next message, and seals the oldest stretch in memory when there are two full ones.
    pub fn insert<S: Table<IndexPage> + Table<BloomFilter>>(
        &mut self,
        pages: &mut S,
        message: u64,
        hash: u64,
        conversation: u32,
    ) {
        let newest = self.young.back_mut().expect("there is always one");
        assert_eq!(message, newest.first + newest.len() as u64, "messages are numbered without a gap");
        newest.insert(hash, conversation);
        if newest.len() as u64 == self.stretch {
            self.young.push_back(Young::new(message + 1));
            if self.young.len() > 2 {
                let oldest = self.young.pop_front().expect("there are three");
                self.runs.push_back(seal(pages, &oldest, self.stretch));
            }
        }
    }

    /// The message in memory with that id hash in a conversation that `accept` says is the one: at most one may be.
    ///
    /// # Errors
    /// Where `accept` fails.
    pub fn find_young<S, T, E>(
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
        Ok(None)
    }

    /// The same among the sealed stretches of the conversation.
    ///
    /// # Errors
    /// Where the store fails, or `accept` does.
    pub fn find_sealed<S: Table<IndexPage>, T, E: From<S::Error>>(
        &self,
        pages: &mut S,
        hash: u64,
        (conversation, stretches): (u32, &Stretches),
        mut accept: impl FnMut(&mut S, u64) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        for run in self.runs_that_may_hold(hash, conversation, stretches) {
            let Some(page) = Table::<IndexPage>::hot(pages, run_key(run, hash))? else { continue };
            let found: Vec<u64> = page.messages(hash, Some(conversation)).collect();
            for message in found.into_iter().rev() {
                if let Some(found) = accept(pages, run * self.stretch + message)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The stretch of a message.
    pub(crate) fn stretch_of(&self, message: u64) -> u32 {
        (message / self.stretch) as u32
    }

    /// Whether there is a sealed stretch at all.
    pub(crate) fn has_sealed(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Numbers of runs, newest first.
    fn runs_that_may_hold(&self, hash: u64, conversation: u32, stretches: &Stretches) -> impl Iterator<Item = u64> {
        let key = with_conversation(hash, conversation);
        let first = self.runs.front().map_or(0, |run| run.number);
        let runs = stretches
            .newest_first()
            .filter_map(move |stretch| self.runs.get(u64::from(stretch).checked_sub(first)? as usize));
        runs.filter(move |run| run.filter.may_hold(key)).map(|run| run.number)
    }

    /// Reads some of what the ids in memory are found by.
    pub(crate) fn touch(&self, hash: u64, conversation: u32) -> u64 {
        self.young.iter().fold(0, |all, young| all | young.touch(hash, conversation))
    }

    /// Reads some of what the id of a new message is put beside.
    pub(crate) fn touch_newest(&self, hash: u64) -> u64 {
        self.young.back().map_or(0, |young| young.touch_anywhere(hash))
    }

    /// A message in a sealed stretch that probably has that id hash in that conversation, as far as it is in memory.
    pub(crate) fn probably_sealed<S: Table<IndexPage>>(
        &self,
        pages: &S,
        hash: u64,
        (conversation, stretches): (u32, &Stretches),
    ) -> Option<u64> {
        self.runs_that_may_hold(hash, conversation, stretches).find_map(|run| {
            let page = Table::<IndexPage>::at_hand(pages, run_key(run, hash))?;
            page.messages(hash, Some(conversation)).next().map(|message| run * self.stretch + message)
        })
    }

    /// A message in memory that probably has that id hash in that conversation.
    pub(crate) fn probably(&self, hash: u64, conversation: u32) -> Option<u64> {
        self.young.iter().rev().find_map(|y| y.places(hash, conversation).next().map(|at| y.first + u64::from(at)))
    }

    /// All messages that may have that id hash, in one conversation or in any, newest first; for readers side by side.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn candidates<S: Table<IndexPage>>(
        &self,
        pages: &S,
        hash: u64,
        conversation: Option<(u32, &Stretches)>,
    ) -> Result<Vec<u64>, S::Error> {
        let mut found = Vec::new();
        for young in self.young.iter().rev() {
            if let Some((conversation, _)) = conversation {
                found.extend(young.places(hash, conversation).map(|at| young.first + u64::from(at)));
                continue;
            }
            found.extend(young.anywhere(hash).map(|at| young.first + u64::from(at)));
        }
        let runs: Vec<u64> = match conversation {
            Some((conversation, stretches)) => self.runs_that_may_hold(hash, conversation, stretches).collect(),
            None => self.runs.iter().rev().filter(|run| run.filter.may_hold(hash)).map(|run| run.number).collect(),
        };
        let conversation = conversation.map(|(conversation, _)| conversation);
        for run in runs {
            let page = Table::<IndexPage>::get(pages, run_key(run, hash))?;
            let first = found.len();
            found.extend(page.iter().flat_map(|p| p.messages(hash, conversation)).map(|m| run * self.stretch + m));
            // A page has them by conversation first.
            found[first..].sort_unstable_by(|one, other| other.cmp(one));
        }
        Ok(found)
    }

    /// Forgets messages in memory that were removed, so that the stretch is sealed as if the store had been opened since.
    pub fn blank(&mut self, messages: std::ops::Range<u64>) {
        for young in &mut self.young {
            let end = young.first + young.len() as u64;
            for message in messages.start.max(young.first)..messages.end.min(end) {
                young.blank((message - young.first) as usize);
            }
        }
    }

    /// Forgets the sealed stretches that lie wholly below a message.
    pub fn forget_below<S: Table<IndexPage> + Table<BloomFilter>>(&mut self, pages: &mut S, message: u64) {
        while self.runs.front().is_some_and(|r| (r.number + 1) * self.stretch <= message) {
            let run = self.runs.pop_front().expect("there is one");
            for page in 0..PAGES_PER_RUN {
                Table::<IndexPage>::remove(pages, PageKey::new(run.number, page));
            }
            Table::<BloomFilter>::remove(pages, PageKey::new(run.number, 0));
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

fn seal<S: Table<IndexPage> + Table<BloomFilter>>(pages: &mut S, young: &Young, stretch: u64) -> Run {
    let number = young.first / stretch;
    let mut filter = BloomFilter::of(stretch);
    let mut sealed: Vec<IndexPage> = (0..PAGES_PER_RUN).map(|_| IndexPage::default()).collect();
    for (i, (hash, conversation)) in young.entries().enumerate() {
        filter.insert(hash);
        filter.insert(with_conversation(hash, conversation));
        sealed[(hash >> 56) as usize].entries.push(((hash >> 24) as u32, tag(conversation), i as u16));
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
pub struct BloomFilter {
    words: Vec<u64>,
}

impl BloomFilter {
    /// An empty one for so many messages.
    fn of(messages: u64) -> Self {
        Self { words: vec![0; messages as usize * FILTER_BITS_PER_MESSAGE / 64] }
    }

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

impl Page for BloomFilter {
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
    use crate::page::tests::accounts_for;

    #[test]
    fn a_filter_never_denies_what_it_holds_and_rarely_claims_what_it_does_not() {
        let mut filter = BloomFilter::of(STRETCH);
        let key = |i: u64| id_hash(&i.to_string());
        (0..2 * STRETCH).for_each(|i| filter.insert(key(i)));
        assert!((0..2 * STRETCH).all(|i| filter.may_hold(key(i))));
        let wrong = (0..100_000).filter(|i| filter.may_hold(key(i + (1 << 40)))).count();
        assert!(wrong < 300, "{wrong} of 100,000");
    }

    #[test]
    fn pages_of_an_index_account_for_what_they_hold() {
        accounts_for(&IndexPage { entries: Vec::with_capacity(100) }, 800);
        accounts_for(&BloomFilter::of(STRETCH), STRETCH as usize * FILTER_BITS_PER_MESSAGE / 8);
        let runs = (0..3).map(|number| (number, BloomFilter::of(1_024)));
        let mut index = Index::new(1_024, runs, 3);
        let (empty, filters) = (index.memory_bytes(), 3 * 1_024 * FILTER_BITS_PER_MESSAGE / 8);
        assert_eq!(empty, filters);
        index.young.push_back(Young::new(4 * 1_024));
        index.young.iter_mut().for_each(|young| young.insert(1, 1));
        assert_eq!(index.memory_bytes(), filters + index.young.iter().map(Young::memory_bytes).sum::<usize>());
    }

    /// Tags are part of the store's format.
    #[test]
    fn the_tag_of_a_conversation_folds_all_of_its_bits() {
        assert_eq!([7, 0x0003_0005, 0xFFFF_0000, u32::MAX].map(tag), [7, 6, 0xFFFF, 0]);
    }
}
