//! Layout v1: `DIR/<dataset>/tenant=<…>/day=<YYYY-MM-DD>/part-<…>` (`schemas/export/v1.md`). Kept
//! for readers of it; it changes no more.
//!
//! Each partition is folded into a temporary state and walked. At most [`ROWS_BYTES_MAX`] bytes of
//! rows are buffered; they are written as complete files.

mod files;
mod resume;

use super::rows::Source;
use super::{DatasetReport, Plan, fold_passes, manifest, stopped_after};
use crate::{Error, FoldReport, ProgressMonitor, Scratch, Span};
use files::Files;
use receipts_log::Inspect;
use resume::{FinishedPartition, Progress};

/// Maximum size of the buffered rows of one dataset, bytes. A constant, because it decides which
/// rows share a file.
const ROWS_BYTES_MAX: usize = 64 << 20;

pub(super) fn export(
    log: &dyn Inspect,
    spans: &[Span],
    scratch: &Scratch,
    plan: &Plan,
    monitor: &dyn ProgressMonitor,
) -> Result<(Vec<FoldReport>, Vec<DatasetReport>), Error> {
    let mut progress = Progress::load(plan, spans, scratch)?;
    manifest::forget(&plan.out, &plan.datasets)?;
    let written = export_on(log, spans, scratch, plan, monitor, &mut progress);
    written.map_err(stopped_after(progress.partitions(), spans.len()))
}

fn export_on(
    log: &dyn Inspect,
    spans: &[Span],
    scratch: &Scratch,
    plan: &Plan,
    monitor: &dyn ProgressMonitor,
    progress: &mut Progress<'_>,
) -> Result<(Vec<FoldReport>, Vec<DatasetReport>), Error> {
    let mut reports = Vec::new();
    let mut all: Vec<Files<'_>> =
        plan.datasets.iter().map(|dataset| Files::new(&plan.out, *dataset, plan.format)).collect();
    for span in spans {
        if let Some(finished) = progress.finished(span.partition) {
            reports.push(finished.report.clone());
            all.iter_mut().zip(&finished.written).for_each(|(files, (written, names))| files.adopt(written, names));
            monitor.skipped(fold_passes(&plan.datasets) * span.offsets());
            continue;
        }
        let folded = scratch.fold(log, span, monitor)?;
        reports.push(folded.report.clone());
        let source = Source { state: &folded.state, partition: span.partition, monitor };
        let mut written = Vec::new();
        for files in &mut all {
            files.begin(span.partition, folded.state.newest_timestamp_ms());
            source.rows(log, span, files.dataset(), &mut |row| files.push(row))?;
            written.push(files.end()?);
        }
        progress.add(span.partition, FinishedPartition { report: folded.report.clone(), written })?;
    }
    let written = all.into_iter().map(Files::finish).collect::<Result<_, _>>()?;
    progress.finish()?;
    Ok((reports, written))
}
