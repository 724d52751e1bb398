//! A worker polls the log and then folds, publishes and checkpoints the partitions of its shard.
//! It has no thread of its own, and waits for nothing but the log.

use crate::partitions::Partitions;
use crate::read_ahead::ReadAhead;
use crate::settings::{ProjectError, Settings};
use crate::shard::{Shard, ShardId};
use crate::shared::Shared;
use crate::source::{InlineSource, Source};
use receipts_log::{Assignment, Log, ReadError};
use receipts_metrics::catalogue;
use receipts_store::SledStore;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a poll waits for a record. A stop or a timer may be noticed this much later.
pub(crate) const POLL_WAIT: Duration = Duration::from_millis(20);
/// Records between two checks of how many changed pages each partition holds in memory.
const MEMORY_CHECK_RECORDS: u64 = 16_384;

/// The outcome of one [`Worker::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The log was polled; there may have been no records.
    Polled,
    /// The log cannot be read at the moment. The caller waits briefly before the next step.
    LogUnavailable,
}

/// Runs the loop of one shard, one step at a time. A projector steps it on a thread; a simulation
/// steps it on the test's own thread.
pub struct Worker {
    shard: Arc<Shard>,
    source: Box<dyn Source>,
    /// Records folded since the last check of memory.
    since_memory_check: u64,
}

impl Worker {
    /// Returns one worker for all partitions, which reads and decodes the log within its steps. The
    /// steps therefore determine everything that happens. The log assigns the partitions during
    /// them.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn inline(
        store: Arc<SledStore>,
        log: &dyn Log,
        events_topic: &str,
        settings: Settings,
        ready_lag: Duration,
    ) -> Result<Self, ProjectError> {
        let shared = Shared::new(store, log, settings, ready_lag);
        let shard = Shard::new(&shared, ShardId::ALL, log, events_topic);
        let decoder = shared.settings.limits.decoder(log.partition_count());
        let reader = log.reader(&shared.settings.group, Arc::clone(&shard) as Arc<dyn Assignment>)?;
        Ok(Self::over(shard, InlineSource { reader, decoder }))
    }

    /// Returns `settings.fold_threads` workers that share the partitions, but at least one and no
    /// more than there are partitions. One thread reads and decodes ahead of all of them, and ends
    /// with the first worker that ends.
    ///
    /// # Errors
    /// If the log cannot be read, or the thread that reads it cannot be started.
    pub fn with_read_ahead(
        store: Arc<SledStore>,
        log: &dyn Log,
        events_topic: &str,
        settings: Settings,
        ready_lag: Duration,
    ) -> Result<Vec<Self>, ProjectError> {
        let (group, threads) = (settings.group.clone(), settings.fold_threads);
        let decoder = settings.limits.decoder(log.partition_count());
        let shared = Shared::new(store, log, settings, ready_lag);
        let ids = ShardId::split(threads.min(log.partition_count()).max(1) as usize);
        let shards: Vec<_> = ids.map(|id| Shard::new(&shared, id, log, events_topic)).collect();
        let assignments = shards.iter().map(|shard| Arc::clone(shard) as Arc<dyn Assignment>).collect();
        let sources = ReadAhead::start(log, &group, assignments, decoder, &shared.log_failed)?;
        Ok(shards.into_iter().zip(sources).map(|(shard, source)| Self::over(shard, source)).collect())
    }

    fn over(shard: Arc<Shard>, source: impl Source + 'static) -> Self {
        Self { shard, source: Box::new(source), since_memory_check: 0 }
    }

    /// Returns all partitions of the process, for queries.
    pub fn partitions(&self) -> &Partitions {
        &self.shard.shared.partitions
    }

    /// Returns the token that stops all workers. Cancelling it also interrupts a restore within a
    /// step.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.shard.shared.stop.clone()
    }

    /// Tells whether a step failed only because the process is about to stop.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.shard.shared.abandoned.load(Ordering::Acquire)
    }

    /// Polls once and folds the records, publishes due updates, and checkpoints at most one
    /// partition.
    ///
    /// # Errors
    /// If going on would lose or invent records or updates. The caller must not fold or checkpoint
    /// any more.
    pub fn step(&mut self) -> Result<Step, ProjectError> {
        let shard = &*self.shard;
        let (mut failure, mut folding) = (None, Duration::ZERO);
        let polled = self.source.poll(shard.next_wait(), &mut |item| {
            if failure.is_none() {
                let began = Instant::now();
                failure = shard.receive(item).err();
                folding += began.elapsed();
            }
        });
        let (folded, step) = match (failure.or_else(|| shard.take_failure()), polled) {
            (Some(e), _) => return Err(e),
            (None, Err(ReadError::Retry(why))) => {
                tracing::warn!(why, "the log cannot be read at the moment; the worker polls it again");
                (0, Step::LogUnavailable)
            }
            (None, Err(stop)) => {
                shard.shared.log_failed.store(true, Ordering::Release);
                return Err(stop.into());
            }
            (None, Ok(records)) => (records as u64, Step::Polled),
        };
        // Readers come first: publishing may take as long as the log does.
        if folded > 0 {
            catalogue::FOLD_SECONDS.get().record(folding);
            shard.shared.partitions.announce();
        }
        shard.publish(&[])?;
        self.since_memory_check += folded;
        let check_memory = self.since_memory_check >= MEMORY_CHECK_RECORDS;
        self.since_memory_check = if check_memory { 0 } else { self.since_memory_check };
        shard.checkpoint_next(&mut *self.source, check_memory)?;
        Ok(step)
    }

    /// Releases all partitions of the shard. Folded records become durable only if `all_went_well`:
    /// after a failure a record may be applied in part, a change may be unpublished, or the log may
    /// be another one.
    ///
    /// # Errors
    /// If a partition could not be made durable.
    pub fn close(self, all_went_well: bool) -> Result<(), ProjectError> {
        let numbers: Vec<u32> = (0..self.shard.shared.partitions.count()).collect();
        let closed = self.shard.release(&numbers, all_went_well);
        drop(self.source);
        closed
    }
}
