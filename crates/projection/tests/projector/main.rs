//! The projector over the embedded log and a store on disk: what it answers and publishes, and what it does where a
//! record, a page or an append goes wrong. Proves nothing of the fold's rules: those are held to the oracle elsewhere.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod answers;
mod bench;
mod damage;
mod faults;
mod schema;
mod snapshots;
mod updates;
