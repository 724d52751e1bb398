//! The event log: reader and writer ports, Kafka, and the embedded log.
//!
//! This is the only crate that uses rdkafka. It does not know what an event means and does not
//! decide how to handle a failure: errors say whether to retry or to stop, and whether an append
//! certainly did not happen.
//!
//! [`kafka::KafkaLog`] is for production. [`embedded::EmbeddedLog`] is for one process: a laptop, a
//! demo, tests, simulations. Both pass one conformance suite (`tests/conformance`).
mod check;
mod contact;
pub mod embedded;
pub mod kafka;
mod outcome;
mod port;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

/// Partitions of new topics and of a new embedded log if the caller gives no number. Twelve can be
/// shared out evenly by two, three, four or six projectors, and show a producer's wrong partitioner
/// that a power of two can hide (`docs/kafka.md`).
pub const PARTITIONS_DEFAULT: u32 = 12;

pub use contact::{Contact, Held, Membership};
pub use outcome::outcome;
pub use port::{
    AppendError, Assignment, Ends, Entry, Headers, Inspect, Location, Log, OwnedRecord, Peek, PendingAppend, Polled,
    ReadError, Reader, Record, SLICE_RECORDS_MAX, Tail, Topic, Writer,
};
pub use token::{Token, TokenError, TokenRequest, TokenSource};
