//! A record of the log as the fold receives it: its coordinates and, for parking, its bytes.

use crate::pages::Headers;

/// The coordinates of a record, as Kafka's client library gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The record's timestamp, Unix milliseconds.
    pub timestamp_ms: u64,
}

/// The bytes of a record, needed only if the record is parked.
#[derive(Clone, Copy)]
pub struct RawRecord<'a> {
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub value: &'a [u8],
    /// Copies the record's headers. Called only if the record is parked.
    pub headers: &'a dyn Fn() -> Headers,
}
