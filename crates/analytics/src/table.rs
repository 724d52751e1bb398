//! Reads tables that others wrote, row by row: CSV with a line of names, NDJSON, Parquet. Knows columns by their names only,
//! and keeps one batch of rows in memory.

mod columnar;

use crate::Error;
use columnar::ParquetRows;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One file a table, typed columns.
    Parquet,
    /// One JSON object a line.
    Ndjson,
    /// A line of names, then one line a row.
    Csv,
}

impl Format {
    /// What a file's name says of its format, if anything.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// A place between two rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Rows before it.
    pub rows: u64,
    /// Bytes before it; of Parquet an estimate.
    pub bytes: u64,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number in the file, from 1; a CSV's line of names is none.
    pub number: u64,
    /// Its values by column, without those that are null; or why it is no row.
    pub values: Result<Map<String, Value>, String>,
    /// What stands there, as JSON, for people.
    pub original: Value,
    after: Place,
}

enum Rows {
    Csv { reader: Box<csv::Reader<File>>, names: Vec<String> },
    Ndjson { reader: BufReader<File>, at: u64 },
    Parquet(Box<ParquetRows>),
}

/// A table, at one of its rows.
pub struct Table {
    path: PathBuf,
    rows: Rows,
    at: Place,
    read: u64,
    next: Option<Row>,
}

impl Table {
    /// Opens a table and goes to a place that [`Self::place`] told of the same file.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not of that format.
    pub fn open(path: &Path, format: Format, place: Place) -> Result<Self, Error> {
        let rows = Self::rows_at(path, format, place).map_err(Error::io(format!("reading {}", path.display())))?;
        Ok(Self { path: path.to_owned(), rows, at: place, read: place.rows, next: None })
    }

    fn rows_at(path: &Path, format: Format, place: Place) -> io::Result<Rows> {
        let mut file = File::open(path)?;
        Ok(match format {
            Format::Csv => {
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
                let names = reader.headers()?.iter().map(str::to_owned).collect();
                if place.rows > 0 {
                    let mut there = csv::Position::new();
                    there.set_byte(place.bytes).set_record(place.rows + 1);
                    reader.seek(there)?;
                }
                Rows::Csv { reader: Box::new(reader), names }
            }
            Format::Ndjson => {
                file.seek(SeekFrom::Start(place.bytes))?;
                Rows::Ndjson { reader: BufReader::new(file), at: place.bytes }
            }
            Format::Parquet => Rows::Parquet(Box::new(ParquetRows::open(file, place.rows)?)),
        })
    }

    /// The names of its columns, where the format has them apart from the rows.
    pub fn columns(&self) -> Option<Vec<String>> {
        match &self.rows {
            Rows::Csv { names, .. } => Some(names.clone()),
            Rows::Parquet(rows) => Some(rows.columns()),
            Rows::Ndjson { .. } => None,
        }
    }

    /// The place before the row that [`Self::take`] would give.
    pub fn place(&self) -> Place {
        self.at
    }

    /// The next row, which stays; `None` at the end.
    ///
    /// # Errors
    /// Where the file cannot be read on.
    pub fn peek(&mut self) -> Result<Option<&Row>, Error> {
        if self.next.is_none() {
            self.next = self.read().map_err(Error::io(format!("reading {}", self.path.display())))?;
        }
        Ok(self.next.as_ref())
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// As [`Self::peek`].
    pub fn take(&mut self) -> Result<Option<Row>, Error> {
        self.peek()?;
        let row = self.next.take();
        if let Some(row) = &row {
            self.at = row.after;
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
        Ok(Some(Row { number, values, original, after: Place { rows: number, bytes } }))
    }
}

/// A row's values, what stands there, and the bytes up to its end.
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
        let reason = format!("has {} fields, and the line of names {}", fields.len(), names.len());
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
            Ok(_) => (Err("is no JSON object".to_owned()), text(), *at),
            Err(error) => (Err(format!("is no JSON: {error}")), text(), *at),
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
    fn rows_of_text_have_numbers_and_what_is_no_row_says_why() {
        let csv = file(".csv", b"a,b\n1,\"x, y\"\n\n2\n\xff,z\n3,\n");
        let ndjson = file(".ndjson", b"{\"a\":1,\"b\":null}\n\n[1]\n{\"a\":\n{\"a\":2}");
        let mut table = Table::open(csv.path(), Format::of(csv.path()).unwrap(), Place::default()).unwrap();
        assert_eq!(table.columns().unwrap(), ["a", "b"]);
        let rows = rest(&mut table);
        assert_eq!(rows[0], (1, Ok(json!({"a": "1", "b": "x, y"}))));
        assert!(rows[1].1.as_ref().is_err_and(|why| why.contains("has 1 fields")), "{rows:?}");
        assert!(rows[2].1.as_ref().is_err_and(|why| why.contains("UTF-8")), "{rows:?}");
        assert_eq!(rows[3..], [(4, Ok(json!({"a": "3"})))]);
        let mut table = Table::open(ndjson.path(), Format::Ndjson, Place::default()).unwrap();
        let rows = rest(&mut table);
        assert_eq!((rows.len(), &rows[0], &rows[3]), (4, &(1, Ok(json!({"a": 1}))), &(4, Ok(json!({"a": 2})))));
        assert!(rows[1].1.is_err() && rows[2].1.is_err());
    }

    #[test]
    fn from_any_place_on_the_same_rows_follow() {
        let csv = file(".csv", b"a,b\n1,\"x\ny\"\n2,\n3,c\n4,d\n");
        let ndjson = file(".ndjson", b"{\"a\":1}\n\n{\"a\":2}\n{\"a\":3}\n");
        for file in [csv, ndjson] {
            let format = Format::of(file.path()).unwrap();
            let open = |place| Table::open(file.path(), format, place).unwrap();
            let all = rest(&mut open(Place::default()));
            for taken in 0..=all.len() {
                let mut table = open(Place::default());
                (0..taken).for_each(|_| _ = table.take().unwrap());
                _ = table.peek().unwrap();
                assert_eq!(rest(&mut open(table.place())), all[taken..], "{format:?} from {taken}");
            }
        }
    }
}
