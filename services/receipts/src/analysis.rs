//! The parts that the analysts' commands share: the range of the log to fold, the progress display,
//! and the summary at the end. Must not know any command's question.

use anyhow::anyhow;
use chrono::DateTime;
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use receipts_analytics::{Error, FoldReport, ProgressMonitor, Scratch, Span, UpTo, offset_at, span};
use receipts_assembly::LogIdentity;
use receipts_event::TIME_MS_MAX;
use receipts_log::{Inspect, Topic};
use receipts_query::{LogTag, Positions, Token};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_snapshots::Snapshots;
use std::collections::BTreeSet;
use std::fmt;
use std::io::IsTerminal as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LOG_INTERVAL_MS: u64 = 5_000;

/// The memory that a fold may take.
#[derive(Args, Clone)]
pub(crate) struct Memory {
    /// Memory for the pages of one partition, MiB; further pages go to a temporary directory
    #[arg(long, global = true, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    memory_mb: u32,
}

impl Memory {
    pub(crate) fn bytes(&self) -> usize {
        (self.memory_mb as usize) << 20
    }

    /// Returns the settings for folding states in a temporary directory, with the log's snapshots
    /// if the settings name their destination.
    pub(crate) fn scratch(&self, settings: &Settings, log: &LogIdentity) -> Result<Scratch, Failure> {
        Ok(Scratch {
            limits: receipts_assembly::fold_limits(settings),
            memory_bytes: self.bytes(),
            snapshots: receipts_assembly::snapshot_destination(settings)?.map(|at| Snapshots::new(at, log.name())),
        })
    }
}

/// The prefix of the log to fold.
#[derive(Args, Clone)]
pub(crate) struct Prefix {
    /// Folds up to a time: RFC 3339 (2026-05-28T20:26:40Z) or Unix milliseconds.
    ///
    /// Each partition is folded up to its first record with a later timestamp.
    #[arg(long, global = true, value_name = "TIME", value_parser = time, conflicts_with = "position")]
    as_of: Option<u64>,
    /// Folds up to a position: the token of an answer (Receipts-Position), or PARTITION:OFFSET,…
    ///
    /// Each offset is the first one that is not folded. Partitions that the position does not name
    /// are not folded.
    #[arg(long, global = true, value_name = "POSITION", value_parser = position)]
    position: Option<Position>,
    #[command(flatten)]
    pub(crate) memory: Memory,
}

impl Prefix {
    /// Finds the ranges of partitions that belong to the prefix.
    pub(crate) fn spans(
        &self,
        log: &dyn Inspect,
        partitions: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<Span>, Failure> {
        let position = self.position.as_ref().map(|position| position.of(log, "--position")).transpose()?;
        let up_to = |partition| match (position, self.as_of) {
            (Some(position), _) => UpTo::Offset(position.next_offset(partition)),
            (None, Some(ms)) => UpTo::Time(ms),
            (None, None) => UpTo::End,
        };
        let spans: Result<Vec<Span>, Error> =
            partitions.into_iter().map(|partition| span(log, partition, up_to(partition))).collect();
        Ok(spans?)
    }

    /// Finds the first offset of a range that the summary covers: for a time, the first record with
    /// that timestamp or a later one.
    pub(crate) fn start_in(&self, log: &dyn Inspect, start: &Start, span: &Span) -> Result<u64, Failure> {
        let Span { partition, end_offset, .. } = *span;
        match start {
            Start::Time(ms) => Ok(offset_at(log, partition, *ms)?.min(end_offset)),
            Start::Position(position) => {
                let from_offset = position.of(log, "--from")?.next_offset(partition);
                if from_offset > end_offset {
                    return Err(Failure::usage(format!(
                        "--from begins partition {partition} at offset {from_offset}, but the fold of it ends at {end_offset}"
                    )));
                }
                Ok(from_offset)
            }
        }
    }

    /// Returns whether the prefix ends before a time, for any log.
    pub(crate) fn ends_before(&self, start: &Start) -> bool {
        matches!((start, self.as_of), (Start::Time(start), Some(as_of)) if *start > as_of)
    }
}

/// The beginning of a summary.
#[derive(Clone)]
pub(crate) enum Start {
    /// The first record of each partition with this timestamp or a later one, Unix milliseconds.
    Time(u64),
    /// The offset of each partition; partitions that it does not name are covered from their
    /// beginning.
    Position(Position),
}

/// A position that the caller names, and the log that it belongs to, if it says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Position {
    positions: Positions,
    log: Option<LogTag>,
}

impl Position {
    /// Returns the offsets, for this log.
    ///
    /// # Errors
    /// If the position is another log's.
    fn of(&self, log: &dyn Inspect, flag: &str) -> Result<&Positions, Failure> {
        if self.log.zip(log.tag(Topic::Events)).is_some_and(|(named, held)| named != LogTag(held)) {
            return Err(Failure::usage(format!("{flag} is a token of another log: name a position of this one")));
        }
        let count = log.partition_count();
        match self.positions.highest_partition().filter(|highest| *highest >= count) {
            None => Ok(&self.positions),
            Some(highest) => Err(Failure::usage(format!(
                "{flag} names partition {highest}, but the log has {count} partitions: the position is another log's"
            ))),
        }
    }
}

/// Returns the token of the next offsets of a log.
pub(crate) fn token(log: &dyn Inspect, next_offsets: impl IntoIterator<Item = (u32, u64)>) -> String {
    next_offsets.into_iter().collect::<Positions>().token(log.tag(Topic::Events).map(LogTag)).to_string()
}

/// Reads a time or a position.
pub(crate) fn start(text: &str) -> Result<Start, String> {
    let wrong = "is neither a time (RFC 3339 or Unix milliseconds) nor a position (a token or PARTITION:OFFSET,…)";
    time(text).map(Start::Time).or_else(|_| position(text).map(Start::Position)).map_err(|_| wrong.to_owned())
}

/// Reads a token, or offsets by partition.
fn position(text: &str) -> Result<Position, String> {
    if !text.contains(':') {
        let read = text.parse::<Token>().and_then(|token| {
            let log = token.log;
            Ok(Position { log, positions: token.into_positions(log)? })
        });
        return read.map_err(|error| format!("{error}; offsets are written PARTITION:OFFSET,…"));
    }
    let mut seen = BTreeSet::new();
    let entry = |entry: &str| {
        let (partition, offset) = entry.split_once(':')?;
        let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
        seen.insert(partition).then_some((partition, offset))
    };
    let entries: Option<Positions> = text.split(',').map(entry).collect();
    let named = entries.map(|positions| Position { positions, log: None });
    named.ok_or_else(|| "is not PARTITION:OFFSET,… with each partition once".to_owned())
}

/// Reads RFC 3339 or Unix milliseconds.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    let wrong = || format!("is neither RFC 3339 (2026-05-28T20:26:40Z) nor Unix milliseconds from 0 to {TIME_MS_MAX}");
    let ms = match text.parse() {
        Ok(ms) => ms,
        Err(_) => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?;
            u64::try_from(time.timestamp_millis()).map_err(|_| wrong())?
        }
    };
    if ms <= TIME_MS_MAX { Ok(ms) } else { Err(wrong()) }
}

/// Shows the progress of an analysis, as a bar on a terminal and as log lines elsewhere, and stops
/// it on Ctrl-C.
pub(crate) struct Progress {
    stop: CancellationToken,
    begun: Instant,
    read: AtomicU64,
    logged_ms: AtomicU64,
    total: AtomicU64,
    bar: ProgressBar,
    unit: Unit,
}

/// The unit of progress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Offsets of the log.
    Offsets,
    /// Bytes of tables.
    Bytes,
    /// Rows of tables.
    Rows,
    /// Records to write.
    Records,
}

impl Progress {
    fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            begun: Instant::now(),
            read: AtomicU64::new(0),
            logged_ms: AtomicU64::new(0),
            total: AtomicU64::new(0),
            bar: ProgressBar::hidden(),
            unit: Unit::Offsets,
        }
    }

    /// Begins to show progress over a number of offsets.
    pub(crate) fn begin(&mut self, offsets: u64) {
        self.begin_with(Unit::Offsets, offsets);
    }

    /// Begins to show progress over a total.
    pub(crate) fn begin_with(&mut self, unit: Unit, total: u64) {
        self.begun = Instant::now();
        self.unit = unit;
        *self.total.get_mut() = total;
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(match unit {
                Unit::Offsets | Unit::Rows | Unit::Records => {
                    "{wide_bar} {human_pos}/{human_len}, {whole_per_sec}/s, {eta} left"
                }
                Unit::Bytes => "{wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
            });
            let whole_per_sec = |state: &ProgressState, to: &mut dyn fmt::Write| {
                _ = write!(to, "{}", HumanCount(state.per_sec() as u64));
            };
            self.bar = ProgressBar::new(total);
            let style = style.expect("a template that indicatif knows");
            self.bar.set_style(style.with_key("whole_per_sec", whole_per_sec));
            self.bar.enable_steady_tick(BAR_INTERVAL);
        } else {
            match unit {
                Unit::Offsets => tracing::info!(of = total, "reading the log"),
                Unit::Bytes => tracing::info!(of = total, "reading tables"),
                Unit::Rows => tracing::info!(of = total, "comparing rows"),
                Unit::Records => tracing::info!(of = total, "writing records"),
            }
        }
    }

    /// Runs `write`, which prints lines, with the bar hidden.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Clears the bar, and logs a summary of each partition.
    pub(crate) fn end(&self, reports: &[FoldReport]) {
        self.bar.finish_and_clear();
        let rate = self.rate();
        for t in reports {
            let (first, newest) = (t.first_timestamp_ms, t.newest_timestamp_ms);
            tracing::info!(
                partition = t.partition,
                first_offset = t.first_offset,
                from_offset = t.from_offset,
                next_offset = t.next_offset,
                first_timestamp_ms = first,
                newest_timestamp_ms = newest,
                events = t.events,
                dead_letters = ?t.dead_letters,
                "read"
            );
        }
        tracing::info!(offsets = self.read.load(Ordering::Relaxed), offsets_per_s = rate, "done");
    }

    /// Clears the bar without a summary.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Clears the bar. If the operator stopped the analysis, adds the amount read to its error.
    fn ended_early(&self, failure: Failure) -> Failure {
        self.bar.finish_and_clear();
        let Failure::Failed(error) = &failure else { return failure };
        let is_stopped = error.downcast_ref::<Error>().is_some_and(Error::is_stopped)
            || matches!(error.downcast_ref(), Some(receipts_backfill::Error::Stopped));
        if !is_stopped {
            return failure;
        }
        let (read, of) = (self.read.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let what = match self.unit {
            Unit::Offsets => "offsets of the log",
            Unit::Bytes => "bytes of tables",
            Unit::Rows => "rows of tables",
            Unit::Records => "records",
        };
        anyhow!("{error}. It had read {read} of {of} {what}, {} a second", self.rate()).into()
    }

    /// Returns the units read per second since the beginning.
    pub(crate) fn rate(&self) -> u64 {
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        (self.read.load(Ordering::Relaxed) as f64 / seconds) as u64
    }
}

impl ProgressMonitor for Progress {
    fn advanced(&self, offsets: u64) {
        let read = self.read.fetch_add(offsets, Ordering::Relaxed) + offsets;
        self.bar.inc(offsets);
        let elapsed_ms = self.begun.elapsed().as_millis() as u64;
        if self.bar.is_hidden() && elapsed_ms >= self.logged_ms.load(Ordering::Relaxed) + LOG_INTERVAL_MS {
            self.logged_ms.store(elapsed_ms, Ordering::Relaxed);
            let of = self.total.load(Ordering::Relaxed);
            let left_s = elapsed_ms as f64 / 1e3 * (of.saturating_sub(read)) as f64 / read.max(1) as f64;
            let (rate, left_s) = (self.rate(), left_s as u64);
            match self.unit {
                Unit::Offsets => tracing::info!(read, of, offsets_per_s = rate, left_s, "reading the log"),
                Unit::Bytes => tracing::info!(read, of, bytes_per_s = rate, left_s, "reading tables"),
                Unit::Rows => tracing::info!(read, of, rows_per_s = rate, left_s, "comparing rows"),
                Unit::Records => tracing::info!(written = read, of, records_per_s = rate, left_s, "writing records"),
            }
        }
    }

    /// Skipped offsets are no part of the work, and do not count towards the rate.
    fn skipped(&self, offsets: u64) {
        let left = self.total.load(Ordering::Relaxed).saturating_sub(offsets);
        self.total.store(left, Ordering::Relaxed);
        self.bar.set_length(left);
    }

    fn added(&self, offsets: u64) {
        let total = self.total.fetch_add(offsets, Ordering::Relaxed) + offsets;
        self.bar.set_length(total);
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Runs an analysis on its own thread, with logs and signals set up. The first signal asks it to
/// stop, the second ends the process.
///
/// # Errors
/// The error of `work`.
pub(crate) fn run(
    settings: Settings,
    work: impl FnOnce(&Settings, &mut Progress) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let own = settings.clone();
    receipts_assembly::run(crate::service::NAME, &settings, async |stop, _| {
        let analysis = move || {
            let mut progress = Progress::new(stop);
            work(&own, &mut progress).map_err(|failure| progress.ended_early(failure))
        };
        receipts_assembly::on_thread("analysis", analysis).await
    })
}

/// Writes a summary of a partition's fold as a line for people.
pub(crate) fn write_summary(to: &mut dyn Write, report: &FoldReport) -> io::Result<()> {
    let FoldReport { partition, first_offset, next_offset, events, messages, .. } = report;
    let from = report.from_offset.unwrap_or(*first_offset);
    write!(
        to,
        "partition {partition}: offsets {from} to {next_offset}, {events} events, {messages} messages in the state"
    )?;
    match (report.snapshot_offset, report.from_offset) {
        (Some(offset), _) => write!(to, ", folded from a snapshot at {offset}")?,
        (None, Some(_)) => write!(to, ", folded from {first_offset}")?,
        (None, None) => {}
    }
    if let (Some(first), Some(newest)) = (report.first_timestamp_ms, report.newest_timestamp_ms) {
        write!(to, ", {} to {}", shown(first), shown(newest))?;
    }
    let mut dead = report.dead_letters.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>();
    if dead.is_empty() {
        dead.push("none".to_owned());
    }
    writeln!(to, ", dead letters: {}", dead.join(", "))
}

/// Formats a time for people.
pub(crate) fn shown(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_query::StreamId;

    #[test]
    fn a_position_is_a_token_or_offsets() {
        let positions: Positions = [(0, 17), (3, 42)].into_iter().collect();
        let wanted = Position { positions, log: None };
        assert_eq!(position("3:42,0:17"), Ok(wanted.clone()));
        assert_eq!(position(&wanted.positions.to_string()), Ok(wanted.clone()));
        let log = Some(LogTag(7));
        assert_eq!(position(&wanted.positions.token(log).to_string()), Ok(Position { log, ..wanted.clone() }));
        assert!(position(&StreamId(wanted.positions.clone()).to_string()).is_err(), "a stream's");
        assert!(matches!(start("2026-05-28T20:26:40Z"), Ok(Start::Time(1_780_000_000_000))));
        assert!(matches!(start("3:42,0:17"), Ok(Start::Position(read)) if read == wanted));
        for text in ["", "3", "3:", ":3", "3:42,", "3:42,3:43", "3:-1", "3:42;0:17", "yesterday"] {
            assert!(position(text).is_err(), "{text}");
        }
        for text in ["yesterday", "3:42,", "2026-05-28"] {
            assert!(start(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_rfc_3339_or_milliseconds() {
        for (text, wanted) in [
            ("0", 0),
            ("1780000000000", 1_780_000_000_000),
            ("2026-05-28T20:26:40Z", 1_780_000_000_000),
            ("2026-05-28T22:26:40.250+02:00", 1_780_000_000_250),
        ] {
            assert_eq!(time(text), Ok(wanted), "{text}");
        }
        for text in ["", "yesterday", "-1", "2026-05-28", "1969-12-31T23:59:59Z", "9007199254740993"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
