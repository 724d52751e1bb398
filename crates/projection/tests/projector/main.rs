//! Tests of the projector over the embedded log and a store on disk: its answers, its updates, and
//! its behaviour when a record, a page or an append is bad. The fold's rules are tested elsewhere,
//! against the oracle.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod answers;
mod damage;
mod dead_letters;
mod faults;
mod flips;
mod harness;
mod offsets;
mod refusals;
mod schema;
mod slices;
mod snapshots;
mod updates;
