//! Restores the newest usable snapshot of a partition whose store cannot go on. Without one it
//! decides nothing: the caller rebuilds from the log or refuses.

use crate::damage::is_damage;
use crate::partition::{FoldError, Partition};
use crate::settings::ProjectError;
use receipts_metrics::catalogue;
use receipts_snapshots::{Error, ProgressMonitor, Requirements, Snapshots};
use receipts_store::SledStore;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a restore logs its progress.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// After a failure the destination is not tried again for this long. Otherwise each partition would
/// wait for it while it opens, and none is folded meanwhile.
const BACKOFF: Duration = Duration::from_secs(300);

/// The time at which the snapshots' destination failed last.
#[derive(Default)]
pub(crate) struct Backoff(Option<Instant>);

impl Backoff {
    fn is_active(&self) -> bool {
        self.0.is_some_and(|at| at.elapsed() < BACKOFF)
    }
}

/// Restores a snapshot if the store is empty, damaged (`Err` with the reason), or older than the
/// log's first record. INV-RESTORE: any other state is returned as it is. Without a usable snapshot
/// it returns the opened state, or the inner `Err` if no state is left.
///
/// # Errors
/// If the store fails, or the process is about to stop.
pub(crate) fn recover(
    snapshots: &Snapshots,
    stop: &CancellationToken,
    store: &SledStore,
    wanted: &Requirements,
    backoff: &mut Backoff,
    opened: Result<Partition, String>,
    open: impl Fn() -> Result<Partition, FoldError>,
) -> Result<Result<Partition, String>, ProjectError> {
    let number = wanted.partition;
    let why = match &opened {
        Ok(partition) if partition.fold.next_offset() == 0 => "it is empty",
        Ok(partition) if partition.fold.next_offset() < *wanted.next_offset.start() => {
            "the log no longer has the record that it needs next"
        }
        Ok(_) => return Ok(opened),
        Err(why) => why.as_str(),
    };
    if backoff.is_active() {
        let at = snapshots.location();
        tracing::warn!(
            partition = number,
            why,
            at,
            "snapshots could not be listed a moment ago; the partition opens without one"
        );
        return Ok(opened);
    }
    let found = match snapshots.list_of(number) {
        Ok(found) if found.is_empty() => return Ok(opened),
        Ok(found) => found,
        Err(Error::Destination(receipts_objects::Error::Stopped)) => return Err(ProjectError::Stopped),
        // The log is the fallback.
        Err(error) => {
            *backoff = Backoff(Some(Instant::now()));
            tracing::error!(partition = number, %error, "snapshots cannot be listed; the partition opens without one");
            return Ok(opened);
        }
    };
    tracing::info!(
        partition = number,
        why,
        at = snapshots.location(),
        "the store cannot go on; looking for a snapshot"
    );
    // A restore replaces the store's pages, so the opened state is dropped.
    let mut left = match opened {
        Ok(partition) => {
            drop(partition);
            None
        }
        Err(why) => Some(why),
    };
    for found in found.iter().rev() {
        let watch = Progress::new(number, found.bytes, stop.clone());
        let location = snapshots.location_of(found);
        tracing::info!(partition = number, location, bytes = found.bytes, "restoring a snapshot");
        match snapshots.restore(found, store, wanted, &watch) {
            Ok(restored) => match open() {
                Ok(partition) => {
                    let seconds = restored.took.as_secs_f64();
                    catalogue::RESTORE_SECONDS.get().record(seconds);
                    catalogue::SNAPSHOTS_RESTORED.get().increment(1);
                    let next_offset = restored.header.next_offset;
                    tracing::info!(partition = number, location, next_offset, seconds, "restored a snapshot");
                    return Ok(Ok(partition));
                }
                Err(error) if !is_damage(&error) => return Err(failed(number, &error)),
                Err(error) => {
                    tracing::error!(partition = number, location, %error, "the restored snapshot is damaged; trying the previous one");
                    left = Some(error.to_string());
                }
            },
            Err(error @ Error::Unusable { .. }) => {
                tracing::warn!(partition = number, %error, "the snapshot cannot be used; trying the previous one");
            }
            Err(Error::Stopped | Error::Destination(receipts_objects::Error::Stopped)) => {
                return Err(ProjectError::Stopped);
            }
            Err(Error::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(partition = number, %error, "the snapshot cannot be read from its destination");
                break;
            }
        }
    }
    tracing::warn!(partition = number, at = snapshots.location(), "no snapshot is usable");
    if let Some(why) = left {
        return Ok(Err(why));
    }
    // A failed restore may have left a part of its pages; then the store does not open.
    match open() {
        Ok(partition) => Ok(Ok(partition)),
        Err(error) if is_damage(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(failed(number, &error)),
    }
}

fn failed(partition: u32, error: &FoldError) -> ProjectError {
    ProjectError::Partition { partition, detail: error.to_string() }
}

/// Logs the progress of a restore.
struct Progress {
    partition: u32,
    of: u64,
    stop: CancellationToken,
    begun: Instant,
    bytes: AtomicU64,
    logged_ms: AtomicU64,
}

impl Progress {
    fn new(partition: u32, of: u64, stop: CancellationToken) -> Self {
        Self { partition, of, stop, begun: Instant::now(), bytes: AtomicU64::new(0), logged_ms: AtomicU64::new(0) }
    }
}

impl ProgressMonitor for Progress {
    fn advanced(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let elapsed_ms = self.begun.elapsed().as_millis() as u64;
        if elapsed_ms >= self.logged_ms.load(Ordering::Relaxed) + LOG_EVERY.as_millis() as u64 {
            self.logged_ms.store(elapsed_ms, Ordering::Relaxed);
            let (partition, of) = (self.partition, self.of);
            let left_s = elapsed_ms as f64 / 1e3 * of.saturating_sub(bytes) as f64 / bytes.max(1) as f64;
            tracing::info!(partition, bytes, of, left_s = left_s as u64, "restoring");
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}
