//! What an unfinished export has done, in a file in the target that exists only while the export is
//! unfinished. The same export resumes after it; any other export starts again. The file is a
//! claim: each file that it names is compared with its checksum before it counts.

use super::files::FileEntry;
use super::sort::Run;
use crate::export::datasets::Dataset;
use crate::export::{Format, PROGRESS_NAME, Plan, Target};
use crate::{Error, FoldReport, Scratch, Span, TemporaryFolder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of sorted runs and of the file in the making, in a target that is a directory.
const FOLDER: &str = "_export-in-progress";

/// The inputs that determine the exported bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Identity {
    version: String,
    log: String,
    format: Format,
    file_bytes: u64,
    datasets: Vec<Dataset>,
    spans: Vec<Span>,
    limits: String,
}

/// A partition whose rows are sorted: the report of its fold, and the runs of each dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FinishedPartition {
    report: FoldReport,
    pub(super) runs: BTreeMap<Dataset, Vec<Run>>,
}

impl FinishedPartition {
    pub(super) fn new(report: FoldReport) -> Self {
        Self { report, runs: BTreeMap::new() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct ProgressFile {
    identity: Identity,
    partitions: BTreeMap<u32, FinishedPartition>,
    datasets: BTreeMap<Dataset, Vec<FileEntry>>,
}

/// The folder of runs. That of a bucket is on this machine, and is gone after the run.
enum Folder {
    Kept(PathBuf),
    Temporary(TemporaryFolder),
}

/// The progress of an export.
pub(super) struct Progress<'a> {
    target: &'a Target,
    file: ProgressFile,
    folder: Folder,
}

impl<'a> Progress<'a> {
    /// Reads the progress of an interrupted export, if it is the same export, and drops the parts
    /// of it whose files are not as it says.
    pub(super) fn load(plan: &'a Plan, spans: &[Span], scratch: &Scratch) -> Result<Self, Error> {
        let identity = Identity {
            version: format!("v2, {}", env!("CARGO_PKG_VERSION")),
            log: plan.log.clone(),
            format: plan.format,
            file_bytes: plan.file_bytes,
            datasets: plan.datasets.clone(),
            spans: spans.to_vec(),
            limits: format!("{:?}", scratch.limits),
        };
        let held = plan.out.get(PROGRESS_NAME)?.and_then(|bytes| serde_json::from_slice::<ProgressFile>(&bytes).ok());
        let held = held.filter(|held| held.identity == identity);
        let folder = match &plan.out {
            Target::Directory(out) => {
                let path = out.join(FOLDER);
                if held.is_none() {
                    remove_folder(&path)?;
                }
                fs::create_dir_all(&path).map_err(Error::io(format!("creating {}", path.display())))?;
                Folder::Kept(path)
            }
            Target::Objects(_) => Folder::Temporary(TemporaryFolder::new()?),
        };
        let mut file =
            held.unwrap_or(ProgressFile { identity, partitions: BTreeMap::new(), datasets: BTreeMap::new() });
        let mut lost = Vec::new();
        for (dataset, files) in &file.datasets {
            for entry in files {
                if !plan.out.holds(entry)? {
                    tracing::warn!(
                        file = plan.out.shown(&entry.name),
                        "an exported file is missing or was changed; its dataset is written again"
                    );
                    lost.push(*dataset);
                    break;
                }
            }
        }
        file.datasets.retain(|dataset, _| !lost.contains(dataset));
        if !file.partitions.is_empty() {
            let (partitions, datasets) = (file.partitions.len(), file.datasets.len());
            tracing::info!(partitions, datasets, "resuming an interrupted export");
        }
        Ok(Self { target: &plan.out, file, folder })
    }

    /// Returns the folder for runs.
    pub(super) fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Kept(path) => path,
            Folder::Temporary(folder) => folder.path(),
        }
    }

    /// Returns the number of partitions that the same export need not fold again.
    pub(super) fn kept_partitions(&self) -> usize {
        match self.folder {
            Folder::Kept(_) => self.file.partitions.len(),
            Folder::Temporary(_) => 0,
        }
    }

    /// Returns whether the runs of a partition are complete for some datasets.
    pub(super) fn has(&self, partition: u32, datasets: &[Dataset]) -> Result<bool, Error> {
        let Some(finished) = self.file.partitions.get(&partition) else { return Ok(false) };
        for dataset in datasets {
            let Some(runs) = finished.runs.get(dataset) else { return Ok(false) };
            for run in runs {
                if !run.is_held(self.folder())? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Records that the runs of a partition are complete.
    pub(super) fn add_partition(&mut self, partition: u32, finished: FinishedPartition) -> Result<(), Error> {
        self.file.partitions.insert(partition, finished);
        self.save()
    }

    /// Returns the runs of a dataset.
    pub(super) fn runs(&self, dataset: Dataset) -> Vec<Run> {
        self.file.partitions.values().flat_map(|p| p.runs.get(&dataset).into_iter().flatten()).cloned().collect()
    }

    /// Returns the number of rows of a dataset in its runs.
    pub(super) fn rows(&self, dataset: Dataset) -> u64 {
        self.runs(dataset).iter().map(|run| run.rows).sum()
    }

    /// Returns the files of a dataset if they are complete.
    pub(super) fn files(&self, dataset: Dataset) -> Option<&[FileEntry]> {
        self.file.datasets.get(&dataset).map(Vec::as_slice)
    }

    /// Records that the files of a dataset are complete, and removes its runs.
    pub(super) fn add_files(&mut self, dataset: Dataset, files: Vec<FileEntry>) -> Result<(), Error> {
        self.file.datasets.insert(dataset, files);
        self.save()?;
        self.runs(dataset).iter().try_for_each(|run| run.remove(self.folder()))
    }

    /// Returns the reports of the folds, by partition.
    pub(super) fn reports(&self) -> Vec<FoldReport> {
        self.file.partitions.values().map(|finished| finished.report.clone()).collect()
    }

    fn save(&self) -> Result<(), Error> {
        self.target.put(PROGRESS_NAME, serde_json::to_vec(&self.file).expect("progress has string keys only"))
    }

    /// Removes the progress file and the runs: the export is complete.
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.target.remove(PROGRESS_NAME)?;
        if let Folder::Kept(path) = &self.folder { remove_folder(path) } else { Ok(()) }
    }
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
