//! The binaries of the project as an operator and a client meet them, on the embedded log. Must not need a Kafka, root or
//! more than some seconds per test: `tests/kafka` and `tests/long` hold the others.

mod analysts;
mod client;
mod demo;
mod lists;
mod operator;
mod rebuild;
mod serve;
mod snapshots;
mod strangers;
mod tokens;
mod updates;
