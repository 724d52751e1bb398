//! Which partitions of an export are written: a file beside the files, there only while an export is not done. The same
//! export goes on behind them; any other begins anew.

use super::place::Place;
use super::rows::Dataset;
use super::{Plan, Written};
use crate::{Error, Scratch, Span, Told};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Readers of `*.parquet` and the like pass it over.
const NAME: &str = "_export-in-progress.json";

/// What makes files the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Of {
    version: String,
    log: String,
    format: String,
    datasets: Vec<Dataset>,
    spans: Vec<Span>,
    limits: String,
}

/// What a partition came to: what was read, and by dataset its figures and the names of its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) told: Told,
    pub(super) written: Vec<(Written, Vec<String>)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    of: Of,
    partitions: BTreeMap<u32, Done>,
}

/// The progress of an export.
pub(super) struct Progress<'a> {
    place: &'a Place,
    kept: Kept,
}

impl<'a> Progress<'a> {
    /// What an export that broke off has left, if it is this one.
    pub(super) fn load(plan: &'a Plan, spans: &[Span], scratch: &Scratch) -> Result<Self, Error> {
        let of = Of {
            version: format!("v1, {}", env!("CARGO_PKG_VERSION")),
            log: plan.log.clone(),
            format: format!("{:?}", plan.format),
            datasets: plan.datasets.clone(),
            spans: spans.to_vec(),
            limits: format!("{:?}", scratch.limits),
        };
        let held = plan.out.get(NAME)?.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let held = held.filter(|held| held.of == of);
        if let Some(held) = &held {
            tracing::info!(partitions = held.partitions.len(), "going on behind partitions that are written already");
        }
        let kept = held.unwrap_or(Kept { of, partitions: BTreeMap::new() });
        Ok(Self { place: &plan.out, kept })
    }

    /// How many partitions are written.
    pub(super) fn partitions(&self) -> usize {
        self.kept.partitions.len()
    }

    pub(super) fn done(&self, partition: u32) -> Option<&Done> {
        self.kept.partitions.get(&partition)
    }

    /// Remembers that all files of a partition are there.
    pub(super) fn add(&mut self, partition: u32, done: Done) -> Result<(), Error> {
        self.kept.partitions.insert(partition, done);
        let json = serde_json::to_vec(&self.kept).expect("progress has string keys only");
        self.place.put(NAME, json)
    }

    /// Everything is written: nothing is to go on.
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.place.remove(NAME)
    }
}
