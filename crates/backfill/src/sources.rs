//! The files of an import's tables: their columns are checked before a row is read.

use crate::Error;
use crate::columns::Input;
use crate::feed::Mapped;
use crate::import::Plan;
use receipts_analytics::table::{self, DataFile, Format, Options};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A table to import.
#[derive(Debug, Clone)]
pub struct Source {
    /// The kind of its rows.
    pub input: Input,
    /// Its files, in the order of reading.
    pub files: Vec<DataFile>,
    /// How its text files are read.
    pub options: Options,
}

impl Source {
    /// Finds the files of a table by files, folders and globs. Their names tell the format if none
    /// is given.
    ///
    /// # Errors
    /// A sentence that names the path.
    pub fn new(input: Input, paths: &[PathBuf], format: Option<Format>) -> Result<Self, String> {
        Ok(Self { input, files: table::find(paths, format)?, options: Options::default() })
    }
}

/// Returns the size of all tables, bytes.
pub fn bytes(plan: &Plan) -> u64 {
    plan.sources.iter().flat_map(|source| &source.files).map(|file| file.bytes).sum()
}

/// Checks that each file has the columns that it needs, and returns what the operator should know
/// about how files are read.
///
/// # Errors
/// If a file cannot be read, or lacks a column.
pub fn check(plan: &Plan) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for Source { input, files, options } in &plan.sources {
        let mapped = plan.mapping.as_ref().and_then(|mapping| Mapped::compile(mapping, *input, plan));
        let headers = files.iter().map(|file| table::header(file, options)).collect::<Result<Vec<_>, _>>()?;
        let all: Vec<String> = headers.iter().filter_map(|header| header.columns.as_ref()).flatten().cloned().collect();
        let mut sniffed = BTreeMap::new();
        let mut folders: BTreeMap<String, &DataFile> = BTreeMap::new();
        for (file, header) in files.iter().zip(&headers) {
            for name in file.folder_columns() {
                if !header.columns.as_ref().is_some_and(|held| held.contains(&name)) {
                    folders.entry(name).or_insert(file);
                }
            }
            if let Some(found) = header.sniffed {
                sniffed.entry(found).or_insert(file);
            }
            match (&header.columns, &mapped) {
                (None, _) => {}
                (Some(held), Some(mapped)) => mapped.check(*input, &file.path, held, &all)?,
                (Some(held), None) => plan.columns.check(*input, &file.path, held, &all)?,
            }
        }
        notes.extend(sniffed.into_iter().map(|(found, file)| {
            let shown = if found == '\t' { "a tab".to_owned() } else { found.to_string() };
            format!("{input}: the header line of {} separates fields by {shown}", file.path.display())
        }));
        notes.extend(folders.into_iter().map(|(name, file)| {
            format!(
                "{input}: {name} is only in the names of folders ({}), whose values are not read",
                file.path.display()
            )
        }));
    }
    Ok(notes)
}
