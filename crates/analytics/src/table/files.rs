//! Finds the files of a table: a file, the files below a folder, or those that a glob matches, in
//! the order of their names. It reads no file.

use super::Format;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its path.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Its size, bytes.
    pub bytes: u64,
}

impl DataFile {
    /// Returns the column names in the names of the folders around the file, as Hive and Spark
    /// write them (`day=2026-11-20`). No reader takes their values.
    pub fn folder_columns(&self) -> Vec<String> {
        let parents = self.path.parent().into_iter().flat_map(Path::components);
        let names = parents.filter_map(|part| part.as_os_str().to_str()?.split_once('='));
        names.map(|(name, _)| name.to_owned()).collect()
    }
}

/// Returns the files that paths name: each a file, a folder or a glob. Below a folder, names that
/// begin with `.` or `_` are skipped.
///
/// # Errors
/// A sentence, if there is no file, a file comes twice, or the format of a file is unknown.
pub fn find(paths: &[PathBuf], format: Option<Format>) -> Result<Vec<DataFile>, String> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        if path.exists() {
            walk(path, &mut found).map_err(|error| format!("{}: {error}", path.display()))?;
        } else if let Some(pattern) = path.to_str().filter(|text| text.contains(['*', '?', '['])) {
            let strict = glob::MatchOptions {
                case_sensitive: true,
                require_literal_separator: true,
                require_literal_leading_dot: true,
            };
            let matches = glob::glob_with(pattern, strict).map_err(|error| format!("{pattern}: {error}"))?;
            let names_hidden = path.file_name().is_some_and(is_hidden);
            for entry in matches {
                let entry = entry.map_err(|error| error.to_string())?;
                if names_hidden || !entry.file_name().is_some_and(is_hidden) {
                    walk(&entry, &mut found).map_err(|error| format!("{}: {error}", entry.display()))?;
                }
            }
            if found.len() == before {
                return Err(format!("{pattern} matches no file"));
            }
        } else {
            return Err(format!("there is no file {}", path.display()));
        }
        if found.len() == before {
            return Err(format!("the folder {} has no files", path.display()));
        }
    }
    let mut seen = BTreeSet::new();
    let file = |path: PathBuf| {
        let about = |error: io::Error| format!("{}: {error}", path.display());
        if !seen.insert(fs::canonicalize(&path).map_err(about)?) {
            return Err(format!("{} is given twice", path.display()));
        }
        let Some(format) = format.or_else(|| Format::of(&path)) else {
            return Err(format!(
                "{}: the name does not tell the format (.csv, .copy, .tsv, .ndjson, .jsonl, .json, .parquet, of texts also \
                 with .gz or .zst), so name it by --format, or give a glob that leaves the file out",
                path.display()
            ));
        };
        let bytes = fs::metadata(&path).map_err(about)?.len();
        Ok(DataFile { path, format, bytes })
    };
    found.into_iter().map(file).collect()
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().first().is_some_and(|first| b"._".contains(first))
}

fn walk(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut entries: Vec<_> = entries.into_iter().filter(|path| !path.file_name().is_some_and(is_hidden)).collect();
    entries.sort();
    entries.iter().try_for_each(|entry| walk(entry, found))
}
