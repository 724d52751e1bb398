//! Where in the topic of updates a stream goes on: from the id of an event of a stream, or from a position of the event
//! log. What cannot be delivered without a gap is refused.
//!
//! Must not be asked from a thread that may not block.

use receipts_log::{Inspect, OwnedRecord, ReadError, Topic};
use receipts_query::UPDATE_POSITION_HEADER;
use std::ops::Range;

/// How many records the first look back takes, and how many any look takes at most; each is twice the one before.
const BLOCK_RECORDS: Range<u64> = 64..4_096;

/// What a partition of the topic says about a place in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Go on from this offset.
    From(u64),
    /// What would have to be delivered may be gone, unless nothing was published since.
    Gone {
        /// Where the partition ends.
        end: u64,
    },
}

/// Where an offset of the topic stands.
pub(crate) fn by_offset(log: &dyn Inspect, partition: u32, offset: u64) -> Result<Found, ReadError> {
    let Range { start, end } = log.bounds(Topic::Updates, partition)?;
    Ok(if (start..=end).contains(&offset) { Found::From(offset) } else { Found::Gone { end } })
}

/// Where those updates begin that hold more than what stands below `position` in the event topic.
///
/// A projector that died publishes again from its last checkpoint, and one that was held up may still publish a little
/// after its successor has begun: positions step back. So this walks back from the end, block by block, until one lies
/// before `position` as a whole, and goes on from the first record that does not. At most `max` records are looked at.
pub(crate) fn by_position(log: &dyn Inspect, partition: u32, position: u64, max: u64) -> Result<Found, ReadError> {
    let Range { start, end } = log.bounds(Topic::Updates, partition)?;
    let (mut from, mut to, mut block, mut any_before) = (end, end, BLOCK_RECORDS.start, false);
    while to > start && end - to < max {
        let begin = start.max(to.saturating_sub(block));
        let (mut before, mut after) = (false, false);
        let records = log.read(Topic::Updates, partition, begin, (to - begin) as usize)?;
        for record in records.iter().filter(|record| record.offset < to).rev() {
            match position_of(record) {
                Some(of) if of > position => {
                    from = record.offset;
                    after = true;
                }
                Some(_) => before = true,
                None => {}
            }
        }
        if before && !after {
            return Ok(Found::From(from));
        }
        any_before |= before;
        (to, block) = (begin, (block * 2).min(BLOCK_RECORDS.end));
    }
    // Looked through to its beginning: complete where nothing was trimmed, or something of before `position` is left.
    Ok(if to <= start && (start == 0 || any_before) { Found::From(from) } else { Found::Gone { end } })
}

fn position_of(record: &OwnedRecord) -> Option<u64> {
    let (_, value) = record.headers.iter().find(|(name, _)| name == UPDATE_POSITION_HEADER)?;
    std::str::from_utf8(value.as_ref()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_log::embedded::EmbeddedLog;
    use receipts_log::{Entry, Log as _};
    use std::num::NonZeroU32;

    /// A log whose updates were rendered at these positions; 0 stands for none.
    fn log(positions: &[u64]) -> (EmbeddedLog, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), NonZeroU32::new(1)).unwrap();
        let appended: Vec<_> = positions
            .iter()
            .map(|position| {
                let header = (UPDATE_POSITION_HEADER.to_owned(), Some(position.to_string().into()));
                let headers = if *position == 0 { Vec::new() } else { vec![header] };
                log.writer().append(Entry { topic: Topic::Updates, headers, ..Entry::event("k", "{}", Some(0)) })
            })
            .collect();
        appended.into_iter().for_each(|appended| _ = appended.blocking_recv().unwrap().unwrap());
        (log, dir)
    }

    fn from(log: &EmbeddedLog, position: u64) -> Option<u64> {
        match by_position(log, 0, position, 1_000_000).unwrap() {
            Found::From(from) => Some(from),
            Found::Gone { .. } => None,
        }
    }

    /// INV-STREAM
    #[test]
    fn everything_rendered_beyond_the_position_is_delivered_again() {
        let (log, _dir) = log(&(1..=1_000).collect::<Vec<_>>());
        for position in [0, 1, 63, 64, 500, 999, 1_000, 2_000] {
            assert_eq!(from(&log, position), Some(position.min(1_000)), "{position}");
        }
    }

    /// INV-STREAM: a projector that died publishes again from its last checkpoint.
    #[test]
    fn where_positions_step_back_nothing_beyond_is_left_out() {
        let mut positions: Vec<u64> = (1..=300).collect();
        positions.extend(200..=500);
        let (log, _dir) = log(&positions);
        for position in [150, 210, 250, 299, 400] {
            let from = from(&log, position).unwrap();
            assert!((position + 1..=500).all(|of| positions[from as usize..].contains(&of)), "{position}");
        }
    }

    #[test]
    fn updates_of_before_there_were_positions_are_passed_over() {
        let (log, _dir) = log(&[0, 0, 5, 0, 9, 0]);
        assert_eq!((from(&log, 5), from(&log, 4), from(&log, 9)), (Some(4), Some(2), Some(6)));
    }

    /// INV-STREAM
    #[test]
    fn what_was_trimmed_is_gone_and_not_passed_over_in_silence() {
        let (log, _dir) = log(&(1..=1_000).collect::<Vec<_>>());
        log.trim(Topic::Updates, 0, 600).unwrap();
        assert_eq!((from(&log, 600), from(&log, 601), from(&log, 700)), (None, Some(601), Some(700)));
        assert_eq!(by_offset(&log, 0, 599).unwrap(), Found::Gone { end: 1_000 });
        assert_eq!(by_offset(&log, 0, 600).unwrap(), Found::From(600));
        assert_eq!(by_offset(&log, 0, 1_000).unwrap(), Found::From(1_000));
        assert_eq!(by_offset(&log, 0, 1_001).unwrap(), Found::Gone { end: 1_000 }, "of another topic");
        assert_eq!(by_position(&log, 0, 700, 100).unwrap(), Found::Gone { end: 1_000 }, "too far back to look for");
    }
}
