//! Exports a prefix of the log as sorted files for analysts: `DIR/<dataset>/part-<number>`
//! (`schemas/export/v2.md`), or in the old layout (`schemas/export/v1.md`). One prefix gives the
//! same files, byte for byte. It never writes to the log.
//!
//! Keeps INV-EXPORT.

pub(crate) mod batch;
mod calendar;
mod datasets;
mod manifest;
pub(crate) mod rows;
mod target;
mod v1;
mod v2;

pub use datasets::{Column, Dataset, Type};
pub use target::Target;
pub(crate) use v2::parquet_properties;

use crate::{Error, FoldReport, ProgressMonitor, Scratch, Span};
use receipts_log::Inspect;
use serde::{Deserialize, Serialize};

/// The record of an unfinished export, beside the datasets' folders. The leading underscore makes
/// readers of `*.parquet` and similar patterns skip the file.
const PROGRESS_NAME: &str = "_export-in-progress.json";

/// The format of exported files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet, compressed with zstd; in layout v1 with Snappy.
    Parquet,
    /// One JSON object per line.
    Ndjson,
    /// CSV with a header line; null is an empty field.
    Csv,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
}

/// The layout of an export's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A folder per tenant and day, unsorted.
    V1,
    /// A folder per dataset, sorted over all partitions.
    V2,
}

/// The content and the target of an export.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the files are written.
    pub out: Target,
    /// The identity of the log: an interrupted export resumes only for the same log.
    pub log: String,
    /// The token of the position at the end of the exported ranges.
    pub position: String,
    /// The format of the files.
    pub format: Format,
    /// Their layout.
    pub layout: Layout,
    /// The size at which a file ends, bytes; layout v1 has its own.
    pub file_bytes: u64,
    /// The datasets to export.
    pub datasets: Vec<Dataset>,
}

/// The sums of one exported dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetReport {
    /// The dataset.
    pub dataset: Dataset,
    /// Rows in all files.
    pub rows: u64,
    /// The number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Removed files of earlier exports of this dataset.
    pub removed: u64,
}

/// Exports ranges of the log. `spans` has at most one range per partition, each from the
/// partition's beginning. At the end it removes files of earlier exports of the same datasets in
/// the same target, of either layout.
///
/// # Errors
/// If the log, a state or a file fails, the target has a live table, or the monitor stops the run.
/// Then the target may hold files of both exports, each of them complete, and the same export
/// resumes.
pub fn export(
    log: &dyn Inspect,
    spans: &[Span],
    scratch: &Scratch,
    plan: &Plan,
    monitor: &dyn ProgressMonitor,
) -> Result<(Vec<FoldReport>, Vec<DatasetReport>), Error> {
    for dataset in &plan.datasets {
        plan.out.check_no_live_table(dataset.name())?;
    }
    match plan.layout {
        Layout::V1 => v1::export(log, spans, scratch, plan, monitor),
        Layout::V2 => v2::export(log, spans, scratch, plan, monitor),
    }
}

/// Returns the number of offsets that an export goes over. Each range is folded once, read once
/// more for the dataset of raw events, and its rows are written once.
pub fn offsets(spans: &[Span], plan: &Plan) -> u64 {
    let passes = match plan.layout {
        Layout::V1 => fold_passes(&plan.datasets),
        Layout::V2 => fold_passes(&plan.datasets) + 1,
    };
    passes * spans.iter().map(Span::offsets).sum::<u64>()
}

/// Makes the stop of an export say how much the same command need not do again.
fn stopped_after(done: usize, all: usize) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Stopped => Error::ExportStopped { done, all },
        other => other,
    }
}

/// Returns how often an export reads a range of the log.
fn fold_passes(datasets: &[Dataset]) -> u64 {
    1 + u64::from(datasets.contains(&Dataset::Events))
}
