//! The rows of exports and live tables, read without any crate of the product: from Parquet files,
//! and from the log of a Delta table.

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The datasets of which there are live tables.
pub const DATASETS: [&str; 5] = ["messages", "reads", "members", "rosters", "read_marks"];

/// A version of a live table.
#[derive(Debug, Clone)]
pub struct Version {
    /// The token of its position.
    pub position: String,
    /// Its data files.
    pub files: Vec<PathBuf>,
}

/// Returns the versions of a live table, the oldest first. Adds and removes of one commit have no
/// order.
///
/// # Panics
/// If the log of the table contradicts itself.
#[must_use]
pub fn versions(table: &Path) -> Vec<Version> {
    let entries = fs::read_dir(table.join("_delta_log")).expect("a table");
    let mut commits: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    commits.retain(|path| path.extension().is_some_and(|end| end == "json"));
    commits.sort();
    let (mut files, mut versions) = (BTreeSet::new(), Vec::new());
    for commit in commits {
        let text = fs::read_to_string(commit).expect("a commit");
        let actions: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        for path in actions.iter().filter_map(|action| action["remove"]["path"].as_str()) {
            assert!(files.remove(path), "{path} was not there");
        }
        for path in actions.iter().filter_map(|action| action["add"]["path"].as_str()) {
            assert!(files.insert(path.to_owned()), "{path} was there before");
        }
        let told = actions.iter().find_map(|action| action["commitInfo"]["userMetadata"].as_str()).expect("a position");
        let told: Value = serde_json::from_str(told).expect("JSON");
        let position = told["position"].as_str().expect("a position").to_owned();
        versions.push(Version { position, files: files.iter().map(|name| table.join(name)).collect() });
    }
    versions
}

/// Returns the files of an exported dataset.
///
/// # Panics
/// If the folder is not there.
#[must_use]
pub fn exported(dataset: &Path) -> Vec<PathBuf> {
    fs::read_dir(dataset).expect("a folder").map(|entry| entry.expect("a file").path()).collect()
}

/// Returns the rows of files in an order of their own, without the unit of their times.
///
/// # Panics
/// If a file is no Parquet.
#[must_use]
pub fn rows(files: &[PathBuf]) -> Vec<String> {
    let mut rows = Vec::new();
    for path in files {
        let reader = SerializedFileReader::new(File::open(path).expect("a file")).expect("Parquet");
        for row in reader.get_row_iter(None).expect("rows") {
            let row = row.expect("a row");
            let shown = row.get_column_iter().map(|(name, field)| match field {
                Field::TimestampMicros(us) => format!("{name}={}", us / 1_000),
                Field::TimestampMillis(ms) => format!("{name}={ms}"),
                other => format!("{name}={other:?}"),
            });
            rows.push(shown.collect::<Vec<_>>().join(" "));
        }
    }
    rows.sort();
    rows
}
