//! What our processes have in common: their set-up, the data directory, the log and the parts that the settings ask for.
//!
//! A service composes these; which parts it has, and in which order they start and end, is its own.

mod callers;
mod data_dir;
mod event_log;
mod parts;
mod process;

pub use callers::{access, authenticate};
pub use data_dir::{DataDir, InUse, LogIdentity};
pub use event_log::{
    Beside, EventLog, ExistingLog, bootstrap, connect, embedded_partitions, kafka_name, open, open_beside,
    open_existing, open_with_store, place,
};
pub use parts::{
    ACKNOWLEDGE_TIMEOUT, destination, fold_limits, follow_updates, holders_secret, ingest, leave, limits,
    open_projector, operators_secret, secret, snapshotting, timeouts,
};
pub use process::{listen, on_thread, run};
