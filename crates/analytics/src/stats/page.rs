//! The statistics as one HTML page with plots. It needs no script, no font and no network. The
//! template escapes every text that comes from the log.

mod course;
mod plots;
mod text;

use super::{Conversation, Stats};
use crate::FoldReport;
use askama::Template;
use course::Course;
use plots::{Curve, Map, Named, Part, Span, Stack, Tick};
use std::collections::BTreeMap;
pub use text::duration;
use text::{grouped, maybe, percent, time};

const SECOND: &str = "%Y-%m-%d %H:%M:%S UTC";
const MINUTE: &str = "%Y-%m-%d %H:%M UTC";
const DAY: &str = "%Y-%m-%d";

/// Renders the page. `log` is the display name of the log.
///
/// # Errors
/// Never for valid statistics; template formatting returns a `Result`.
pub fn page(stats: &Stats, reports: &[FoldReport], log: &str) -> Result<String, askama::Error> {
    let mut dead_letters = BTreeMap::<&str, u64>::new();
    for (reason, count) in reports.iter().flat_map(|report| &report.dead_letters) {
        *dead_letters.entry(reason).or_default() += count;
    }
    let sent = stats.timeline.as_ref().map(|timeline| {
        let (first, newest) = (timeline.first_sent_at_ms, timeline.newest_sent_at_ms);
        let pattern = if newest - first < super::DAY_MS { MINUTE } else { DAY };
        (time(first, pattern), time(newest, pattern))
    });
    let (spans, span_ticks) = plots::spans(stats);
    let first = reports.iter().filter_map(|report| report.first_timestamp_ms).min();
    let shown = Page {
        stats,
        log,
        sent,
        newest: stats.newest_timestamp_ms.map(|ms| time(ms, MINUTE)),
        since: stats.since_ms.map(|ms| time(ms, SECOND)),
        course: stats.timeline.as_ref().and_then(|timeline| course::course(stats, timeline)),
        after: plots::after(stats),
        curves: plots::curves(stats),
        curve_ticks: plots::curve_ticks(stats),
        spans,
        span_ticks,
        audiences: plots::by_audience(stats),
        names: [
            ("By tenant", "tenant", plots::named(&stats.by_tenant)),
            ("By group type", "group type", plots::named(&stats.by_group_type)),
        ],
        map: plots::map(stats),
        conversations: [
            ("Largest conversations", "by members at the end", &stats.largest_conversations),
            ("Hottest conversations", "by messages and reads together", &stats.hottest_conversations),
        ],
        partitions: reports.len(),
        offsets: reports.iter().map(|report| report.next_offset - report.first_offset).sum(),
        events: reports.iter().map(|report| report.events).sum(),
        dead_letters,
        records: first.zip(stats.newest_timestamp_ms).map(|(from, to)| (time(from, SECOND), time(to, SECOND))),
    };
    shown.render()
}

#[derive(Template)]
#[template(path = "stats.html")]
struct Page<'a> {
    stats: &'a Stats,
    log: &'a str,
    sent: Option<(String, String)>,
    newest: Option<String>,
    since: Option<String>,
    course: Option<Course>,
    after: Vec<Part>,
    curves: Vec<Curve>,
    curve_ticks: Vec<Tick>,
    spans: Vec<Span>,
    span_ticks: Vec<Tick>,
    audiences: Vec<Stack>,
    names: [(&'static str, &'static str, Vec<Named>); 2],
    map: Map,
    conversations: [(&'static str, &'static str, &'a [Conversation]); 2],
    partitions: usize,
    offsets: u64,
    events: u64,
    dead_letters: BTreeMap<&'a str, u64>,
    records: Option<(String, String)>,
}
