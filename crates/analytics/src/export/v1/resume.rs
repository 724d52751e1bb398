//! Records the written partitions of an export of layout v1, in a file in the target that exists
//! only while the export is unfinished. The same export resumes after them; any other export starts
//! again.

use crate::export::datasets::Dataset;
use crate::export::target::Target;
use crate::export::{DatasetReport, PROGRESS_NAME, Plan};
use crate::{Error, FoldReport, Scratch, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The inputs that determine the exported bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Identity {
    version: String,
    log: String,
    format: String,
    datasets: Vec<Dataset>,
    spans: Vec<Span>,
    limits: String,
}

/// A finished partition: the report of its fold, and per dataset the sums and file names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FinishedPartition {
    #[serde(rename = "told")]
    pub(super) report: FoldReport,
    pub(super) written: Vec<(DatasetReport, Vec<String>)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProgressFile {
    #[serde(rename = "of")]
    identity: Identity,
    partitions: BTreeMap<u32, FinishedPartition>,
}

/// The progress of an export.
pub(super) struct Progress<'a> {
    target: &'a Target,
    file: ProgressFile,
}

impl<'a> Progress<'a> {
    /// Reads the progress of an interrupted export, if it is the same export.
    pub(super) fn load(plan: &'a Plan, spans: &[Span], scratch: &Scratch) -> Result<Self, Error> {
        let identity = Identity {
            version: format!("v1, {}", env!("CARGO_PKG_VERSION")),
            log: plan.log.clone(),
            format: format!("{:?}", plan.format),
            datasets: plan.datasets.clone(),
            spans: spans.to_vec(),
            limits: format!("{:?}", scratch.limits),
        };
        let held = plan.out.get(PROGRESS_NAME)?.and_then(|bytes| serde_json::from_slice::<ProgressFile>(&bytes).ok());
        let held = held.filter(|held| held.identity == identity);
        if let Some(held) = &held {
            tracing::info!(partitions = held.partitions.len(), "resuming the export after its written partitions");
        }
        let file = held.unwrap_or(ProgressFile { identity, partitions: BTreeMap::new() });
        Ok(Self { target: &plan.out, file })
    }

    /// Returns the number of written partitions.
    pub(super) fn partitions(&self) -> usize {
        self.file.partitions.len()
    }

    pub(super) fn finished(&self, partition: u32) -> Option<&FinishedPartition> {
        self.file.partitions.get(&partition)
    }

    /// Records that all files of a partition are written.
    pub(super) fn add(&mut self, partition: u32, finished: FinishedPartition) -> Result<(), Error> {
        self.file.partitions.insert(partition, finished);
        let json = serde_json::to_vec(&self.file).expect("progress has string keys only");
        self.target.put(PROGRESS_NAME, json)
    }

    /// Removes the progress file: the export is complete.
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.target.remove(PROGRESS_NAME)
    }
}
