//! Where it is written: reader and writer ports, Kafka, and the embedded log.
//!
//! The only home of rdkafka. Nothing here knows what an event means, and nothing here decides what to do about a
//! failure: errors say whether to retry or to stop, and whether an append certainly did not happen.
//!
//! [`kafka::KafkaLog`] is for everything that matters; [`embedded::EmbeddedLog`] is for one process: a laptop, a demo,
//! tests, simulations. Both are held to one conformance suite (`tests/conformance`).

mod check;
pub mod embedded;
pub mod kafka;
mod port;
#[cfg(feature = "testing")]
pub mod testing;

pub use port::{
    AppendError, Assignment, Entry, Headers, Inspect, Location, Log, OwnedRecord, Peek, PendingAppend, Polled,
    ReadError, Reader, Record, SLICE_RECORDS_MAX, Tail, Topic, Writer,
};
