//! `receipts export`: reads its arguments and prints the result. `receipts_analytics` writes the
//! files.

use crate::analysis::{self, Prefix, write_summary};
use crate::live::{self, Live};

use clap::{Args, ValueEnum};
use receipts_analytics::FoldReport;
use receipts_analytics::export::{self, Dataset, DatasetReport, Plan, Target};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use serde::Serialize;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts export --out /tmp/receipts
  receipts export --out /tmp/receipts --format csv --dataset reads --dataset rosters
  receipts export --out /tmp/receipts --file-mb 64
  receipts export --out s3://analysts/receipts --dataset reads
  receipts export --out /tmp/may --as-of 2026-06-01T00:00:00Z --kafka-bootstrap localhost:9092 --json
  receipts export --follow --out s3://analysts/live --kafka-bootstrap localhost:9092
  receipts export --follow --once --out /tmp/live --dataset messages --dataset reads
  receipts export --versions --out /tmp/live --json";

/// Arguments of `receipts export`.
#[derive(Args)]
pub(crate) struct Export {
    /// Destination of the files: a directory, which is made if missing, or a URL (s3://, gs://,
    /// az://, file://)
    ///
    /// Cloud credentials come from the environment (AWS_…, GOOGLE_…, AZURE_…).
    #[arg(long, value_name = "DIR-OR-URL")]
    out: String,
    /// Format of the files
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    format: Format,
    /// Layout of the files
    ///
    /// v2: a folder per dataset, sorted, with a manifest. v1: a folder per tenant and day,
    /// as earlier versions wrote it, without members and read_marks.
    #[arg(long, value_enum, default_value_t = Layout::V2)]
    layout: Layout,
    /// Size at which a file ends, MiB [default: 256]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    file_mb: Option<u32>,
    /// Exports only this dataset; may be repeated.
    #[arg(long = "dataset", value_name = "DATASET", value_enum)]
    datasets: Vec<Name>,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    prefix: Prefix,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Parquet,
    Ndjson,
    Csv,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    V1,
    V2,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Name {
    Messages,
    Reads,
    Members,
    Rosters,
    ReadMarks,
    Events,
}

const FILE_MB: u32 = 256;

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    log: String,
    out: String,
    partitions: Vec<FoldReport>,
    datasets: Vec<DatasetReport>,
}

/// Exports.
///
/// # Errors
/// If there is no log, or the log, the temporary disk or the destination fails.
pub(crate) fn run(settings: Settings, export: Export, json: bool) -> Result<(), Failure> {
    if export.live.follow || export.live.versions {
        let named = if export.datasets.is_empty() { Vec::new() } else { datasets(&export)? };
        if export.live.versions {
            return live::versions(settings, export.out, named, json);
        }
        let file_bytes = u64::from(export.file_mb.unwrap_or(FILE_MB)) << 20;
        return live::follow(settings, export.live, export.out, named, file_bytes, export.prefix.memory, json);
    }
    analysis::run(settings, move |settings, progress| {
        let datasets = datasets(&export)?;
        let opened = receipts_assembly::open_existing_log(settings)?;
        let log = &*opened.log;
        let spans = export.prefix.spans(log, 0..log.partition_count())?;
        let plan = Plan {
            out: Target::open(&export.out).map_err(|error| Failure::usage(format!("--out: {error}")))?,
            log: opened.identity.name(),
            position: analysis::token(log, spans.iter().map(|span| (span.partition, span.end_offset))),
            format: export.format.into(),
            layout: match export.layout {
                Layout::V1 => export::Layout::V1,
                Layout::V2 => export::Layout::V2,
            },
            file_bytes: u64::from(export.file_mb.unwrap_or(FILE_MB)) << 20,
            datasets,
        };
        progress.begin(export::offsets(&spans, &plan));
        let scratch = export.prefix.memory.scratch(settings, &opened.identity)?;
        let (partitions, datasets) = export::export(log, &spans, &scratch, &plan, progress)?;
        progress.end(&partitions);
        let report =
            Report { log: opened.name, out: plan.out.shown("").trim_end_matches('/').to_owned(), partitions, datasets };
        Ok(Output::stdout(json).write(&report, |to| {
            report.partitions.iter().try_for_each(|told| write_summary(to, told))?;
            for DatasetReport { dataset, rows, files, bytes, removed } in &report.datasets {
                let folder = plan.out.shown(dataset.name());
                write!(to, "{folder}: {rows} rows in {files} files, {bytes} bytes")?;
                match removed {
                    0 => writeln!(to)?,
                    _ => writeln!(to, "; {removed} files of an earlier export removed")?,
                }
            }
            Ok(())
        })?)
    })
}

/// Returns the named datasets, each once, or all of the layout if none is named.
fn datasets(export: &Export) -> Result<Vec<Dataset>, Failure> {
    let name = |dataset: &Dataset| match dataset {
        Dataset::Messages => Name::Messages,
        Dataset::Reads => Name::Reads,
        Dataset::Members => Name::Members,
        Dataset::Rosters => Name::Rosters,
        Dataset::ReadMarks => Name::ReadMarks,
        Dataset::Events => Name::Events,
    };
    let is_v1 = export.layout == Layout::V1;
    if is_v1 && export.file_mb.is_some() {
        return Err(Failure::usage("--file-mb is for --layout v2: files of layout v1 end by another rule".to_owned()));
    }
    let is_named = |dataset: &Dataset| export.datasets.contains(&name(dataset));
    if let Some(absent) = Dataset::ALL.iter().find(|dataset| is_v1 && is_named(dataset) && !dataset.is_in_v1()) {
        return Err(Failure::usage(format!(
            "--dataset {}: layout v1 has no such dataset, leave out --layout",
            absent.name()
        )));
    }
    let is_wanted = |dataset: &Dataset| match export.datasets.is_empty() {
        true => !is_v1 || dataset.is_in_v1(),
        false => is_named(dataset),
    };
    Ok(Dataset::ALL.into_iter().filter(is_wanted).collect())
}

impl From<Format> for export::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Parquet => Self::Parquet,
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Csv,
        }
    }
}
