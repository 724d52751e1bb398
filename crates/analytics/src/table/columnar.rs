//! Rows of a Parquet file. `forms` says what becomes of each type.

use super::forms::{Marks, value};
use super::{Read, invalid};
use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{LogicalType, Type};
use parquet::schema::types::SchemaDescriptor;
use serde_json::Value;
use std::fs::File;
use std::io;
use std::path::Path;

const BATCH_ROWS: usize = 4_096;

pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    names: Vec<String>,
    marks: Vec<Marks>,
    batch: Option<RecordBatch>,
    row_of_batch: usize,
    rows_read: u64,
    rows: u64,
    bytes: u64,
}

impl ParquetRows {
    pub(super) fn open(path: &Path, rows_before: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(invalid)?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let marks = (0..names.len()).map(|root| marks_of(builder.parquet_schema(), root)).collect();
        let skipped = usize::try_from(rows_before).unwrap_or(usize::MAX);
        let reader = builder.with_batch_size(BATCH_ROWS).with_offset(skipped).build().map_err(invalid)?;
        Ok(Self { reader, names, marks, batch: None, row_of_batch: 0, rows_read: rows_before, rows, bytes })
    }

    pub(super) fn columns(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Returns the next row, with about how many bytes of the file are read up to its end.
    pub(super) fn next(&mut self) -> io::Result<Option<Read>> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.row_of_batch < batch.num_rows()) {
                let at = self.row_of_batch;
                self.row_of_batch += 1;
                self.rows_read += 1;
                let bytes = u128::from(self.bytes) * u128::from(self.rows_read) / u128::from(self.rows.max(1));
                let columns = self.names.iter().zip(&self.marks).zip(batch.columns());
                let values = columns.map(|((name, marks), column)| (name, value(column, at, *marks)));
                let values = values.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value));
                let values: serde_json::Map<_, _> = values.collect();
                let bytes = u64::try_from(bytes).unwrap_or(self.bytes);
                return Ok(Some((Ok(values.clone()), Value::Object(values), bytes)));
            }
            match self.reader.next() {
                None => return Ok(None),
                Some(batch) => (self.batch, self.row_of_batch) = (Some(batch.map_err(invalid)?), 0),
            }
        }
    }
}

/// Returns what Arrow's types leave out of a column of the file.
fn marks_of(schema: &SchemaDescriptor, root: usize) -> Marks {
    let leaves = || (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root);
    let mut of_16_bytes = leaves().map(|leaf| schema.column(leaf)).filter(|leaf| {
        leaf.physical_type() == Type::FIXED_LEN_BYTE_ARRAY
            && leaf.type_length() == 16
            && !matches!(leaf.logical_type_ref(), Some(LogicalType::Decimal { .. }))
    });
    let is_uuid = of_16_bytes.all(|leaf| matches!(leaf.logical_type_ref(), Some(LogicalType::Uuid)));
    Marks { is_uuid, is_instant: leaves().any(|leaf| schema.column(leaf).physical_type() == Type::INT96) }
}
