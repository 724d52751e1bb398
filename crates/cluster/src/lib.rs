//! Answers from projectors elsewhere: who owns what just now, and whom to ask.
//!
//! Keeps no state of messages and decides nothing about callers. An edge asks the owner of a partition first, then
//! standbys; what is asked after a [`wait`](receipts_query::Answers::wait) is never answered from before it, whoever
//! answers.

#[cfg(feature = "client")]
mod ask;
pub mod peer;
pub mod snapshots;
#[cfg(feature = "client")]
mod table;

#[cfg(feature = "client")]
pub use ask::{Peers, Settings};
