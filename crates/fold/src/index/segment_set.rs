//! The segments of the message index in which a conversation has messages. A look-up visits only
//! these, so its cost follows the segments of the conversation, not those of the partition.

use crate::pages::codec::{Malformed, Reader, Writer};
use smallvec::SmallVec;

/// Numbers of segments, as ranges in rising order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentSet(SmallVec<[SegmentRange; 2]>);

/// A range of segments, both ends included. Smaller than `std::ops::RangeInclusive`, of which every
/// conversation would hold two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SegmentRange {
    first: u32,
    last: u32,
}

impl SegmentSet {
    /// Adds a segment, and drops the ranges that end below `oldest`. Segments must be added in
    /// rising order; the last one may be added again.
    pub fn add(&mut self, segment: u32, oldest: u32) {
        match self.0.last_mut() {
            Some(range) if range.last == segment => return,
            Some(range) if range.last + 1 == segment => range.last = segment,
            _ => self.0.push(SegmentRange { first: segment, last: segment }),
        }
        self.0.retain(|range| range.last >= oldest);
    }

    /// Returns all numbers, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = u32> {
        self.0.iter().rev().flat_map(|range| (range.first..=range.last).rev())
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        if self.0.spilled() { self.0.capacity() * size_of::<SegmentRange>() } else { 0 }
    }

    pub(crate) fn encode(&self, to: &mut Writer) {
        to.number(self.0.len() as u64);
        let mut last = 0;
        for range in &self.0 {
            to.number((range.first - last).into());
            to.number((range.last - range.first).into());
            last = range.last;
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(2)?;
        let mut ranges = SmallVec::with_capacity(count);
        let beyond = Malformed("a segment beyond 32 bits");
        let mut last: u32 = 0;
        for _ in 0..count {
            let first = last.checked_add(from.small()?).ok_or(beyond)?;
            last = first.checked_add(from.small()?).ok_or(beyond)?;
            ranges.push(SegmentRange { first, last });
        }
        Ok(Self(ranges))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_come_newest_first_without_dropped_ones() {
        let mut segments = SegmentSet::default();
        for segment in [3, 3, 4, 5, 9, 9, 11, 12] {
            segments.add(segment, 0);
        }
        assert_eq!(segments.newest_first().collect::<Vec<_>>(), [12, 11, 9, 5, 4, 3]);
        let mut writer = Writer::default();
        segments.encode(&mut writer);
        assert_eq!(SegmentSet::decode(&mut Reader::new(&writer.bytes)), Ok(segments.clone()));
        segments.add(14, 5);
        assert_eq!(segments.newest_first().collect::<Vec<_>>(), [14, 12, 11, 9, 5, 4, 3], "a range is dropped whole");
        segments.add(15, 10);
        assert_eq!(segments.newest_first().collect::<Vec<_>>(), [15, 14, 12, 11]);
    }

    /// INV-MEMORY
    #[test]
    fn two_ranges_stay_inline_and_more_are_counted() {
        let mut segments = SegmentSet::default();
        [1, 3].into_iter().for_each(|segment| segments.add(segment, 0));
        assert_eq!(segments.heap_bytes(), 0);
        (2..20).for_each(|segment| segments.add(2 * segment + 1, 0));
        assert_eq!(segments.heap_bytes(), 32 * size_of::<SegmentRange>(), "room for 32 ranges, of which 20 are there");
    }
}
