//! The loop on a thread of its own, until it is stopped or stops by itself. Decides nothing about its turns.

use crate::projector::{Loop, POLL_WAIT, Reading, Turn};
use crate::settings::{ProjectError, Settings};
use crate::shared::Partitions;
use crate::snapshotter::Snapshotter;
use receipts_log::Log;
use receipts_query::snapshots::SnapshotDesk;
use receipts_store::{SledSettings, SledStore};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A running projector.
pub struct Projector {
    partitions: Partitions,
    stop: CancellationToken,
    /// Goes first: it looks into the store.
    snapshotter: Option<JoinHandle<()>>,
    desk: Option<Arc<dyn SnapshotDesk>>,
    thread: Option<JoinHandle<Result<(), ProjectError>>>,
    stopped: Option<oneshot::Receiver<()>>,
}

impl Projector {
    /// Opens the store and starts to fold the log. `events_topic` names the event topic in dead letters; `ready_lag` is
    /// how far behind the time of day the newest folded record may be for a partition that is ready.
    ///
    /// # Errors
    /// Where the store or the log cannot be used.
    pub fn start(
        log: &dyn Log,
        events_topic: &str,
        settings: Settings,
        ready_lag: Duration,
    ) -> Result<Self, ProjectError> {
        // A quarter of the memory for sled's own cache: it holds what the pages in memory do not.
        let sled = SledSettings { cache_bytes: (settings.memory_bytes / 4) as u64, sync: settings.sync };
        let store = SledStore::open(&settings.dir, sled)?;
        let snapshots = settings.snapshots.clone();
        let (limits, now_ms) = (settings.limits, settings.now_ms);
        let projector = Loop::new(Arc::new(store), log, events_topic, settings, ready_lag, Reading::Ahead)?;
        let (partitions, stop) = (projector.partitions().clone(), projector.stop());
        let snapshotter = snapshots.and_then(|how| {
            Some(Snapshotter::new(partitions.clone(), &how, how.schedule?, limits, now_ms, stop.clone()))
        });
        let spawned = |source| receipts_store::Error::Io { doing: "starting the projector's threads".into(), source };
        let (done, stopped) = oneshot::channel();
        let run = move || {
            let result = run(projector);
            _ = done.send(());
            result
        };
        let thread = Some(std::thread::Builder::new().name("projector".into()).spawn(run).map_err(spawned)?);
        let desk = snapshotter.as_ref().map(|s| s.desk() as Arc<dyn SnapshotDesk>);
        let mut projector = Self { partitions, stop, snapshotter: None, desk, thread, stopped: Some(stopped) };
        if let Some(snapshotter) = snapshotter {
            let thread = std::thread::Builder::new().name("snapshots".into()).spawn(move || snapshotter.run());
            projector.snapshotter = Some(thread.map_err(spawned)?);
        }
        Ok(projector)
    }

    /// Makes the next start over a store quick, once no projector has it open: see [`SledStore::note_places`].
    ///
    /// # Errors
    /// Where the store cannot be opened.
    pub fn note_places(dir: &Path) -> Result<(), ProjectError> {
        Ok(SledStore::note_places(dir)?)
    }

    /// The partitions, to ask them.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Where snapshots are asked for; `None` where none are taken.
    pub fn snapshots(&self) -> Option<Arc<dyn SnapshotDesk>> {
        self.desk.clone()
    }

    /// Whether its thread has ended.
    pub fn is_stopped(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Resolves when the projector has stopped by itself: something is wrong, and [`Self::stop`] says what.
    pub async fn stopped(&mut self) {
        if let Some(stopped) = &mut self.stopped {
            _ = stopped.await;
            self.stopped = None;
        }
    }

    /// Stops after what is at hand: publishes, checkpoints, and closes the store.
    ///
    /// # Errors
    /// What had stopped it before, or kept it from a last checkpoint.
    pub fn stop(mut self) -> Result<(), ProjectError> {
        self.end().unwrap_or(Ok(()))
    }

    fn end(&mut self) -> Option<Result<(), ProjectError>> {
        self.stop.cancel();
        if let Some(snapshotter) = self.snapshotter.take() {
            _ = snapshotter.join();
        }
        self.thread.take().map(|thread| thread.join().map_err(|_| ProjectError::Panicked).flatten())
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(mut projector: Loop) -> Result<(), ProjectError> {
    let stop = projector.stop();
    let mut result = Ok(());
    while result.is_ok() && !stop.is_cancelled() {
        result = projector.turn().map(|turn| {
            if turn == Turn::NotJustNow {
                std::thread::sleep(POLL_WAIT);
            }
        });
    }
    // A restore that breaks off because the process ends is no failure.
    if projector.is_abandoned() {
        result = Ok(());
    }
    if let Err(e) = &result {
        tracing::error!(error = %e, "the projector stops");
    }
    let closed = projector.close(result.is_ok());
    result.and(closed)
}
