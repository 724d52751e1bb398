//! What analysts and auditors ask of a log: folds of a prefix aside from the service, exports of what they hold, audits of a
//! store against its log, figures of how messages are read.
//!
//! Must not write to the log, join a consumer group or change a store that a service uses; decides nothing that the fold
//! decides.

mod error;
pub mod export;
mod fold;
mod pages;
pub mod rebuild;
pub mod stats;
pub mod table;
pub mod verify;

pub use error::Error;
pub use fold::{Folded, Scratch, Span, Told, UpTo, Watch, offset_at, read, span};
pub use pages::digest;
