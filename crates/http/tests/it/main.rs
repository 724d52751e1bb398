//! `receipts-http` as its clients meet it: the real router over a real embedded log. Must not fold: each test writes the
//! answers of the state into a table.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod common;
mod edge;
mod ingest;
mod keys_by_url;
mod lists;
mod openapi;
mod receipts;
mod tokens;
mod updates;
