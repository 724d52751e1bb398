//! The plot of sends and read rates over time: its periods, bars, lines and axes. Knows no other
//! plot.

use super::super::{Stats, Timeline};
use super::plots::{Bar, Tick};
use super::text::{grouped, percent, time};

const DAY_MS: u64 = 86_400_000;
/// The maximum number of periods that the time axis draws.
const PERIODS_MAX: u64 = 130;

/// Messages and read rates over time.
pub(super) struct Course {
    pub(super) unit: String,
    /// True for a history of few periods, which needs little room.
    pub(super) is_short: bool,
    pub(super) bars: Vec<Bar>,
    pub(super) messages_ticks: Vec<Tick>,
    /// Lines of the read rate; a period without an audience divides them.
    pub(super) rates: Vec<String>,
    /// Periods with a rate and none beside them, as points.
    pub(super) lone: Vec<(f64, f64)>,
    pub(super) ticks: Vec<Tick>,
    /// Messages sent before or after the drawn periods.
    pub(super) undrawn: u64,
    pub(super) summary: String,
}

/// Returns messages and rates over time. The axis ends with the newest send that is not later than
/// the log.
pub(super) fn course(stats: &Stats, timeline: &Timeline) -> Option<Course> {
    let unit = timeline.period_ms;
    let log_end = stats.newest_timestamp_ms.unwrap_or(u64::MAX);
    let known = || timeline.periods.iter().filter(|period| period.from_ms <= log_end);
    let last = known().next_back().or(timeline.periods.last())?.from_ms;
    let earliest = last.saturating_sub(unit * (PERIODS_MAX - 1));
    let drawn = || timeline.periods.iter().filter(|period| (earliest..=last).contains(&period.from_ms));
    // A single send decades before the others is not drawn.
    let enough = drawn().map(|period| period.messages).sum::<u64>() / 200;
    let mut seen = 0;
    let first = drawn().find(|period| {
        seen += period.messages;
        seen > enough
    });
    let first = first?.from_ms;
    let drawn = || timeline.periods.iter().filter(move |period| (first..=last).contains(&period.from_ms));
    let count = (last - first) / unit + 1;
    let step = 100.0 / count as f64;
    let left = |from_ms: u64| ((from_ms - first) / unit) as f64 * step;
    let name = |from_ms: u64| time(from_ms, if unit < DAY_MS { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d" });
    let greatest = drawn().map(|period| period.messages).max().unwrap_or(0);
    let top = axis_max(greatest);
    let bars = drawn().map(|period| Bar {
        left: left(period.from_ms),
        width: step,
        height: 100.0 * period.messages as f64 / top as f64,
        title: format!(
            "{}: {} messages, {} read",
            name(period.from_ms),
            grouped(period.messages),
            percent(&period.readers.read_percent)
        ),
    });
    let (rates, lone) = lines(drawn().filter_map(|period| {
        let rate = period.readers.read_percent?;
        Some(((period.from_ms - first) / unit, left(period.from_ms) + step / 2.0, 100.0 - rate))
    }));
    let shown = drawn().map(|period| period.messages).sum::<u64>();
    let busiest = drawn().rev().max_by_key(|period| period.messages)?;
    Some(Course {
        unit: unit_name(unit),
        is_short: count <= 5,
        bars: bars.collect(),
        messages_ticks: (0..=2).map(|half| tick(50.0 * half as f64, grouped(top / 2 * half))).collect(),
        rates,
        lone,
        ticks: dates(first, last, unit),
        undrawn: timeline.periods.iter().map(|period| period.messages).sum::<u64>() - shown,
        summary: format!("most on {}: {} messages", name(busiest.from_ms), grouped(busiest.messages)),
    })
}

/// Divides points (number, x, y) into lines of adjacent numbers, and single points.
fn lines(points: impl Iterator<Item = (u64, f64, f64)>) -> (Vec<String>, Vec<(f64, f64)>) {
    let mut runs: Vec<Vec<(u64, f64, f64)>> = Vec::new();
    for point in points {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|(number, ..)| number + 1 == point.0) => run.push(point),
            _ => runs.push(vec![point]),
        }
    }
    let (lone, long): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.len() == 1);
    let line =
        |run: &Vec<(u64, f64, f64)>| run.iter().map(|(_, x, y)| format!("{x:.2},{y:.2}")).collect::<Vec<_>>().join(" ");
    (long.iter().map(line).collect(), lone.into_iter().flatten().map(|(_, x, y)| (x, y)).collect())
}

/// Returns about six dates along an axis of periods.
fn dates(first: u64, last: u64, unit: u64) -> Vec<Tick> {
    let count = (last - first) / unit + 1;
    // Weeks between the marks of days, so that each mark is the same weekday.
    let steps: &[u64] = if unit == DAY_MS { &[1, 7, 14, 28] } else { &[1, 2, 3, 6, 12, 24] };
    let every = steps.iter().copied().find(|every| count.div_ceil(*every) <= 9).unwrap_or(count.div_ceil(6));
    let pattern = match unit {
        0..DAY_MS if last / DAY_MS == first / DAY_MS => "%H:%M",
        0..DAY_MS => "%e %b %H:%M",
        _ if unit * count > 400 * DAY_MS => "%b %Y",
        _ => "%e %b",
    };
    let mark = |number: u64| Tick {
        at: 100.0 * (number as f64 + 0.5) / count as f64,
        label: time(first + number * unit, pattern).trim_start().to_owned(),
        is_minor: number / every % 2 == 1,
    };
    (0..count).step_by(every as usize).map(mark).collect()
}

fn unit_name(unit: u64) -> String {
    match unit {
        60_000 => "minute".to_owned(),
        3_600_000 => "hour".to_owned(),
        DAY_MS => "day".to_owned(),
        604_800_000 => "week".to_owned(),
        _ => format!("{} weeks", unit / 604_800_000),
    }
}

fn tick(at: f64, label: String) -> Tick {
    Tick { at, label, is_minor: false }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn lines_break_where_a_period_has_no_rate() {
        let (lines, lone) =
            lines([(0, 1.0, 2.0), (1, 2.0, 3.0), (3, 4.0, 5.0), (5, 6.0, 7.0), (6, 7.0, 8.0)].into_iter());
        assert_eq!(lines, ["1.00,2.00 2.00,3.00", "6.00,7.00 7.00,8.00"]);
        assert_eq!(lone, [(4.0, 5.0)]);
    }
}
