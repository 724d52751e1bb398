//! The state that all workers of a process share. Folds nothing.

use crate::damage::Damage;
use crate::memory::Memory;
use crate::partitions::Partitions;
use crate::publish::DeadLetterLog;
use crate::recover::Backoff;
use crate::settings::Settings;
use parking_lot::Mutex;
use receipts_log::Log;
use receipts_metrics::catalogue;
use receipts_store::SledStore;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One instance per projector. Each shard holds it.
pub(crate) struct Shared {
    pub(crate) partitions: Partitions,
    /// Cancelled when the process is about to stop.
    pub(crate) stop: CancellationToken,
    pub(crate) store: Arc<SledStore>,
    pub(crate) settings: Settings,
    pub(crate) memory: Mutex<Memory>,
    /// True once a restore was interrupted because the process is about to stop.
    pub(crate) abandoned: AtomicBool,
    /// True once the log cannot be read any further. It may be another log by now, so nothing that
    /// was folded since the last checkpoint is saved: the next start folds it again.
    pub(crate) log_failed: Arc<AtomicBool>,
    pub(crate) snapshot_backoff: Mutex<Backoff>,
    pub(crate) dead_letter_log: Arc<Mutex<DeadLetterLog>>,
}

impl Shared {
    pub(crate) fn new(store: Arc<SledStore>, log: &dyn Log, settings: Settings, ready_lag: Duration) -> Arc<Self> {
        catalogue::CHECKPOINTS_PUT_OFF.get().increment(0);
        let (count, damage) = (log.partition_count(), Damage::new(settings.dir.clone()));
        Arc::new(Self {
            partitions: Partitions::new(log, ready_lag, &settings, damage),
            stop: CancellationToken::new(),
            store,
            // The other quarter is sled's cache.
            memory: Mutex::new(Memory::new(settings.memory_bytes / 4 * 3, count)),
            settings,
            abandoned: AtomicBool::new(false),
            log_failed: Arc::default(),
            snapshot_backoff: Mutex::default(),
            dead_letter_log: Arc::new(Mutex::new(DeadLetterLog::new(count))),
        })
    }
}
