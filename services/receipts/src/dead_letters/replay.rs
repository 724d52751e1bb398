//! `receipts dead-letters replay`: shows the plan, asks, and writes its records.
//!
//! Must not write a record that the plan does not name, and must not call one written that the log
//! has not acknowledged. Keeps INV-LETTER-REPLAY.

use super::{Opened, Which, begin, open};
use crate::analysis::{Progress, Unit};
use crate::consent::{can_ask, consents};
use anyhow::anyhow;
use clap::Args;
use receipts_analytics::ProgressMonitor as _;
use receipts_analytics::dead_letters::{Harm, Options, Plan, Planned, REPLAYED_FROM, Refused};
use receipts_assembly::ACKNOWLEDGE_TIMEOUT;
use receipts_log::{AppendError, Entry, Log, Topic, outcome};
use receipts_query::{LogTag, Positions};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;
use tokio::time::Instant;

/// Records that are on their way at once. After a failure none that follows them is written.
const AT_ONCE: usize = 500;
/// A record that becomes too old for the topic within this time gets the time of its append.
const AGE_SLACK: Duration = Duration::from_secs(300);

/// Arguments of `receipts dead-letters replay`.
#[derive(Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    which: Which,
    /// Prints what would be written, and writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Asks for no confirmation
    #[arg(short, long)]
    yes: bool,
    /// Gives records whose key is wrong the key of their own fields: those of producers that wrote
    /// no key, or one in quotes
    #[arg(long)]
    rekey: bool,
    /// Leaves out the letters that may harm
    #[arg(long)]
    only_harmless: bool,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    log: String,
    dry_run: bool,
    /// Letters that the filter admits.
    selected: u64,
    /// Letters that are right and not replayed yet.
    right: u64,
    /// Letters that this run has written.
    written: u64,
    /// Letters that an earlier run has written.
    replayed_before: u64,
    /// Letters that are in their topic more than once, without the first of each.
    repeated: u64,
    /// Letters that would be wrong again, by reason.
    refused: BTreeMap<String, u64>,
    /// A sentence about each reason.
    #[serde(skip)]
    refusals: BTreeMap<String, Refused>,
    /// The right letters that may harm, by kind.
    may_harm: BTreeMap<&'static str, u64>,
    /// Written letters whose time the topic does not take, so that they have that of their append.
    without_time: u64,
    /// A token: a read with it in `Receipts-Min-Position` sees all written records.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
}

impl Report {
    fn new(log: String, dry_run: bool, plan: &Plan) -> Self {
        let harms = Harm::ALL
            .map(|harm| (harm.code(), plan.planned.iter().filter(|planned| planned.harm == Some(harm)).count() as u64));
        Self {
            log,
            dry_run,
            selected: plan.selected,
            right: plan.planned.len() as u64,
            written: 0,
            replayed_before: plan.replayed,
            repeated: plan.repeated,
            refused: plan.refused.iter().map(|(reason, refused)| (reason.clone(), refused.count)).collect(),
            refusals: plan.refused.clone(),
            may_harm: harms.into_iter().filter(|(_, count)| *count > 0).collect(),
            without_time: 0,
            position: None,
        }
    }
}

/// Replays.
///
/// # Errors
/// Wrong usage, no consent, or a log that fails; then some records may be written, and the same
/// command goes on.
pub(super) fn run(settings: &Settings, replay: &Replay, progress: &mut Progress, json: bool) -> Result<(), Failure> {
    if !replay.dry_run && !replay.yes && !can_ask() {
        return Err(Failure::usage(
            "nobody can be asked, because there is no terminal: look with --dry-run first, then give --yes",
        ));
    }
    let filter = replay.which.filter();
    let Opened { log, decoder, spans } = open(settings, &filter)?;
    begin(progress, &spans);
    let options = Options { decoder, rekey: replay.rekey, only_harmless: replay.only_harmless };
    let plan = Plan::make(&*log.log, &spans, &filter, options, &*progress)?;
    progress.clear();
    let mut report = Report::new(log.name.clone(), replay.dry_run, &plan);
    let mut output = Output::stdout(json);
    if replay.dry_run || plan.planned.is_empty() {
        return Ok(output.write(&report, |to| write_report(to, &report))?);
    }
    if !replay.yes {
        let mut shown = Vec::new();
        write_report(&mut shown, &report)?;
        eprint!("{}", printable_lines(&shown));
        let question = format!("Write {} records into {}?", report.right, receipts_assembly::log_location(settings));
        if !consents(&question)? {
            return Err(anyhow!("not confirmed, so nothing was written").into());
        }
    }
    progress.begin_with(Unit::Records, report.right);
    let mut positions = Positions::default();
    let written = write(&*log.log, plan.planned, progress, &mut report, &mut positions);
    progress.clear();
    let (written_now, right) = (report.written, report.right);
    written.map_err(|cause| {
        anyhow!(
            "{cause}. {written_now} of {right} records are written: run the same command again, it goes on after them"
        )
    })?;
    let tag = log.log.tag(Topic::Events).map(LogTag);
    report.position = Some(positions.token(tag).to_string());
    tracing::info!(records = report.written, position = report.position, "replayed dead letters");
    Ok(output.write(&report, |to| write_report(to, &report))?)
}

/// Writes the planned records in their order, and waits for the acknowledgement of each.
fn write(
    log: &dyn Log,
    planned: Vec<Planned>,
    progress: &Progress,
    report: &mut Report,
    positions: &mut Positions,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let oldest_ms = log.age_max().map_or(0, |age_max| {
        let kept_ms = u64::try_from(age_max.saturating_sub(AGE_SLACK).as_millis()).unwrap_or(u64::MAX);
        receipts_runtime::clock::unix_ms().saturating_sub(kept_ms)
    });
    let writer = log.writer();
    let mut planned = planned.into_iter().peekable();
    while planned.peek().is_some() {
        if progress.is_stopped() {
            return Err(anyhow!("stopped as asked"));
        }
        let appended: Vec<_> = planned
            .by_ref()
            .take(AT_ONCE)
            .map(|planned| {
                let entry = entry(planned, oldest_ms);
                report.without_time += u64::from(entry.timestamp_ms.is_none());
                writer.append(entry)
            })
            .collect();
        let deadline = Instant::now() + ACKNOWLEDGE_TIMEOUT;
        let mut failed = None;
        for appended in appended {
            match runtime.block_on(outcome(appended, deadline)) {
                Ok(location) => {
                    positions.raise(location.partition, location.offset + 1);
                    report.written += 1;
                    progress.advanced(1);
                }
                Err(AppendError::TooLarge(cause)) => {
                    let refused = report.refusals.entry("too-large".to_owned()).or_default();
                    refused.count += 1;
                    refused.detail = cause;
                    report.refused.insert("too-large".to_owned(), refused.count);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(anyhow!("a record was {error}"));
        }
    }
    Ok(())
}

/// Returns the record of a letter: its own headers, and one that names its first location.
fn entry(planned: Planned, oldest_ms: u64) -> Entry {
    let Planned { letter, origin, key, partition, .. } = planned;
    let time_ms = letter.time_ms();
    let mut headers = letter.record.headers;
    headers.retain(|(name, _)| name != REPLAYED_FROM);
    headers.push((REPLAYED_FROM.to_owned(), Some(origin.to_string().into())));
    Entry {
        topic: Topic::Events,
        partition: Some(partition),
        key: Some(key.into()),
        value: letter.record.value,
        headers,
        timestamp_ms: Some(time_ms).filter(|ms| *ms >= oldest_ms),
    }
}

fn printable_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().map(|line| printable(line).into_owned() + "\n").collect()
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Report { selected, right, written, replayed_before, repeated, .. } = report;
    write!(to, "{selected} dead letters: ")?;
    match (*written, report.dry_run) {
        (0, true) => writeln!(to, "{right} would be written")?,
        (0, false) => writeln!(to, "{right} are right and not replayed yet")?,
        (written, _) => writeln!(to, "{written} of {right} written")?,
    }
    for (count, what) in [(replayed_before, "were replayed already"), (repeated, "are there more than once")] {
        if *count > 0 {
            writeln!(to, "  {count:>8}  {what}")?;
        }
    }
    for (reason, Refused { count, detail }) in &report.refusals {
        writeln!(to, "  {count:>8}  refused, {reason}: {}", printable(detail))?;
    }
    for harm in Harm::ALL {
        if let Some(count) = report.may_harm.get(harm.code()) {
            writeln!(
                to,
                "  {count:>8}  may harm, {}: they {} (--only-harmless leaves them out)",
                harm.code(),
                harm.meaning()
            )?;
        }
    }
    if report.without_time > 0 {
        writeln!(to, "  {:>8}  have the time of this replay: the topic takes no older records", report.without_time)?;
    }
    match &report.position {
        Some(position) => writeln!(to, "position {position}"),
        None => Ok(()),
    }
}
