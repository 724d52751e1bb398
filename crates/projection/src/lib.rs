//! The loop: poll, decode, fold, checkpoint, publish. Decides when; what an event means is the fold's affair.

mod answers;
mod intake;
mod outbox;
mod partition;
mod projector;
mod settings;
mod shared;
mod updates;

pub use projector::Projector;
pub use settings::{ProjectError, Settings};
pub use shared::Partitions;
