//! Finds where in the topic of updates a stream resumes: from the id of a stream event, or from a
//! position of the event log. It refuses to resume with a gap.
//!
//! It blocks, so it must not run on an async thread.

use receipts_log::{Inspect, OwnedRecord, ReadError, Topic};
use receipts_query::UPDATE_POSITION_HEADER;
use std::ops::Range;

/// Records of the first read backwards, and the most records of any; each read is twice the one
/// before.
const BLOCK_RECORDS: Range<u64> = 64..4_096;

/// Where a stream resumes in a partition of the topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResumePoint {
    /// At this offset.
    At(u64),
    /// Nowhere, because updates that the stream needs may be trimmed. The end of the partition
    /// tells whether any were published since.
    Lost {
        /// The end of the partition.
        end: u64,
    },
}

/// Resumes at an offset of the topic, if the partition still holds it.
pub(super) fn by_offset(log: &dyn Inspect, partition: u32, offset: u64) -> Result<ResumePoint, ReadError> {
    let Range { start, end } = log.bounds(Topic::Updates, partition)?;
    Ok(if (start..=end).contains(&offset) { ResumePoint::At(offset) } else { ResumePoint::Lost { end } })
}

/// Resumes at the first update that was rendered after `position` of the event topic.
///
/// Positions of updates can step back: a projector that died publishes again from its last
/// checkpoint, and a delayed one may still publish shortly after its successor has begun. So this
/// walks back from the end, block by block, until a whole block lies before `position`, and resumes
/// at the first record that does not. It reads at most `max` records.
pub(super) fn by_position(
    log: &dyn Inspect,
    partition: u32,
    position: u64,
    max: u64,
) -> Result<ResumePoint, ReadError> {
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
            return Ok(ResumePoint::At(from));
        }
        any_before |= before;
        (to, block) = (begin, (block * 2).min(BLOCK_RECORDS.end));
    }
    // The walk reached the beginning. Nothing is missing if nothing was trimmed, or if an update
    // from before `position` is left.
    Ok(if to <= start && (start == 0 || any_before) { ResumePoint::At(from) } else { ResumePoint::Lost { end } })
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

    /// A log whose updates were rendered at these positions; 0 means that an update has none.
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
            ResumePoint::At(from) => Some(from),
            ResumePoint::Lost { .. } => None,
        }
    }

    /// INV-STREAM
    #[test]
    fn every_update_after_the_position_is_delivered() {
        let (log, _dir) = log(&(1..=1_000).collect::<Vec<_>>());
        for position in [0, 1, 63, 64, 500, 999, 1_000, 2_000] {
            assert_eq!(from(&log, position), Some(position.min(1_000)), "{position}");
        }
    }

    /// INV-STREAM: a restarted projector publishes again from its last checkpoint.
    #[test]
    fn positions_that_step_back_lose_no_update() {
        let mut positions: Vec<u64> = (1..=300).collect();
        positions.extend(200..=500);
        let (log, _dir) = log(&positions);
        for position in [150, 210, 250, 299, 400] {
            let from = from(&log, position).unwrap();
            assert!((position + 1..=500).all(|of| positions[from as usize..].contains(&of)), "{position}");
        }
    }

    #[test]
    fn updates_without_a_position_are_skipped() {
        let (log, _dir) = log(&[0, 0, 5, 0, 9, 0]);
        assert_eq!((from(&log, 5), from(&log, 4), from(&log, 9)), (Some(4), Some(2), Some(6)));
    }

    /// INV-STREAM
    #[test]
    fn trimmed_updates_are_reported_as_lost() {
        let (log, _dir) = log(&(1..=1_000).collect::<Vec<_>>());
        log.trim(Topic::Updates, 0, 600).unwrap();
        assert_eq!((from(&log, 600), from(&log, 601), from(&log, 700)), (None, Some(601), Some(700)));
        assert_eq!(by_offset(&log, 0, 599).unwrap(), ResumePoint::Lost { end: 1_000 });
        assert_eq!(by_offset(&log, 0, 600).unwrap(), ResumePoint::At(600));
        assert_eq!(by_offset(&log, 0, 1_000).unwrap(), ResumePoint::At(1_000));
        assert_eq!(by_offset(&log, 0, 1_001).unwrap(), ResumePoint::Lost { end: 1_000 }, "of another topic");
        assert_eq!(
            by_position(&log, 0, 700, 100).unwrap(),
            ResumePoint::Lost { end: 1_000 },
            "too far back to look for"
        );
    }
}
