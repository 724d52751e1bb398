//! The fold: the pure transition of a partition's state by its records, and the questions that a
//! state answers.
//!
//! Does no IO, reads no clock, draws no random number and is not async: time and position come from
//! the record, pages from a [port](pages::Table). The same prefix of a partition gives the same
//! state, however often the process died on the way.
//!
//! `rules` has one file per rule of the contract, `pages` one per table of the store, `index` finds
//! messages by id, and `questions` answers.

pub mod effects;
pub mod index;
pub mod pages;
mod prefetch;
mod questions;
mod record;
mod rules;
pub mod skip_list;
mod state;

pub use pages::{Headers, LastRecord, Origin, Pages};
pub use prefetch::PREFETCH_EVENTS;
pub use questions::{Conversation, LocatedReceipt, ReadMarksPage, RosterPage, view};
pub use record::{RawRecord, RecordMetadata};
pub use state::{Error, Limits, Result, State};
