//! The statistics as one HTML page with plots. It needs no script, no font and no network. The
//! template escapes every text that comes from the log.

use super::{Audience, Conversation, Hour, Share, Stats};
use crate::FoldReport;
use askama::Template;
use chrono::DateTime;
use std::fmt::Display;

/// Drawing area of a plot, in SVG units, inside the margins for ticks and labels.
const LEFT: f64 = 84.0;
const TOP: f64 = 16.0;
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
/// Least distance between two lines of text, in SVG units.
const LINE: f64 = 14.0;

/// Renders the page. `log` is the display name of the log.
///
/// # Errors
/// Never for valid statistics; template formatting returns a `Result`.
pub fn page(stats: &Stats, reports: &[FoldReport], log: &str) -> Result<String, askama::Error> {
    let offsets = reports.iter().map(|report| report.next_offset - report.first_offset).sum();
    let dead: u64 = reports.iter().flat_map(|report| report.dead_letters.values()).sum();
    let first = reports.iter().filter_map(|report| report.first_timestamp_ms).min();
    let shown = Page {
        stats,
        log,
        partitions: reports.len(),
        offsets,
        events: reports.iter().map(|report| report.events).sum(),
        dead_letters: dead,
        first: first.map(time),
        newest: stats.newest_timestamp_ms.map(time),
        since: stats.since_ms.map(time),
        curves: curves(stats),
        time_ticks: time_ticks(stats),
        percent_ticks: [0, 25, 50, 75, 100]
            .map(|percent| Tick { at: height(f64::from(percent), 100.0), label: percent.to_string() }),
        shares: stats.by_audience.iter().enumerate().map(|(row, class)| shares(row, class)).collect(),
        shares_height: 34 * stats.by_audience.len().max(1) + 8,
        hours: hours(stats),
        hour_ticks: hour_ticks(stats),
        conversations: [
            ("Largest conversations", &stats.largest_conversations),
            ("Hottest conversations", &stats.hottest_conversations),
        ],
    };
    shown.render()
}

#[derive(Template)]
#[template(path = "stats.html")]
struct Page<'a> {
    stats: &'a Stats,
    log: &'a str,
    partitions: usize,
    offsets: u64,
    events: u64,
    dead_letters: u64,
    first: Option<String>,
    newest: Option<String>,
    since: Option<String>,
    curves: Vec<Curve>,
    time_ticks: Vec<Tick>,
    percent_ticks: [Tick; 5],
    shares: Vec<Row>,
    shares_height: usize,
    hours: Vec<Bar>,
    hour_ticks: Vec<Tick>,
    conversations: [(&'static str, &'a [Conversation]); 2],
}

/// A tick of an axis.
struct Tick {
    at: f64,
    label: String,
}

/// The share of an audience that had read, over time.
struct Curve {
    number: usize,
    label: String,
    points: String,
    /// Vertical position of the label, beside the end of the curve and one line from other labels.
    label_y: f64,
}

/// A bar of shares that add up to the audience.
struct Row {
    y: usize,
    label: String,
    parts: Vec<Part>,
}

struct Part {
    class: &'static str,
    x: f64,
    width: f64,
    title: String,
}

/// The bar of one hour of the day.
struct Bar {
    x: f64,
    y: f64,
    height: f64,
    title: String,
}

fn height(value: f64, max: f64) -> f64 {
    TOP + HEIGHT * (1.0 - value / max)
}

/// Returns the horizontal position of a time after the send. The axis is logarithmic.
fn along(stats: &Stats, ms: u64) -> f64 {
    let (first, last) = (stats.read_within_ms.first(), stats.read_within_ms.last());
    let [first, last, ms] =
        [first.copied().unwrap_or(1), last.copied().unwrap_or(10), ms].map(|ms| (ms.max(1) as f64).ln());
    LEFT + WIDTH * (ms - first) / (last - first).max(f64::MIN_POSITIVE)
}

fn curves(stats: &Stats) -> Vec<Curve> {
    let curve = |(number, class): (usize, &Audience)| {
        let shares = stats.read_within_ms.iter().zip(&class.time_to_read.read_within_percent);
        let points = shares.map(|(ms, percent)| format!("{:.1},{:.1}", along(stats, *ms), height(*percent, 100.0)));
        let end = class.time_to_read.read_within_percent.last().copied().unwrap_or(0.0);
        let points = points.collect::<Vec<_>>().join(" ");
        Curve { number, label: class.audience.clone(), points, label_y: height(end, 100.0) }
    };
    let mut curves: Vec<Curve> = stats.by_audience.iter().enumerate().map(curve).collect();
    let label_ys = apart(curves.iter().map(|curve| curve.label_y).collect());
    curves.iter_mut().zip(label_ys).for_each(|(curve, y)| curve.label_y = y);
    curves
}

/// Spreads label heights at least one line apart, in their order and within the drawing area.
fn apart(mut ys: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ys.len()).collect();
    order.sort_by(|a, b| ys[*a].total_cmp(&ys[*b]));
    let mut least = TOP;
    for &at in &order {
        ys[at] = ys[at].max(least);
        least = ys[at] + LINE;
    }
    let mut most = TOP + HEIGHT;
    for &at in order.iter().rev() {
        ys[at] = ys[at].min(most);
        most = ys[at] - LINE;
    }
    ys
}

fn time_ticks(stats: &Stats) -> Vec<Tick> {
    stats.read_within_ms.iter().step_by(2).map(|ms| Tick { at: along(stats, *ms), label: duration(*ms) }).collect()
}

fn shares(row: usize, class: &Audience) -> Row {
    let r = &class.readers;
    let mut x = LEFT;
    let parts = [
        ("read", r.read_count),
        ("hidden", r.hidden_count),
        ("unread", r.unread_count),
        ("departed", r.departed_count),
    ];
    let parts = parts.map(|(name, count)| {
        let share = count as f64 / r.audience_count.max(1) as f64;
        let part =
            Part { class: name, x, width: WIDTH * share, title: format!("{name}: {count} ({:.1} %)", 100.0 * share) };
        x += WIDTH * share;
        part
    });
    let parts = parts.into_iter().filter(|part| part.width > 0.0).collect();
    Row { y: 34 * row + 4, label: class.audience.clone(), parts }
}

fn hours(stats: &Stats) -> Vec<Bar> {
    let max = hours_max(stats) as f64;
    let bar = |hour: &Hour| {
        let y = height(hour.reads as f64, max);
        Bar {
            x: LEFT + WIDTH / 24.0 * f64::from(hour.hour) + 2.0,
            y,
            height: TOP + HEIGHT - y,
            title: format!(
                "{:02}:00 to {:02}:59: {} reads by {} people",
                hour.hour, hour.hour, hour.reads, hour.readers
            ),
        }
    };
    stats.by_hour.iter().map(bar).collect()
}

fn hour_ticks(stats: &Stats) -> Vec<Tick> {
    let max = hours_max(stats);
    (0..=4).map(|quarter| Tick { at: height(quarter as f64, 4.0), label: grouped(max / 4 * quarter) }).collect()
}

fn hours_max(stats: &Stats) -> u64 {
    axis_max(stats.by_hour.iter().map(|hour| hour.reads).max().unwrap_or(0))
}

/// Returns the top of an axis with four equal steps: each step is a round number, and the top is at
/// least the greatest value.
fn axis_max(greatest: u64) -> u64 {
    let quarter = greatest.div_ceil(4).max(1);
    // A step is a number of this list times a power of ten.
    let mut unit = 1;
    while quarter > 100 * unit {
        unit *= 10;
    }
    let round = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100];
    4 * round.map(|round| round * unit).into_iter().find(|step| *step >= quarter).unwrap_or(quarter)
}

/// Formats a whole number with thin spaces between groups of three digits.
fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// Formats a percentage for display.
fn percent(share: &Share) -> String {
    share.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1} %"))
}

/// Formats a duration for display, in at most two units.
pub fn duration(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let Some(at) = units.iter().position(|(_, unit)| ms >= *unit) else { return format!("{ms} ms") };
    let (name, unit) = units[at];
    let whole = format!("{} {name}", ms / unit);
    match units.get(at + 1) {
        Some((lower, part)) if ms % unit >= *part => format!("{whole} {} {lower}", ms % unit / part),
        None if ms < 10_000 && ms % unit >= 100 => format!("{}.{} s", ms / unit, ms % unit / 100),
        _ => whole,
    }
}

fn maybe(ms: &Option<u64>) -> String {
    ms.map_or_else(|| "–".to_owned(), duration)
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, wanted) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (2_560, "2.5 s"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h"),
            (90_061_000, "1 d 1 h"),
            (604_800_000, "7 d"),
        ] {
            assert_eq!(duration(ms), wanted);
        }
    }

    #[test]
    fn axis_ends_at_a_round_number_above_the_maximum() {
        for (greatest, wanted) in
            [(0, 4), (4, 4), (5, 8), (23, 24), (100, 100), (101, 120), (20_090, 24_000), (400_000, 400_000)]
        {
            assert_eq!(axis_max(greatest), wanted, "{greatest}");
        }
        assert!((1..100_000).all(|greatest| (greatest..=(2 * greatest).max(4)).contains(&axis_max(greatest))));
    }

    #[test]
    fn labels_of_curves_that_end_together_stand_apart() {
        assert_eq!(apart(vec![100.0, 50.0]), [100.0, 50.0]);
        assert_eq!(apart(vec![100.0, 100.0, 95.0]), [109.0, 123.0, 95.0]);
        assert_eq!(apart(vec![256.0, 256.0]), [242.0, 256.0], "the lowest stays within the drawing");
    }

    #[test]
    fn thousands_are_separated_by_spaces() {
        for (number, wanted) in [(0_u64, "0"), (999, "999"), (1_000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number).replace('\u{202f}', " "), wanted);
        }
    }
}
