//! Sends over time, and reads by weekday and hour, in tables of bounded size. Knows UTC alone.

use super::Readers;
use super::figures::{Period, Timeline, Weekday};
use receipts_fold::view::Counts;
use std::collections::BTreeMap;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const WEEK_MS: u64 = 7 * DAY_MS;
/// The lengths of periods, each a multiple of the one before, so that periods can be joined.
const UNITS_MS: [u64; 6] = [MINUTE_MS, HOUR_MS, DAY_MS, WEEK_MS, 4 * WEEK_MS, 52 * WEEK_MS];
/// The maximum number of periods in memory. About 100 KB.
const HELD_MAX: usize = 1_000;
/// The maximum number of periods that are printed, if no send lies far from the others.
const PRINTED_MAX: u64 = 100;
/// The share of messages at each end that does not decide the length of a period: one in 200, so
/// that a device whose clock is years off does not make one period of all other messages.
const OUTLIERS: u64 = 200;
/// From Monday, 1969-12-29, to the beginning of Unix time. Every period begins a multiple of its
/// length after that Monday.
const MONDAY_MS: u64 = 3 * DAY_MS;

#[derive(Clone, Copy, Default)]
struct Sums {
    messages: u64,
    readers: Readers,
}

/// Messages by the time of their send. It begins with minutes, and joins periods when there are too
/// many.
pub(super) struct Sends {
    unit_ms: u64,
    held: BTreeMap<u64, Sums>,
    range_ms: Option<(u64, u64)>,
}

impl Sends {
    pub(super) fn new() -> Self {
        Self { unit_ms: MINUTE_MS, held: BTreeMap::new(), range_ms: None }
    }

    /// Adds a message, with its counts if it has any.
    pub(super) fn message(&mut self, sent_at_ms: u64, counts: Option<&Counts>) {
        let (first, last) = self.range_ms.unwrap_or((sent_at_ms, sent_at_ms));
        self.range_ms = Some((first.min(sent_at_ms), last.max(sent_at_ms)));
        let of = self.held.entry((sent_at_ms + MONDAY_MS) / self.unit_ms).or_default();
        of.messages += 1;
        if let Some(counts) = counts {
            of.readers.add(counts);
        }
        // Far apart, periods may stay apart when they grow.
        while self.held.len() > HELD_MAX {
            self.join();
        }
    }

    /// Joins periods to the next longer ones.
    fn join(&mut self) {
        let longer_ms = UNITS_MS.into_iter().find(|unit| *unit > self.unit_ms).unwrap_or(self.unit_ms * 4);
        let factor = longer_ms / self.unit_ms;
        let mut joined: BTreeMap<u64, Sums> = BTreeMap::new();
        for (at, sums) in std::mem::take(&mut self.held) {
            let of = joined.entry(at / factor).or_default();
            of.messages += sums.messages;
            of.readers.join(&sums.readers);
        }
        (self.unit_ms, self.held) = (longer_ms, joined);
    }

    /// Returns the number of periods from the first to the last, without the outliers at each end.
    fn width(&self) -> u64 {
        let skipped = self.held.values().map(|sums| sums.messages).sum::<u64>() / OUTLIERS;
        match (edge(self.held.iter(), skipped), edge(self.held.iter().rev(), skipped)) {
            (Some(first), Some(last)) => last - first + 1,
            _ => 0,
        }
    }

    /// Returns the periods that have messages, oldest first, in the shortest unit that needs at
    /// most [`PRINTED_MAX`] periods.
    pub(super) fn finish(mut self) -> Option<Timeline> {
        let (first_sent_at_ms, newest_sent_at_ms) = self.range_ms?;
        while self.width() > PRINTED_MAX {
            self.join();
        }
        let unit_ms = self.unit_ms;
        let periods = self.held.into_iter().map(|(at, sums)| Period {
            from_ms: (at * unit_ms).saturating_sub(MONDAY_MS),
            messages: sums.messages,
            readers: sums.readers,
        });
        Some(Timeline { first_sent_at_ms, newest_sent_at_ms, period_ms: unit_ms, periods: periods.collect() })
    }
}

/// Returns the first period that has a message beyond the first `skipped` ones.
fn edge<'a>(mut periods: impl Iterator<Item = (&'a u64, &'a Sums)>, skipped: u64) -> Option<u64> {
    let mut seen = 0;
    periods.find_map(|(at, sums)| {
        seen += sums.messages;
        (seen > skipped).then_some(*at)
    })
}

/// Reads by weekday and hour, UTC.
pub(super) struct Week([[u64; 24]; 7]);

impl Week {
    pub(super) fn new() -> Self {
        Self([[0; 24]; 7])
    }

    pub(super) fn read(&mut self, read_at_ms: u64) {
        let hour = (read_at_ms + MONDAY_MS) / HOUR_MS;
        self.0[(hour / 24 % 7) as usize][(hour % 24) as usize] += 1;
    }

    pub(super) fn finish(self) -> Vec<Weekday> {
        (1..).zip(self.0).map(|(weekday, reads)| Weekday { weekday, reads: reads.to_vec() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30, a Monday, 00:00 UTC.
    const MONDAY: u64 = 1_795_996_800_000;

    fn timeline(sent_at_ms: impl Iterator<Item = u64>) -> Timeline {
        let mut sends = Sends::new();
        sent_at_ms.for_each(|ms| sends.message(ms, None));
        sends.finish().unwrap()
    }

    #[test]
    fn periods_grow_with_the_history() {
        for (length_ms, period_ms) in [
            (5 * MINUTE_MS, MINUTE_MS),
            (3 * HOUR_MS, HOUR_MS),
            (60 * DAY_MS, DAY_MS),
            (400 * DAY_MS, WEEK_MS),
            (6 * 365 * DAY_MS, 4 * WEEK_MS),
            (50 * 365 * DAY_MS, 52 * WEEK_MS),
        ] {
            let sent = (0..=5_000).map(|n| MONDAY - length_ms / 5_000 * n);
            let got = timeline(sent.clone());
            assert_eq!(got.period_ms, period_ms);
            assert!(got.periods.len() as u64 <= PRINTED_MAX && !got.periods.is_empty());
            // The sums do not depend on how often periods were joined.
            for period in &got.periods {
                let within = sent.clone().filter(|ms| (period.from_ms..period.from_ms + period_ms).contains(ms));
                assert_eq!(period.messages, within.count() as u64, "{period:?}");
            }
        }
    }

    #[test]
    fn a_clock_years_off_does_not_decide_the_period() {
        let sent = (0..1_000).map(|n| MONDAY - n * HOUR_MS).chain([0, receipts_event::TIME_MS_MAX]);
        let got = timeline(sent);
        assert_eq!((got.period_ms, got.first_sent_at_ms), (DAY_MS, 0));
        assert_eq!(got.newest_sent_at_ms, receipts_event::TIME_MS_MAX);
        assert_eq!(got.periods.iter().map(|period| period.messages).sum::<u64>(), 1_002, "none is lost");
    }

    #[test]
    fn memory_is_bounded_for_any_times() {
        let mut sends = Sends::new();
        for n in 0..50_000_u64 {
            sends.message(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11, None);
            assert!(sends.held.len() <= HELD_MAX);
        }
        let periods = sends.finish().unwrap().periods;
        assert_eq!(periods.iter().map(|period| period.messages).sum::<u64>(), 50_000);
    }

    #[test]
    fn weeks_begin_on_monday() {
        let mut week = Week::new();
        week.read(MONDAY);
        week.read(MONDAY - 1);
        week.read(0); // A Thursday.
        let days = week.finish();
        assert_eq!(days.iter().map(|day| day.weekday).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((days[0].reads[0], days[6].reads[23], days[3].reads[0]), (1, 1, 1));
        assert_eq!(days.iter().flat_map(|day| &day.reads).sum::<u64>(), 3);
    }
}
