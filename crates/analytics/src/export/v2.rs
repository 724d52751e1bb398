//! Layout v2: `DIR/<dataset>/part-<number>` (`schemas/export/v2.md`), sorted over all partitions.
//!
//! Each partition is folded into a temporary state and walked; its rows become sorted runs on disk.
//! Then the runs of each dataset are merged into its files. An interrupted export keeps its runs.

mod encode;
mod files;
mod progress;
mod sort;

pub(crate) use encode::parquet_properties;
pub(super) use files::FileEntry;

use super::rows::Source;
use super::{Dataset, DatasetReport, Plan, fold_passes, manifest, stopped_after};
use crate::{Error, FoldReport, ProgressMonitor, Scratch, Span};
use progress::{FinishedPartition, Progress};
use receipts_log::Inspect;
use sort::Sorter;
use std::collections::BTreeSet;

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
    written.map_err(stopped_after(progress.kept_partitions(), spans.len()))
}

fn export_on(
    log: &dyn Inspect,
    spans: &[Span],
    scratch: &Scratch,
    plan: &Plan,
    monitor: &dyn ProgressMonitor,
    progress: &mut Progress<'_>,
) -> Result<(Vec<FoldReport>, Vec<DatasetReport>), Error> {
    let missing: Vec<Dataset> =
        plan.datasets.iter().copied().filter(|dataset| progress.files(*dataset).is_none()).collect();
    for span in spans {
        if progress.has(span.partition, &missing)? {
            monitor.skipped(fold_passes(&plan.datasets) * span.offsets());
            continue;
        }
        let folded = scratch.fold(log, span, monitor)?;
        let source = Source { state: &folded.state, partition: span.partition, monitor };
        let mut finished = FinishedPartition::new(folded.report.clone());
        for dataset in &missing {
            let mut sorter = Sorter::new(*dataset, span.partition, progress.folder());
            source.rows(log, span, *dataset, &mut |row| sorter.push(row))?;
            finished.runs.insert(*dataset, sorter.finish()?);
        }
        progress.add_partition(span.partition, finished)?;
    }

    let all_rows = missing.iter().map(|dataset| progress.rows(*dataset)).sum();
    let mut written = Written { offsets: spans.iter().map(Span::offsets).sum(), rows: all_rows, done: 0, monitor };
    for dataset in &missing {
        tracing::info!(dataset = dataset.name(), rows = progress.rows(*dataset), "writing files");
        let runs = progress.runs(*dataset);
        let files = files::write(*dataset, runs, progress.folder(), plan, &mut |rows| written.advance(rows))?;
        progress.add_files(*dataset, files)?;
    }
    written.end();

    let (mut reports, mut entries) = (Vec::new(), Vec::new());
    for dataset in &plan.datasets {
        let files = progress.files(*dataset).unwrap_or_default();
        let names: BTreeSet<String> = files.iter().map(|file| file.name.clone()).collect();
        let removed = plan.out.remove_others(dataset.name(), &names)?;
        let entry = manifest::Entry::new(plan, spans, scratch, *dataset, files);
        reports.push(DatasetReport {
            dataset: *dataset,
            rows: entry.rows,
            files: files.len() as u64,
            bytes: entry.bytes,
            removed,
        });
        entries.push((*dataset, entry));
    }
    manifest::add(&plan.out, entries)?;
    let folded = progress.reports();
    progress.finish()?;
    Ok((folded, reports))
}

/// Written rows as a last pass over the offsets of the log.
struct Written<'a> {
    offsets: u64,
    rows: u64,
    done: u64,
    monitor: &'a dyn ProgressMonitor,
}

impl Written<'_> {
    fn advance(&mut self, rows: u64) -> Result<(), Error> {
        let at = |rows: u64| (u128::from(self.offsets) * u128::from(rows) / u128::from(self.rows.max(1))) as u64;
        self.monitor.advanced(at(self.done + rows) - at(self.done));
        self.done += rows;
        if self.monitor.is_stopped() { Err(Error::Stopped) } else { Ok(()) }
    }

    fn end(&self) {
        if self.rows == 0 {
            self.monitor.skipped(self.offsets);
        }
    }
}
