//! Reads foreign tables row by row: CSV with a header line, NDJSON, Parquet. Columns are found by
//! name only. One batch of rows is in memory.

mod columnar;

use crate::Error;
use columnar::ParquetRows;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// The file format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// One JSON object per line.
    Ndjson,
    /// A header line, then one line per row.
    Csv,
}

impl Format {
    /// Returns the format that a file's extension names, if it names one.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// A position between two rows of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The number of rows before it.
    pub rows: u64,
    /// The number of bytes before it; an estimate for Parquet.
    pub bytes: u64,
}

/// One row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number in the file, from 1; the header line of a CSV file does not count.
    pub number: u64,
    /// Its values by column without nulls, or the reason why it is not a valid row.
    pub values: Result<Map<String, Value>, String>,
    /// The row as it stands in the file, as JSON for display.
    pub original: Value,
    after: Cursor,
}

enum Rows {
    Csv { reader: Box<csv::Reader<File>>, names: Vec<String> },
    Ndjson { reader: BufReader<File>, at: u64 },
    Parquet(Box<ParquetRows>),
}

/// A table that is read row by row.
pub struct Table {
    path: PathBuf,
    rows: Rows,
    cursor: Cursor,
    read: u64,
    next: Option<Row>,
}

impl Table {
    /// Opens a table and moves to a position that [`Self::cursor`] returned for the same file.
    ///
    /// # Errors
    /// If the file cannot be read or is not of that format.
    pub fn open(path: &Path, format: Format, cursor: Cursor) -> Result<Self, Error> {
        let rows = Self::rows_at(path, format, cursor).map_err(Error::io(format!("reading {}", path.display())))?;
        Ok(Self { path: path.to_owned(), rows, cursor, read: cursor.rows, next: None })
    }

    fn rows_at(path: &Path, format: Format, cursor: Cursor) -> io::Result<Rows> {
        let mut file = File::open(path)?;
        Ok(match format {
            Format::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
                let names = reader.headers()?.iter().map(str::to_owned).collect();
                if cursor.rows > 0 {
                    let mut there = csv::Position::new();
                    there.set_byte(cursor.bytes).set_record(cursor.rows + 1);
                    reader.seek(there)?;
                }
                Rows::Csv { reader: Box::new(reader), names }
            }
            Format::Ndjson => {
                file.seek(SeekFrom::Start(cursor.bytes))?;
                Rows::Ndjson { reader: BufReader::new(file), at: cursor.bytes }
            }
            Format::Parquet => Rows::Parquet(Box::new(ParquetRows::open(file, cursor.rows)?)),
        })
    }

    /// Returns the column names if the format stores them outside the rows.
    pub fn columns(&self) -> Option<Vec<String>> {
        match &self.rows {
            Rows::Csv { names, .. } => Some(names.clone()),
            Rows::Parquet(rows) => Some(rows.columns()),
            Rows::Ndjson { .. } => None,
        }
    }

    /// Returns the position before the row that [`Self::take`] returns next.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Returns the next row without consuming it; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn peek(&mut self) -> Result<Option<&Row>, Error> {
        if self.next.is_none() {
            self.next = self.read().map_err(Error::io(format!("reading {}", self.path.display())))?;
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
        }
        Ok(row)
    }

    fn read(&mut self) -> io::Result<Option<Row>> {
        let number = self.read + 1;
        let read = match &mut self.rows {
            Rows::Csv { reader, names } => csv_row(reader, names)?,
            Rows::Ndjson { reader, at } => ndjson_row(reader, at)?,
            Rows::Parquet(rows) => {
                rows.next()?.map(|(values, bytes)| (Ok(values.clone()), Value::Object(values), bytes))
            }
        };
        let Some((values, original, bytes)) = read else { return Ok(None) };
        self.read = number;
        Ok(Some(Row { number, values, original, after: Cursor { rows: number, bytes } }))
    }
}

/// A row's values or error, the row as it stands, and the number of bytes up to its end.
type Read = (Result<Map<String, Value>, String>, Value, u64);

fn csv_row(reader: &mut csv::Reader<File>, names: &[String]) -> io::Result<Option<Read>> {
    let mut record = csv::ByteRecord::new();
    if !reader.read_byte_record(&mut record)? {
        return Ok(None);
    }
    let bytes = reader.position().byte();
    let fields: Vec<Result<&str, _>> = record.iter().map(std::str::from_utf8).collect();
    let shown = record.iter().map(String::from_utf8_lossy).collect::<Vec<_>>();
    if fields.iter().any(Result::is_err) {
        return Ok(Some((Err("is not UTF-8".to_owned()), shown.into(), bytes)));
    }
    if fields.len() != names.len() {
        let reason = format!("has {} fields, but the header line has {}", fields.len(), names.len());
        return Ok(Some((Err(reason), shown.into(), bytes)));
    }
    let all = names.iter().zip(fields).map(|(name, field)| (name.clone(), field.unwrap_or_default()));
    let original = all.clone().map(|(name, field)| (name, field.into())).collect::<Map<_, _>>();
    let values = all.filter(|(_, field)| !field.is_empty()).map(|(name, field)| (name, field.into()));
    Ok(Some((Ok(values.collect()), Value::Object(original), bytes)))
}

fn ndjson_row(reader: &mut BufReader<File>, at: &mut u64) -> io::Result<Option<Read>> {
    loop {
        let mut line = Vec::new();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        *at += read as u64;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let text = || Value::from(String::from_utf8_lossy(line));
        return Ok(Some(match serde_json::from_slice(line) {
            Ok(Value::Object(mut values)) => {
                let original = Value::Object(values.clone());
                values.retain(|_, value| !value.is_null());
                (Ok(values), original, *at)
            }
            Ok(_) => (Err("is not a JSON object".to_owned()), text(), *at),
            Err(error) => (Err(format!("is not JSON: {error}")), text(), *at),
        }));
    }
}

pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write as _;

    fn file(ending: &str, bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn rest(table: &mut Table) -> Vec<(u64, Result<Value, String>)> {
        std::iter::from_fn(|| table.take().unwrap()).map(|row| (row.number, row.values.map(Value::Object))).collect()
    }

    #[test]
    fn rows_are_numbered_and_bad_rows_state_a_reason() {
        let csv = file(".csv", b"a,b\n1,\"x, y\"\n\n2\n\xff,z\n3,\n");
        let ndjson = file(".ndjson", b"{\"a\":1,\"b\":null}\n\n[1]\n{\"a\":\n{\"a\":2}");
        let mut table = Table::open(csv.path(), Format::of(csv.path()).unwrap(), Cursor::default()).unwrap();
        assert_eq!(table.columns().unwrap(), ["a", "b"]);
        let rows = rest(&mut table);
        assert_eq!(rows[0], (1, Ok(json!({"a": "1", "b": "x, y"}))));
        assert!(rows[1].1.as_ref().is_err_and(|why| why.contains("has 1 fields")), "{rows:?}");
        assert!(rows[2].1.as_ref().is_err_and(|why| why.contains("UTF-8")), "{rows:?}");
        assert_eq!(rows[3..], [(4, Ok(json!({"a": "3"})))]);
        let mut table = Table::open(ndjson.path(), Format::Ndjson, Cursor::default()).unwrap();
        let rows = rest(&mut table);
        assert_eq!((rows.len(), &rows[0], &rows[3]), (4, &(1, Ok(json!({"a": 1}))), &(4, Ok(json!({"a": 2})))));
        assert!(rows[1].1.is_err() && rows[2].1.is_err());
    }

    #[test]
    fn reading_resumes_at_any_cursor() {
        let csv = file(".csv", b"a,b\n1,\"x\ny\"\n2,\n3,c\n4,d\n");
        let ndjson = file(".ndjson", b"{\"a\":1}\n\n{\"a\":2}\n{\"a\":3}\n");
        for file in [csv, ndjson] {
            let format = Format::of(file.path()).unwrap();
            let open = |cursor| Table::open(file.path(), format, cursor).unwrap();
            let all = rest(&mut open(Cursor::default()));
            for taken in 0..=all.len() {
                let mut table = open(Cursor::default());
                (0..taken).for_each(|_| _ = table.take().unwrap());
                _ = table.peek().unwrap();
                assert_eq!(rest(&mut open(table.cursor())), all[taken..], "{format:?} from {taken}");
            }
        }
    }
}
