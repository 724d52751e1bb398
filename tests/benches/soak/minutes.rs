//! The rows of the soak, and the comparison of the last third with the middle third. Measures only
//! the sizes of directories itself.

use crate::drive::Seen;
use crate::load::Usage;
use serde::Serialize;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// By how much the last third may exceed the middle third and still be flat: memory and disk, and
/// times, which other work on the machine disturbs.
const ROOM_MORE: f64 = 1.1;
const TIME_MORE: f64 = 1.5;

/// Bytes on the disk, by allocated blocks.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sizes {
    log_bytes: u64,
    store_bytes: u64,
    snapshots_bytes: u64,
}

impl Sizes {
    pub(crate) fn of(data: &Path, snapshots: &Path) -> Self {
        Self {
            log_bytes: taken(&data.join("log")),
            store_bytes: taken(&data.join("store")),
            snapshots_bytes: taken(snapshots),
        }
    }
}

/// Sums the bytes of a directory; files may vanish meanwhile.
fn taken(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| if found.is_dir() { taken(&path) } else { 512 * found.blocks() })
        .sum()
}

/// The figures of one minute. Times are in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Minute {
    minute: u64,
    events_per_s: f64,
    resident_bytes: u64,
    cpu_percent: f64,
    #[serde(flatten)]
    sizes: Sizes,
    log_bytes_per_event: f64,
    post_p50_us: u32,
    post_p99_us: u32,
    queries: usize,
    query_p50_us: u32,
    query_p99_us: u32,
    lag_p50_us: u32,
    lag_p99_us: u32,
    streamed_p99_us: u32,
    updates: u64,
    pub(crate) errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
}

fn quantile(sorted: &[u32], quantile: f64) -> u32 {
    sorted.get(((sorted.len() as f64 - 1.0) * quantile) as usize).copied().unwrap_or_default()
}

impl Minute {
    pub(crate) const HEAD: &str = "\
| minute | events/s | CPU | memory | log | B an event | store | snapshots | post p50 | p99 | query p50 | p99 | lag p50 | p99 | stream p99 | errors |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

    pub(crate) fn new(
        minute: u64,
        took: Duration,
        mut seen: Seen,
        usage: Usage,
        cpu: Duration,
        before: &Sizes,
        sizes: Sizes,
    ) -> Self {
        for times in [&mut seen.posts, &mut seen.queries, &mut seen.lags, &mut seen.streamed] {
            times.sort_unstable();
        }
        Self {
            minute,
            events_per_s: seen.events as f64 / took.as_secs_f64(),
            resident_bytes: usage.resident_bytes,
            cpu_percent: 100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
            log_bytes_per_event: sizes.log_bytes.saturating_sub(before.log_bytes) as f64 / seen.events.max(1) as f64,
            sizes,
            post_p50_us: quantile(&seen.posts, 0.5),
            post_p99_us: quantile(&seen.posts, 0.99),
            queries: seen.queries.len(),
            query_p50_us: quantile(&seen.queries, 0.5),
            query_p99_us: quantile(&seen.queries, 0.99),
            lag_p50_us: quantile(&seen.lags, 0.5),
            lag_p99_us: quantile(&seen.lags, 0.99),
            streamed_p99_us: quantile(&seen.streamed, 0.99),
            updates: seen.updates,
            errors: seen.errors,
            first_error: seen.first_error,
        }
    }

    /// A row of the table, followed by the first error.
    pub(crate) fn line(&self) -> String {
        let megabytes = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
        let ms = |us: u32| format!("{:.1} ms", f64::from(us) / 1e3);
        let cells = [
            self.minute.to_string(),
            format!("{:.0}", self.events_per_s),
            format!("{:.0} %", self.cpu_percent),
            megabytes(self.resident_bytes),
            megabytes(self.sizes.log_bytes),
            format!("{:.0}", self.log_bytes_per_event),
            megabytes(self.sizes.store_bytes),
            megabytes(self.sizes.snapshots_bytes),
            ms(self.post_p50_us),
            ms(self.post_p99_us),
            ms(self.query_p50_us),
            ms(self.query_p99_us),
            ms(self.lag_p50_us),
            ms(self.lag_p99_us),
            ms(self.streamed_p99_us),
            self.errors.to_string(),
        ];
        let error = self.first_error.as_ref().map(|error| format!("\n  {error}")).unwrap_or_default();
        format!("| {} |{error}", cells.join(" | "))
    }
}

/// The verdict about one figure.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    what: &'static str,
    /// Medians over the minutes of the middle third and of the last third.
    middle: f64,
    last: f64,
    at_most: f64,
    pub(crate) is_flat: bool,
}

impl Verdict {
    pub(crate) fn sentence(&self) -> String {
        let Self { what, middle, last, at_most, is_flat } = self;
        let word = if *is_flat { "flat" } else { "NOT flat" };
        format!(
            "{what}: {word}: the last third {last:.1}, the middle third {middle:.1}, times {:.2}, at most {at_most}",
            last / middle
        )
    }
}

/// Compares the last third with the middle third, figure by figure. Returns nothing for fewer than
/// three minutes.
pub(crate) fn verdicts(rows: &[Minute]) -> Vec<Verdict> {
    let third = rows.len() / 3;
    if third == 0 {
        return Vec::new();
    }
    let (before, last) = rows.split_at(rows.len() - third);
    let middle = &before[before.len() - third..];
    let median = |rows: &[Minute], figure: &dyn Fn(&Minute) -> f64| {
        let mut figures: Vec<f64> = rows.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let verdict = |what, at_most, figure: &dyn Fn(&Minute) -> f64| {
        let (middle, last) = (median(middle, figure), median(last, figure));
        Verdict { what, middle, last, at_most, is_flat: last <= at_most * middle }
    };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let ms = |us: u32| f64::from(us) / 1e3;
    vec![
        verdict("resident memory, MB", ROOM_MORE, &|row| megabytes(row.resident_bytes)),
        verdict("the store, MB", ROOM_MORE, &|row| megabytes(row.sizes.store_bytes)),
        verdict("the snapshots, MB", ROOM_MORE, &|row| megabytes(row.sizes.snapshots_bytes)),
        verdict("the log, bytes an event", ROOM_MORE, &|row| row.log_bytes_per_event),
        verdict("processor time, % of one", TIME_MORE, &|row| row.cpu_percent),
        verdict("posts, p99 in ms", TIME_MORE, &|row| ms(row.post_p99_us)),
        verdict("queries, p50 in ms", TIME_MORE, &|row| ms(row.query_p50_us)),
        verdict("queries, p99 in ms", TIME_MORE, &|row| ms(row.query_p99_us)),
        verdict("log to answer, p99 in ms", TIME_MORE, &|row| ms(row.lag_p99_us)),
        verdict("log to stream, p99 in ms", TIME_MORE, &|row| ms(row.streamed_p99_us)),
    ]
}
