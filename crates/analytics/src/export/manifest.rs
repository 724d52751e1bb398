//! The manifest of an export: per dataset its files with checksums, and the prefix and settings
//! that they stand for. A dataset is in it only while its files are complete. Layout v1 has none.

use super::v2::FileEntry;
use super::{Dataset, Format, Plan, Target};
use crate::{Error, Scratch, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// The leading underscore makes readers of folders skip the file.
const NAME: &str = "_manifest.json";
const FORMAT_VERSION: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format_version: u32,
    datasets: BTreeMap<String, Entry>,
}

/// A complete dataset.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    format: Format,
    sorted_by: Vec<String>,
    files: Vec<FileEntry>,
    /// The token of the position that the rows stand for.
    position: String,
    /// The exported ranges of the log.
    partitions: Vec<Span>,
    log: String,
    settings: Settings,
    /// The program that wrote the files.
    program: String,
}

/// The settings of the projector that decide answers.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    retention_ms: u64,
    parked_count: u64,
    parked_bytes: u64,
    parked_age_ms: u64,
    read_times: bool,
    #[serde(default)]
    unwrap: String,
    erasures_max: u64,
    policy_types_max: u64,
}

impl Entry {
    pub(super) fn new(plan: &Plan, spans: &[Span], scratch: &Scratch, dataset: Dataset, files: &[FileEntry]) -> Self {
        let limits = &scratch.limits;
        Self {
            rows: files.iter().map(|file| file.rows).sum(),
            bytes: files.iter().map(|file| file.bytes).sum(),
            format: plan.format,
            sorted_by: dataset.order().iter().map(|name| (*name).to_owned()).collect(),
            files: files.to_vec(),
            position: plan.position.clone(),
            partitions: spans.to_vec(),
            log: plan.log.clone(),
            settings: Settings {
                retention_ms: limits.retention_ms,
                parked_count: limits.parked_max as u64,
                parked_bytes: limits.parked_bytes,
                parked_age_ms: limits.parked_age_ms,
                read_times: limits.read_times,
                unwrap: limits.unwrap.name().to_owned(),
                erasures_max: limits.erasures_max,
                policy_types_max: limits.policy_types_max,
            },
            program: format!("receipts {}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Removes datasets from the manifest of a target, before their files change.
pub(super) fn forget(target: &Target, datasets: &[Dataset]) -> Result<(), Error> {
    let Some(mut manifest) = load(target)? else { return Ok(()) };
    let before = manifest.datasets.len();
    manifest.datasets.retain(|name, _| !datasets.iter().any(|dataset| dataset.name() == name));
    match manifest.datasets.len() {
        0 => target.remove(NAME),
        after if after == before => Ok(()),
        _ => save(target, &manifest),
    }
}

/// Adds complete datasets to the manifest of a target.
pub(super) fn add(target: &Target, entries: impl IntoIterator<Item = (Dataset, Entry)>) -> Result<(), Error> {
    let held = load(target)?;
    let mut manifest = held.unwrap_or(Manifest { format_version: FORMAT_VERSION, datasets: BTreeMap::new() });
    manifest.datasets.extend(entries.into_iter().map(|(dataset, entry)| (dataset.name().to_owned(), entry)));
    save(target, &manifest)
}

fn load(target: &Target) -> Result<Option<Manifest>, Error> {
    let Some(bytes) = target.get(NAME)? else { return Ok(None) };
    match serde_json::from_slice::<Manifest>(&bytes) {
        Ok(manifest) if manifest.format_version == FORMAT_VERSION => Ok(Some(manifest)),
        _ => Err(Error::io(format!("reading {}", target.shown(NAME)))(io::Error::other(
            "it is no manifest of export format 2: choose another directory, or remove the file",
        ))),
    }
}

fn save(target: &Target, manifest: &Manifest) -> Result<(), Error> {
    let mut json = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys only");
    json.push(b'\n');
    target.put(NAME, json)
}
