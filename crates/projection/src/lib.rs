//! The projector: polls the log, folds, checkpoints and publishes. It decides when each of these
//! happens; the fold decides what an event means.

mod answers;
mod batch;
mod checkpoint;
mod clock;
mod damage;
mod log_end;
mod memory;
mod open;
mod origin;
pub mod partition;
mod partitions;
mod projector;
mod publish;
mod read_ahead;
mod recover;
mod report;
mod schedule;
mod settings;
mod shard;
mod shared;
mod snapshotter;
mod source;
mod traced;
mod worker;

pub use partitions::Partitions;
pub use projector::Projector;
pub use publish::header as dead_letter_header;
pub use settings::{
    APPEND_RETRY_MAX, PRE_ENCODE_BYTES, ProjectError, SLICE_MESSAGES, Settings, SnapshotSchedule, SnapshotSettings,
};
pub use worker::{Step, Worker};
