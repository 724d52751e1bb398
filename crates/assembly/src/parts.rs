//! The parts of a process as the settings describe them. Decides no order of start and stop.

use crate::data_dir::{DataDir, LogIdentity};
use crate::event_log::{EventLog, open_log};
use receipts_fold::Limits as FoldLimits;
use receipts_http::{Ingest, Limits, Updates};
use receipts_log::{Inspect, Log, Membership, ReadError, Topic};
use receipts_objects::Destination;
use receipts_projection::{
    APPEND_RETRY_MAX, PRE_ENCODE_BYTES, ProjectError, Projector, SLICE_MESSAGES, Settings as ProjectorSettings,
    SnapshotSchedule, SnapshotSettings,
};
use receipts_query::LogTag;
use receipts_runtime::config::{Settings, Unwrap};
use receipts_runtime::exit::Failure;
use receipts_snapshots::Keep;
use std::sync::Arc;
use std::time::Duration;

/// How long ingest and the operator's commands wait for the log to acknowledge. Longer than the
/// log's own delivery timeout of 30 s, so that they learn every outcome.
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(35);
/// How long the log may take to acknowledge updates and dead letters before a checkpoint is put
/// off.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the destination of snapshots; `None` if the settings name none.
///
/// # Errors
/// A usage failure if the setting names no destination.
pub fn snapshot_destination(settings: &Settings) -> Result<Option<Destination>, Failure> {
    let Some(url) = &settings.snapshot.url else { return Ok(None) };
    let opened = Destination::open(url);
    opened.map(Some).map_err(|error| Failure::usage(format!("snapshot.url: {error}")))
}

/// Returns how the states of a log are kept at the snapshot destination and restored from it.
///
/// # Errors
/// As [`snapshot_destination`].
fn snapshot_settings(
    settings: &Settings,
    data: &DataDir,
    log: &LogIdentity,
) -> Result<Option<SnapshotSettings>, Failure> {
    let snapshot = &settings.snapshot;
    let schedule = SnapshotSchedule {
        interval: Duration::from_millis(snapshot.interval_ms),
        keep: Keep { count: snapshot.keep_count, age_ms: snapshot.keep_ms },
    };
    Ok(snapshot_destination(settings)?.map(|destination| SnapshotSettings {
        destination,
        log: log.name(),
        spool: data.spool(),
        schedule: (!settings.projector.standby).then_some(schedule),
    }))
}

/// Returns the parts of ingest, which writes events into the log.
pub fn ingest(limits: Limits, log: &dyn Log) -> Ingest {
    Ingest {
        writer: log.writer(),
        partition_count: log.partition_count(),
        log: log.tag(Topic::Events).map(LogTag),
        limits,
        acknowledge_timeout: ACKNOWLEDGE_TIMEOUT,
    }
}

/// Starts to follow the topic of updates, for streams. Blocks until the log has answered.
///
/// # Errors
/// If the log cannot be read.
pub fn follow_updates(settings: &Settings, log: Arc<dyn Inspect>) -> Result<Updates, ReadError> {
    Updates::start(log, Duration::from_millis(settings.http.heartbeat_ms))
}

/// Returns the limits of the fold: the settings that decide answers.
pub fn fold_limits(settings: &Settings) -> FoldLimits {
    let projector = &settings.projector;
    FoldLimits {
        retention_ms: projector.retention_ms,
        parked_max: usize::try_from(projector.parked_count).unwrap_or(usize::MAX),
        parked_bytes: projector.parked_bytes,
        parked_age_ms: projector.parked_age_ms,
        read_times: projector.read_times,
        unwrap: match projector.unwrap {
            Unwrap::None => receipts_event::Unwrap::None,
            Unwrap::Confluent => receipts_event::Unwrap::Confluent,
        },
        erasures_max: projector.erasures_max,
        policy_types_max: projector.policy_types_max,
    }
}

/// Opens the log and readies the store for it: switches to a rebuilt store if there is one, and
/// binds the store to the log.
///
/// # Errors
/// If the log cannot be opened, or the store is bound to another log.
pub fn open_log_and_store(settings: &Settings, data: &DataDir) -> Result<EventLog, Failure> {
    let opened = open_log(settings, data)?;
    data.adopt_rebuilt()?;
    data.bind_store(&opened.identity)?;
    Ok(opened)
}

/// Opens the store in the data directory and starts to fold the log into it. If `among_others`, the
/// projector answers for a partition only once it has caught up, because another projector may
/// answer until then.
///
/// # Errors
/// If the store, the log or the snapshot destination cannot be used.
pub fn open_projector(
    settings: &Settings,
    data: &DataDir,
    opened: &EventLog,
    among_others: bool,
) -> Result<Projector, Failure> {
    let snapshots = snapshot_settings(settings, data, &opened.identity)?;
    Ok(start_projector(settings, Some(data), &*opened.log, among_others, snapshots)?)
}

/// Starts to fold a log into a store in memory, which ends with the projector. Takes no snapshots.
///
/// # Errors
/// If the log cannot be used.
pub fn projector_in_memory(settings: &Settings, log: &dyn Log) -> Result<Projector, Failure> {
    Ok(start_projector(settings, None, log, false, None)?)
}

/// Stops a projector and then its log. A process that has lost its name in the consumer group
/// forgets it, so that its next start does not take it from the process that has it now. A
/// projector in memory has no data directory.
///
/// # Errors
/// Why the projector had stopped by itself, or could not stop in order.
pub fn stop_projector(projector: Projector, log: Arc<dyn Inspect>, data: Option<&DataDir>) -> Result<(), Failure> {
    let stopped = projector.stop();
    if let Some(data) = data
        && log.contact().membership() == Membership::Fenced
    {
        data.forget_instance()?;
    }
    drop(log);
    Ok(stopped?)
}

/// Returns the consumer group of a projector of the group `name`: a standby folds the same
/// partitions, so it is in another group.
#[must_use]
pub fn consumer_group(name: &str, standby: bool) -> String {
    if standby { format!("{name}-standby") } else { name.to_owned() }
}

fn start_projector(
    settings: &Settings,
    data: Option<&DataDir>,
    log: &dyn Log,
    among_others: bool,
    snapshots: Option<SnapshotSettings>,
) -> Result<Projector, ProjectError> {
    let projector = &settings.projector;
    let standby = projector.standby;
    let how = ProjectorSettings {
        dir: data.map(DataDir::store),
        group: consumer_group(&projector.group, standby),
        limits: fold_limits(settings),
        fold_threads: projector.fold_threads,
        memory_bytes: usize::try_from(projector.memory_bytes).unwrap_or(usize::MAX),
        checkpoint_records: projector.checkpoint_events,
        checkpoint_interval: Duration::from_millis(projector.checkpoint_interval_ms),
        pre_encode_bytes: PRE_ENCODE_BYTES,
        slice_messages: SLICE_MESSAGES,
        sync: true,
        publish: !standby,
        publish_updates: projector.updates,
        update_window: Duration::from_millis(projector.update_window_ms),
        publish_timeout: PUBLISH_TIMEOUT,
        // The rest is for the last checkpoints.
        stop_timeout: Duration::from_millis(settings.drain_ms / 4),
        append_retry_max: APPEND_RETRY_MAX,
        answer_while_behind: !among_others,
        candidates_max: settings.query.candidates_max,
        now_ms: receipts_runtime::clock::unix_ms,
        stale_max: Duration::from_millis(projector.stale_ms_max),
        snapshots,
    };
    let ready_lag = Duration::from_millis(settings.http.ready_lag_ms);
    Projector::start(log, &settings.log.events_topic, how, ready_lag)
}
