//! `receipts backfill`: reads its arguments and prints the result. `receipts_backfill` imports
//! tables into the log.

use crate::analysis::{self, Memory, Progress, Unit, shown};
use crate::tables::Tables;

use anyhow::anyhow;
use clap::Args;
use receipts_backfill::{
    Counts, Draft, Error, ImportReport, Input, Judgement, Plan, Reached, bytes, check, import, is_begun,
    rejected_members,
};
use receipts_log::{Inspect, Topic};
use receipts_query::{LogTag, Positions};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts backfill --reads reads.csv --dry-run
  receipts backfill --map docs/mappings/rocketchat.toml --dry-run
  receipts backfill --messages posts.csv --marks last_viewed.csv --column up_to_sent_at_ms=lastviewedat
  receipts backfill --members members.csv --messages messages.csv --reads reads.csv
  receipts backfill --messages m.parquet --reads r.parquet --tenant acme --kafka-bootstrap localhost:9092 --json
  receipts backfill --reads 'dump/seen-*.csv.gz' --reads more/ --delimiter ';' --time-zone Europe/Berlin
  receipts backfill --reads seen.copy --header conversation_id,message_id,user_id,read_at_ms --time-unit us
  receipts backfill --reads seen.ndjson --column read_at_ms=seen_at --column message_id=id --column reads.user_id=who";

/// Arguments of `receipts backfill`.
#[derive(Args)]
pub(crate) struct Backfill {
    #[command(flatten)]
    tables: Tables,
    /// Reports what the import would do, and writes only the file of rejects: rows by reason, reads
    /// that reach nobody, and three receipts.
    #[arg(long)]
    dry_run: bool,
    /// Imports even if rows of members were rejected, whose audiences are then too small.
    #[arg(long)]
    despite_rejected_members: bool,
    /// File that records the progress of the import; beside the first table if not given.
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// File for rejected rows, as NDJSON; beside the first table if not given.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    #[command(flatten)]
    memory: Memory,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    log: String,
    dry_run: bool,
    /// True for a dry run, and if rows of members were rejected.
    nothing_written: bool,
    /// Sentences about how files are read.
    notes: Vec<String>,
    #[serde(flatten)]
    done: ImportReport,
    /// A token: a read with it in `Receipts-Min-Position` sees all events that this run wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    progress: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejects: Option<PathBuf>,
}

/// Imports.
///
/// # Errors
/// Wrong usage; if there is no log, another process has it, a table or the log fails, or rows
/// were rejected.
pub(crate) fn run(settings: Settings, asked: Backfill, json: bool) -> Result<(), Failure> {
    let plan = Plan { dry_run: asked.dry_run, ..asked.tables.plan(receipts_assembly::log_location(&settings))? };
    let plan = Plan {
        progress: asked.progress.unwrap_or(plan.progress),
        rejects: asked.rejects.unwrap_or(plan.rejects),
        ..plan
    };
    let (memory, despite_rejected_members) = (asked.memory, asked.despite_rejected_members);
    analysis::run(settings, move |settings, progress| {
        let mut plan = plan;
        let opened = receipts_assembly::open_existing_log(settings)?;
        let notes = check(&plan).map_err(failure)?;
        let (done, is_written) = if is_begun(&plan) && !plan.dry_run {
            // The first run has judged the tables, and its events would now count as repeated.
            (written(&*opened.log, &plan, progress)?, true)
        } else {
            let (counts, judgement) = judged(&opened, &plan, &memory, settings, progress)?;
            if plan.dry_run || (rejected_members(&counts) > 0 && !despite_rejected_members) {
                (ImportReport { counts, judgement: Some(judgement), ..ImportReport::default() }, false)
            } else {
                plan.judgement = Some(judgement);
                (written(&*opened.log, &plan, progress)?, true)
            }
        };
        let stays_out = !is_written && !despite_rejected_members && rejected_members(&done.counts) > 0;
        let log = opened.log.tag(Topic::Events).map(LogTag);
        let positions: Positions = done.next_offsets.iter().map(|(partition, next)| (*partition, *next)).collect();
        let rejected: u64 = done.counts.rejected.values().sum();
        let report = Report {
            log: opened.name,
            dry_run: plan.dry_run,
            nothing_written: !is_written,
            notes,
            position: (!done.next_offsets.is_empty()).then(|| positions.token(log).to_string()),
            progress: plan.progress,
            rejects: (rejected > 0).then_some(plan.rejects),
            done,
        };
        Output::stdout(json).write(&report, |to| write_report(to, &report))?;
        match &report.rejects {
            None => Ok(()),
            Some(path) if stays_out => Err(anyhow!(
                "{} rows of members were rejected, so {}: mend them ({}), or give --despite-rejected-members if \
                 their conversations may have smaller audiences",
                rejected_members(&report.done.counts),
                if report.dry_run { "an import would write nothing" } else { "nothing was written" },
                path.display()
            )
            .into()),
            Some(path) => Err(anyhow!(
                "{rejected} rows were rejected, see {} for the reasons; all other rows {}",
                path.display(),
                if report.dry_run { "would become events" } else { "are in the log" }
            )
            .into()),
        }
    })
}

/// Drafts the events and folds them behind the log.
fn judged(
    opened: &receipts_assembly::EventLog,
    plan: &Plan,
    memory: &Memory,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<(Counts, Judgement), Failure> {
    let scratch = memory.scratch(settings, &opened.identity)?;
    progress.begin_with(Unit::Bytes, bytes(plan));
    let draft = Draft::of(&*opened.log, plan, progress).map_err(failure)?;
    progress.clear();
    progress.begin(draft.offsets(&*opened.log).map_err(failure)?);
    let judgement = draft.judge(&*opened.log, &scratch, progress).map_err(failure)?;
    progress.clear();
    Ok((draft.counts, judgement))
}

fn written(log: &dyn Inspect, plan: &Plan, progress: &mut Progress) -> Result<ImportReport, Failure> {
    progress.begin_with(Unit::Bytes, bytes(plan));
    let imported = import(log, plan, progress);
    progress.clear();
    imported.map_err(failure)
}

pub(crate) fn failure(error: Error) -> Failure {
    match error {
        Error::Column { .. } | Error::Progress { .. } => Failure::Usage(error.into()),
        other => other.into(),
    }
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let ImportReport { counts, already_written, written, resumed, judgement, .. } = &report.done;
    report.notes.iter().try_for_each(|note| writeln!(to, "note: {}", printable(note)))?;
    for (input, rows) in &counts.rows {
        let rejected = counts.rejected.get(input).copied().unwrap_or(0);
        write!(to, "{input}: {rows} rows, {rejected} rejected")?;
        match counts.left_out.get(input) {
            Some(left_out) => writeln!(to, ", {left_out} left out by the mapping")?,
            None => writeln!(to)?,
        }
        for (reason, held) in counts.reasons.get(input).into_iter().flatten() {
            writeln!(to, "  {} rejected: {}", held.count, printable(reason))?;
            for example in &held.examples {
                let (file, row) = (example.file.display(), example.row);
                writeln!(to, "    {file} row {row}: {}", printable(&example.reason))?;
            }
        }
    }
    if counts.unread + counts.repeated > 0 {
        writeln!(to, "no event: {} rows not read yet, {} rows repeated", counts.unread, counts.repeated)?;
    }
    let events = counts.events.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
    writeln!(to, "events: {}", if events.is_empty() { "none" } else { &events })?;
    if let Some(judgement) = judgement {
        write_judgement(to, judgement)?;
    }
    if report.dry_run {
        return writeln!(to, "dry run: nothing was written");
    }
    if report.nothing_written {
        return writeln!(to, "nothing was written");
    }
    write!(to, "written by this run: {written}")?;
    if *resumed {
        write!(to, "; it continued an earlier run, of whose events {already_written} more were already in the log")?;
    }
    writeln!(to, "\nprogress {}", report.progress.display())?;
    report.position.iter().try_for_each(|position| writeln!(to, "position {position}"))
}

fn write_judgement(to: &mut dyn Write, judgement: &Judgement) -> io::Result<()> {
    if let Some((first, last)) = judgement.sent_ms {
        writeln!(to, "messages sent from {} to {}", shown(first), shown(last))?;
    }
    write_reached(to, Input::Reads, &judgement.reads)?;
    write_reached(to, Input::Marks, &judgement.marks)?;
    for receipt in &judgement.receipts {
        let id = format!("{} {}", receipt.conversation_id.as_deref().unwrap_or_default(), receipt.message_id);
        write!(to, "receipt of {}", printable(&id))?;
        match &receipt.counts {
            Some(counts) => writeln!(
                to,
                ": read by {} of {}, unread {}, hidden {}, departed {}",
                counts.read_count,
                counts.audience_count,
                counts.unread_count,
                counts.hidden_count,
                counts.departed_count
            )?,
            None => writeln!(to, ": no counts, {}", serde_json::to_string(&receipt.status).unwrap_or_default())?,
        }
    }
    Ok(())
}

fn write_reached(to: &mut dyn Write, input: Input, reached: &Reached) -> io::Result<()> {
    if reached.read == 0 && reached.unreached.is_empty() {
        return Ok(());
    }
    write!(to, "{input}: {} first reads", reached.read)?;
    match reached.times_ms {
        Some((first, last)) => writeln!(to, ", from {} to {}", shown(first), shown(last))?,
        None => writeln!(to)?,
    }
    for (reason, held) in &reached.unreached {
        writeln!(to, "  {} reach nobody: {reason}", held.count)?;
        for example in &held.examples {
            let (conversation, reader) = (&example.conversation_id, &example.reader_id);
            let mut text = format!("conversation {conversation}, reader {reader}");
            if !example.message_ids.is_empty() {
                text += &format!(", messages {}", example.message_ids.join(", "));
            }
            writeln!(to, "    {}", printable(&text))?;
        }
    }
    Ok(())
}
