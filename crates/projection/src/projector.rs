//! A running projector: one thread per worker, until it is stopped or a worker stops by itself.
//! Decides nothing about a worker's steps.

use crate::partitions::Partitions;
use crate::report::Report;
use crate::settings::{ProjectError, Settings};
use crate::snapshotter::Snapshotter;
use crate::worker::{POLL_WAIT, Step, Worker};
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
    /// The threads that read the store beside the workers, joined before them.
    readers: Vec<JoinHandle<()>>,
    snapshots: Option<Arc<dyn SnapshotControl>>,
    threads: Vec<JoinHandle<Result<(), ProjectError>>>,
    /// Closed once all workers' threads have ended.
    running: mpsc::Receiver<Infallible>,
}

impl Projector {
    /// Opens the store and starts to fold the log. Dead letters name `events_topic`. A partition
    /// that has caught up is ready at the end of the log, or while its newest folded record is at
    /// most `ready_lag` old.
    ///
    /// # Errors
    /// If the store or the log cannot be used.
    pub fn start(
        log: &dyn Log,
        events_topic: &str,
        settings: Settings,
        ready_lag: Duration,
    ) -> Result<Self, ProjectError> {
        // A quarter of the memory is sled's own cache, for pages that are not decoded in memory.
        let sled = SledSettings { cache_bytes: (settings.memory_bytes / 4) as u64, sync: settings.sync };
        let store = match &settings.dir {
            Some(dir) => SledStore::open(dir, sled)?,
            None => SledStore::in_memory()?,
        };
        let snapshots = settings.snapshots.clone();
        let (limits, now_ms) = (settings.limits, settings.now_ms);
        let (store, publishes) = (Arc::new(store), settings.publish);
        let workers = Worker::with_read_ahead(Arc::clone(&store), log, events_topic, settings, ready_lag)?;
        let (partitions, stop) = (workers[0].partitions().clone(), workers[0].stop());
        let snapshotter = snapshots.and_then(|settings| {
            let schedule = settings.schedule?;
            Some(Snapshotter::new(partitions.clone(), &settings, schedule, limits, now_ms, stop.clone()))
        });
        let report = Report::new(partitions.clone(), log.ends(), store, publishes, now_ms);
        let spawn_error =
            |source| receipts_store::Error::Io { doing: "starting the projector's threads".into(), source };
        let control = snapshotter.as_ref().map(|s| s.control() as Arc<dyn SnapshotControl>);
        let (runs, running) = mpsc::channel(1);
        let mut projector =
            Self { partitions, stop, readers: Vec::new(), snapshots: control, threads: Vec::new(), running };
        let stop = projector.stop.clone();
        for (number, worker) in (0..).zip(workers) {
            let runs = runs.clone();
            let thread = std::thread::Builder::new().name(format!("fold-{number}")).spawn(move || {
                let _runs: mpsc::Sender<Infallible> = runs;
                run(worker)
            });
            projector.threads.push(thread.map_err(spawn_error)?);
        }
        if let Some(snapshotter) = snapshotter {
            let thread = std::thread::Builder::new().name("snapshots".into()).spawn(move || snapshotter.run());
            projector.readers.push(thread.map_err(spawn_error)?);
        }
        let thread = std::thread::Builder::new().name("report".into()).spawn(move || report.run(&stop));
        projector.readers.push(thread.map_err(spawn_error)?);
        Ok(projector)
    }

    /// Makes the next start over a store quick, see [`SledStore::write_sled_snapshot`]. No
    /// projector may have the store open.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub fn write_sled_snapshot(dir: &Path) -> Result<(), ProjectError> {
        Ok(SledStore::write_sled_snapshot(dir)?)
    }

    /// Tells whether a store holds anything that was folded. No projector may have the store open.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub fn has_state(dir: &Path) -> Result<bool, ProjectError> {
        Ok(SledStore::has_state(dir)?)
    }

    /// Returns the partitions, for queries.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Returns where operators request snapshots; `None` if none are taken.
    pub fn snapshots(&self) -> Option<Arc<dyn SnapshotControl>> {
        self.snapshots.clone()
    }

    /// Tells whether all workers' threads have ended.
    pub fn is_stopped(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Resolves when the projector has stopped by itself, because of an error that [`Self::stop`]
    /// returns.
    pub async fn stopped(&mut self) {
        _ = self.running.recv().await;
    }

    /// Stops after the current step: publishes, checkpoints, and closes the store.
    ///
    /// # Errors
    /// The error that had stopped it before, or that prevented a last checkpoint.
    pub fn stop(mut self) -> Result<(), ProjectError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ProjectError> {
        self.stop.cancel();
        for reader in self.readers.drain(..) {
            _ = reader.join();
        }
        let ends: Vec<_> = self.threads.drain(..).map(JoinHandle::join).collect();
        // After a panic the errors of other threads may only be its consequences.
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

fn run(mut worker: Worker) -> Result<(), ProjectError> {
    let stop = worker.stop();
    // The end of one worker, even by a panic, ends all. Otherwise its partitions would stand still.
    let all_stop = stop.clone().drop_guard();
    let mut result = Ok(());
    while result.is_ok() && !stop.is_cancelled() {
        result = worker.step().map(|step| {
            if step == Step::LogUnavailable {
                std::thread::sleep(POLL_WAIT);
            }
        });
    }
    // A restore that was interrupted because the process stops is no failure.
    if worker.is_abandoned() {
        result = Ok(());
    }
    if let Err(e) = &result {
        // The process prints the reason as it ends, once.
        tracing::error!("a worker has failed; the projector stops");
        tracing::debug!(error = %e, "the reason of the failed worker");
    }
    drop(all_stop);
    let closed = worker.close(result.is_ok());
    result.and(closed)
}
