//! The loop: poll, decode, fold, checkpoint, publish. Decides when; what an event means is the fold's affair.

mod agenda;
mod ahead;
mod answers;
mod batch;
mod clock;
mod damage;
mod memory;
mod origin;
mod outbox;
mod partition;
mod projector;
mod publisher;
mod recover;
mod settings;
mod shared;
mod snapshotter;
mod source;
mod thread;
mod updates;

pub use projector::{Loop, Turn};
pub use settings::{DRAFT_BYTES, ProjectError, Schedule, Settings, Snapshotting};
pub use shared::Partitions;
pub use thread::Projector;
