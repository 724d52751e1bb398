//! The segments of the message index in which a conversation has messages. A look-up visits only
//! these, so its cost follows the segments of the conversation, not those of the partition.

use crate::pages::codec::{Malformed, Reader, Writer};
use smallvec::SmallVec;
use std::ops::Range;

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
    /// Adds a segment, and drops the ranges that end below `oldest`. Segments are added in rising
    /// order; the last one may be added again. Returns `None` for a segment below the last one,
    /// which only a damaged page has.
    #[must_use]
    pub fn add(&mut self, segment: u32, oldest: u32) -> Option<()> {
        match self.0.last_mut() {
            Some(range) if range.last == segment => return Some(()),
            Some(range) if range.last > segment => return None,
            Some(range) if range.last + 1 == segment => range.last = segment,
            _ => self.0.push(SegmentRange { first: segment, last: segment }),
        }
        self.0.retain(|range| range.last >= oldest);
        Some(())
    }

    /// Returns the numbers in a range, the newest first. Its cost follows `within` and the number
    /// of ranges, also where a damaged page has a range of all 32 bits.
    pub fn newest_first(&self, within: Range<u64>) -> impl Iterator<Item = u64> {
        self.0.iter().rev().flat_map(move |range| {
            let first = within.start.max(range.first.into());
            (first..within.end.min(u64::from(range.last) + 1)).rev()
        })
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
    use smallvec::smallvec;

    #[test]
    fn segments_come_newest_first_without_dropped_ones() {
        let mut segments = SegmentSet::default();
        for segment in [3, 3, 4, 5, 9, 9, 11, 12] {
            assert_eq!(segments.add(segment, 0), Some(()));
        }
        let newest_first = |segments: &SegmentSet, within| segments.newest_first(within).collect::<Vec<_>>();
        assert_eq!(newest_first(&segments, 0..13), [12, 11, 9, 5, 4, 3]);
        assert_eq!(newest_first(&segments, 4..12), [11, 9, 5, 4]);
        let mut writer = Writer::default();
        segments.encode(&mut writer);
        assert_eq!(SegmentSet::decode(&mut Reader::new(&writer.bytes)), Ok(segments.clone()));
        assert_eq!(segments.add(14, 5), Some(()));
        assert_eq!(newest_first(&segments, 0..20), [14, 12, 11, 9, 5, 4, 3], "a range is dropped whole");
        assert_eq!(segments.add(15, 10), Some(()));
        assert_eq!(newest_first(&segments, 0..20), [15, 14, 12, 11]);
    }

    #[test]
    fn damaged_sets_are_told_and_walked_within_bounds() {
        let all = SegmentRange { first: 0, last: u32::MAX };
        let mut segments = SegmentSet(smallvec![all]);
        assert_eq!(segments.newest_first(7..10).collect::<Vec<_>>(), [9, 8, 7]);
        assert_eq!(segments.add(9, 7), None);
        assert_eq!(segments.0.as_slice(), [all]);
        assert_eq!(segments.add(u32::MAX, 7), Some(()));
    }

    /// INV-MEMORY
    #[test]
    fn two_ranges_stay_inline_and_more_are_counted() {
        let mut segments = SegmentSet::default();
        assert_eq!([1, 3].map(|segment| segments.add(segment, 0)), [Some(()); 2]);
        assert_eq!(segments.heap_bytes(), 0);
        assert!((2..20).all(|segment| segments.add(2 * segment + 1, 0).is_some()));
        assert_eq!(segments.heap_bytes(), 32 * size_of::<SegmentRange>(), "room for 32 ranges, of which 20 are there");
    }
}
