//! Tests `receipts-http` from a client's side: the real router over a real embedded log.
//!
//! They must not fold events: each test writes the answers of the state into a table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod budgets;
mod common;
mod connections;
mod cors;
mod edge;
mod http2;
mod ingest;
mod keys_by_url;
mod lists;
mod openapi;
mod peers;
mod receipts;
mod tickets;
mod tls;
mod tokens;
mod updates;
