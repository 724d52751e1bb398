//! Imports receipts from tables of another system: rows of members, messages, reads and read marks
//! become events, in that order. A row that no event can express is rejected; an interrupted import
//! resumes.
//!
//! This crate repeats no rule of the fold, and writes only events, its progress and its rejects.

mod batch;
mod columns;
pub mod compare;
mod draft;
mod error;
mod feed;
mod import;
mod jq;
mod mapping;
mod overlay;
mod progress;
mod readings;
mod rejects;
mod rows;
mod sources;
mod times;
mod values;
mod written;

pub use columns::{Columns, Input};
pub use draft::{Draft, Judgement, Reached, Unreached, UnreachedExample, Unreaching, rejected_members};
pub use error::Error;
pub use import::{Counts, ImportReport, Plan, import, is_begun};
pub use mapping::{Mapping, Mistakes};
pub use readings::Readings;
pub use rejects::{RejectExample, RejectReason};
pub use rows::Untimed;
pub use sources::{Source, bytes, check};
pub use times::{TimeReading, TimeUnit, ZeroTime, time, zone};
pub use values::{flag, id, ids, text};
