//! Values of rows, and Arrow batches made of them. Knows columns only by their types.

use super::datasets::{Dataset, Type};
use arrow_array::builder::{BooleanBuilder, Date32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use std::sync::Arc;

const DAY_MS: i64 = 86_400_000;

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    Text(&'a str),
    Integer(i64),
    Flag(bool),
    /// Unix milliseconds.
    Time(i64),
    /// Days since 1970-01-01.
    Day(i32),
}

impl<'a> Value<'a> {
    /// Returns a number as a signed integer. Offsets stay far below 2^63; greater ones saturate.
    pub(crate) fn integer(number: impl Into<u64>) -> Self {
        Self::Integer(signed(number.into()))
    }

    pub(crate) fn time(ms: u64) -> Self {
        Self::Time(signed(ms))
    }

    /// Returns the UTC day of a time, Unix milliseconds.
    pub(crate) fn day_of(ms: u64) -> Self {
        Self::Day(i32::try_from(signed(ms) / DAY_MS).unwrap_or(i32::MAX))
    }

    /// Returns null for `None`.
    pub(crate) fn maybe<T>(value: Option<T>, of: impl FnOnce(T) -> Value<'a>) -> Self {
        value.map_or(Self::Null, of)
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A consumer of rows, one value per column of the dataset.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&[Value<'_>]) -> Result<(), crate::Error>;

enum Builder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Flag(BooleanBuilder),
    Time(TimestampMillisecondBuilder),
    Day(Date32Builder),
}

/// Collects rows into a batch with the schema of a dataset.
pub(crate) struct BatchBuilder {
    dataset: Dataset,
    columns: Vec<Builder>,
    rows: usize,
    text_bytes: usize,
}

impl BatchBuilder {
    pub(crate) fn new(dataset: Dataset) -> Self {
        let builder = |kind| match kind {
            Type::Text => Builder::Text(StringBuilder::new()),
            Type::Integer => Builder::Integer(Int64Builder::new()),
            Type::Flag => Builder::Flag(BooleanBuilder::new()),
            Type::Time => Builder::Time(TimestampMillisecondBuilder::new().with_timezone("UTC")),
            Type::Day => Builder::Day(Date32Builder::new()),
        };
        let columns = dataset.columns().iter().map(|column| builder(column.kind)).collect();
        Self { dataset, columns, rows: 0, text_bytes: 0 }
    }

    /// Returns the number of rows since the last batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the bytes of their texts.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If the values are not those of the dataset's columns: a mistake of the program.
    pub(crate) fn push(&mut self, row: &[Value<'_>]) {
        assert_eq!(row.len(), self.columns.len(), "a value for each column of {:?}", self.dataset);
        for (column, value) in self.columns.iter_mut().zip(row) {
            match (column, *value) {
                (Builder::Text(texts), Value::Text(text)) => {
                    self.text_bytes += text.len();
                    texts.append_value(text);
                }
                (Builder::Text(texts), Value::Null) => texts.append_null(),
                (Builder::Integer(numbers), Value::Integer(number)) => numbers.append_value(number),
                (Builder::Integer(numbers), Value::Null) => numbers.append_null(),
                (Builder::Flag(flags), Value::Flag(flag)) => flags.append_value(flag),
                (Builder::Flag(flags), Value::Null) => flags.append_null(),
                (Builder::Time(times), Value::Time(ms)) => times.append_value(ms),
                (Builder::Time(times), Value::Null) => times.append_null(),
                (Builder::Day(days), Value::Day(day)) => days.append_value(day),
                (Builder::Day(days), Value::Null) => days.append_null(),
                (_, value) => panic!("{value:?} is of another type than its column of {:?}", self.dataset),
            }
        }
        self.rows += 1;
    }

    /// Returns the rows since the last batch.
    pub(crate) fn finish(&mut self) -> RecordBatch {
        (self.rows, self.text_bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(|column| -> ArrayRef {
            match column {
                Builder::Text(texts) => Arc::new(texts.finish()),
                Builder::Integer(numbers) => Arc::new(numbers.finish()),
                Builder::Flag(flags) => Arc::new(flags.finish()),
                Builder::Time(times) => Arc::new(times.finish()),
                Builder::Day(days) => Arc::new(days.finish()),
            }
        });
        let columns = columns.collect();
        RecordBatch::try_new(self.dataset.schema(), columns).expect("the row maker fills columns that are not null")
    }
}
