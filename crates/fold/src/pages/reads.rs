//! The reads of a message: one bit per slot, and the time of each read in milliseconds after the
//! send. A bit is never cleared.

use crate::pages::codec::{Malformed, Reader, Writer};
use smallvec::SmallVec;

/// Read times of the set bits, in slot order, in milliseconds after the message's `sent_at_ms`.
///
/// Four bytes per read cover 49 days. If one read is later, all times take eight bytes.
#[derive(Debug, Clone)]
enum Times {
    /// Few times are inline, for most messages have few readers. Late times may follow them, see
    /// [`Reads::late`].
    Narrow(SmallVec<[u32; 4]>),
    Wide(Vec<u64>),
}

/// The reads of `64 × N` slots of one message.
#[derive(Debug, Clone)]
pub struct Reads<const N: usize> {
    read: [u64; N],
    rare: Option<Box<Rare<N>>>,
    /// Empty if times are not kept.
    times: Times,
}

/// The sets that most messages lack.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rare<const N: usize> {
    hidden: [u64; N],
    recipients: [u64; N],
}

/// The time of a read that came while times were not kept.
const UNKNOWN: u64 = u64::MAX;

/// With at least this many readers, a new time is first appended and only later merged into slot
/// order.
const MANY: usize = 32;
/// The greatest number of late times before they are merged.
const LATE_MAX: usize = 16;

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The slot had read before, openly or hidden. Nothing changed.
    Repeated,
    /// The slot's first read.
    First,
}

impl<const N: usize> Default for Reads<N> {
    fn default() -> Self {
        Self { read: [0; N], rare: None, times: Times::Narrow(SmallVec::new()) }
    }
}

/// Compares bits and times, whether late times are merged or not.
impl<const N: usize> PartialEq for Reads<N> {
    fn eq(&self, other: &Self) -> bool {
        let times = |of: &Self| of.times.len() > 0;
        let all = |of: &Self, slot| of.has_read(slot).then(|| of.after_ms(slot));
        self.read == other.read
            && self.rare == other.rare
            && times(self) == times(other)
            && (0..Self::SLOTS).all(|slot| all(self, slot) == all(other, slot))
    }
}

impl<const N: usize> Eq for Reads<N> {}

impl<const N: usize> Reads<N> {
    /// Number of slots.
    pub const SLOTS: u32 = 64 * N as u32;

    /// Whether the slot has read openly.
    pub fn has_read(&self, slot: u32) -> bool {
        bit(&self.read, slot)
    }

    /// Whether the slot has read hidden.
    pub fn has_read_hidden(&self, slot: u32) -> bool {
        self.rare.as_deref().is_some_and(|r| bit(&r.hidden, slot))
    }

    /// Whether the send named the slot as a recipient.
    pub fn is_recipient(&self, slot: u32) -> bool {
        self.rare.as_deref().is_some_and(|r| bit(&r.recipients, slot))
    }

    /// Adds the slot to the named recipients.
    pub fn add_recipient(&mut self, slot: u32) {
        set(&mut self.rare().recipients, slot);
    }

    /// Records an open read, unless the slot has read before (INV-ONCE). `after_ms` is its time,
    /// milliseconds after the send; `None` if times are not kept.
    pub fn read(&mut self, slot: u32, after_ms: Option<u64>) -> ReadOutcome {
        if self.has_read(slot) || self.has_read_hidden(slot) {
            return ReadOutcome::Repeated;
        }
        if (after_ms.is_some() || self.times.len() > 0) && !self.append_late(slot, after_ms) {
            self.merge_late();
            // Times are kept from this read on. Earlier reads have none.
            for rank in self.times.len()..self.read_count() as usize {
                self.times.insert(rank, None);
            }
            let rank = self.rank(slot);
            self.times.insert(rank, after_ms);
        }
        set(&mut self.read, slot);
        ReadOutcome::First
    }

    /// Appends a slot and its time as a late time, if there are many readers. Returns false if the
    /// caller must insert the time in slot order.
    fn append_late(&mut self, slot: u32, after_ms: Option<u64>) -> bool {
        let read = self.read_count() as usize;
        let Some(time) = narrow(after_ms).filter(|_| N > 1 && read >= MANY) else { return false };
        if self.late().len() == 2 * LATE_MAX {
            self.merge_late();
        }
        match &mut self.times {
            Times::Narrow(times) if times.len() >= read => {
                times.push(slot);
                times.push(time);
                true
            }
            _ => false,
        }
    }

    /// Returns slot and time of each read whose time is not merged yet.
    fn late(&self) -> &[u32] {
        match &self.times {
            // A late time takes two numbers, every other time one.
            Times::Narrow(times) if N > 1 && !times.is_empty() => {
                let late = times.len() - self.read_count() as usize;
                &times[times.len() - 2 * late..]
            }
            _ => &[],
        }
    }

    /// Merges late times among the others, so that all are in slot order.
    fn merge_late(&mut self) {
        let mut late: SmallVec<[(u32, u32); LATE_MAX]> =
            self.late().chunks_exact(2).map(|two| (two[0], two[1])).collect();
        late.sort_unstable();
        let ranks: SmallVec<[usize; LATE_MAX]> = late.iter().map(|(slot, _)| self.rank(*slot)).collect();
        let Times::Narrow(times) = &mut self.times else { return };
        // Each merged time moves once, by the number of late times that go before it.
        let mut end = times.len() - 2 * late.len();
        times.truncate(end + late.len());
        for (before, (rank, (_, time))) in ranks.into_iter().zip(late).enumerate().rev() {
            times.copy_within(rank - before..end, rank + 1);
            times[rank] = time;
            end = rank - before;
        }
    }

    /// Records a hidden read.
    pub fn read_hidden(&mut self, slot: u32) -> ReadOutcome {
        if self.has_read(slot) || self.has_read_hidden(slot) {
            return ReadOutcome::Repeated;
        }
        set(&mut self.rare().hidden, slot);
        ReadOutcome::First
    }

    fn rare(&mut self) -> &mut Rare<N> {
        self.rare.get_or_insert_with(|| Box::new(Rare { hidden: [0; N], recipients: [0; N] }))
    }

    /// Returns the time of a slot's read, milliseconds after the send; `None` if times were not
    /// kept. The slot must have read openly.
    pub fn after_ms(&self, slot: u32) -> Option<u64> {
        let late = self.late().chunks_exact(2);
        match late.clone().find(|two| two[0] == slot) {
            Some(two) => widen(two[1]),
            None => self.times.get(self.rank(slot) - late.filter(|two| two[0] < slot).count()),
        }
    }

    /// Returns the greatest time, milliseconds after the send; `None` if times were not kept.
    pub fn last_after_ms(&self) -> Option<u64> {
        let late = self.late();
        let merged = (0..self.times.len() - late.len()).filter_map(|rank| self.times.get(rank));
        merged.chain(late.chunks_exact(2).filter_map(|two| widen(two[1]))).max()
    }

    /// Reads the memory beside which the next time will be written.
    pub(crate) fn prefetch_times(&self) -> u64 {
        self.times.len().checked_sub(1).and_then(|last| self.times.get(last)).unwrap_or(0)
    }

    /// Returns the number of open reads.
    pub fn read_count(&self) -> u32 {
        self.read.iter().map(|w| w.count_ones()).sum()
    }

    /// Returns the first slot at or after `from` that has read openly.
    pub fn next_read(&self, from: u32) -> Option<u32> {
        next(&self.read, from, |word, _| word)
    }

    /// Returns the first slot at or after `from` without an open read and, unless `ignore_hidden`,
    /// without a hidden one.
    pub fn next_without_read(&self, from: u32, ignore_hidden: bool) -> Option<u32> {
        let hidden = if ignore_hidden { None } else { self.rare.as_deref().map(|r| &r.hidden) };
        next(&self.read, from, |word, i| !(word | hidden.map_or(0, |h| h[i])))
    }

    /// Counts the set bits: open reads, hidden reads, recipients.
    pub fn counts(&self) -> (u32, u32, u32) {
        let sum = |words: &[u64; N]| words.iter().map(|w| w.count_ones()).sum::<u32>();
        let (hidden, recipients) = self.rare.as_deref().map_or((0, 0), |r| (sum(&r.hidden), sum(&r.recipients)));
        (sum(&self.read), hidden, recipients)
    }

    /// Returns the number of open reads below a slot.
    fn rank(&self, slot: u32) -> usize {
        let (word, below) = (slot as usize / 64, (1u64 << (slot % 64)) - 1);
        let before: u32 = self.read[..word].iter().map(|w| w.count_ones()).sum();
        (before + (self.read[word] & below).count_ones()) as usize
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        usize::from(self.rare.is_some()) * size_of::<Rare<N>>()
            + match &self.times {
                Times::Narrow(t) if !t.spilled() => 0,
                Times::Narrow(t) => 4 * t.capacity(),
                Times::Wide(t) => 8 * t.capacity(),
            }
    }

    /// Appends its bytes: flags, the sets that are not empty, and each time plus one in the width
    /// of the longest.
    pub fn encode(&self, to: &mut Writer) {
        if !self.late().is_empty() {
            let mut merged = self.clone();
            merged.merge_late();
            return merged.encode(to);
        }
        let rare = self.rare.as_deref();
        let hidden = rare.map(|r| &r.hidden).filter(|h| **h != [0; N]);
        let recipients = rare.map(|r| &r.recipients).filter(|r| **r != [0; N]);
        let longest = self.last_after_ms().map_or(0, |t| t + 1);
        let width = if self.times.len() == 0 { 0 } else { (8 - longest.leading_zeros() as usize / 8).max(1) };
        to.byte(u8::from(hidden.is_some()) | u8::from(recipients.is_some()) << 1 | (width as u8) << 2);
        set_encode(&self.read, to);
        hidden.into_iter().chain(recipients).for_each(|s| set_encode(s, to));
        for rank in 0..self.times.len() {
            let time = self.times.get(rank).map_or(0, |t| t + 1);
            to.bytes.extend_from_slice(&time.to_le_bytes()[..width]);
        }
    }

    /// Decodes the bytes that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no reads.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let flags = from.byte()?;
        let width = usize::from(flags >> 2);
        if width > 8 {
            return Err(Malformed("times wider than 8 bytes"));
        }
        let mut reads = Self { read: set_decode(from)?, ..Self::default() };
        if flags & 3 > 0 {
            let hidden = if flags & 1 > 0 { set_decode(from)? } else { [0; N] };
            let recipients = if flags & 2 > 0 { set_decode(from)? } else { [0; N] };
            if (flags & 1 > 0) != (hidden != [0; N]) || (flags & 2 > 0) != (recipients != [0; N]) {
                return Err(Malformed("an empty set"));
            }
            reads.rare = Some(Box::new(Rare { hidden, recipients }));
        }
        if width > 0 {
            let count = reads.read_count() as usize;
            if let Times::Narrow(times) = &mut reads.times {
                times.reserve_exact(count);
            }
            for rank in 0..count {
                let time = from.little_endian(width)?;
                reads.times.insert(rank, time.checked_sub(1));
            }
        }
        Ok(reads)
    }
}

impl Times {
    fn len(&self) -> usize {
        match self {
            Times::Narrow(t) => t.len(),
            Times::Wide(t) => t.len(),
        }
    }

    fn get(&self, rank: usize) -> Option<u64> {
        match self {
            Times::Narrow(t) => t.get(rank).copied().and_then(widen),
            Times::Wide(t) => t.get(rank).copied().filter(|t| *t != UNKNOWN),
        }
    }

    fn insert(&mut self, rank: usize, after_ms: Option<u64>) {
        match self {
            Times::Narrow(t) => match narrow(after_ms) {
                Some(time) => t.insert(rank, time),
                None => {
                    *self = Times::Wide(t.iter().map(|time| widen(*time).unwrap_or(UNKNOWN)).collect());
                    self.insert(rank, after_ms);
                }
            },
            Times::Wide(t) => t.insert(rank, after_ms.unwrap_or(UNKNOWN)),
        }
    }
}

/// Encodes a time in four bytes; `None` if it takes eight.
fn narrow(after_ms: Option<u64>) -> Option<u32> {
    match after_ms {
        None => Some(UNKNOWN as u32),
        Some(after_ms) => u32::try_from(after_ms).ok().filter(|time| *time != UNKNOWN as u32),
    }
}

/// Decodes a time of four bytes; `None` if the time is unknown.
fn widen(time: u32) -> Option<u64> {
    (time != UNKNOWN as u32).then_some(time.into())
}

fn bit<const N: usize>(words: &[u64; N], slot: u32) -> bool {
    words[slot as usize / 64] >> (slot % 64) & 1 == 1
}

fn set<const N: usize>(words: &mut [u64; N], slot: u32) {
    words[slot as usize / 64] |= 1 << (slot % 64);
}

fn next<const N: usize>(words: &[u64; N], from: u32, of: impl Fn(u64, usize) -> u64) -> Option<u32> {
    let mut mask = u64::MAX << (from % 64);
    for (i, word) in words.iter().enumerate().skip(from as usize / 64) {
        let found = of(*word, i) & mask;
        if found != 0 {
            return Some(i as u32 * 64 + found.trailing_zeros());
        }
        mask = u64::MAX;
    }
    None
}

/// Appends a set. One word is written as a number, which is short for small groups. Of several
/// words, a mask says which are not empty, and only these follow.
fn set_encode<const N: usize>(words: &[u64; N], to: &mut Writer) {
    if N == 1 {
        return to.number(words[0]);
    }
    to.number(words.iter().enumerate().fold(0, |mask, (i, w)| mask | u64::from(*w != 0) << i));
    words.iter().filter(|w| **w != 0).for_each(|w| to.word(*w));
}

fn set_decode<const N: usize>(from: &mut Reader<'_>) -> Result<[u64; N], Malformed> {
    let mut words = [0; N];
    if N == 1 {
        words[0] = from.number()?;
        return Ok(words);
    }
    let mask = from.number()?;
    if mask >> N != 0 {
        return Err(Malformed("more words than the set has"));
    }
    for (i, word) in words.iter_mut().enumerate() {
        if mask >> i & 1 == 1 {
            *word = from.word()?;
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<const N: usize>(reads: &Reads<N>) {
        let mut w = Writer::default();
        reads.encode(&mut w);
        let mut r = Reader::new(&w.bytes);
        assert_eq!(Reads::<N>::decode(&mut r).as_ref(), Ok(reads));
        assert_eq!(r.end(), Ok(()));
    }

    #[test]
    fn slot_reads_once_and_keeps_its_first_time() {
        let mut reads = Reads::<8>::default();
        assert_eq!(reads.read(500, Some(7)), ReadOutcome::First);
        assert_eq!(reads.read(3, Some(9)), ReadOutcome::First);
        assert_eq!(reads.read(500, Some(1)), ReadOutcome::Repeated);
        assert_eq!(reads.read_hidden(500), ReadOutcome::Repeated);
        assert_eq!(reads.read_hidden(4), ReadOutcome::First);
        assert_eq!(reads.read(4, Some(1)), ReadOutcome::Repeated);
        assert_eq!((reads.after_ms(3), reads.after_ms(500)), (Some(9), Some(7)));
        assert_eq!(reads.counts(), (2, 1, 0));
        assert_eq!(reads.next_read(4), Some(500));
        assert_eq!(reads.next_without_read(3, false), Some(5));
        assert_eq!(reads.next_without_read(3, true), Some(4));
        round_trip(&reads);
    }

    #[test]
    fn times_beyond_49_days_are_exact() {
        let mut reads = Reads::<1>::default();
        for (slot, after_ms) in [(5, 1), (60, 1 << 40), (0, u64::from(u32::MAX)), (63, u64::from(u32::MAX) + 1)] {
            reads.read(slot, Some(after_ms));
        }
        assert_eq!(
            [5, 60, 0, 63].map(|s| reads.after_ms(s)),
            [1, 1 << 40, u64::from(u32::MAX), u64::from(u32::MAX) + 1].map(Some)
        );
        round_trip(&reads);
    }

    #[test]
    fn times_kept_at_intervals_stay_with_their_readers() {
        let mut reads = Reads::<1>::default();
        for (slot, after_ms) in [(9, None), (3, None), (5, Some(50)), (1, None), (7, Some(u64::from(u32::MAX)))] {
            reads.read(slot, after_ms);
        }
        let times = |reads: &Reads<1>| [1, 3, 5, 7, 9].map(|s| reads.after_ms(s));
        assert_eq!(times(&reads), [None, None, Some(50), Some(u64::from(u32::MAX)), None]);
        round_trip(&reads);
    }

    /// Times of many readers are merged a few at a time. At any moment each slot has its own time.
    #[test]
    fn times_stay_with_their_readers_in_any_order() {
        let mut random = 7u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % n
        };
        for round in 0..60 {
            let (mut reads, mut naive) = (Reads::<8>::default(), std::collections::BTreeMap::new());
            let begins_at = if round % 3 == 0 { below(200) } else { 0 };
            for read in 0..600 {
                let slot = below(512) as u32;
                let time = match below(if round % 4 == 0 { 200 } else { 1 << 40 }) {
                    0 => None,
                    1 => Some(1 << 40),
                    _ => Some(below(u64::from(u32::MAX))),
                };
                let time = time.filter(|_| read >= begins_at);
                let outcome = reads.read(slot, time);
                assert_eq!(outcome == ReadOutcome::First, !naive.contains_key(&slot));
                naive.entry(slot).or_insert(time);
                let last = naive.values().copied().max().flatten();
                assert_eq!(reads.last_after_ms(), last);
                let probed = below(512) as u32;
                if let Some(time) = naive.get(&probed) {
                    assert_eq!(reads.after_ms(probed), *time);
                }
            }
            assert!(naive.iter().all(|(slot, time)| reads.after_ms(*slot) == *time));
            round_trip(&reads);
        }
    }

    #[test]
    fn encoded_empty_set_is_malformed() {
        let decode = |flags: u8, sets: &[u8]| Reads::<1>::decode(&mut Reader::new(&[&[flags], sets].concat()));
        assert!(decode(0, &[5]).is_ok() && decode(1, &[5, 2]).is_ok() && decode(3, &[5, 2, 7]).is_ok());
        for (flags, sets) in [(1, &[5, 0][..]), (2, &[5, 0]), (3, &[5, 2, 0]), (3, &[5, 0, 7])] {
            assert_eq!(decode(flags, sets), Err(Malformed("an empty set")));
        }
    }

    #[test]
    fn empty_reads_take_two_bytes() {
        let mut w = Writer::default();
        Reads::<1>::default().encode(&mut w);
        assert_eq!(w.bytes.len(), 2);
        round_trip(&Reads::<8>::default());
    }

    /// INV-MEMORY
    #[test]
    fn bits_and_times_account_for_their_heap() {
        let mut reads = Reads::<8>::default();
        (0..4).for_each(|slot| _ = reads.read(slot, Some(9)));
        assert_eq!(reads.heap_bytes(), 0, "few times are inline");
        reads.read_hidden(9);
        assert_eq!(reads.heap_bytes(), 2 * 64, "two sets of 512 bits");
        (10..26).for_each(|slot| _ = reads.read(slot, Some(9)));
        assert_eq!(reads.heap_bytes(), 2 * 64 + 4 * 32, "room for 32 times of four bytes");
        reads.read(30, Some(1 << 40));
        assert!((2 * 64 + 21 * 8..=2 * 64 + 64 * 8).contains(&reads.heap_bytes()), "of eight: {}", reads.heap_bytes());
    }

    #[test]
    fn reads_without_times_take_no_room() {
        let mut reads = Reads::<1>::default();
        (0..20).for_each(|slot| _ = reads.read(slot, None));
        let mut w = Writer::default();
        reads.encode(&mut w);
        assert_eq!(w.bytes.len(), 1 + 3, "flags, and 20 bits as a number");
        assert_eq!((reads.heap_bytes(), reads.after_ms(3)), (0, None));
        round_trip(&reads);
    }

    #[test]
    fn times_take_at_most_eight_bytes() {
        let mut reads = Reads::<1>::default();
        reads.read(3, Some(u64::MAX - 1));
        round_trip(&reads);
        let wide =
            |width: u8| Reads::<1>::decode(&mut Reader::new(&[&[width << 2, 1][..], &[1; 9]].concat())).map(|_| ());
        assert_eq!([wide(8), wide(9)], [Ok(()), Err(Malformed("times wider than 8 bytes"))]);
    }

    #[test]
    fn recipient_named_twice_counts_once() {
        let mut reads = Reads::<8>::default();
        [500, 500, 499].into_iter().for_each(|slot| reads.add_recipient(slot));
        assert_eq!(reads.counts(), (0, 0, 2));
    }
}
