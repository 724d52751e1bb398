//! Reads foreign tables row by row: CSV, PostgreSQL's COPY text, NDJSON, Parquet, each in one file
//! or in many. Columns are found by name only. One batch of rows is in memory.

mod columnar;
mod copy;
mod csv;
mod files;
mod forms;
mod ndjson;
mod text;

use crate::Error;
use columnar::ParquetRows;
use copy::CopyRows;
use csv::CsvRows;
pub use files::{DataFile, find};
use ndjson::NdjsonRows;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::{self, ErrorKind};
use std::path::Path;

/// The file format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// One JSON object per line.
    Ndjson,
    /// A header line, then one line per row.
    Csv,
    /// The text that PostgreSQL's COPY writes: tabs, `\N`, backslash escapes.
    Copy,
}

impl Format {
    /// Returns the format that a file's name tells, if it tells one; `.gz` and `.zst` are left out.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "parquet" => Some(Self::Parquet),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            "copy" | "tsv" => Some(Self::Copy),
            _ => None,
        }
    }
}

/// How text files are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The byte between two fields. CSV without it takes the one of `,`, `;`, tab and `|` that the
    /// header line has most often; COPY text takes the tab.
    pub delimiter: Option<u8>,
    /// A field of CSV or COPY text that is null, beside the empty field and COPY's `\N`.
    pub null: Option<String>,
    /// The names of the columns of CSV or COPY text without a header line.
    pub header: Option<Vec<String>>,
}

/// A position between two rows of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The number of files before its file.
    pub file: usize,
    /// The number of rows of that file before it.
    pub rows: u64,
    /// The number of uncompressed bytes of that file before it; an estimate for Parquet.
    pub bytes: u64,
}

/// One row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The number of its file, from 0.
    pub file: usize,
    /// Its number in the file, from 1; a header line does not count.
    pub number: u64,
    /// Its values by column without nulls, or the reason why it is not a valid row. A value that
    /// JSON cannot say is tagged: `{"$date": TEXT}` is a timestamp, `{"$numberDecimal": TEXT}` a
    /// decimal, `{"$type": NAME}` a type that no column takes.
    pub values: Result<Map<String, Value>, String>,
    /// The row as it stands in the file, as JSON for display.
    pub original: Value,
    after: Cursor,
    read_bytes: u64,
}

/// A row's values or error, the row as it stands, and the number of bytes up to its end.
type Read = (Result<Map<String, Value>, String>, Value, u64);

enum Rows {
    Csv(Box<CsvRows>),
    Copy(CopyRows),
    Ndjson(NdjsonRows),
    Parquet(Box<ParquetRows>),
}

impl Rows {
    fn open(file: &DataFile, options: &Options, cursor: Cursor) -> Result<Self, Error> {
        let DataFile { path, format, .. } = file;
        let rows = match format {
            Format::Csv => CsvRows::open(path, options, cursor).map(|rows| Self::Csv(Box::new(rows))),
            Format::Copy => CopyRows::open(path, options, cursor).map(Self::Copy),
            Format::Ndjson => NdjsonRows::open(path, cursor).map(Self::Ndjson),
            Format::Parquet => ParquetRows::open(path, cursor.rows).map(|rows| Self::Parquet(Box::new(rows))),
        };
        rows.map_err(Error::io(format!("reading {}", path.display())))
    }

    fn next(&mut self) -> io::Result<Option<Read>> {
        match self {
            Self::Csv(rows) => rows.next(),
            Self::Copy(rows) => rows.next(),
            Self::Ndjson(rows) => rows.next(),
            Self::Parquet(rows) => rows.next(),
        }
    }

    /// Returns the bytes of the file, as it lies on disk, that are read.
    fn read_bytes(&self, after: u64) -> u64 {
        match self {
            Self::Csv(rows) => rows.read_bytes(after),
            Self::Copy(rows) => rows.read_bytes(after),
            Self::Ndjson(rows) => rows.read_bytes(after),
            Self::Parquet(_) => after,
        }
    }
}

/// What a file says before its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The names of its columns; `None` if only the rows have them, or the file is empty.
    pub columns: Option<Vec<String>>,
    /// The delimiter that was found in the header line and not given.
    pub sniffed: Option<char>,
}

/// Reads what a file says before its rows.
///
/// # Errors
/// If the file cannot be read or is not of its format.
pub fn header(file: &DataFile, options: &Options) -> Result<Header, Error> {
    Ok(match Rows::open(file, options, Cursor::default())? {
        Rows::Csv(rows) => Header { columns: rows.columns(), sniffed: rows.sniffed() },
        Rows::Copy(rows) => Header { columns: rows.columns(), sniffed: None },
        Rows::Parquet(rows) => Header { columns: Some(rows.columns()), sniffed: None },
        Rows::Ndjson(_) => Header::default(),
    })
}

/// A table that is read row by row, file after file.
pub struct Table {
    files: Vec<DataFile>,
    options: Options,
    rows: Option<Rows>,
    cursor: Cursor,
    /// The position of the next read.
    at: Cursor,
    read_bytes: u64,
    next: Option<Row>,
}

impl Table {
    /// Opens a table and moves to a position that [`Self::cursor`] returned for the same files.
    ///
    /// # Errors
    /// If a file cannot be read or is not of its format.
    pub fn open(files: Vec<DataFile>, options: Options, cursor: Cursor) -> Result<Self, Error> {
        let mut table = Self { files, options, rows: None, cursor, at: cursor, read_bytes: 0, next: None };
        table.open_file()?;
        let within = table.rows.as_ref().map_or(0, |rows| rows.read_bytes(cursor.bytes));
        table.read_bytes = table.bytes_before(cursor.file) + within;
        Ok(table)
    }

    fn open_file(&mut self) -> Result<(), Error> {
        let file = self.files.get(self.at.file);
        self.rows = file.map(|file| Rows::open(file, &self.options, self.at)).transpose()?;
        Ok(())
    }

    fn bytes_before(&self, file: usize) -> u64 {
        self.files.iter().take(file).map(|file| file.bytes).sum()
    }

    /// Returns the path of a row's file.
    pub fn path(&self, row: &Row) -> &Path {
        &self.files[row.file].path
    }

    /// Returns the position before the row that [`Self::take`] returns next.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Returns about how many bytes of the files, as they lie on disk, are read.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Returns the next row without consuming it; `None` at the end.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn peek(&mut self) -> Result<Option<&Row>, Error> {
        if self.next.is_none() {
            self.next = self.read()?;
        }
        Ok(self.next.as_ref())
    }

    /// Consumes and returns the next row; `None` at the end.
    ///
    /// # Errors
    /// As [`Self::peek`].
    pub fn take(&mut self) -> Result<Option<Row>, Error> {
        self.peek()?;
        let row = self.next.take();
        if let Some(row) = &row {
            self.cursor = row.after;
            self.read_bytes = row.read_bytes;
        }
        Ok(row)
    }

    fn read(&mut self) -> Result<Option<Row>, Error> {
        while let Some(rows) = &mut self.rows {
            let file = self.at.file;
            let doing = || format!("reading {}", self.files[file].path.display());
            if let Some((values, original, bytes)) = rows.next().map_err(|error| Error::io(doing())(error))? {
                let within = rows.read_bytes(bytes).min(self.files[file].bytes);
                self.at = Cursor { file, rows: self.at.rows + 1, bytes };
                let read_bytes = self.bytes_before(file) + within;
                return Ok(Some(Row { file, number: self.at.rows, values, original, after: self.at, read_bytes }));
            }
            self.at = Cursor { file: file + 1, ..Cursor::default() };
            self.open_file()?;
        }
        Ok(None)
    }
}

pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Joins the fields of a line of text with the columns' names. Without names, or with another
/// number of fields, the row is wrong.
fn row_of_fields(names: &[String], fields: Vec<Option<String>>, bytes: u64) -> Read {
    if fields.len() != names.len() {
        let reason = format!("has {} fields, but there are {} columns", fields.len(), names.len());
        return (Err(reason), fields.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().into(), bytes);
    }
    let original = names.iter().cloned().zip(fields.iter().cloned().map(Value::from)).collect();
    let values = names.iter().zip(fields).filter_map(|(name, field)| Some((name.clone(), field?)));
    let values = values.filter(|(_, field)| !field.is_empty()).map(|(name, field)| (name, field.into()));
    (Ok(values.collect()), Value::Object(original), bytes)
}

#[cfg(test)]
mod tests;
