//! Streams of updates, fed from the topic of updates.
//!
//! It must not know which process published an update: any process that reaches the log and can ask
//! the state may serve streams.

mod feed;
mod hub;
mod redact;
mod resume;
mod stream;
mod update;

pub use feed::Updates;

pub(crate) use stream::{Stream, View};
pub(crate) use update::Interest;
