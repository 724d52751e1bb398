//! Copies records out of the log's memory and decodes them, so that they can go from the reader's
//! thread to a worker. All bytes of a batch go into one block of memory; decoding costs far more
//! than this copy.

use crate::partition::{Decoded, decode};
use crate::source::SourceItem;
use bytes::Bytes;
use receipts_event::Decoder;
use receipts_log::{Headers, Polled, Record};
use self_cell::self_cell;
use std::ops::Range;

/// A batch with this many bytes of keys and values is full.
const BATCH_BYTES: usize = 1 << 20;

/// Copies of records, in the order of the reader, and the ends of partitions between them.
#[derive(Default)]
pub(crate) struct Rows {
    /// Keys and values.
    bytes: Vec<u8>,
    rows: Vec<Row>,
    parts: Vec<Part>,
}

struct Row {
    partition: u32,
    offset: u64,
    timestamp_ms: u64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(String, Option<Bytes>)>,
}

enum Part {
    /// Rows of one partition.
    Records(Range<usize>),
    End {
        partition: u32,
        next_offset: u64,
    },
}

impl Headers for Row {
    fn to_vec(&self) -> Vec<(String, Option<Bytes>)> {
        self.headers.clone()
    }

    fn last(&self, name: &str) -> Option<Bytes> {
        self.headers.iter().rev().find(|(found, _)| found == name)?.1.clone()
    }
}

impl Rows {
    /// Copies one item of a poll.
    pub(crate) fn push(&mut self, polled: Polled<'_>) {
        match polled {
            Polled::Records(records) => {
                let from = self.rows.len();
                for record in records {
                    let row = Row {
                        partition: record.partition,
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key.map(|key| self.copy(key)),
                        value: record.value.map(|value| self.copy(value)),
                        headers: record.headers.to_vec(),
                    };
                    self.rows.push(row);
                }
                self.parts.push(Part::Records(from..self.rows.len()));
            }
            Polled::End { partition, next_offset } => self.parts.push(Part::End { partition, next_offset }),
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Tells whether the batch should be sent before it grows further.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    fn record(&self, row: usize) -> Record<'_> {
        let Row { partition, offset, timestamp_ms, ref key, ref value, .. } = self.rows[row];
        let text = |range: &Option<Range<usize>>| range.clone().map(|range| &self.bytes[range]);
        Record { partition, offset, timestamp_ms, key: text(key), value: text(value), headers: &self.rows[row] }
    }
}

/// The events of rows, in their order.
struct Events<'a>(Vec<Decoded<'a>>);

self_cell!(
    /// Rows with their events, which borrow from them.
    pub(crate) struct Batch {
        owner: Rows,
        #[covariant]
        dependent: Events,
    }
);

impl Batch {
    /// Decodes rows.
    pub(crate) fn decode(rows: Rows, decoder: Decoder) -> Self {
        Self::new(rows, |rows| Events((0..rows.rows.len()).map(|row| decode(&rows.record(row), decoder)).collect()))
    }

    /// Empties the batch and keeps its memory for the next one.
    pub(crate) fn into_empty_rows(self) -> Rows {
        let Rows { mut bytes, mut rows, mut parts } = self.into_owner();
        bytes.clear();
        rows.clear();
        parts.clear();
        Rows { bytes, rows, parts }
    }

    /// Passes all items to `each`; returns the number of records.
    pub(crate) fn for_each(&self, each: &mut dyn FnMut(SourceItem<'_>)) -> usize {
        self.with_dependent(|rows, Events(events)| {
            for part in &rows.parts {
                match *part {
                    Part::Records(ref range) => {
                        let records: Vec<_> = range.clone().map(|row| rows.record(row)).collect();
                        each(SourceItem::Records(&records, &events[range.clone()]));
                    }
                    Part::End { partition, next_offset } => each(SourceItem::End { partition, next_offset }),
                }
            }
            rows.rows.len()
        })
    }
}
