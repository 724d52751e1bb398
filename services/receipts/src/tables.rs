//! The tables of another system as flags name them: files, formats, columns, units and zones.
//! Commands flatten them into their own flags; this file reads no row.

use crate::ids::tenant;
use clap::{Args, ValueEnum};
use receipts_analytics::table::{Format, Options};
use receipts_assembly::random;
use receipts_backfill::{Columns, Input, Mapping, Plan, Readings, Source, Untimed, ZeroTime};
use receipts_event::{TENANT_DEFAULT, hex};
use receipts_runtime::exit::Failure;
use std::path::{Path, PathBuf};

/// Ends the name of the progress file.
const PROGRESS: &str = "backfill.json";
/// Ends the name of the report of rejects.
const REJECTS: &str = "rejects.ndjson";

/// The tables of another system, and what their columns mean.
#[derive(Args)]
pub(crate) struct Tables {
    /// Table with a row per conversation and person: a file, a folder or a quoted glob; may be
    /// repeated, as may all tables. Columns: conversation_id, user_id; optional:
    /// tenant, role, kind, group_type, at_ms.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["messages", "reads", "marks", "map"])]
    members: Vec<PathBuf>,
    /// Table with a row per message. Columns: conversation_id, message_id, sender_id, sent_at_ms;
    /// optional: tenant, need_read_receipt (true if absent), recipients, status.
    #[arg(long, value_name = "PATH")]
    messages: Vec<PathBuf>,
    /// Table with a row per message and reader. Columns: conversation_id, message_id, user_id,
    /// read_at_ms; optional: tenant, hidden.
    #[arg(long, value_name = "PATH")]
    reads: Vec<PathBuf>,
    /// Table with a row per conversation and reader: how far that person has read. Columns:
    /// conversation_id, user_id, up_to_message_id or up_to_sent_at_ms; optional: tenant, read_at_ms
    /// (up_to_sent_at_ms if absent), hidden, thread_id (rows with one are rejected).
    #[arg(long, value_name = "PATH")]
    marks: Vec<PathBuf>,
    /// Mapping file (TOML) that says which columns of another system are ours, by name, constant or
    /// jq expression. docs/mappings has ready ones.
    ///
    /// Without --members, --messages, --reads and --marks the tables are those that it names.
    /// schemas/backfill/mapping-v1.md describes the file.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Format of tables whose file names do not tell it: .csv, .copy and .tsv (PostgreSQL's COPY
    /// text), .ndjson, .jsonl, .json, .parquet; texts also with .gz or .zst.
    #[arg(long, value_enum)]
    format: Option<Written>,
    /// Byte between two fields of CSV or COPY text, or "tab". Otherwise the header line of CSV
    /// tells it, and COPY text has tabs.
    #[arg(long, value_name = "BYTE", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// A field of CSV or COPY text that is null, such as NULL; an empty field and COPY's \N always
    /// are.
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// Columns of CSV or COPY text without a header line; TABLE=NAMES for one table only. May be
    /// repeated.
    #[arg(long, value_name = "NAMES")]
    header: Vec<String>,
    /// Unit of times that are numbers: s, ms, us or ns; COLUMN=UNIT or TABLE.COLUMN=UNIT for one
    /// column only. May be repeated. Without it, milliseconds.
    #[arg(long = "time-unit", value_name = "UNIT")]
    time_units: Vec<String>,
    /// Zone of times that name none, such as Europe/Berlin; COLUMN=ZONE or TABLE.COLUMN=ZONE for
    /// one column only. May be repeated.
    #[arg(long = "time-zone", value_name = "ZONE")]
    time_zones: Vec<String>,
    /// Meaning of a time of 0: its row is rejected, or it is no time, as an acknowledgement that
    /// was withdrawn.
    #[arg(long, value_enum, default_value = "reject")]
    zero_time: Zero,
    /// Name of a column in the tables; TABLE.NAME=THEIRS for one table only. May be repeated.
    #[arg(long = "column", value_name = "NAME=THEIRS")]
    columns: Vec<String>,
    /// Tenant of rows that name none.
    #[arg(long, value_name = "TENANT", default_value = TENANT_DEFAULT, value_parser = tenant)]
    tenant: String,
    /// Meaning of a row of reads without a time: not read yet, or read at an unknown time.
    #[arg(long, value_enum, default_value = "unread")]
    untimed: Meaning,
}

#[derive(Clone, Copy, ValueEnum)]
enum Written {
    Parquet,
    Ndjson,
    Csv,
    Copy,
}

#[derive(Clone, Copy, ValueEnum)]
enum Zero {
    Reject,
    Unread,
}

#[derive(Clone, Copy, ValueEnum)]
enum Meaning {
    Unread,
    Read,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "tab" | "\\t" => Ok(b'\t'),
        _ => match text.as_bytes() {
            [byte] if !b"\"\\\r\n".contains(byte) => Ok(*byte),
            _ => Err("a delimiter is one byte, or \"tab\"".to_owned()),
        },
    }
}

impl Tables {
    /// Returns the import of the tables into a log.
    pub(crate) fn plan(self, log: String) -> Result<Plan, Failure> {
        let mut columns = Columns::default();
        for assignment in &self.columns {
            columns.set(assignment).map_err(|reason| Failure::usage(format!("--column: {reason}")))?;
        }
        let mapping = self.map.as_deref().map(mapping).transpose()?;
        let sources = sources(&self, mapping.as_ref())?;
        let first = first_path(&self, &sources);
        let readings = self.readings()?;
        Ok(Plan {
            sources,
            columns,
            readings,
            mapping,
            tenant: self.tenant,
            untimed: match self.untimed {
                Meaning::Unread => Untimed::Unread,
                Meaning::Read => Untimed::Read,
            },
            dry_run: false,
            progress: beside(&first, PROGRESS),
            rejects: beside(&first, REJECTS),
            run: hex(&random::<8>()?),
            judgement: None,
            log,
        })
    }

    fn readings(&self) -> Result<Readings, Failure> {
        let mut readings = Readings::default();
        for unit in &self.time_units {
            readings.set_unit(unit).map_err(|reason| Failure::usage(format!("--time-unit: {reason}")))?;
        }
        for zone in &self.time_zones {
            readings.set_zone(zone).map_err(|reason| Failure::usage(format!("--time-zone: {reason}")))?;
        }
        readings.set_zero(match self.zero_time {
            Zero::Reject => ZeroTime::Reject,
            Zero::Unread => ZeroTime::Unread,
        });
        Ok(readings)
    }
}

fn mapping(path: &Path) -> Result<Mapping, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("--map {}: cannot be read: {error}", path.display())))?;
    Mapping::parse(path, &text).map_err(|mistakes| Failure::usage(mistakes.to_string()))
}

/// Returns the tables of the flags; without any, those of the mapping.
fn sources(asked: &Tables, mapping: Option<&Mapping>) -> Result<Vec<Source>, Failure> {
    let all = [
        (Input::Members, &asked.members),
        (Input::Messages, &asked.messages),
        (Input::Reads, &asked.reads),
        (Input::Marks, &asked.marks),
    ];
    let mut given: Vec<(Input, Vec<PathBuf>)> =
        all.into_iter().filter(|(_, paths)| !paths.is_empty()).map(|(input, paths)| (input, paths.clone())).collect();
    if let (true, Some(mapping)) = (given.is_empty(), mapping) {
        let files = Input::ALL.into_iter().map(|input| (input, mapping.files(input).to_vec()));
        given.extend(files.filter(|(_, paths)| !paths.is_empty()));
    }
    if given.is_empty() {
        return Err(Failure::usage(
            "the mapping names no files: name the tables by --members, --messages, --reads, --marks",
        ));
    }
    let format = asked.format.map(|format| match format {
        Written::Parquet => Format::Parquet,
        Written::Ndjson => Format::Ndjson,
        Written::Csv => Format::Csv,
        Written::Copy => Format::Copy,
    });
    let source = |(input, paths): (Input, Vec<PathBuf>)| -> Result<Source, Failure> {
        let mut source =
            Source::new(input, &paths, format).map_err(|sentence| Failure::usage(format!("--{input}: {sentence}")))?;
        // A folder or glob may find the files that an earlier run left beside a table.
        let is_ours = |path: &Path| {
            let name = path.to_string_lossy();
            [PROGRESS, REJECTS].iter().any(|ending| name.ends_with(&format!(".{ending}")))
        };
        source.files.retain(|file| paths.contains(&file.path) || !is_ours(&file.path));
        let header = header(&asked.header, input)?;
        source.options = Options { delimiter: asked.delimiter, null: asked.null.clone(), header };
        Ok(source)
    };
    given.into_iter().map(source).collect()
}

/// Returns the names of a table's columns that `--header` gives.
fn header(all: &[String], input: Input) -> Result<Option<Vec<String>>, Failure> {
    let mut found = None;
    for names in all {
        let (names, is_meant) = match names.split_once('=') {
            None => (names.as_str(), true),
            Some((table, names)) if Input::ALL.iter().any(|input| input.to_string() == table) => {
                (names, input.to_string() == table)
            }
            Some((table, _)) => return Err(Failure::usage(format!("--header: there is no table {table}"))),
        };
        if is_meant {
            found = Some(names.split(',').map(|name| name.trim().to_owned()).collect());
        }
    }
    Ok(found)
}

/// Returns the path beside which the files of the import lie: the first table's, and of a glob its
/// first file's.
fn first_path(asked: &Tables, sources: &[Source]) -> PathBuf {
    let tables = [&asked.members, &asked.messages, &asked.reads, &asked.marks];
    let first = tables.into_iter().flatten().next().filter(|path| path.exists());
    let found = || sources.iter().flat_map(|source| &source.files).map(|file| &file.path).next();
    // Without a slash at its end, a folder has its files beside it.
    first.or_else(found).map(|path| path.components().collect()).unwrap_or_default()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
