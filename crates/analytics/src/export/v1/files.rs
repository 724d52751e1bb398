//! Writes rows to files of layout v1: Parquet, NDJSON or CSV, by tenant and day, each complete or
//! absent. It does not know the datasets.

use super::ROWS_BYTES_MAX;
use crate::Error;
use crate::export::batch::Value;
use crate::export::calendar::day;
use crate::export::datasets::{Dataset, Type};
use crate::export::target::Target;
use crate::export::{DatasetReport, Format};
use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use receipts_event::hex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

/// The characters of a tenant's name that become `%XX` in a folder name.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b'%')
    .add(b'/')
    .add(b'\\')
    .add(b'=')
    .add(b':')
    .add(b'*')
    .add(b'?')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'|')
    .add(b'#')
    .add(b'[')
    .add(b']')
    .add(b'{')
    .add(b'}')
    .add(b' ')
    .add(b'.');
/// A folder name has at most 255 bytes. A longer tenant name is cut here and gets a hash.
const TENANT_BYTES_MAX: usize = 200;

/// One value of a buffered row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Field {
    Null,
    Text(Box<str>),
    Integer(i64),
    Flag(bool),
}

/// The values of one row, one for each column of layout v1.
type Row = Vec<Field>;

impl Field {
    fn new(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Text(text) => Self::Text(text.into()),
            Value::Integer(number) | Value::Time(number) => Self::Integer(number),
            Value::Flag(flag) => Self::Flag(flag),
            Value::Day(day) => Self::Integer(day.into()),
        }
    }

    /// Returns the approximate size in memory, bytes.
    fn bytes(&self) -> usize {
        size_of::<Self>() + if let Self::Text(text) = self { text.len() } else { 0 }
    }
}

/// A column of layout v1.
struct Column {
    name: &'static str,
    /// The number of the column of format 2 that has its values.
    from: usize,
    kind: Type,
    nullable: bool,
}

fn columns(dataset: Dataset) -> Vec<Column> {
    let column = |(name, from): &(&'static str, &'static str)| {
        let from = dataset.index_of(from).expect("a column of format 2");
        let held = dataset.columns()[from];
        Column { name, from, kind: held.kind, nullable: held.nullable }
    };
    dataset.columns_v1().iter().map(column).collect()
}

/// The buffered rows of one tenant and day.
#[derive(Default)]
struct Buffered {
    rows: Vec<Row>,
    bytes: usize,
}

/// The files of one dataset. Partitions are written one after another.
pub(super) struct Files<'a> {
    target: &'a Target,
    dataset: Dataset,
    columns: Vec<Column>,
    format: Format,
    partition: u32,
    /// The day of rows that have none of their own: days since 1970-01-01.
    day: i32,
    /// By folder.
    buffered: BTreeMap<String, Buffered>,
    buffered_bytes: usize,
    /// The number of files of the current partition, by folder.
    parts: BTreeMap<String, u32>,
    names_of_all: BTreeSet<String>,
    written: DatasetReport,
    /// The file names of the current partition.
    names: Vec<String>,
    /// The sums before the current partition.
    before: DatasetReport,
}

impl<'a> Files<'a> {
    pub(super) fn new(target: &'a Target, dataset: Dataset, format: Format) -> Self {
        let written = DatasetReport { dataset, rows: 0, files: 0, bytes: 0, removed: 0 };
        Self {
            target,
            dataset,
            columns: columns(dataset),
            format,
            partition: 0,
            day: 0,
            buffered: BTreeMap::new(),
            buffered_bytes: 0,
            parts: BTreeMap::new(),
            names_of_all: BTreeSet::new(),
            before: written.clone(),
            written,
            names: Vec::new(),
        }
    }

    pub(super) fn dataset(&self) -> Dataset {
        self.dataset
    }

    /// Starts a partition: later rows belong to it. Rows without a day are those of `newest_ms`.
    pub(super) fn begin(&mut self, partition: u32, newest_ms: u64) {
        self.partition = partition;
        self.day = if let Value::Day(day) = Value::day_of(newest_ms) { day } else { 0 };
        self.parts.clear();
        self.names.clear();
        self.before = self.written.clone();
    }

    /// Writes the buffered rows; returns the sums of the current partition and its file names.
    pub(super) fn end(&mut self) -> Result<(DatasetReport, Vec<String>), Error> {
        while let Some(folder) = self.buffered.keys().next().cloned() {
            self.write(&folder)?;
        }
        let (all, before) = (&self.written, &self.before);
        let of_partition = DatasetReport {
            rows: all.rows - before.rows,
            files: all.files - before.files,
            bytes: all.bytes - before.bytes,
            ..all.clone()
        };
        Ok((of_partition, self.names.clone()))
    }

    /// Counts the files of a partition that an earlier run wrote.
    pub(super) fn adopt(&mut self, written: &DatasetReport, names: &[String]) {
        self.written.rows += written.rows;
        self.written.files += written.files;
        self.written.bytes += written.bytes;
        self.names_of_all.extend(names.iter().cloned());
    }

    /// Adds a row of format 2. If the buffer is full, writes the rows of the fullest folder as a
    /// file.
    pub(super) fn push(&mut self, values: &[Value<'_>]) -> Result<(), Error> {
        let of = |name| self.dataset.index_of(name).map_or(Value::Null, |at| values[at]);
        let Value::Text(tenant) = of("tenant") else { unreachable!("every dataset has a tenant") };
        let day_number = if let Value::Day(day) = of("day") { day } else { self.day };
        let folder = format!("{}/day={}", tenant_folder(tenant), day(day_number));
        let row: Row = self.columns.iter().map(|column| Field::new(values[column.from])).collect();
        let bytes = row.iter().map(Field::bytes).sum::<usize>() + size_of::<Row>();
        let buffered = self.buffered.entry(folder).or_default();
        buffered.rows.push(row);
        buffered.bytes += bytes;
        self.buffered_bytes += bytes;
        while self.buffered_bytes > ROWS_BYTES_MAX {
            let fullest =
                self.buffered.iter().max_by_key(|(_, buffered)| buffered.bytes).map(|(folder, _)| folder.clone());
            let Some(fullest) = fullest else { break };
            self.write(&fullest)?;
        }
        Ok(())
    }

    fn write(&mut self, folder: &str) -> Result<(), Error> {
        let Some(Buffered { rows, bytes }) = self.buffered.remove(folder) else { return Ok(()) };
        self.buffered_bytes -= bytes;
        let part = self.parts.entry(folder.to_owned()).or_default();
        let (dataset, ending) = (self.dataset.name(), self.format.ending());
        let name = format!("{dataset}/{folder}/part-{:05}-{:05}.{ending}", self.partition, *part);
        *part += 1;
        let mut file = Vec::new();
        let made = write_rows(&self.columns, self.format, &rows, &mut file);
        made.map_err(Error::io(format!("encoding {}", self.target.shown(&name))))?;
        self.written.rows += rows.len() as u64;
        self.written.files += 1;
        self.written.bytes += file.len() as u64;
        self.target.put(&name, file)?;
        self.names.push(name.clone());
        self.names_of_all.insert(name);
        Ok(())
    }

    /// Removes the files of earlier exports of this dataset that this export did not write.
    pub(super) fn finish(mut self) -> Result<DatasetReport, Error> {
        self.target.check_distinct(&self.names_of_all)?;
        self.written.removed = self.target.remove_others(self.dataset.name(), &self.names_of_all)?;
        Ok(self.written)
    }
}

fn tenant_folder(tenant: &str) -> String {
    let mut encoded = utf8_percent_encode(tenant, ENCODED).to_string();
    if encoded.len() > TENANT_BYTES_MAX {
        encoded.truncate(TENANT_BYTES_MAX);
        encoded = format!("{encoded}~{}", &hex(&Sha256::digest(tenant))[..16]);
    }
    format!("tenant={encoded}")
}

fn write_rows(columns: &[Column], format: Format, rows: &[Row], to: &mut (impl Write + Send)) -> io::Result<()> {
    match format {
        Format::Parquet => write_parquet(columns, rows, to),
        Format::Ndjson => {
            for row in rows {
                let fields = columns.iter().zip(row).map(|(column, value)| (column.name, value));
                // Written by hand because the order of the columns is part of the format.
                for (at, (name, value)) in fields.enumerate() {
                    write!(to, "{}\"{name}\":", if at == 0 { '{' } else { ',' })?;
                    serde_json::to_writer(&mut *to, value)?;
                }
                to.write_all(b"}\n")?;
            }
            Ok(())
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(to);
            csv.write_record(columns.iter().map(|column| column.name))?;
            for row in rows {
                csv.serialize(row)?;
            }
            csv.flush()
        }
    }
}

fn write_parquet(columns: &[Column], rows: &[Row], to: &mut (impl Write + Send)) -> io::Result<()> {
    let fields: Vec<arrow_schema::Field> = columns
        .iter()
        .map(|column| {
            let kind = match column.kind {
                Type::Text => DataType::Utf8,
                Type::Integer | Type::Time | Type::Day => DataType::Int64,
                Type::Flag => DataType::Boolean,
            };
            arrow_schema::Field::new(column.name, kind, column.nullable)
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    // No time and no writer version, so that the same rows give the same bytes.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("receipts export v1".to_owned())
        .build();
    let mut writer = ArrowWriter::try_new(to, Arc::clone(&schema), Some(properties)).map_err(io::Error::other)?;
    let arrays =
        columns.iter().enumerate().map(|(at, column)| array(column.kind, rows.iter().map(move |row| &row[at])));
    let batch = RecordBatch::try_new(schema, arrays.collect()).map_err(io::Error::other)?;
    writer.write(&batch).map_err(io::Error::other)?;
    writer.close().map_err(io::Error::other)?;
    Ok(())
}

fn array<'a>(kind: Type, values: impl Iterator<Item = &'a Field>) -> ArrayRef {
    match kind {
        Type::Text => {
            let texts = values.map(|value| if let Field::Text(text) = value { Some(&**text) } else { None });
            Arc::new(texts.collect::<StringArray>())
        }
        Type::Integer | Type::Time | Type::Day => {
            let numbers = values.map(|value| if let Field::Integer(number) = value { Some(*number) } else { None });
            Arc::new(numbers.collect::<Int64Array>())
        }
        Type::Flag => {
            let flags = values.map(|value| if let Field::Flag(is) = value { Some(*is) } else { None });
            Arc::new(flags.collect::<BooleanArray>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_folders_are_single_and_distinct_names() {
        assert_eq!(tenant_folder("acme"), "tenant=acme");
        assert_eq!(tenant_folder("..\\ é"), "tenant=%2E%2E%5C%20%C3%A9");
        let (long, longer) = ("%".repeat(127), "%".repeat(128));
        assert_ne!(tenant_folder(&long), tenant_folder(&longer));
        assert!(tenant_folder(&longer).len() < 255);
    }
}
