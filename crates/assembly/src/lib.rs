//! Assembles processes: opens the data directory, the log and the parts that the settings describe,
//! and runs them as a service.
//!
//! Must not decide which parts a service has, or in which order they start and stop: each main
//! does.

mod beginning;
mod bounds;
mod callers;
mod data_dir;
mod event_log;
mod http_edge;
mod parts;
mod process;
mod secrets;
mod serve;
mod tokens;
mod version;

pub use bounds::{AnswersFrom, connections, limits, waits_max};
pub use callers::{access, authenticate, cors, guard, keys_of_tokens};
pub use data_dir::{DataDir, InUse, LogIdentity, random};
pub use event_log::{
    EventLog, connect, creating_kafka_settings, embedded_partitions, kafka_name, kafka_settings, log_in_memory,
    log_location, open_existing_log, open_existing_log_with_store, open_log_beside_service, require_bootstrap,
};
pub use http_edge::{HttpEdge, Listeners, inspector, listen};
pub use parts::{
    ACKNOWLEDGE_TIMEOUT, consumer_group, fold_limits, follow_updates, ingest, open_log_and_store, open_projector,
    projector_in_memory, snapshot_destination, stop_projector,
};
pub use process::{on_thread, run};
pub use secrets::{check_settings, open_secret_files, operator_secret, operator_secret_of_holder, shared_secret};
pub use serve::{Service, serve, until};
pub use version::long_version;
