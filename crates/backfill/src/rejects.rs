//! The report of rejects: one line of JSON per rejected row, with file, row number, reason and
//! content.

use crate::Error;
use crate::columns::Input;
use receipts_analytics::table::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Reject<'a> {
    table: Input,
    file: &'a Path,
    row: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<&'static str>,
    reason: &'a str,
    original: &'a Value,
}

/// Rejected rows of one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectReason {
    /// Their number.
    pub count: u64,
    /// The first three.
    pub examples: Vec<RejectExample>,
}

/// A rejected row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectExample {
    /// Its file.
    pub file: PathBuf,
    /// Its number in the file, from 1.
    pub row: u64,
    /// The reason with the row's own values.
    pub reason: String,
}

const EXAMPLES: usize = 3;
/// Kinds of reasons that are told apart; the report of rejects has all.
const KINDS: usize = 100;

/// Adds a rejected row to the reasons of its table.
pub(crate) fn note(reasons: &mut BTreeMap<String, RejectReason>, file: &Path, row: &Row, reason: &str) {
    let mut kind = kind(reason);
    if !reasons.contains_key(&kind) && reasons.len() >= KINDS {
        kind = "other reasons".to_owned();
    }
    let held = reasons.entry(kind).or_default();
    held.count += 1;
    if held.examples.len() < EXAMPLES {
        held.examples.push(RejectExample { file: file.to_owned(), row: row.number, reason: reason.to_owned() });
    }
}

/// Returns the column that a reason begins with.
fn column(input: Input, reason: &str) -> Option<&'static str> {
    let word = reason.split([' ', ':']).next()?;
    input.columns().iter().map(|(name, ..)| *name).find(|name| *name == word)
}

/// Returns a reason without the row's values: `COLUMN: VALUE is …` becomes `COLUMN: … is …`, and
/// `COLUMN is VALUE, …` becomes `COLUMN is …, …`.
fn kind(reason: &str) -> String {
    if let Some((column, (_, rest))) = reason.split_once(" is ").and_then(|(c, rest)| Some((c, rest.split_once(", ")?)))
        && !column.contains([' ', ':'])
    {
        return format!("{column} is …, {}", without_numbers(rest));
    }
    let without_value = reason.split_once(": ").and_then(|(column, rest)| {
        let (_, rest) = [" is ", " has ", ": "].iter().filter_map(|by| Some((by, rest.split_once(by)?.1))).next()?;
        Some(format!("{column}: … {}", rest))
    });
    let text = without_value.unwrap_or_else(|| reason.to_owned());
    without_numbers(&text)
}

fn without_numbers(text: &str) -> String {
    let mut kind = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            letter => kind.push(letter),
        }
    }
    kind
}

/// The open report.
pub(crate) struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<std::fs::File>>,
    /// The length of this import's part of the file.
    bytes: u64,
}

impl Rejects {
    /// Opens the report and truncates it to `bytes`. The first reject creates the file.
    pub(crate) fn open(path: &Path, bytes: u64) -> Result<Self, Error> {
        let mut rejects = Self { path: path.to_owned(), file: None, bytes };
        if bytes > 0 || path.exists() {
            rejects.file()?;
        }
        Ok(rejects)
    }

    fn file(&mut self) -> Result<&mut BufWriter<std::fs::File>, Error> {
        if self.file.is_none() {
            let mut open = || -> std::io::Result<std::fs::File> {
                let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
                self.bytes = self.bytes.min(file.metadata()?.len());
                file.set_len(self.bytes)?;
                file.seek(SeekFrom::Start(self.bytes))?;
                Ok(file)
            };
            let file = open().map_err(Error::io(format!("writing {}", self.path.display())))?;
            self.file = Some(BufWriter::new(file));
        }
        Ok(self.file.as_mut().expect("just opened"))
    }

    pub(crate) fn push(&mut self, input: Input, file: &Path, row: &Row, reason: &str) -> Result<(), Error> {
        let column = column(input, reason);
        let reject = Reject { table: input, file, row: row.number, column, reason, original: &row.original };
        let mut line = serde_json::to_vec(&reject).expect("a reject has string keys only");
        line.push(b'\n');
        let doing = format!("writing {}", self.path.display());
        self.file()?.write_all(&line).map_err(Error::io(doing))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Syncs the report to the disk and returns its length.
    pub(crate) fn sync(&mut self) -> Result<u64, Error> {
        let doing = format!("writing {}", self.path.display());
        if let Some(file) = &mut self.file {
            file.flush().and_then(|()| file.get_ref().sync_data()).map_err(Error::io(doing))?;
        }
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_one_kind_are_counted_together() {
        assert_eq!(kind("read_at_ms: \"soon\" is not a time"), kind("read_at_ms: \"later\" is not a time"));
        assert_eq!(kind("has 3 fields, but the header line has 15"), kind("has 12 fields, but the header line has 15"));
        let zone = |at: &str| kind(&format!("read_at_ms is {at}, a time without a zone"));
        assert_eq!(zone("2026-11-20 12:05:00"), zone("2026-11-20"));
        assert_eq!(column(Input::Reads, "read_at_ms is 0, which"), Some("read_at_ms"));
        assert_eq!(column(Input::Reads, "role: x is not"), None);
        assert_ne!(kind("user_id is missing"), kind("message_id is missing"));
    }
}
