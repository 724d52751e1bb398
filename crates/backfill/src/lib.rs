//! Imports receipts that somebody left behind as tables: rows of members, messages and reads become events, in that order.
//! What is no event is rejected by row; what was interrupted goes on where it was.
//!
//! Must not decide what an event means, and writes nothing but events, its progress and its rejects.

mod batch;
mod columns;
mod error;
mod import;
mod progress;
mod rejects;
mod rows;
mod written;

pub use columns::{Columns, Input};
pub use error::Error;
pub use import::{Counts, Done, Plan, Source, bytes, import};
pub use rows::Untimed;
