//! Encodes batches as Parquet, NDJSON or CSV. The same batches give the same bytes. It knows
//! datasets only by their columns.

use super::files::BATCH_ROWS;
use super::sort::Hashing;
use crate::export::Format;
use crate::export::calendar::{signed_day, time};
use crate::export::datasets::{Dataset, Type};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Date32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write as _};

/// Rows of a row group: DuckDB's own size. A multiple of the batch, so that groups end with
/// batches.
const GROUP_ROWS: usize = 15 * BATCH_ROWS;
/// Encoded bytes after which a row group ends all the same: it is held in memory.
const GROUP_BYTES: usize = 32 << 20;
/// Of 800,000 events level 9 makes 12.2 MB and level 3 makes 14.4 MB, in one more second. Higher
/// levels take four times as long for a hundredth less.
const LEVEL: i32 = 9;

/// Returns the properties of a dataset's Parquet files: order, compression, encodings. Only those
/// encodings that every reader reads rightly: plain and dictionaries. fastparquet gives other times
/// from packed differences.
pub(crate) fn parquet_properties(dataset: Dataset) -> WriterProperties {
    let sorted = dataset.order().iter().map(|name| SortingColumn {
        column_idx: dataset.index_of(name).expect("a column") as i32,
        descending: false,
        nulls_first: true,
    });
    // No time and no version of the writer's library, so that the same rows give the same bytes.
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL).expect("a level of zstd")))
        .set_created_by("receipts export v2".to_owned())
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_sorting_columns(Some(sorted.collect()));
    for column in dataset.columns() {
        let path = || ColumnPath::from(column.name);
        properties = match encoding(dataset, column.name) {
            Some(encoding) => {
                properties.set_column_dictionary_enabled(path(), false).set_column_encoding(path(), encoding)
            }
            None => properties,
        };
        // Ids by which people look for rows. Of a dictionary a filter costs little.
        if matches!(column.name, "conversation_id" | "message_id" | "user_id" | "reader_id" | "sender_id") {
            properties = properties.set_column_bloom_filter_enabled(path(), true);
        }
    }
    properties.build()
}

/// Returns the encoding of a column whose values rarely repeat; `None` for a dictionary. No delta
/// encodings, though they are smaller: fastparquet 2026.9 reads other times from them, without an
/// error (`tests/tools/readers/run`).
fn encoding(dataset: Dataset, column: &str) -> Option<Encoding> {
    match (dataset, column) {
        (Dataset::Messages | Dataset::ReadMarks, "sent_at" | "up_to_sent_at" | "last_read_at")
        | (_, "read_at" | "version" | "offset" | "recorded_at")
        | (Dataset::Messages, "message_id")
        | (Dataset::Events, "event" | "event_id") => Some(Encoding::PLAIN),
        _ => None,
    }
}

/// Writes batches of a dataset to a file.
pub(super) enum Encoder {
    Parquet(Box<ArrowWriter<Hashing<File>>>),
    Ndjson(Dataset, io::BufWriter<Hashing<File>>),
    Csv(Dataset, Box<csv::Writer<Hashing<File>>>),
}

impl Encoder {
    pub(super) fn new(dataset: Dataset, format: Format, to: Hashing<File>) -> io::Result<Self> {
        Ok(match format {
            Format::Parquet => {
                let options = ArrowWriterOptions::new()
                    .with_properties(parquet_properties(dataset))
                    .with_skip_arrow_metadata(true);
                let writer = ArrowWriter::try_new_with_options(to, dataset.schema(), options);
                Self::Parquet(Box::new(writer.map_err(io::Error::other)?))
            }
            Format::Ndjson => Self::Ndjson(dataset, io::BufWriter::new(to)),
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(to);
                csv.write_record(dataset.columns().iter().map(|column| column.name))?;
                Self::Csv(dataset, Box::new(csv))
            }
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        match self {
            Self::Parquet(writer) => {
                writer.write(batch).map_err(io::Error::other)?;
                // A group that has no room for a whole batch ends too, so that a file can end after
                // it.
                if writer.in_progress_size() >= GROUP_BYTES || writer.in_progress_rows() > GROUP_ROWS - BATCH_ROWS {
                    writer.flush().map_err(io::Error::other)?;
                }
                Ok(())
            }
            Self::Ndjson(dataset, to) => {
                for row in 0..batch.num_rows() {
                    // Written by hand because the order of the columns is part of the format.
                    for (at, column) in dataset.columns().iter().enumerate() {
                        write!(to, "{}\"{}\":", if at == 0 { '{' } else { ',' }, column.name)?;
                        serde_json::to_writer(&mut *to, &field(column.kind, batch.column(at), row))?;
                    }
                    to.write_all(b"}\n")?;
                }
                Ok(())
            }
            Self::Csv(dataset, csv) => {
                for row in 0..batch.num_rows() {
                    let columns = dataset.columns().iter().zip(batch.columns());
                    csv.serialize(columns.map(|(column, array)| field(column.kind, array, row)).collect::<Vec<_>>())?;
                }
                Ok(())
            }
        }
    }

    /// Returns whether the file is as large as wanted and may end here: Parquet after a row group.
    pub(super) fn may_end_at(&self, bytes: u64) -> bool {
        match self {
            Self::Parquet(writer) => writer.in_progress_rows() == 0 && writer.bytes_written() as u64 >= bytes,
            Self::Ndjson(_, to) => to.get_ref().bytes() >= bytes,
            Self::Csv(_, csv) => csv.get_ref().bytes() >= bytes,
        }
    }

    pub(super) fn finish(self) -> io::Result<Hashing<File>> {
        match self {
            Self::Parquet(writer) => writer.into_inner().map_err(io::Error::other),
            Self::Ndjson(_, to) => to.into_inner().map_err(io::IntoInnerError::into_error),
            Self::Csv(_, csv) => csv.into_inner().map_err(|error| error.into_error()),
        }
    }
}

/// A value as NDJSON and CSV write it.
#[derive(Serialize)]
#[serde(untagged)]
enum Field<'a> {
    Null,
    Text(&'a str),
    Integer(i64),
    Flag(bool),
    Calendar(String),
}

fn field(kind: Type, array: &ArrayRef, row: usize) -> Field<'_> {
    if array.is_null(row) {
        return Field::Null;
    }
    match kind {
        Type::Text => Field::Text(array.as_string::<i32>().value(row)),
        Type::Integer => Field::Integer(array.as_primitive::<Int64Type>().value(row)),
        Type::Flag => Field::Flag(array.as_boolean().value(row)),
        Type::Time => Field::Calendar(time(array.as_primitive::<TimestampMillisecondType>().value(row))),
        Type::Day => Field::Calendar(signed_day(array.as_primitive::<Date32Type>().value(row))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::batch::{BatchBuilder, Value};
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use receipts_testkit::random::Random;

    #[test]
    fn row_groups_of_large_rows_end_by_their_bytes() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let file = Hashing::new(path.reopen().unwrap());
        let mut encoder = Encoder::new(Dataset::Events, Format::Parquet, file).unwrap();
        let mut random = Random::new(1);
        for number in 0..9 {
            // It does not shrink: letters of six bits in eight.
            let event: String = (0..GROUP_BYTES / 6).map(|_| char::from(b'0' + random.below(64) as u8)).collect();
            let (text, zero, time) = (Value::Text("t"), Value::Integer(0), Value::Time(0));
            let mut batch = BatchBuilder::new(Dataset::Events);
            let offset = Value::Integer(number);
            batch.push(&[text, Value::Day(0), text, zero, offset, time, text, Value::Null, Value::Text(&event)]);
            encoder.write(&batch.finish()).unwrap();
            let Encoder::Parquet(writer) = &encoder else { unreachable!() };
            assert!(writer.in_progress_size() < GROUP_BYTES, "{} bytes wait", writer.in_progress_size());
        }
        encoder.finish().unwrap();
        let file = SerializedFileReader::new(path.reopen().unwrap()).unwrap();
        let groups: Vec<i64> = file.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
        assert!(groups.len() > 1 && groups.iter().sum::<i64>() == 9, "{groups:?}");
    }
}
