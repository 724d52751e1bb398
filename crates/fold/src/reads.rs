//! Who has read, as bits, and when, as milliseconds after the send. A bit is set for ever.

use crate::wire::{Malformed, Reader, Writer};

/// Read times of the set bits, in slot order, in milliseconds after the message's `sent_at_ms`.
///
/// Four bytes a reader cover 49 days; a set with a later reader takes eight.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Times {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

/// The reads of `64 × N` slots of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads<const N: usize> {
    read: [u64; N],
    hidden: Option<Box<[u64; N]>>,
    audience: Option<Box<[u64; N]>>,
    /// Empty where times are not kept.
    times: Times,
}

/// What a read did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// The slot had read before, openly or hidden: nothing changed.
    Before,
    /// First read.
    First,
}

impl<const N: usize> Default for Reads<N> {
    fn default() -> Self {
        Self { read: [0; N], hidden: None, audience: None, times: Times::Narrow(Vec::new()) }
    }
}

impl<const N: usize> Reads<N> {
    /// Slots it has room for.
    pub const SLOTS: u32 = 64 * N as u32;

    /// Whether the slot has read openly.
    pub fn has_read(&self, slot: u32) -> bool {
        bit(&self.read, slot)
    }

    /// Whether the slot has read hidden.
    pub fn has_read_hidden(&self, slot: u32) -> bool {
        self.hidden.as_deref().is_some_and(|h| bit(h, slot))
    }

    /// Whether the slot was named as a recipient.
    pub fn is_recipient(&self, slot: u32) -> bool {
        self.audience.as_deref().is_some_and(|a| bit(a, slot))
    }

    /// Names the slot as a recipient; false where it was already.
    pub fn add_recipient(&mut self, slot: u32) -> bool {
        let audience = self.audience.get_or_insert_with(|| Box::new([0; N]));
        let new = !bit(&**audience, slot);
        set(&mut **audience, slot);
        new
    }

    /// An open read, `after_ms` after the send; `None` where times are not kept.
    pub fn read(&mut self, slot: u32, after_ms: Option<u64>) -> Marked {
        if self.has_read(slot) || self.has_read_hidden(slot) {
            return Marked::Before;
        }
        if let Some(after_ms) = after_ms {
            let rank = self.rank(slot);
            self.times.insert(rank, after_ms);
        }
        set(&mut self.read, slot);
        Marked::First
    }

    /// A hidden read.
    pub fn read_hidden(&mut self, slot: u32) -> Marked {
        if self.has_read(slot) || self.has_read_hidden(slot) {
            return Marked::Before;
        }
        set(&mut **self.hidden.get_or_insert_with(|| Box::new([0; N])), slot);
        Marked::First
    }

    /// Milliseconds after the send at which a slot that has read did so; `None` where times are not kept.
    pub fn after_ms(&self, slot: u32) -> Option<u64> {
        let rank = self.rank(slot);
        match &self.times {
            Times::Narrow(t) => t.get(rank).map(|t| u64::from(*t)),
            Times::Wide(t) => t.get(rank).copied(),
        }
    }

    /// The first slot at or after `from` that has read openly.
    pub fn next_read(&self, from: u32) -> Option<u32> {
        next(&self.read, from, |word, _| word)
    }

    /// The first slot at or after `from` that has not read openly, and, unless `ignore_hidden`, not hidden.
    pub fn next_without_read(&self, from: u32, ignore_hidden: bool) -> Option<u32> {
        let hidden = if ignore_hidden { None } else { self.hidden.as_deref() };
        next(&self.read, from, |word, i| !(word | hidden.map_or(0, |h| h[i])))
    }

    /// How many bits are set: open reads, hidden reads, recipients. For audits.
    pub fn counts(&self) -> (u32, u32, u32) {
        let sum = |words: &[u64; N]| words.iter().map(|w| w.count_ones()).sum::<u32>();
        (sum(&self.read), self.hidden.as_deref().map_or(0, sum), self.audience.as_deref().map_or(0, sum))
    }

    fn rank(&self, slot: u32) -> usize {
        let (word, below) = (slot as usize / 64, (1u64 << (slot % 64)) - 1);
        let before: u32 = self.read[..word].iter().map(|w| w.count_ones()).sum();
        (before + (self.read[word] & below).count_ones()) as usize
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let sets = usize::from(self.hidden.is_some()) + usize::from(self.audience.is_some());
        sets * 8 * N
            + match &self.times {
                Times::Narrow(t) => 4 * t.capacity(),
                Times::Wide(t) => 8 * t.capacity(),
            }
    }

    /// Appends its bytes: flags, the sets there are, the times in the width of the longest.
    pub fn encode(&self, to: &mut Writer) {
        let (width, times) = self.times.width();
        let flags = u8::from(self.hidden.is_some()) | u8::from(self.audience.is_some()) << 1 | width << 2;
        to.byte(flags);
        set_encode(&self.read, to);
        self.hidden.iter().chain(&self.audience).for_each(|s| set_encode(s, to));
        if width > 0 {
            to.number(times as u64);
            let mut put = |t: u64| to.bytes.extend_from_slice(&t.to_le_bytes()[..usize::from(width)]);
            match &self.times {
                Times::Narrow(t) => t.iter().for_each(|t| put(u64::from(*t))),
                Times::Wide(t) => t.iter().for_each(|t| put(*t)),
            }
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Where the bytes are no such thing.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let flags = from.byte()?;
        let width = flags >> 2;
        if width > 8 {
            return Err(Malformed("times wider than 8 bytes"));
        }
        let read = set_decode(from)?;
        let hidden = if flags & 1 > 0 { Some(Box::new(set_decode(from)?)) } else { None };
        let audience = if flags & 2 > 0 { Some(Box::new(set_decode(from)?)) } else { None };
        let mut times = Times::Narrow(Vec::new());
        if width > 0 {
            let count = from.count(usize::from(width))?;
            if count > 64 * N {
                return Err(Malformed("more times than slots"));
            }
            times = if width <= 4 { Times::Narrow(Vec::with_capacity(count)) } else { Times::Wide(Vec::with_capacity(count)) };
            for _ in 0..count {
                let mut word = [0; 8];
                for byte in &mut word[..usize::from(width)] {
                    *byte = from.byte()?;
                }
                match &mut times {
                    Times::Narrow(t) => t.push(u64::from_le_bytes(word) as u32),
                    Times::Wide(t) => t.push(u64::from_le_bytes(word)),
                }
            }
        }
        Ok(Self { read, hidden, audience, times })
    }
}

impl Times {
    fn insert(&mut self, rank: usize, after_ms: u64) {
        match self {
            Times::Narrow(t) => match u32::try_from(after_ms) {
                // Where times were switched on later, those before are not known: rank runs ahead.
                Ok(after_ms) => t.insert(rank.min(t.len()), after_ms),
                Err(_) => {
                    *self = Times::Wide(t.iter().map(|t| u64::from(*t)).collect());
                    self.insert(rank, after_ms);
                }
            },
            Times::Wide(t) => t.insert(rank.min(t.len()), after_ms),
        }
    }

    /// Bytes that the longest time takes (0 where there are none), and how many times there are.
    fn width(&self) -> (u8, usize) {
        let (longest, count) = match self {
            Times::Narrow(t) => (t.iter().copied().max().map(u64::from), t.len()),
            Times::Wide(t) => (t.iter().copied().max(), t.len()),
        };
        (longest.map_or(0, |l| (8 - l.leading_zeros() as u8 / 8).max(1)), count)
    }
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

/// One word as a number, for the many messages with few members; more words with a mask of those that are not empty.
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
    fn a_slot_is_read_once_openly_or_hidden_and_keeps_its_first_time() {
        let mut reads = Reads::<8>::default();
        assert_eq!(reads.read(500, Some(7)), Marked::First);
        assert_eq!(reads.read(3, Some(9)), Marked::First);
        assert_eq!(reads.read(500, Some(1)), Marked::Before);
        assert_eq!(reads.read_hidden(500), Marked::Before);
        assert_eq!(reads.read_hidden(4), Marked::First);
        assert_eq!(reads.read(4, Some(1)), Marked::Before);
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
        assert_eq!([5, 60, 0, 63].map(|s| reads.after_ms(s)), [1, 1 << 40, u64::from(u32::MAX), u64::from(u32::MAX) + 1].map(Some));
        round_trip(&reads);
    }

    #[test]
    fn an_empty_set_takes_two_bytes() {
        let mut w = Writer::default();
        Reads::<1>::default().encode(&mut w);
        assert_eq!(w.bytes.len(), 2);
        round_trip(&Reads::<8>::default());
    }
}
