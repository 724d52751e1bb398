//! Analyses a log for analysts and auditors: folds of a prefix, exports, audits of a store against
//! its log, read statistics, and plans to replay dead letters.
//!
//! This crate never writes to the log, joins a consumer group or changes a store that a service
//! uses. It repeats no rule of the fold.

pub mod dead_letters;
mod error;
pub mod export;
mod fold;
pub mod live;
mod pages;
pub mod rebuild;
pub mod stats;
pub mod table;
mod temporary;
pub mod verify;

pub use error::Error;
pub use fold::{FoldReport, Folded, Scratch, Span, UpTo, Watch, offset_at, read, span};
pub use pages::digest;
pub use receipts_snapshots::{ProgressMonitor, StopOnly};
pub use temporary::TemporaryFolder;
