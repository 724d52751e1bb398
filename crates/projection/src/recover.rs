//! A partition whose store has nothing to go on from takes the newest snapshot that is usable. Decides nothing where there is
//! none: the log does then.

use crate::damage::{FoldError, is_damage};
use crate::partition::Partition;
use crate::settings::ProjectError;
use receipts_snapshots::{Error, Snapshots, Wanted, Watch};
use receipts_store::SledStore;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a restore says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// How long a destination that could not be asked is left alone. Each partition that is opened would wait for it anew, and
/// none of them is folded meanwhile.
const LEFT_ALONE: Duration = Duration::from_secs(300);

/// When the destination of snapshots could not be asked last.
#[derive(Default)]
pub(crate) struct Unanswered(Option<Instant>);

impl Unanswered {
    fn is_recent(&self) -> bool {
        self.0.is_some_and(|at| at.elapsed() < LEFT_ALONE)
    }
}

/// Restores a snapshot where the store is empty, damaged (`Err` with the reason), or behind what the log still has. Hands back
/// what was opened where there is nothing better, and the reason where nothing is left of it.
///
/// # Errors
/// Where the store fails, or the process is to stop.
pub(crate) fn recover(
    snapshots: &Snapshots,
    stop: &CancellationToken,
    store: &SledStore,
    wanted: &Wanted,
    unanswered: &mut Unanswered,
    opened: Result<Partition, String>,
    open: impl Fn() -> Result<Partition, FoldError>,
) -> Result<Result<Partition, String>, ProjectError> {
    let number = wanted.partition;
    let why = match &opened {
        Ok(partition) if partition.fold.next_offset() == 0 => "it is empty",
        Ok(partition) if partition.fold.next_offset() < *wanted.next_offset.start() => "the log has gone on without it",
        Ok(_) => return Ok(opened),
        Err(why) => why.as_str(),
    };
    if unanswered.is_recent() {
        let at = snapshots.place();
        tracing::warn!(partition = number, why, at, "snapshots could not be listed a moment ago; going on without one");
        return Ok(opened);
    }
    let found = match snapshots.list_of(number) {
        Ok(found) if found.is_empty() => return Ok(opened),
        Ok(found) => found,
        Err(Error::Destination(receipts_objects::Error::Stopped)) => return Err(ProjectError::Stopped),
        // The log has to do.
        Err(error) => {
            *unanswered = Unanswered(Some(Instant::now()));
            tracing::error!(partition = number, %error, "snapshots cannot be listed; going on without one");
            return Ok(opened);
        }
    };
    tracing::info!(partition = number, why, at = snapshots.place(), "the store cannot go on; looking for a snapshot");
    // The store is about to hold something else.
    let mut left = match opened {
        Ok(partition) => {
            drop(partition);
            None
        }
        Err(why) => Some(why),
    };
    for found in found.iter().rev() {
        let watch = Progress::new(number, found.bytes, stop.clone());
        let place = snapshots.place_of(found);
        tracing::info!(partition = number, place, bytes = found.bytes, "restoring a snapshot");
        match snapshots.restore(found, store, wanted, &watch) {
            Ok(restored) => match open() {
                Ok(partition) => {
                    let seconds = restored.took.as_secs_f64();
                    metrics::histogram!("receipts_restore_seconds").record(seconds);
                    metrics::counter!("receipts_snapshots_restored_total").increment(1);
                    let next_offset = restored.header.next_offset;
                    tracing::info!(partition = number, place, next_offset, seconds, "restored a snapshot");
                    return Ok(Ok(partition));
                }
                Err(error) if !is_damage(&error) => return Err(failed(number, &error)),
                Err(error) => {
                    tracing::error!(partition = number, place, %error, "a restored snapshot cannot be used; trying the one before");
                    left = Some(error.to_string());
                }
            },
            Err(error @ Error::Unusable { .. }) => {
                tracing::warn!(partition = number, %error, "trying the snapshot before");
            }
            Err(Error::Stopped | Error::Destination(receipts_objects::Error::Stopped)) => {
                return Err(ProjectError::Stopped);
            }
            Err(Error::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(partition = number, %error, "the snapshot could not be read");
                break;
            }
        }
    }
    tracing::warn!(partition = number, at = snapshots.place(), "no snapshot is usable");
    if let Some(why) = left {
        return Ok(Err(why));
    }
    // What a restore left behind that broke off is no state.
    match open() {
        Ok(partition) => Ok(Ok(partition)),
        Err(error) if is_damage(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(failed(number, &error)),
    }
}

fn failed(partition: u32, error: &FoldError) -> ProjectError {
    ProjectError::Partition { partition, detail: error.to_string() }
}

/// Says now and then how far a restore is.
struct Progress {
    partition: u32,
    of: u64,
    stop: CancellationToken,
    begun: Instant,
    bytes: AtomicU64,
    said_ms: AtomicU64,
}

impl Progress {
    fn new(partition: u32, of: u64, stop: CancellationToken) -> Self {
        Self { partition, of, stop, begun: Instant::now(), bytes: AtomicU64::new(0), said_ms: AtomicU64::new(0) }
    }
}

impl Watch for Progress {
    fn advanced(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let elapsed_ms = self.begun.elapsed().as_millis() as u64;
        if elapsed_ms >= self.said_ms.load(Ordering::Relaxed) + SAY_EVERY.as_millis() as u64 {
            self.said_ms.store(elapsed_ms, Ordering::Relaxed);
            let (partition, of) = (self.partition, self.of);
            let left_s = elapsed_ms as f64 / 1e3 * of.saturating_sub(bytes) as f64 / bytes.max(1) as f64;
            tracing::info!(partition, bytes, of, left_s = left_s as u64, "restoring");
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}
