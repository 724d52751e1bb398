//! Times to read by size of the audience, and readers by hour of the day, in sketches of fixed
//! size.

use super::figures::TimeToRead;
use super::{Audience, Hour, Readers};
use datasketches::hll::{HllSketch, HllType};
use hdrhistogram::Histogram;
use receipts_event::TIME_MS_MAX;
use receipts_fold::view::Counts;

/// The largest audience of each class; the last class is unbounded.
const CLASSES: [u32; 5] = [1, 10, 100, 1_000, u32::MAX];
/// Significant digits: quantiles are within one part in a thousand of a recorded value.
const DIGITS: u8 = 3;
/// 2^12 registers: 4 KiB per hour, and a standard error of 1.6 %.
const LG_REGISTERS: u8 = 12;
const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;
/// The times after the send for which shares are printed.
const WITHIN_MS: [u64; 13] = [
    1_000,
    5_000,
    15_000,
    MINUTE_MS,
    5 * MINUTE_MS,
    15 * MINUTE_MS,
    HOUR_MS,
    3 * HOUR_MS,
    6 * HOUR_MS,
    12 * HOUR_MS,
    24 * HOUR_MS,
    72 * HOUR_MS,
    168 * HOUR_MS,
];

struct Class {
    messages: u64,
    readers: Readers,
    took: Histogram<u64>,
}

/// Messages by the size of their audience. About 2 MB, and a fifth more at the end.
pub(super) struct Sizes([Class; CLASSES.len()]);

fn class_of(audience_count: u32) -> usize {
    CLASSES.partition_point(|max| *max < audience_count)
}

impl Sizes {
    pub(super) fn new() -> Self {
        Self(CLASSES.map(|_| Class {
            messages: 0,
            readers: Readers::default(),
            took: Histogram::new_with_max(TIME_MS_MAX, DIGITS).expect("bounds that the histogram takes"),
        }))
    }

    /// Adds a message. A message with an empty audience belongs to no class.
    pub(super) fn message(&mut self, counts: &Counts) {
        if counts.audience_count > 0 {
            let class = &mut self.0[class_of(counts.audience_count)];
            class.messages += 1;
            class.readers.add(counts);
        }
    }

    /// Adds a read of a message with these counts, `took_ms` after the send.
    pub(super) fn read(&mut self, counts: &Counts, took_ms: u64) {
        self.0[class_of(counts.audience_count)].took.saturating_record(took_ms);
    }

    /// Returns the classes that have messages, the times to read of all classes together, and the
    /// times of the shares.
    pub(super) fn finish(self) -> (Vec<Audience>, TimeToRead, Vec<u64>) {
        let mut all = Histogram::new_with_max(TIME_MS_MAX, DIGITS).expect("bounds that the histogram takes");
        self.0.iter().for_each(|class| all.add(&class.took).expect("histograms of the same bounds"));
        let audience_count = self.0.iter().map(|class| class.readers.audience_count).sum();
        let all = time_to_read(&all, audience_count);
        let mut smallest = 1;
        let classes = self.0.into_iter().zip(CLASSES).map(|(class, largest)| {
            let audience_min = smallest;
            smallest = largest.saturating_add(1);
            Audience {
                audience: match (audience_min, largest) {
                    (min, u32::MAX) => format!("{min}+"),
                    (min, max) if min == max => min.to_string(),
                    (min, max) => format!("{min}-{max}"),
                },
                audience_min,
                audience_max: (largest < u32::MAX).then_some(largest),
                messages: class.messages,
                readers: class.readers,
                time_to_read: time_to_read(&class.took, class.readers.audience_count),
            }
        });
        (classes.filter(|class| class.messages > 0).collect(), all, WITHIN_MS.to_vec())
    }
}

/// Returns the figures of a histogram of times from send to read.
fn time_to_read(took: &Histogram<u64>, audience_count: u64) -> TimeToRead {
    let quantile = |quantile| (!took.is_empty()).then(|| took.value_at_quantile(quantile).min(took.max()));
    let read = WITHIN_MS.iter().map(|ms| took.count_between(0, *ms));
    TimeToRead {
        reads: took.len(),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        read_within_percent: TimeToRead::shares(read, audience_count),
    }
}

/// Reads by hour of the day, UTC.
pub(super) struct Hours(Vec<(u64, HllSketch)>);

impl Hours {
    pub(super) fn new() -> Self {
        let sketch = || HllSketch::new(LG_REGISTERS, HllType::Hll8).expect("a size that the sketch takes");
        Self((0..24).map(|_| (0, sketch())).collect())
    }

    pub(super) fn read(&mut self, read_at_ms: u64, tenant: &str, reader_id: &str) {
        let (reads, readers) = &mut self.0[(read_at_ms / HOUR_MS % 24) as usize];
        *reads += 1;
        readers.update((tenant, reader_id));
    }

    pub(super) fn finish(self) -> Vec<Hour> {
        let hours = (0..).zip(self.0);
        hours.map(|(hour, (reads, readers))| Hour { hour, reads, readers: readers.estimate().round() as u64 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(audience_count: u32, read_count: u32) -> Counts {
        let unread_count = audience_count - read_count;
        Counts {
            audience_count,
            read_count,
            unread_count,
            hidden_count: 0,
            departed_count: 0,
            all_read: unread_count == 0,
        }
    }

    #[test]
    fn quantiles_are_within_a_thousandth_of_the_exact_ones() {
        let mut sizes = Sizes::new();
        let mut took: Vec<u64> = (0..20_000_u64).map(|n| n * n % 1_999_993 * 977).collect();
        let of = counts(200, 200);
        sizes.message(&of);
        took.iter().for_each(|ms| sizes.read(&of, *ms));
        took.sort_unstable();
        let (classes, all, _) = sizes.finish();
        assert_eq!(all, classes[0].time_to_read, "there is no other class");
        assert_eq!((classes.len(), classes[0].audience.as_str()), (1, "101-1000"));
        let times = &classes[0].time_to_read;
        for (estimate, quantile) in [(times.p50_ms, 0.5), (times.p90_ms, 0.9), (times.p99_ms, 0.99)] {
            let exact = took[(took.len() as f64 * quantile) as usize - 1] as f64;
            let estimate = estimate.unwrap() as f64;
            assert!((estimate - exact).abs() <= exact / 500.0, "{quantile}: {estimate} instead of {exact}");
        }
    }

    #[test]
    fn audience_classes_and_hours_have_exact_borders() {
        assert_eq!([1, 2, 10, 11, 1_000, 1_001, u32::MAX].map(class_of), [0, 1, 1, 2, 3, 4, 4]);
        let mut hours = Hours::new();
        for (ms, reader) in [(0, "a"), (HOUR_MS - 1, "b"), (HOUR_MS, "a"), (25 * HOUR_MS, "a"), (24 * HOUR_MS, "b")] {
            hours.read(ms, "t", reader);
        }
        let finished = hours.finish();
        assert_eq!((finished[0].reads, finished[0].readers), (3, 2));
        assert_eq!((finished[1].reads, finished[1].readers), (2, 1));
        assert_eq!(finished[23], Hour { hour: 23, reads: 0, readers: 0 });
    }

    #[test]
    fn many_readers_are_estimated_within_a_few_percent() {
        let mut hours = Hours::new();
        (0..50_000).for_each(|n| hours.read(5 * HOUR_MS, "t", &format!("u{}", n % 20_000)));
        let hour = hours.finish()[5];
        assert_eq!(hour.reads, 50_000);
        assert!((19_000..21_000).contains(&hour.readers), "{hour:?}");
    }
}
