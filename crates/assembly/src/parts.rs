//! The parts of a process as the settings describe them.

use crate::data_dir::{DataDir, LogIdentity};
use crate::process::on_thread;
use receipts_cluster::{SECRET_BYTES_MIN, Secret, cursor_key_to_text};
use receipts_fold::Limits as FoldLimits;
use receipts_http::{Ingest, Limits, Rate, Timeouts, Updates};
use receipts_log::{Inspect, Log, ReadError};
use receipts_objects::Destination;
use receipts_projection::{
    PRE_ENCODE_BYTES, ProjectError, Projector, Settings as ProjectorSettings, SnapshotSchedule, SnapshotSettings,
};
use receipts_query::CursorKey;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_snapshots::Keep;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// How long ingest and the operator's commands wait for the log; longer than the log's own delivery timeout of 30 s, so
/// that they hear every outcome.
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(35);
/// How long the log may take to acknowledge updates and dead letters before a checkpoint is put off.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// What requests may cost.
pub fn limits(settings: &Settings) -> Limits {
    let rate =
        |per_s: Option<u32>| per_s.and_then(NonZeroU32::new).map(|per_second| Rate { per_second, burst: per_second });
    Limits {
        body_bytes_max: settings.http.body_bytes_max,
        request_timeout: Duration::from_millis(settings.http.timeout_ms),
        wait_default: Duration::from_millis(settings.http.wait_ms_default),
        rate: rate(settings.http.rate_per_s),
        tenant_rate: rate(settings.http.tenant_rate_per_s),
        ..Limits::default()
    }
}

/// How patient a listener is that has so long to drain.
pub fn timeouts(settings: &Settings, drain: Duration) -> Timeouts {
    Timeouts { head: Duration::from_millis(settings.http.head_timeout_ms), drain }
}

/// What projectors and edges share, if the settings name a file for it.
///
/// # Errors
/// Where the file cannot be read or holds too little, as a usage failure.
pub fn secret(settings: &Settings) -> Result<Option<Secret>, Failure> {
    let Some(path) = &settings.query.secret_file else { return Ok(None) };
    let place = path.display();
    let text = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("query.secret_file: {place} cannot be read: {error}")))?;
    let secret = Secret::new(text.trim_ascii());
    let least = SECRET_BYTES_MIN;
    let short = || {
        Failure::usage(format!("query.secret_file: {place} holds less than {least} bytes; try: openssl rand -hex 32"))
    };
    secret.ok_or_else(short).map(Some)
}

/// What an operator's call to a running process shows: the secret that projectors and edges share, or, without one, what only
/// who may read the data directory knows.
///
/// # Errors
/// As [`secret`] and [`DataDir::cursor_key`].
pub fn operators_secret(settings: &Settings, data: &DataDir) -> Result<Secret, Failure> {
    secret(settings)?.map_or_else(|| Ok(secret_of(&data.cursor_key()?)), Ok)
}

/// The same for who calls the process that holds the data directory of the settings.
///
/// # Errors
/// As [`operators_secret`], and where there is no key yet.
pub fn holders_secret(settings: &Settings) -> Result<Secret, Failure> {
    secret(settings)?.map_or_else(|| Ok(secret_of(&DataDir::cursor_key_in(&settings.data_dir)?)), Ok)
}

fn secret_of(key: &CursorKey) -> Secret {
    Secret::new(cursor_key_to_text(key).as_bytes()).expect("64 digits are enough")
}

/// Where snapshots are kept, if anywhere.
///
/// # Errors
/// Where the setting names no destination, as a usage failure.
pub fn destination(settings: &Settings) -> Result<Option<Destination>, Failure> {
    let Some(url) = &settings.snapshot.url else { return Ok(None) };
    let opened = Destination::open(url);
    opened.map(Some).map_err(|error| Failure::usage(format!("snapshot.url: {error}")))
}

/// How states of a log are kept elsewhere and restored from there.
///
/// # Errors
/// As [`destination`].
pub fn snapshotting(
    settings: &Settings,
    data: &DataDir,
    log: &LogIdentity,
) -> Result<Option<SnapshotSettings>, Failure> {
    let snapshot = &settings.snapshot;
    let schedule = SnapshotSchedule {
        interval: Duration::from_millis(snapshot.interval_ms),
        keep: Keep { count: snapshot.keep_count, age_ms: snapshot.keep_ms },
    };
    Ok(destination(settings)?.map(|destination| SnapshotSettings {
        destination,
        log: log.name(),
        spool: data.spool(),
        schedule: (!settings.projector.standby).then_some(schedule),
    }))
}

/// Where events go.
pub fn ingest(settings: &Settings, log: &dyn Log) -> Ingest {
    Ingest {
        writer: log.writer(),
        partition_count: log.partition_count(),
        limits: limits(settings),
        acknowledge_timeout: ACKNOWLEDGE_TIMEOUT,
    }
}

/// Begins to follow the topic of updates, for streams. Blocks until the log has answered.
///
/// # Errors
/// Where the log cannot be read.
pub fn follow_updates(settings: &Settings, log: Arc<dyn Inspect>) -> Result<Updates, ReadError> {
    Updates::start(log, settings.http.streams_max, Duration::from_millis(settings.http.heartbeat_ms))
}

/// The settings that decide answers.
pub fn fold_limits(settings: &Settings) -> FoldLimits {
    let projector = &settings.projector;
    FoldLimits {
        retention_ms: projector.retention_ms,
        parked_max: usize::try_from(projector.parked_count).unwrap_or(usize::MAX),
        parked_age_ms: projector.parked_age_ms,
        read_times: projector.read_times,
    }
}

/// Opens the store in the data directory and starts to fold the log into it. A projector `among_others` answers for a
/// partition only once it has caught up with it, for somebody else may do so until then.
///
/// # Errors
/// Where store or log cannot be used.
pub fn open_projector(
    settings: &Settings,
    data: &DataDir,
    log: &dyn Log,
    among_others: bool,
    snapshots: Option<SnapshotSettings>,
) -> Result<Projector, ProjectError> {
    let projector = &settings.projector;
    let standby = projector.standby;
    let how = ProjectorSettings {
        dir: data.store(),
        group: if standby { format!("{}-standby", projector.group) } else { projector.group.clone() },
        limits: fold_limits(settings),
        fold_threads: projector.fold_threads,
        memory_bytes: usize::try_from(projector.memory_bytes).unwrap_or(usize::MAX),
        checkpoint_records: projector.checkpoint_events,
        checkpoint_interval: Duration::from_millis(projector.checkpoint_interval_ms),
        pre_encode_bytes: PRE_ENCODE_BYTES,
        sync: true,
        publish: !standby,
        publish_updates: projector.updates,
        update_window: Duration::from_millis(projector.update_window_ms),
        publish_timeout: PUBLISH_TIMEOUT,
        answer_while_behind: !among_others,
        now_ms: receipts_runtime::clock::unix_ms,
        snapshots,
    };
    let ready_lag = Duration::from_millis(settings.http.ready_lag_ms);
    Projector::start(log, &settings.log.events_topic, how, ready_lag)
}

/// Gives up the data directory of a process that has stopped, so that the next start over its store is quick. May take seconds
/// where the store is large. Nothing is lost by whoever does not wait for it.
///
/// # Errors
/// Where there is no thread for it. That the store cannot be read is for the next start to say.
pub async fn leave(data: DataDir) -> Result<(), Failure> {
    on_thread("leaving", move || {
        if let Err(error) = Projector::write_sled_snapshot(&data.store()) {
            tracing::warn!(%error, "the next start will take longer");
        }
        Ok(())
    })
    .await
}
