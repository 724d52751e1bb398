//! The loop on a thread of its own, until it is stopped or stops by itself. Decides nothing about its turns.

use crate::projector::{Loop, POLL_WAIT, Turn};
use crate::settings::{ProjectError, Settings};
use crate::shared::Partitions;
use receipts_log::Log;
use receipts_store::{SledSettings, SledStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// A running projector.
pub struct Projector {
    partitions: Partitions,
    stop: Arc<AtomicBool>,
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
        let projector = Loop::new(Arc::new(store), log, events_topic, settings, ready_lag)?;
        let partitions = projector.partitions().clone();
        let stop = Arc::new(AtomicBool::new(false));
        let (done, stopped) = oneshot::channel();
        let thread = {
            let stop = Arc::clone(&stop);
            let run = move || {
                let result = run(projector, &stop);
                _ = done.send(());
                result
            };
            std::thread::Builder::new().name("projector".into()).spawn(run)
        };
        let thread = thread
            .map_err(|source| receipts_store::Error::Io { doing: "starting the projector's thread".into(), source })?;
        Ok(Self { partitions, stop, thread: Some(thread), stopped: Some(stopped) })
    }

    /// The partitions, to ask them.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
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
        self.stop.store(true, Ordering::Release);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| ProjectError::Panicked)?,
            None => Ok(()),
        }
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn run(mut projector: Loop, stop: &AtomicBool) -> Result<(), ProjectError> {
    let mut result = Ok(());
    while result.is_ok() && !stop.load(Ordering::Acquire) {
        result = projector.turn().map(|turn| {
            if turn == Turn::NotJustNow {
                std::thread::sleep(POLL_WAIT);
            }
        });
    }
    if let Err(e) = &result {
        tracing::error!(error = %e, "the projector stops");
    }
    let closed = projector.close(result.is_ok());
    result.and(closed)
}
