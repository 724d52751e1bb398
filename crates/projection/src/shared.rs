//! What the projector's thread and the readers share: the partitions, each under a lock, and how far they are.

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

/// The partitions of the log, those that this process owns with their state. Cheap to clone.
#[derive(Clone)]
pub struct Partitions {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) slots: Vec<Slot>,
    /// Changes whenever something was folded.
    folded: watch::Sender<()>,
    ready_lag: Duration,
    now_ms: fn() -> u64,
    answer_while_behind: bool,
    /// What the fold or a reader found wrong with the store.
    pub(crate) damage: Damage,
}

impl Shared {
    /// Whether an owned partition is far enough to be asked.
    fn may_answer(&self, slot: &Slot) -> bool {
        self.answer_while_behind || slot.caught_up.load(Ordering::Acquire)
    }
}

/// A partition of the log.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) partition: RwLock<Option<Partition>>,
    pub(crate) owned: AtomicBool,
    pub(crate) position: AtomicU64,
    /// The last poll ended at the end of the partition.
    pub(crate) at_end: AtomicBool,
    /// The end of the log when the partition became ours. Under a constant load the end itself may never be told.
    pub(crate) end_offset: AtomicU64,
    /// Everything below that end is folded.
    pub(crate) caught_up: AtomicBool,
    /// Timestamp of the last record folded, Unix milliseconds.
    pub(crate) timestamp_ms: AtomicU64,
}

impl Slot {
    /// Takes note of how far the partition is folded.
    pub(crate) fn folded(&self, position: u64) {
        self.position.store(position, Ordering::Release);
        if position >= self.end_offset.load(Ordering::Acquire) {
            self.caught_up.store(true, Ordering::Release);
        }
    }
}

impl Partitions {
    pub(crate) fn new(count: u32, ready_lag: Duration, settings: &Settings, damage: Damage) -> Self {
        let slots = (0..count).map(|_| Slot::default()).collect();
        let Settings { now_ms, answer_while_behind, .. } = *settings;
        let folded = watch::channel(()).0;
        Self { shared: Arc::new(Shared { slots, folded, ready_lag, now_ms, answer_while_behind, damage }) }
    }

    /// Partitions of the log, owned or not.
    pub fn count(&self) -> u32 {
        self.shared.slots.len() as u32
    }

    /// Asks an owned partition something; `None` where it is not owned, or its last record was applied in part only.
    ///
    /// The fold of this partition waits meanwhile, and with it whoever asks next: microseconds where the pages are in
    /// memory, milliseconds where many are not, as for a stretch of a long member list of a group that nobody has written
    /// to for a while.
    pub fn read<R>(&self, partition: u32, ask: impl FnOnce(&Fold, u64) -> R) -> Option<R> {
        let slot = self.shared.slots.get(partition as usize)?;
        let guard = slot.partition.read();
        // Looked at under the lock, which is taken to give the partition up.
        guard.as_ref().filter(|p| p.is_whole() && self.shared.may_answer(slot)).map(|p| ask(&p.fold, p.position))
    }

    /// The partitions that are answered for.
    pub(crate) fn answered(&self) -> Vec<u32> {
        let answers = |slot: &Slot| slot.owned.load(Ordering::Acquire) && self.shared.may_answer(slot);
        (0..).zip(&self.shared.slots).filter_map(|(number, slot)| answers(slot).then_some(number)).collect()
    }

    /// How far each owned partition is folded.
    pub fn positions(&self) -> Positions {
        let mut positions = Positions::default();
        for (number, slot) in (0..).zip(&self.shared.slots) {
            if slot.owned.load(Ordering::Acquire) {
                positions.raise(number, slot.position.load(Ordering::Acquire));
            }
        }
        positions
    }

    /// Waits until everything below the positions is folded; false where the time is over first.
    pub async fn wait(&self, min: &Positions, timeout: Duration) -> bool {
        let mut folded = self.shared.folded.subscribe();
        let covered = async {
            while !self.positions().covers(min) {
                if folded.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(timeout, covered).await.is_ok()
    }

    /// Whether all owned partitions are folded up to the end of the log, but for the lag that is allowed.
    pub fn readiness(&self) -> Readiness {
        let now_ms = (self.shared.now_ms)();
        let mut readiness = Readiness::default();
        for slot in self.shared.slots.iter().filter(|s| s.owned.load(Ordering::Acquire)) {
            readiness.partitions += 1;
            let lag_ms = now_ms.saturating_sub(slot.timestamp_ms.load(Ordering::Acquire));
            // Of a record from the future nothing can be said of its age: then only the end of the log is near enough.
            let dated = !is_ahead(slot.timestamp_ms.load(Ordering::Acquire), now_ms);
            let fresh = dated && u128::from(lag_ms) <= self.shared.ready_lag.as_millis();
            let near = slot.at_end.load(Ordering::Acquire) || fresh;
            readiness.partitions_caught_up += u32::from(slot.caught_up.load(Ordering::Acquire) && near);
        }
        readiness.caught_up = readiness.partitions > 0 && readiness.partitions_caught_up == readiness.partitions;
        readiness
    }

    pub(crate) fn announce(&self) {
        self.shared.folded.send_replace(());
    }
}
