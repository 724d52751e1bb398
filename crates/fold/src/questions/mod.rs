//! The questions that a state answers: receipts, member lists, read marks, scans and audits.
//! Readers ask them side by side.
//!
//! A question changes no page and caches none; [`view`] has the answers.

mod audience;
mod audit;
mod departed;
mod departed_cache;
mod find;
mod members;
mod memo;
mod names;
mod read_mark;
mod receipt;
mod scan;
pub mod view;

pub use read_mark::ReadMarksPage;
pub use scan::{Conversation, LocatedReceipt, RosterPage};

pub(crate) use departed_cache::DepartedCache;
