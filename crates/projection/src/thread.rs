//! Loops on threads of their own, until they are stopped or one stops by itself. Decides nothing about their turns.

use crate::projector::{Loop, POLL_WAIT, Turn};
use crate::settings::{ProjectError, Settings};
use crate::shared::Partitions;
use crate::snapshotter::Snapshotter;
use receipts_cluster::SnapshotControl;
use receipts_log::Log;
use receipts_store::{SledSettings, SledStore};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A running projector.
pub struct Projector {
    partitions: Partitions,
    stop: CancellationToken,
    /// Goes first: it looks into the store.
    snapshotter: Option<JoinHandle<()>>,
    desk: Option<Arc<dyn SnapshotControl>>,
    threads: Vec<JoinHandle<Result<(), ProjectError>>>,
    /// Closed once all of them have ended.
    running: mpsc::Receiver<Infallible>,
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
        let loops = Loop::ahead(Arc::new(store), log, events_topic, settings, ready_lag)?;
        let (partitions, stop) = (loops[0].partitions().clone(), loops[0].stop());
        let snapshotter = snapshots.and_then(|how| {
            Some(Snapshotter::new(partitions.clone(), &how, how.schedule?, limits, now_ms, stop.clone()))
        });
        let spawned = |source| receipts_store::Error::Io { doing: "starting the projector's threads".into(), source };
        let desk = snapshotter.as_ref().map(|s| s.desk() as Arc<dyn SnapshotControl>);
        let (runs, running) = mpsc::channel(1);
        let mut projector = Self { partitions, stop, snapshotter: None, desk, threads: Vec::new(), running };
        for (number, turns) in (0..).zip(loops) {
            let runs = runs.clone();
            let thread = std::thread::Builder::new().name(format!("fold-{number}")).spawn(move || {
                let _runs: mpsc::Sender<Infallible> = runs;
                run(turns)
            });
            projector.threads.push(thread.map_err(spawned)?);
        }
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
    pub fn snapshots(&self) -> Option<Arc<dyn SnapshotControl>> {
        self.desk.clone()
    }

    /// Whether its threads have ended.
    pub fn is_stopped(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Resolves when the projector has stopped by itself: something is wrong, and [`Self::stop`] says what.
    pub async fn stopped(&mut self) {
        _ = self.running.recv().await;
    }

    /// Stops after what is at hand: publishes, checkpoints, and closes the store.
    ///
    /// # Errors
    /// What had stopped it before, or kept it from a last checkpoint.
    pub fn stop(mut self) -> Result<(), ProjectError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ProjectError> {
        self.stop.cancel();
        if let Some(snapshotter) = self.snapshotter.take() {
            _ = snapshotter.join();
        }
        let ends: Vec<_> = self.threads.drain(..).map(JoinHandle::join).collect();
        // Where one has panicked, what the others say may only be a consequence.
        if ends.iter().any(Result::is_err) {
            return Err(ProjectError::Panicked);
        }
        ends.into_iter().flatten().collect()
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        _ = self.end();
    }
}

fn run(mut projector: Loop) -> Result<(), ProjectError> {
    let stop = projector.stop();
    // Whatever ends one loop, even a panic, ends all: partitions of one that is gone would stand still.
    let all_stop = stop.clone().drop_guard();
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
    drop(all_stop);
    let closed = projector.close(result.is_ok());
    result.and(closed)
}
