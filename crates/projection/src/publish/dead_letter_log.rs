//! Sums up dead letters for the log: one line at the first of each reason, then at most one a
//! minute per reason, with what they have in common. Writes no line itself, and repeats no id.

use super::dead_letter::DeadRecord;
use receipts_event::{Partitioner, Reason};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(60);

/// The dead letters of a process since the last line of each reason.
#[derive(Debug, Default)]
pub(crate) struct DeadLetterLog {
    partition_count: u32,
    reasons: BTreeMap<Reason, Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    written: Option<Instant>,
    count: u64,
    /// Partition and offset.
    first: (u32, u64),
    last: (u32, u64),
    detail: String,
    /// The dead letters that each of [`Partitioner::ALL`] would have put where they stand.
    explained: [u64; Partitioner::ALL.len()],
}

/// One line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) reason: Reason,
    /// The dead letters that it sums up.
    pub(crate) count: u64,
    /// Partition and offset of the first one.
    pub(crate) first: (u32, u64),
    /// Partition and offset of the last one.
    pub(crate) last: (u32, u64),
    /// The detail of the last one.
    pub(crate) detail: String,
    /// What all of them together say about the producer.
    pub(crate) verdict: Option<String>,
}

impl DeadLetterLog {
    /// `partition_count` is that of the events topic.
    pub(crate) fn new(partition_count: u32) -> Self {
        Self { partition_count, reasons: BTreeMap::new() }
    }

    /// Counts a dead letter that stands in partition `number`.
    pub(crate) fn note(&mut self, number: u32, dead: &DeadRecord) {
        let tally = self.reasons.entry(dead.reason).or_default();
        tally.last = (number, dead.offset());
        if tally.count == 0 {
            tally.first = tally.last;
        }
        tally.count += 1;
        dead.detail().clone_into(&mut tally.detail);
        if dead.reason == Reason::WrongPartition {
            let key = dead.key().unwrap_or_default();
            for (explained, partitioner) in tally.explained.iter_mut().zip(Partitioner::ALL) {
                *explained += u64::from(partitioner.partition_of(key, self.partition_count) == number);
            }
        }
    }

    /// Returns the lines that are due: for a reason without a line in the last minute.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for (reason, tally) in &mut self.reasons {
            let is_due = tally.written.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
            if tally.count == 0 || !is_due {
                continue;
            }
            let Tally { count, first, last, detail, explained, .. } = std::mem::take(tally);
            tally.written = Some(now);
            let verdict = (*reason == Reason::WrongPartition).then(|| Partitioner::verdict(count, explained)).flatten();
            lines.push(Line { reason: *reason, count, first, last, detail, verdict });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::{key, partition_of};

    const PARTITIONS: u32 = 12;

    fn dead(offset: u64, reason: Reason, key: &[u8]) -> DeadRecord {
        DeadRecord::of(offset, reason, format!("detail {offset}"), Some(key), Some(b"{}"), Vec::new())
    }

    /// Notes the conversations that `partitioner` puts into a wrong partition; returns their
    /// number.
    fn misplace(log: &mut DeadLetterLog, choose: impl Fn(&[u8], u64) -> u32) -> u64 {
        let mut wrong = 0;
        for offset in 0..60 {
            let key = key("default", &format!("g{offset}"));
            let partition = choose(&key, offset);
            if partition != partition_of(&key, PARTITIONS) {
                log.note(partition, &dead(offset, Reason::WrongPartition, &key));
                wrong += 1;
            }
        }
        wrong
    }

    #[test]
    fn a_reason_has_one_line_a_minute() {
        let (start, mut log) = (Instant::now(), DeadLetterLog::new(PARTITIONS));
        assert!(log.take_due(start).is_empty());
        log.note(3, &dead(5, Reason::InvalidJson, b"k"));
        let line = |count, first, last, detail: &str| Line {
            reason: Reason::InvalidJson,
            count,
            first,
            last,
            detail: detail.to_owned(),
            verdict: None,
        };
        assert_eq!(log.take_due(start), [line(1, (3, 5), (3, 5), "detail 5")]);
        for offset in 6..9 {
            log.note(4, &dead(offset, Reason::InvalidJson, b"k"));
        }
        assert!(log.take_due(start + INTERVAL / 2).is_empty());
        log.note(0, &dead(2, Reason::NoValue, b"k"));
        assert_eq!(log.take_due(start + INTERVAL / 2).len(), 1, "another reason does not wait");
        assert_eq!(log.take_due(start + INTERVAL), [line(3, (4, 6), (4, 8), "detail 8")]);
        assert!(log.take_due(start + INTERVAL * 3).is_empty(), "nothing new");
    }

    #[test]
    fn the_partitioner_of_many_dead_letters_is_named() {
        for partitioner in Partitioner::ALL {
            let mut log = DeadLetterLog::new(PARTITIONS);
            let wrong = misplace(&mut log, |key, _| partitioner.partition_of(key, PARTITIONS));
            assert!(wrong > 10, "enough to say something about");
            let verdict = log.take_due(Instant::now()).remove(0).verdict.unwrap();
            let wanted = format!("{wrong} of {wrong} stand where {} would", partitioner.name());
            assert!(verdict.starts_with(&wanted) && verdict.ends_with(partitioner.remedy()), "{verdict}");
        }
    }

    #[test]
    fn a_producer_that_ignores_keys_is_suspected() {
        let mut log = DeadLetterLog::new(PARTITIONS);
        misplace(&mut log, |_, offset| (offset % u64::from(PARTITIONS)) as u32);
        let verdict = log.take_due(Instant::now()).remove(0).verdict.unwrap();
        assert!(verdict.contains("ignore keys"), "{verdict}");
    }
}
