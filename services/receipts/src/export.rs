//! `receipts export`: files for analysts. Reads the command line and prints; writing is `receipts_analytics`'.

use crate::analysis::{self, Prefix, write_told};

use clap::{Args, ValueEnum};
use receipts_analytics::Told;
use receipts_analytics::export::{self, Dataset, Plan, Written};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use serde::Serialize;
use std::path::PathBuf;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts export --out /tmp/receipts
  receipts export --out /tmp/receipts --format csv --dataset reads --dataset rosters
  receipts export --out /tmp/may --as-of 2026-06-01T00:00:00Z --kafka-bootstrap localhost:9092 --json";

/// What is exported, and where to.
#[derive(Args)]
pub(crate) struct Export {
    /// The directory that the files go to; made where it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How files are written.
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    format: Format,
    /// Only this dataset; may be given several times.
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

/// What a machine is told.
#[derive(Serialize)]
struct Report {
    log: String,
    out: PathBuf,
    partitions: Vec<Told>,
    datasets: Vec<Written>,
}

/// Exports.
///
/// # Errors
/// Where there is no log, or it, the temporary disk or the directory fail.
pub(crate) fn run(settings: Settings, export: Export, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |settings, progress| {
        let opened = receipts_node::open_existing(settings)?;
        let log = &*opened.log;
        let spans = export.prefix.spans(log, 0..log.partition_count())?;
        let plan = Plan { out: export.out.clone(), format: export.format.into(), datasets: datasets(&export.datasets) };
        progress.begin(export::offsets(&spans, &plan.datasets));
        let scratch = export.prefix.memory.scratch(settings);
        let (partitions, datasets) = export::export(log, &spans, &scratch, &plan, progress)?;
        progress.end(&partitions);
        let report = Report { log: opened.name, out: plan.out, partitions, datasets };
        Ok(Output::stdout(json).write(&report, |to| {
            report.partitions.iter().try_for_each(|told| write_told(to, told))?;
            for Written { dataset, rows, files, bytes, removed } in &report.datasets {
                let dir = report.out.join(dataset.name());
                writeln!(to, "{}: {rows} rows in {files} files, {bytes} bytes; {removed} removed", dir.display())?;
            }
            Ok(())
        })?)
    })
}

/// Those asked for, each once; all where none is.
fn datasets(asked: &[Name]) -> Vec<Dataset> {
    let name = |dataset: &Dataset| match dataset {
        Dataset::Messages => Name::Messages,
        Dataset::Reads => Name::Reads,
        Dataset::Rosters => Name::Rosters,
        Dataset::Events => Name::Events,
    };
    Dataset::ALL.into_iter().filter(|dataset| asked.is_empty() || asked.contains(&name(dataset))).collect()
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
