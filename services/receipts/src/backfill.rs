//! `receipts backfill`: reads its arguments and prints the result. `receipts_backfill` imports
//! tables into the log.

use crate::analysis::{self, Unit};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use receipts_analytics::table::Format;
use receipts_assembly::random;
use receipts_backfill::{Columns, Error, ImportReport, Input, Mapping, Plan, Source, Untimed, bytes, import};
use receipts_event::{ID_BYTES_MAX, TENANT_DEFAULT, hex};
use receipts_query::Positions;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) const EXAMPLES: &str = "Examples:
  receipts backfill --reads reads.csv --dry-run
  receipts backfill --map docs/mappings/rocketchat.toml --dry-run
  receipts backfill --messages posts.csv --marks last_viewed.csv --column up_to_sent_at_ms=lastviewedat
  receipts backfill --members members.csv --messages messages.csv --reads reads.csv
  receipts backfill --messages m.parquet --reads r.parquet --tenant acme --kafka-bootstrap localhost:9092 --json
  receipts backfill --reads seen.ndjson --column read_at_ms=seen_at --column message_id=id --column reads.user_id=who";

/// Arguments of `receipts backfill`.
#[derive(Args)]
pub(crate) struct Backfill {
    /// Table with a row per conversation and person. Columns: conversation_id, user_id; optional:
    /// tenant, role, kind, group_type, at_ms.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["messages", "reads", "marks", "map"])]
    members: Option<PathBuf>,
    /// Table with a row per message. Columns: conversation_id, message_id, sender_id, sent_at_ms;
    /// optional: tenant, need_read_receipt (true if absent), recipients, status.
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
    /// Table with a row per message and reader. Columns: conversation_id, message_id, user_id,
    /// read_at_ms; optional: tenant, hidden.
    #[arg(long, value_name = "FILE")]
    reads: Option<PathBuf>,
    /// Table with a row per conversation and reader: how far that person has read. Columns:
    /// conversation_id, user_id, up_to_message_id or up_to_sent_at_ms; optional: tenant, read_at_ms
    /// (up_to_sent_at_ms if absent), hidden, thread_id (rows with one are rejected).
    #[arg(long, value_name = "FILE")]
    marks: Option<PathBuf>,
    /// Mapping file (TOML) that says which columns of another system are ours, by name, constant or
    /// jq expression. docs/mappings has ready ones.
    ///
    /// Without --members, --messages, --reads and --marks the tables are those that it names. schemas/backfill/mapping-v1.md describes the file.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Format of tables whose file names do not end in .csv, .ndjson, .jsonl or .parquet.
    #[arg(long, value_enum)]
    format: Option<Written>,
    /// Name of a column in the tables; TABLE.NAME=THEIRS for one table only. May be repeated.
    #[arg(long = "column", value_name = "NAME=THEIRS")]
    columns: Vec<String>,
    /// Tenant of rows that name none.
    #[arg(long, value_name = "TENANT", default_value = TENANT_DEFAULT, value_parser = tenant)]
    tenant: String,
    /// Meaning of a row of reads without a time: not read yet, or read at an unknown time.
    #[arg(long, value_enum, default_value = "unread")]
    untimed: Meaning,
    /// Checks every row, and writes only the file of rejects.
    #[arg(long)]
    dry_run: bool,
    /// File that records the progress of the import; beside the first table if not given.
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// File for rejected rows, as NDJSON; beside the first table if not given.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Written {
    Parquet,
    Ndjson,
    Csv,
}

#[derive(Clone, Copy, ValueEnum)]
enum Meaning {
    Unread,
    Read,
}

fn tenant(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a tenant has at least one byte".to_owned()),
        _ if text.len() > ID_BYTES_MAX => Err(format!("a tenant has at most {ID_BYTES_MAX} bytes")),
        _ if text.contains('/') => Err("a tenant has no slash".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    log: String,
    dry_run: bool,
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
    let mut columns = Columns::default();
    for assignment in &asked.columns {
        columns.set(assignment).map_err(|reason| Failure::usage(format!("--column: {reason}")))?;
    }
    let mapping = asked.map.as_deref().map(mapping).transpose()?;
    let sources = sources(&asked, mapping.as_ref())?;
    let first = sources.first().map(|source| source.path.clone()).unwrap_or_default();
    let plan = Plan {
        sources,
        columns,
        mapping,
        tenant: asked.tenant,
        untimed: match asked.untimed {
            Meaning::Unread => Untimed::Unread,
            Meaning::Read => Untimed::Read,
        },
        dry_run: asked.dry_run,
        progress: asked.progress.unwrap_or_else(|| beside(&first, "backfill.json")),
        rejects: asked.rejects.unwrap_or_else(|| beside(&first, "rejects.ndjson")),
        run: hex(&random::<8>()?),
        log: receipts_assembly::log_location(&settings),
    };
    analysis::run(settings, move |settings, progress| {
        let opened = receipts_assembly::open_existing_log(settings)?;
        progress.begin_with(Unit::Bytes, bytes(&plan).map_err(failure)?);
        let imported = import(&*opened.log, &plan, progress);
        progress.clear();
        let done = imported.map_err(failure)?;
        let positions: Positions = done.next_offsets.iter().map(|(partition, next)| (*partition, *next)).collect();
        let rejected: u64 = done.counts.rejected.values().sum();
        let report = Report {
            log: opened.name,
            dry_run: plan.dry_run,
            position: (!done.next_offsets.is_empty()).then(|| positions.to_string()),
            progress: plan.progress,
            rejects: (rejected > 0).then_some(plan.rejects),
            done,
        };
        Output::stdout(json).write(&report, |to| write_report(to, &report))?;
        match &report.rejects {
            None => Ok(()),
            Some(path) => Err(anyhow!(
                "{rejected} rows were rejected, see {} for the reasons; all other rows {}",
                path.display(),
                if report.dry_run { "would become events" } else { "are in the log" }
            )
            .into()),
        }
    })
}

fn mapping(path: &Path) -> Result<Mapping, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("--map {}: cannot be read: {error}", path.display())))?;
    Mapping::parse(path, &text).map_err(|mistakes| Failure::usage(mistakes.to_string()))
}

/// Returns the tables of the flags; without any, those of the mapping.
fn sources(asked: &Backfill, mapping: Option<&Mapping>) -> Result<Vec<Source>, Failure> {
    let all = [
        (Input::Members, &asked.members),
        (Input::Messages, &asked.messages),
        (Input::Reads, &asked.reads),
        (Input::Marks, &asked.marks),
    ];
    let mut given: Vec<(Input, &PathBuf)> =
        all.into_iter().filter_map(|(input, path)| Some((input, path.as_ref()?))).collect();
    if let (true, Some(mapping)) = (given.is_empty(), mapping) {
        let files = Input::ALL.into_iter().flat_map(|input| mapping.files(input).iter().map(move |path| (input, path)));
        given.extend(files);
    }
    if given.is_empty() {
        return Err(Failure::usage(
            "the mapping names no files: name the tables by --members, --messages, --reads, --marks",
        ));
    }
    let source = |(input, path): (Input, &PathBuf)| -> Result<Source, Failure> {
        let format = match asked.format {
            Some(Written::Parquet) => Some(Format::Parquet),
            Some(Written::Ndjson) => Some(Format::Ndjson),
            Some(Written::Csv) => Some(Format::Csv),
            None => Format::of(path),
        };
        let format = format.ok_or_else(|| {
            Failure::usage(format!(
                "--{input} {}: the file name does not tell the format, so name it by --format",
                path.display()
            ))
        })?;
        Ok(Source { input, path: path.clone(), format })
    };
    given.into_iter().map(source).collect()
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Column { .. } | Error::Progress { .. } => Failure::Usage(error.into()),
        other => other.into(),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let ImportReport { counts, already_written, written, resumed, .. } = &report.done;
    for (input, rows) in &counts.rows {
        let rejected = counts.rejected.get(input).copied().unwrap_or(0);
        write!(to, "{input}: {rows} rows, {rejected} rejected")?;
        match counts.left_out.get(input) {
            Some(left_out) => writeln!(to, ", {left_out} left out by the mapping")?,
            None => writeln!(to)?,
        }
    }
    if counts.unread + counts.repeated > 0 {
        writeln!(to, "no event: {} rows not read yet, {} rows repeated", counts.unread, counts.repeated)?;
    }
    let events = counts.events.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
    writeln!(to, "events: {}", if events.is_empty() { "none" } else { &events })?;
    if report.dry_run {
        return writeln!(to, "dry run: nothing was written");
    }
    write!(to, "written by this run: {written}")?;
    if *resumed {
        write!(to, "; it continued an earlier run, of whose events {already_written} more were already in the log")?;
    }
    writeln!(to, "\nprogress {}", report.progress.display())?;
    report.position.iter().try_for_each(|position| writeln!(to, "position {position}"))
}
