//! Writes rows to files: Parquet, NDJSON or CSV, by tenant and day, each complete or absent. It
//! does not know the datasets.

use super::rows::{Dataset, Row, Type, Value};
use super::target::Target;
use super::{DatasetReport, ROWS_BYTES_MAX};
use crate::Error;
use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use receipts_store::snapshot::hex;
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
const DAY_MS: u64 = 86_400_000;

/// The format of exported files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet, compressed with Snappy.
    Parquet,
    /// One JSON object per line.
    Ndjson,
    /// CSV with a header line; null is an empty field.
    Csv,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
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
    format: Format,
    partition: u32,
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
            format,
            partition: 0,
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

    pub(super) fn partition(&self) -> u32 {
        self.partition
    }

    /// Starts a partition: later rows belong to it.
    pub(super) fn begin(&mut self, partition: u32) {
        self.partition = partition;
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

    /// Adds a row. If the buffer is full, writes the rows of the fullest folder as a file.
    pub(super) fn push(&mut self, tenant: &str, time_ms: u64, row: Row) -> Result<(), Error> {
        debug_assert_eq!(row.len(), self.dataset.columns().len(), "a value for each column");
        let folder = format!("{}/day={}", tenant_folder(tenant), day(time_ms));
        let bytes = row.iter().map(Value::bytes).sum::<usize>() + size_of::<Row>();
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
        let made = write_rows(self.dataset, self.format, &rows, &mut file);
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
        let written: BTreeSet<String> = self.names_of_all.iter().map(|name| self.target.key_of(name)).collect();
        for name in self.target.parts(self.dataset.name())? {
            if !written.contains(&name) {
                self.target.remove(&name)?;
                self.written.removed += 1;
            }
        }
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

/// Formats the UTC day of a time as `YYYY-MM-DD`, by Howard Hinnant's `civil_from_days`.
fn day(time_ms: u64) -> String {
    let days = time_ms / DAY_MS + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn write_rows(dataset: Dataset, format: Format, rows: &[Row], to: &mut (impl Write + Send)) -> io::Result<()> {
    match format {
        Format::Parquet => write_parquet(dataset, rows, to),
        Format::Ndjson => {
            for row in rows {
                let fields = dataset.columns().iter().zip(row).map(|(column, value)| (column.name, value));
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
            csv.write_record(dataset.columns().iter().map(|column| column.name))?;
            for row in rows {
                csv.serialize(row)?;
            }
            csv.flush()
        }
    }
}

fn write_parquet(dataset: Dataset, rows: &[Row], to: &mut (impl Write + Send)) -> io::Result<()> {
    let columns = dataset.columns();
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| {
            let kind = match column.kind {
                Type::Text => DataType::Utf8,
                Type::Integer => DataType::Int64,
                Type::Flag => DataType::Boolean,
            };
            Field::new(column.name, kind, column.nullable)
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

fn array<'a>(kind: Type, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    match kind {
        Type::Text => {
            let texts = values.map(|value| if let Value::Text(text) = value { Some(&**text) } else { None });
            Arc::new(texts.collect::<StringArray>())
        }
        Type::Integer => {
            let numbers = values.map(|value| if let Value::Integer(number) = value { Some(*number) } else { None });
            Arc::new(numbers.collect::<Int64Array>())
        }
        Type::Flag => {
            let flags = values.map(|value| if let Value::Flag(is) = value { Some(*is) } else { None });
            Arc::new(flags.collect::<BooleanArray>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar_in_utc() {
        for (time_ms, wanted) in [
            (0, "1970-01-01"),
            (DAY_MS - 1, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_780_000_000_000, "2026-05-28"),
            (4_107_542_400_000, "2100-03-01"),
            (1 << 53, "287396-10-12"),
        ] {
            assert_eq!(day(time_ms), wanted);
        }
    }

    #[test]
    fn tenant_folders_are_single_and_distinct_names() {
        assert_eq!(tenant_folder("acme"), "tenant=acme");
        assert_eq!(tenant_folder("..\\ é"), "tenant=%2E%2E%5C%20%C3%A9");
        let (long, longer) = ("%".repeat(127), "%".repeat(128));
        assert_ne!(tenant_folder(&long), tenant_folder(&longer));
        assert!(tenant_folder(&longer).len() < 255);
    }
}
