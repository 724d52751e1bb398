//! The rows of a range of messages or conversations, as the datasets of an export have them, in
//! batches of the types that the table format knows. Makes no row itself.

use super::changes::Subject;
use crate::export::Dataset;
use crate::export::batch::{BatchBuilder, Each};
use crate::export::rows::Source;
use crate::{Error, ProgressMonitor};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{TimestampMicrosecondType, TimestampMillisecondType};
use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use receipts_projection::partition::Fold;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;

/// The datasets of which there is a live table: all but the raw events, which the log has.
pub const DATASETS: [Dataset; 5] =
    [Dataset::Messages, Dataset::Reads, Dataset::Members, Dataset::Rosters, Dataset::ReadMarks];

/// Returns what a dataset's rows are about.
pub(super) fn subject(dataset: Dataset) -> Subject {
    match dataset {
        Dataset::Rosters | Dataset::ReadMarks => Subject::Conversations,
        _ => Subject::Messages,
    }
}

/// Returns the columns of a live table: those of the export, with times in microseconds, the only
/// unit that Delta has.
pub(super) fn schema(dataset: Dataset) -> SchemaRef {
    let exported = dataset.schema();
    let fields = exported.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            Arc::new(Field::new(field.name(), kind, field.is_nullable()))
        }
        _ => Arc::new(Field::new(field.name(), field.data_type().clone(), field.is_nullable())),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A message whose rows follow.
pub(super) struct Message {
    pub(super) tenant: String,
    pub(super) conversation_id: String,
    /// The record timestamp, by which the message expires, Unix milliseconds.
    pub(super) timestamp_ms: u64,
}

/// Makes the rows of messages or conversations by their numbers. `begin` is called before the rows
/// of a message, `each` with every row.
pub(super) fn make(
    state: &Fold,
    partition: u32,
    dataset: Dataset,
    numbers: Range<u64>,
    monitor: &dyn ProgressMonitor,
    sink: &mut dyn Sink,
) -> Result<(), Error> {
    let source = Source { state, partition, monitor };
    if subject(dataset) == Subject::Conversations {
        let bound = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).min(state.conversations());
        let numbers = bound(numbers.start)..bound(numbers.end);
        let each: Each<'_> = &mut |row| sink.row(row);
        return match dataset {
            Dataset::Rosters => source.rosters(numbers, each),
            _ => source.read_marks(numbers, each),
        };
    }
    for number in numbers.start.max(state.first_message())..numbers.end.min(state.messages()) {
        let located = state.located_receipt(number).map_err(Error::state(partition))?;
        let Some(located) = located else { continue };
        let (receipt, timestamp_ms) = (located.receipt, located.timestamp_ms);
        let conversation_id = receipt.conversation_id.unwrap_or_default();
        sink.message(Message { tenant: receipt.tenant, conversation_id, timestamp_ms });
        let each: Each<'_> = &mut |row| sink.row(row);
        match dataset {
            Dataset::Messages => source.messages(number..number + 1, each),
            Dataset::Reads => source.reads(number..number + 1, each),
            _ => source.members(number..number + 1, each),
        }?;
    }
    Ok(())
}

/// Takes rows.
pub(super) trait Sink {
    /// The rows that follow are this message's.
    fn message(&mut self, message: Message);
    /// A row.
    fn row(&mut self, row: &[crate::export::batch::Value<'_>]) -> Result<(), Error>;
}

/// Gathers rows to batches.
pub(super) struct Batches {
    builder: BatchBuilder,
    schema: SchemaRef,
}

impl Batches {
    pub(super) fn new(dataset: Dataset) -> Self {
        Self { builder: BatchBuilder::new(dataset), schema: schema(dataset) }
    }

    /// Adds a row, and returns a batch once there are enough.
    pub(super) fn add(&mut self, row: &[crate::export::batch::Value<'_>]) -> Result<Option<RecordBatch>, Error> {
        self.builder.push(row);
        if self.builder.rows() < BATCH_ROWS { Ok(None) } else { self.rest() }
    }

    /// Returns the rows that are in no batch yet.
    pub(super) fn rest(&mut self) -> Result<Option<RecordBatch>, Error> {
        if self.builder.rows() == 0 {
            return Ok(None);
        }
        let columns = self.builder.finish().columns().iter().map(in_microseconds).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        batch.map(Some).map_err(|error| Error::io("making rows")(std::io::Error::other(error)))
    }
}

fn in_microseconds(column: &ArrayRef) -> ArrayRef {
    match column.as_primitive_opt::<TimestampMillisecondType>() {
        Some(times) => {
            let times: TimestampMicrosecondArray =
                times.unary::<_, TimestampMicrosecondType>(|ms| ms.saturating_mul(1_000));
            Arc::new(times.with_timezone("UTC"))
        }
        None => Arc::clone(column),
    }
}
