//! Rows of a Parquet file as JSON values. It accepts integers of any width and timestamps of any
//! unit; times become Unix milliseconds.

use super::invalid;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Date64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};
use std::fs::File;
use std::io;

const BATCH_ROWS: usize = 4_096;
const DAY_MS: i64 = 86_400_000;

pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    names: Vec<String>,
    batch: Option<RecordBatch>,
    row_of_batch: usize,
    rows_read: u64,
    rows: u64,
    bytes: u64,
}

impl ParquetRows {
    pub(super) fn open(file: File, rows_before: u64) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(invalid)?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let names = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let skipped = usize::try_from(rows_before).unwrap_or(usize::MAX);
        let reader = builder.with_batch_size(BATCH_ROWS).with_offset(skipped).build().map_err(invalid)?;
        Ok(Self { reader, names, batch: None, row_of_batch: 0, rows_read: rows_before, rows, bytes })
    }

    pub(super) fn columns(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Returns the next row without nulls, and about how many bytes of the file are read up to its
    /// end.
    pub(super) fn next(&mut self) -> io::Result<Option<(Map<String, Value>, u64)>> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.row_of_batch < batch.num_rows()) {
                let at = self.row_of_batch;
                self.row_of_batch += 1;
                self.rows_read += 1;
                let bytes = u128::from(self.bytes) * u128::from(self.rows_read) / u128::from(self.rows.max(1));
                let values = self.names.iter().zip(batch.columns()).map(|(name, column)| (name, value(column, at)));
                let values = values.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value));
                return Ok(Some((values.collect(), u64::try_from(bytes).unwrap_or(self.bytes))));
            }
            match self.reader.next() {
                None => return Ok(None),
                Some(batch) => (self.batch, self.row_of_batch) = (Some(batch.map_err(invalid)?), 0),
            }
        }
    }
}

/// Returns a value as JSON. A type without a JSON form becomes its name, which every column
/// rejects.
fn value(column: &dyn Array, at: usize) -> Value {
    if column.is_null(at) {
        return Value::Null;
    }
    macro_rules! number {
        ($type:ty) => {
            column.as_primitive::<$type>().value(at)
        };
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(at).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(at).into(),
        DataType::Utf8View => column.as_string_view().value(at).into(),
        DataType::Boolean => column.as_boolean().value(at).into(),
        DataType::Int8 => number!(Int8Type).into(),
        DataType::Int16 => number!(Int16Type).into(),
        DataType::Int32 => number!(Int32Type).into(),
        DataType::Int64 => number!(Int64Type).into(),
        DataType::UInt8 => number!(UInt8Type).into(),
        DataType::UInt16 => number!(UInt16Type).into(),
        DataType::UInt32 => number!(UInt32Type).into(),
        DataType::UInt64 => number!(UInt64Type).into(),
        DataType::Timestamp(TimeUnit::Second, _) => number!(TimestampSecondType).saturating_mul(1_000).into(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => number!(TimestampMillisecondType).into(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => number!(TimestampMicrosecondType).div_euclid(1_000).into(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => number!(TimestampNanosecondType).div_euclid(1_000_000).into(),
        DataType::Date32 => (i64::from(number!(Date32Type)) * DAY_MS).into(),
        DataType::Date64 => number!(Date64Type).into(),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            value(dictionary.values(), dictionary.normalized_keys()[at])
        }
        DataType::List(_) => list(&column.as_list::<i32>().value(at)),
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(at)),
        other => Value::from(format!("a {other}")),
    }
}

fn list(values: &dyn Array) -> Value {
    (0..values.len()).map(|at| value(values, at)).collect()
}
