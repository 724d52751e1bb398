//! The partitions that workers and queries share: each state under a lock, and how far it is
//! folded. Folds nothing.

use crate::clock::is_ahead;
use crate::damage::Damage;
use crate::partition::{Fold, Partition};
use crate::settings::Settings;
use parking_lot::RwLock;
use receipts_query::{Positions, Readiness};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// All partitions of the log. Holds the states of the owned ones. Cheap to clone.
#[derive(Clone)]
pub struct Partitions(Arc<Table>);

struct Table {
    cells: Vec<PartitionCell>,
    /// Notified after records were folded.
    folded: watch::Sender<()>,
    ready_lag: Duration,
    now_ms: fn() -> u64,
    answer_while_behind: bool,
    damage: Damage,
}

/// One partition of the log. The atomics are read without its lock.
#[derive(Default)]
pub(crate) struct PartitionCell {
    /// The state, while this process owns the partition.
    pub(crate) partition: RwLock<Option<Partition>>,
    pub(crate) owned: AtomicBool,
    /// Every record below this offset was folded or skipped.
    pub(crate) position: AtomicU64,
    /// True if the last poll ended at the end of the partition.
    pub(crate) at_end: AtomicBool,
    /// The end of the log when the partition was assigned. Under constant load a poll may never
    /// reach the end.
    pub(crate) end_offset: AtomicU64,
    /// True once everything below `end_offset` is folded.
    pub(crate) caught_up: AtomicBool,
    /// Timestamp of the last folded record, Unix milliseconds.
    pub(crate) timestamp_ms: AtomicU64,
}

impl PartitionCell {
    /// Sets the position after a record was folded.
    pub(crate) fn set_folded(&self, position: u64) {
        self.position.store(position, Ordering::Release);
        if position >= self.end_offset.load(Ordering::Acquire) {
            self.caught_up.store(true, Ordering::Release);
        }
    }
}

impl Partitions {
    pub(crate) fn new(count: u32, ready_lag: Duration, settings: &Settings, damage: Damage) -> Self {
        let cells = (0..count).map(|_| PartitionCell::default()).collect();
        let Settings { now_ms, answer_while_behind, .. } = *settings;
        let folded = watch::channel(()).0;
        Self(Arc::new(Table { cells, folded, ready_lag, now_ms, answer_while_behind, damage }))
    }

    /// Returns the number of partitions of the log, owned or not.
    pub fn count(&self) -> u32 {
        self.0.cells.len() as u32
    }

    /// Returns a partition of the log. Panics if there is none of this number.
    pub(crate) fn cell(&self, partition: u32) -> &PartitionCell {
        &self.0.cells[partition as usize]
    }

    /// Returns the record of damage that the fold or a query found in the store.
    pub(crate) fn damage(&self) -> &Damage {
        &self.0.damage
    }

    /// Queries an owned partition, whose next offset is the second argument of `ask`. Returns
    /// `None` if it is not owned or not far enough, or if its last record was applied in part.
    ///
    /// The fold of this partition, and later queries, wait meanwhile: microseconds if the pages are
    /// in memory, milliseconds if many must be read, as for a page of a long member list in a group
    /// that has been silent for a while.
    pub fn read<R>(&self, partition: u32, ask: impl FnOnce(&Fold, u64) -> R) -> Option<R> {
        let cell = self.0.cells.get(partition as usize)?;
        let guard = cell.partition.read();
        // Checked under the lock, which a release takes too.
        guard.as_ref().filter(|p| p.is_readable() && self.may_answer(cell)).map(|p| ask(&p.fold, p.position))
    }

    /// Tells whether an owned partition is folded far enough to be queried.
    fn may_answer(&self, cell: &PartitionCell) -> bool {
        self.0.answer_while_behind || cell.caught_up.load(Ordering::Acquire)
    }

    /// Returns the partitions that this process owns.
    pub(crate) fn owned(&self) -> Vec<u32> {
        self.numbers(|cell| cell.owned.load(Ordering::Acquire))
    }

    /// Returns the owned partitions that can be queried.
    pub(crate) fn answered(&self) -> Vec<u32> {
        self.numbers(|cell| cell.owned.load(Ordering::Acquire) && self.may_answer(cell))
    }

    fn numbers(&self, has: impl Fn(&PartitionCell) -> bool) -> Vec<u32> {
        (0..).zip(&self.0.cells).filter_map(|(number, cell)| has(cell).then_some(number)).collect()
    }

    /// Returns how far each owned partition is folded.
    pub fn positions(&self) -> Positions {
        let mut positions = Positions::default();
        for (number, cell) in (0..).zip(&self.0.cells) {
            if cell.owned.load(Ordering::Acquire) {
                positions.raise(number, cell.position.load(Ordering::Acquire));
            }
        }
        positions
    }

    /// Waits until everything below the positions is folded; returns false after the timeout.
    /// INV-POSITION: a query that names positions waits here first.
    pub async fn wait(&self, min: &Positions, timeout: Duration) -> bool {
        let mut folded = self.0.folded.subscribe();
        let covered = async {
            while !self.positions().covers(min) {
                if folded.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(timeout, covered).await.is_ok()
    }

    /// Tells whether all owned partitions are folded to the end of the log, within the allowed lag.
    pub fn readiness(&self) -> Readiness {
        let now_ms = (self.0.now_ms)();
        let mut readiness = Readiness::default();
        for cell in self.0.cells.iter().filter(|cell| cell.owned.load(Ordering::Acquire)) {
            readiness.partitions += 1;
            let timestamp_ms = cell.timestamp_ms.load(Ordering::Acquire);
            let lag_ms = now_ms.saturating_sub(timestamp_ms);
            // A record dated in the future has no known age. Only the end of the log then proves
            // that the partition has caught up.
            let dated = !is_ahead(timestamp_ms, now_ms);
            let fresh = dated && u128::from(lag_ms) <= self.0.ready_lag.as_millis();
            let near = cell.at_end.load(Ordering::Acquire) || fresh;
            readiness.partitions_caught_up += u32::from(cell.caught_up.load(Ordering::Acquire) && near);
        }
        readiness.caught_up = readiness.partitions > 0 && readiness.partitions_caught_up == readiness.partitions;
        readiness
    }

    /// Wakes queries that wait for a position.
    pub(crate) fn announce(&self) {
        self.0.folded.send_replace(());
    }
}
