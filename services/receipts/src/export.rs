//! `receipts export`: reads its arguments and prints the result. `receipts_analytics` writes the
//! files.

use crate::analysis::{self, Prefix, write_summary};

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
  receipts export --out s3://analysts/receipts --dataset reads
  receipts export --out /tmp/may --as-of 2026-06-01T00:00:00Z --kafka-bootstrap localhost:9092 --json";

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
    /// Exports only this dataset; may be repeated.
    #[arg(long = "dataset", value_name = "DATASET", value_enum)]
    datasets: Vec<Name>,
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
enum Name {
    Messages,
    Reads,
    Rosters,
    Events,
}

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
    analysis::run(settings, move |settings, progress| {
        let opened = receipts_assembly::open_existing_log(settings)?;
        let log = &*opened.log;
        let spans = export.prefix.spans(log, 0..log.partition_count())?;
        let plan = Plan {
            out: Target::open(&export.out).map_err(|error| Failure::usage(format!("--out: {error}")))?,
            log: opened.identity.name(),
            format: export.format.into(),
            datasets: datasets(&export.datasets),
        };
        progress.begin(export::offsets(&spans, &plan.datasets));
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

/// Returns the named datasets, each once, or all if none is named.
fn datasets(names: &[Name]) -> Vec<Dataset> {
    let name = |dataset: &Dataset| match dataset {
        Dataset::Messages => Name::Messages,
        Dataset::Reads => Name::Reads,
        Dataset::Rosters => Name::Rosters,
        Dataset::Events => Name::Events,
    };
    Dataset::ALL.into_iter().filter(|dataset| names.is_empty() || names.contains(&name(dataset))).collect()
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
