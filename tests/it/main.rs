//! Tests the binaries as operators and clients use them, on the embedded log. Must not need Kafka,
//! root or more than some seconds per test: `tests/kafka` and `tests/long` hold such tests.

mod analysts;
mod bench;
mod bounds;
mod client;
mod command_line;
mod dead_letters;
mod demo;
mod doctor;
mod ephemeral;
mod lists;
mod many_partitions;
mod migration;
mod operator;
mod rebuild;
mod serve;
mod snapshots;
mod strangers;
mod tail;
mod tickets;
mod tls;
mod tokens;
mod traces;
mod updates;
