//! The loop: poll, decode, fold, checkpoint, publish. Decides when; what an event means is the fold's affair.

mod agenda;
mod answers;
mod damage;
mod intake;
mod outbox;
mod partition;
mod projector;
mod publisher;
mod recover;
mod settings;
mod shared;
mod snapshotter;
mod updates;

pub use intake::event_of;
pub use projector::Projector;
pub use settings::{ProjectError, Schedule, Settings, Snapshotting};
pub use shared::Partitions;
