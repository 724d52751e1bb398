//! The geometry of the page's plots, in percent of their width and height, so that they fit any
//! screen. Knows no colour: a class of the style sheet has it.

use super::super::{Audience, Groups, Readers, Stats};
use super::text::{duration, grouped, percent, short};

/// Least distance between two labels at the ends of curves, percent of the plot's height.
const LINE: f64 = 7.5;
/// The steps of the map of reads: 0 for none, then equal parts up to the busiest hour.
const STEPS: u64 = 6;
const DAY_MS: u64 = 86_400_000;
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A mark on an axis.
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
    /// Left out on narrow screens.
    pub(super) is_minor: bool,
}

/// A bar that stands on a horizontal axis.
pub(super) struct Bar {
    pub(super) left: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) title: String,
}

/// A bar of shares that add up to a whole.
pub(super) struct Stack {
    pub(super) class: String,
    pub(super) label: String,
    pub(super) note: String,
    pub(super) parts: Vec<Part>,
}

/// A share of a bar.
pub(super) struct Part {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) percent: f64,
    pub(super) count: u64,
}

impl Part {
    /// The share with one decimal, as text.
    pub(super) fn share(&self) -> String {
        format!("{:.1} %", self.percent)
    }
}

fn parts(whole: u64, counts: &[(&'static str, &'static str, u64)]) -> Vec<Part> {
    let part = |&(class, name, count): &(&'static str, &'static str, u64)| Part {
        class,
        name,
        percent: 100.0 * count as f64 / whole.max(1) as f64,
        count,
    };
    counts.iter().filter(|(.., count)| *count > 0).map(part).collect()
}

fn shares(of: &Readers) -> Vec<Part> {
    parts(
        of.audience_count,
        &[
            ("read", "read", of.read_count),
            ("hidden", "read hidden", of.hidden_count),
            ("unread", "unread", of.unread_count),
            ("departed", "left without reading", of.departed_count),
        ],
    )
}

/// Returns audiences 24 hours after the send.
pub(super) fn after(stats: &Stats) -> Vec<Part> {
    let of = &stats.after_24_hours;
    parts(
        of.audience_count,
        &[
            ("read", "read within 24 hours", of.read_within_count),
            ("later", "read later", of.read_later_count),
            ("untimed", "read at an unknown time", of.read_untimed_count),
            ("hidden", "read hidden, at any time", of.hidden_count),
            ("unread", "still unread", of.unread_count),
            ("departed", "left without reading", of.departed_count),
        ],
    )
}

/// Returns the style class of an audience's size. It depends on the size alone, so that a colour
/// means the same in every report.
pub(super) fn audience_class(of: &Audience) -> String {
    let rank = of.audience_min.max(1).ilog10() + u32::from(of.audience_min > 1);
    format!("a{rank}")
}

fn audience_label(of: &Audience) -> String {
    match of.audience_max {
        Some(max) if max == of.audience_min => grouped(max),
        Some(max) => format!("{}–{}", grouped(of.audience_min), grouped(max)),
        None => format!("over {}", grouped(of.audience_min.saturating_sub(1))),
    }
}

/// Returns who read, by size of the audience.
pub(super) fn by_audience(stats: &Stats) -> Vec<Stack> {
    let row = |of: &Audience| Stack {
        class: audience_class(of),
        label: audience_label(of),
        note: format!("{} messages", grouped(of.messages)),
        parts: shares(&of.readers),
    };
    stats.by_audience.iter().map(row).collect()
}

/// The share of an audience that had read, over time.
pub(super) struct Curve {
    pub(super) class: String,
    pub(super) label: String,
    pub(super) points: String,
    /// Height of the label, beside the end of the curve and one line from other labels.
    pub(super) label_y: f64,
}

pub(super) fn curves(stats: &Stats) -> Vec<Curve> {
    let axis = Log::of(&stats.read_within_ms);
    let curve = |of: &Audience| {
        let shares = stats.read_within_ms.iter().zip(&of.time_to_read.read_within_percent);
        let points = shares.map(|(ms, percent)| format!("{:.2},{:.2}", axis.at(*ms), 100.0 - percent));
        let end = of.time_to_read.read_within_percent.last().copied().unwrap_or(0.0);
        Curve {
            class: audience_class(of),
            label: audience_label(of),
            points: points.collect::<Vec<_>>().join(" "),
            label_y: 100.0 - end,
        }
    };
    let mut curves: Vec<Curve> = stats.by_audience.iter().map(curve).collect();
    let label_ys = apart(curves.iter().map(|curve| curve.label_y).collect());
    curves.iter_mut().zip(label_ys).for_each(|(curve, y)| curve.label_y = y);
    curves
}

pub(super) fn curve_ticks(stats: &Stats) -> Vec<Tick> {
    let axis = Log::of(&stats.read_within_ms);
    let ticks = stats.read_within_ms.iter().enumerate().step_by(2);
    ticks.map(|(at, ms)| Tick { at: axis.at(*ms), label: duration(*ms), is_minor: at / 2 % 2 == 1 }).collect()
}

/// Spreads label heights at least one line apart, in their order and within the drawing area.
fn apart(mut ys: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ys.len()).collect();
    order.sort_by(|a, b| ys[*a].total_cmp(&ys[*b]));
    let mut least = 0.0_f64;
    for &at in &order {
        ys[at] = ys[at].max(least);
        least = ys[at] + LINE;
    }
    let mut most = 100.0_f64;
    for &at in order.iter().rev() {
        ys[at] = ys[at].min(most);
        most = ys[at] - LINE;
    }
    ys
}

/// A logarithmic axis of lengths of time.
struct Log {
    first: f64,
    last: f64,
}

impl Log {
    /// The axis between the first and the last of these milliseconds.
    fn of(ms: &[u64]) -> Self {
        let [first, last] = [ms.first(), ms.last()].map(|ms| (ms.copied().unwrap_or(1).max(1) as f64).ln());
        Self { first, last }
    }

    fn at(&self, ms: u64) -> f64 {
        let span = (self.last - self.first).max(f64::MIN_POSITIVE);
        (100.0 * ((ms.max(1) as f64).ln() - self.first) / span).clamp(0.0, 100.0)
    }
}

/// The quantiles of the time to read of one size of audience.
pub(super) struct Span {
    pub(super) class: String,
    pub(super) label: String,
    /// Median, 90th and 99th percentile: where they lie, and the length of time.
    pub(super) marks: [(f64, String); 3],
}

/// Returns the quantiles by size of the audience, and the marks of their axis.
pub(super) fn spans(stats: &Stats) -> (Vec<Span>, Vec<Tick>) {
    let marks = [1_000, 10_000, 60_000, 600_000, 3_600_000, 21_600_000, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 365 * DAY_MS];
    let timed = || stats.by_audience.iter().filter(|of| of.time_to_read.reads > 0);
    let least = timed().filter_map(|of| of.time_to_read.p50_ms).min().unwrap_or(1);
    let greatest = timed().filter_map(|of| of.time_to_read.p99_ms).max().unwrap_or(1);
    let first = marks.iter().copied().rfind(|ms| *ms <= least).unwrap_or(marks[0]);
    let last = marks.iter().copied().find(|ms| *ms >= greatest.max(first + 1)).unwrap_or(greatest);
    let axis = Log::of(&[first, last]);
    let span = |of: &Audience| {
        let took = &of.time_to_read;
        Span {
            class: audience_class(of),
            label: audience_label(of),
            marks: [took.p50_ms, took.p90_ms, took.p99_ms].map(|ms| {
                let ms = ms.unwrap_or_default();
                (axis.at(ms), duration(ms))
            }),
        }
    };
    let within = marks.into_iter().filter(|ms| (first..=last).contains(ms));
    let ticks = within.enumerate().map(|(at, ms)| Tick { at: axis.at(ms), label: duration(ms), is_minor: at % 2 == 1 });
    (timed().map(span).collect(), ticks.collect())
}

/// Messages and read rate of one name.
pub(super) struct Named {
    pub(super) name: String,
    /// True for the others, whose name is ours and who have no bar of messages.
    pub(super) is_rest: bool,
    pub(super) messages: u64,
    pub(super) messages_width: f64,
    pub(super) rate: Option<f64>,
}

impl Named {
    pub(super) fn percent(&self) -> String {
        percent(&self.rate)
    }
}

pub(super) fn named(of: &Groups) -> Vec<Named> {
    // The others are many names in one row: beside their bar those of single names would be
    // nothing.
    let most = of.largest.iter().map(|row| row.messages).max().unwrap_or(0).max(1);
    let row = |name: String, messages: u64, readers: &Readers, is_rest| Named {
        name,
        is_rest,
        messages,
        messages_width: 100.0 * messages as f64 / most as f64,
        rate: readers.read_percent,
    };
    let mut rows: Vec<Named> =
        of.largest.iter().map(|of| row(of.name.clone(), of.messages, &of.readers, false)).collect();
    if of.others > 0 {
        rows.push(row(format!("{} others", grouped(of.others)), of.others_messages, &of.others_readers, true));
    }
    rows
}

/// One weekday of the map of reads.
pub(super) struct Day {
    pub(super) name: &'static str,
    pub(super) cells: Vec<Cell>,
    pub(super) total: String,
}

/// One hour of the map of reads.
pub(super) struct Cell {
    /// 0 without a read, then 1 to 6.
    pub(super) step: u64,
    pub(super) label: String,
    pub(super) title: String,
}

/// The map of reads by weekday and hour.
pub(super) struct Map {
    pub(super) days: Vec<Day>,
    /// Hours over all days: heights and distinct readers.
    pub(super) hours: Vec<Bar>,
    pub(super) most: u64,
    pub(super) busiest: String,
}

pub(super) fn map(stats: &Stats) -> Map {
    let most = stats.by_weekday.iter().flat_map(|day| &day.reads).copied().max().unwrap_or(0);
    let name = |weekday: u8| WEEKDAYS[usize::from(weekday - 1) % 7];
    let days = stats.by_weekday.iter().map(|day| Day {
        name: name(day.weekday),
        total: short(day.reads.iter().sum()),
        cells: (0..)
            .zip(&day.reads)
            .map(|(hour, reads): (u8, &u64)| Cell {
                step: (*reads * STEPS).div_ceil(most.max(1)),
                label: if *reads > 0 { short(*reads) } else { String::new() },
                title: format!("{} {hour:02}:00: {} reads", name(day.weekday), grouped(*reads)),
            })
            .collect(),
    });
    let busiest = stats.by_weekday.iter().flat_map(|day| (0_u8..).zip(&day.reads).map(move |at| (day.weekday, at)));
    let busiest = busiest.filter(|(_, (_, reads))| **reads > 0).max_by_key(|(_, (_, reads))| **reads);
    let hours_most = stats.by_hour.iter().map(|hour| hour.reads).max().unwrap_or(0).max(1);
    let hours = stats.by_hour.iter().map(|hour| Bar {
        left: 0.0,
        width: 0.0,
        height: 100.0 * hour.reads as f64 / hours_most as f64,
        title: format!("{:02}:00: {} reads by {} people", hour.hour, grouped(hour.reads), grouped(hour.readers)),
    });
    Map {
        days: days.collect(),
        hours: hours.collect(),
        most,
        busiest: busiest.map_or_else(String::new, |(weekday, (hour, reads))| {
            format!("busiest: {} from {hour:02}:00, {} reads", name(weekday), grouped(*reads))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_curves_that_end_together_stand_apart() {
        assert_eq!(apart(vec![60.0, 20.0]), [60.0, 20.0]);
        assert_eq!(apart(vec![50.0, 50.0, 45.0]), [52.5, 60.0, 45.0]);
        assert_eq!(apart(vec![100.0, 100.0]), [92.5, 100.0], "the lowest stays within the drawing");
    }

    #[test]
    fn class_of_an_audience_depends_on_its_size_alone() {
        let of = |audience_min| Audience {
            audience: String::new(),
            audience_min,
            audience_max: None,
            messages: 0,
            readers: Readers::default(),
            time_to_read: Default::default(),
        };
        let classes = [1, 2, 11, 101, 1_001].map(|min| audience_class(&of(min)));
        assert_eq!(classes, ["a0", "a1", "a2", "a3", "a4"]);
    }
}
