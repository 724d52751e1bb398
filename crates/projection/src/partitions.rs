//! The partitions that workers and queries share: each state under a lock, and how far it is
//! folded. Folds nothing.

use crate::clock::is_ahead;
use crate::damage::Damage;
use crate::log_end::LogEnd;
use crate::partition::{Fold, Partition};
use crate::settings::{ProjectError, Settings};
use parking_lot::{RwLock, RwLockReadGuard};
use receipts_log::{Contact, Log, Topic};
use receipts_metrics::catalogue;
use receipts_query::{LogTag, Positions, Readiness, Unavailable};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

/// How long a reader waits for a partition's lock on the thread that it runs on: longer than the
/// fold of a usual record, and far shorter than a slice of a long one.
const BRIEF_WAIT: Duration = Duration::from_micros(100);

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
    candidates_max: u32,
    damage: Damage,
    contact: Contact,
    log_end: Option<Arc<LogEnd>>,
    log_tag: Option<LogTag>,
    stale_max: Duration,
}

/// How long a read waits for a position before the log is asked whether it exists. Nearly all
/// positions are folded sooner.
const ASK_AFTER: Duration = Duration::from_millis(20);

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
    /// The first change that no checkpoint holds: milliseconds since [`start`], plus 1; 0 for none.
    unsaved_since_ms: AtomicU64,
    /// True while the metrics show the partition's progress.
    pub(crate) reported: AtomicBool,
    /// True while an outage has taken the partition away: it is asked, and changed by nobody.
    pub(crate) lost: AtomicBool,
    /// From the loss until everything is folded again: when the log had last been heard from,
    /// milliseconds since [`start`], plus 1. Otherwise 0.
    silent_since_ms: AtomicU64,
}

impl PartitionCell {
    /// Sets the position after a record was folded.
    pub(crate) fn set_folded(&self, position: u64) {
        self.position.store(position, Ordering::Release);
        if position >= self.end_offset.load(Ordering::Acquire) {
            self.set_caught_up();
        }
    }

    /// Takes the lock for reading. INV-FREE-THREADS: a thread of a runtime waits only briefly. Then
    /// its other tasks move to another thread, and this one may wait for the fold or for a slow
    /// question.
    fn lock_for_reading(&self) -> RwLockReadGuard<'_, Option<Partition>> {
        if let Some(guard) = self.partition.try_read_for(BRIEF_WAIT) {
            return guard;
        }
        let wait = || self.partition.read();
        match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
            // There is no other thread for the tasks of a current-thread runtime.
            _ => wait(),
        }
    }

    /// Sets the time of the first change that no checkpoint holds.
    pub(crate) fn set_unsaved_since(&self, at: Option<Instant>) {
        let since_ms = at.map_or(0, |at| at.saturating_duration_since(start()).as_millis() as u64 + 1);
        self.unsaved_since_ms.store(since_ms, Ordering::Release);
    }

    /// Notes that everything which was in the log at the assignment is folded.
    pub(crate) fn set_caught_up(&self) {
        self.caught_up.store(true, Ordering::Release);
        if !self.is_lost() {
            self.silent_since_ms.store(0, Ordering::Release);
        }
    }

    /// Forgets the outage of a partition that was released.
    pub(crate) fn set_released(&self) {
        self.lost.store(false, Ordering::Release);
        self.silent_since_ms.store(0, Ordering::Release);
    }

    /// Tells whether an outage has taken the partition away.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

/// A moment before all times that a [`PartitionCell`] holds.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl Partitions {
    pub(crate) fn new(log: &dyn Log, ready_lag: Duration, settings: &Settings, damage: Damage) -> Self {
        let Settings { now_ms, answer_while_behind, candidates_max, stale_max, .. } = *settings;
        start();
        Self(Arc::new(Table {
            cells: (0..log.partition_count()).map(|_| PartitionCell::default()).collect(),
            folded: watch::channel(()).0,
            ready_lag,
            now_ms,
            answer_while_behind,
            candidates_max,
            damage,
            contact: log.contact(),
            log_end: log.ends().map(LogEnd::new),
            log_tag: log.tag(Topic::Events).map(LogTag),
            stale_max,
        }))
    }

    /// Returns the tag of the log that is folded, if it has one.
    pub(crate) fn log_tag(&self) -> Option<LogTag> {
        self.0.log_tag
    }

    /// Confirms that all folded records are of the log that the process began with. Blocks until
    /// the log answers.
    ///
    /// # Errors
    /// If the topic was made anew meanwhile.
    pub(crate) fn confirm_topic(&self) -> Result<(), ProjectError> {
        self.0.log_end.as_ref().map_or(Ok(()), |log_end| Ok(log_end.confirm_topic()?))
    }

    /// Returns the contact with the log.
    pub fn contact(&self) -> &Contact {
        &self.0.contact
    }

    /// Notes that an outage has taken a partition away.
    pub(crate) fn lose(&self, partition: u32) {
        let cell = self.cell(partition);
        let heard_at = self.0.contact.heard_at().saturating_duration_since(start());
        let silent_since_ms = u64::try_from(heard_at.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        cell.silent_since_ms.store(silent_since_ms, Ordering::Release);
        cell.lost.store(true, Ordering::Release);
    }

    /// Returns how long the log has been silent for a partition; `None` while it is heard from.
    pub(crate) fn silence(&self, partition: u32) -> Option<Duration> {
        self.silence_of(self.0.cells.get(partition as usize)?)
    }

    fn silence_of(&self, cell: &PartitionCell) -> Option<Duration> {
        match cell.silent_since_ms.load(Ordering::Acquire) {
            0 => self.0.contact.silence(),
            since_ms => Some(start().elapsed().saturating_sub(Duration::from_millis(since_ms - 1))),
        }
    }

    /// Returns the silence of each owned partition that is not heard from, whole seconds.
    pub(crate) fn stale_seconds(&self) -> Vec<(u32, u64)> {
        let cells = (0..).zip(&self.0.cells).filter(|(_, cell)| cell.owned.load(Ordering::Acquire));
        cells.filter_map(|(number, cell)| Some((number, self.silence_of(cell)?.as_secs()))).collect()
    }

    /// INV-STALE: refuses a silence that is longer than reads may be answered through; returns it
    /// in whole seconds.
    pub(crate) fn may_be_silent(&self, silence: Option<Duration>) -> Result<Option<u64>, u64> {
        let Some(silence) = silence else { return Ok(None) };
        let seconds = silence.as_secs();
        if silence > self.0.stale_max { Err(seconds) } else { Ok(Some(seconds)) }
    }

    /// Returns the number of partitions of the log, owned or not.
    pub fn count(&self) -> u32 {
        self.0.cells.len() as u32
    }

    /// Returns the number of messages of an id that a search in all conversations looks at.
    pub(crate) fn candidates_max(&self) -> u32 {
        self.0.candidates_max
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
    /// that has been silent for a while. Waits for the lock without holding up other tasks of the
    /// runtime.
    pub fn read<R>(&self, partition: u32, ask: impl FnOnce(&Fold, u64) -> R) -> Option<R> {
        let cell = self.0.cells.get(partition as usize)?;
        let guard = cell.lock_for_reading();
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
        self.numbers(|cell| {
            cell.owned.load(Ordering::Acquire)
                && self.may_answer(cell)
                && self.may_be_silent(self.silence_of(cell)).is_ok()
        })
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
        if self.positions().covers(min) {
            return true;
        }
        let mut folded = self.0.folded.subscribe();
        let covered = async {
            while !self.positions().covers(min) {
                if folded.changed().await.is_err() {
                    return;
                }
            }
        };
        let (is_there, outcome) = tokio::select! {
            biased;
            covered = tokio::time::timeout(timeout, covered) => {
                if covered.is_ok() { (true, "in_time") } else { (false, "behind") }
            }
            () = self.is_beyond_end(min) => (false, "beyond_end"),
        };
        catalogue::POSITION_WAITS.of([outcome]).increment(1);
        is_there
    }

    /// Resolves if the log holds no record at one of the positions. A position of a write that was
    /// acknowledged before this call never is one.
    async fn is_beyond_end(&self, min: &Positions) {
        if let Some(log_end) = &self.0.log_end {
            tokio::time::sleep(ASK_AFTER).await;
            let unseen = min.iter().filter(|(partition, next)| *next > self.seen_end(*partition));
            let unseen: Vec<(u32, u64)> = unseen.collect();
            if !unseen.is_empty() {
                let ends = log_end.ask(unseen.iter().map(|(partition, _)| *partition)).await;
                if unseen.iter().any(|(partition, next)| ends.get(partition).is_some_and(|end| next > end)) {
                    return;
                }
            }
        }
        std::future::pending().await
    }

    /// Returns the offsets of `most`, or the end of the log where that is less. Asks the log only
    /// about partitions that are not folded that far; `None` if it does not answer.
    pub(crate) async fn log_ends(&self, most: &Positions) -> Option<Positions> {
        let unseen = Vec::from_iter(self.positions_behind(most).map(|(partition, _)| partition));
        let ends = match &self.0.log_end {
            Some(log_end) if !unseen.is_empty() => log_end.ask(unseen.iter().copied()).await,
            _ => BTreeMap::new(),
        };
        let least = |(partition, most): (u32, u64)| match unseen.binary_search(&partition) {
            Ok(_) => Some((partition, most.min(*ends.get(&partition)?))),
            Err(_) => Some((partition, most)),
        };
        most.iter().map(least).collect()
    }

    /// Returns why a position is not folded. INV-TRANSACTIONS
    pub(crate) fn why_behind(&self, min: &Positions) -> Unavailable {
        let held = self.positions_behind(min).find_map(|(partition, next)| {
            let held = self.0.contact.held(partition).filter(|held| held.offset < next)?;
            Some(Unavailable::Held { partition, offset: held.offset, seconds: held.since.elapsed().as_secs() })
        });
        held.unwrap_or(Unavailable::Behind)
    }

    fn positions_behind<'m>(&self, min: &'m Positions) -> impl Iterator<Item = (u32, u64)> + use<'m> {
        let folded = self.positions();
        min.iter().filter(move |(partition, next)| folded.next_offset(*partition) < *next)
    }

    /// Returns an offset up to which the log is known to be written.
    fn seen_end(&self, partition: u32) -> u64 {
        self.0.cells.get(partition as usize).map_or(0, |cell| {
            let (end, folded) = (&cell.end_offset, &cell.position);
            end.load(Ordering::Acquire).max(folded.load(Ordering::Acquire))
        })
    }

    /// Tells whether all owned partitions are folded to the end of the log, within the allowed lag.
    pub fn readiness(&self) -> Readiness {
        let now_ms = (self.0.now_ms)();
        let mut readiness = Readiness::default();
        let owned = (0..).zip(&self.0.cells).filter(|(_, cell)| cell.owned.load(Ordering::Acquire));
        for (number, cell) in owned {
            readiness.partitions += 1;
            let timestamp_ms = cell.timestamp_ms.load(Ordering::Acquire);
            let lag_ms = now_ms.saturating_sub(timestamp_ms);
            // A record dated in the future has no known age. Only the end of the log then proves
            // that the partition has caught up.
            let dated = !is_ahead(timestamp_ms, now_ms);
            let fresh = dated && u128::from(lag_ms) <= self.0.ready_lag.as_millis();
            // Without the log nothing can be caught up with: what was caught up stays so.
            let (near, answers) = match self.may_be_silent(self.silence_of(cell)) {
                Ok(None) => match self.held_long(number) {
                    Some(reason) => {
                        readiness.reason.get_or_insert(reason);
                        (false, true)
                    }
                    None => (cell.at_end.load(Ordering::Acquire) || fresh, true),
                },
                Ok(Some(seconds)) => {
                    readiness.partitions_stale += 1;
                    readiness.stale_seconds = readiness.stale_seconds.max(Some(seconds));
                    (true, true)
                }
                Err(seconds) => {
                    readiness.stale_seconds = readiness.stale_seconds.max(Some(seconds));
                    readiness.reason = Some(Unavailable::Stale { seconds }.to_string());
                    (false, false)
                }
            };
            readiness.partitions_missing += u32::from(!answers);
            readiness.partitions_caught_up += u32::from(cell.caught_up.load(Ordering::Acquire) && near);
        }
        readiness.caught_up = readiness.partitions > 0 && readiness.partitions_caught_up == readiness.partitions;
        readiness
    }

    /// INV-TRANSACTIONS: returns a sentence about an owned partition whose records have waited for
    /// a transaction for long.
    pub(crate) fn held_long(&self, number: u32) -> Option<String> {
        let held = self.0.contact.held(number).filter(|held| held.is_long(Instant::now()))?;
        Some(format!(
            "a producer's transaction is open: in partition {number} the records from offset {} on wait, for {} s",
            held.offset,
            held.since.elapsed().as_secs()
        ))
    }

    /// Returns the age of the oldest change that no checkpoint holds. It grows while checkpoints
    /// fail, and is 0 if every change is saved.
    pub(crate) fn checkpoint_age(&self) -> Duration {
        let since = self.0.cells.iter().map(|cell| cell.unsaved_since_ms.load(Ordering::Acquire));
        let oldest = since.filter(|since| *since > 0).min();
        oldest.map_or(Duration::ZERO, |since| start().elapsed().saturating_sub(Duration::from_millis(since - 1)))
    }

    /// Wakes queries that wait for a position.
    pub(crate) fn announce(&self) {
        self.0.folded.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Holds a partition's lock, as the fold does, until the returned sender is dropped.
    fn hold(cell: &Arc<PartitionCell>) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (held, is_held) = mpsc::channel();
        let cell = Arc::clone(cell);
        std::thread::spawn(move || {
            let _guard = cell.partition.write();
            held.send(()).expect("the test waits");
            _ = released.recv();
        });
        is_held.recv().expect("held");
        release
    }

    /// INV-FREE-THREADS
    #[test]
    fn reader_that_waits_leaves_the_runtime_free() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let cell = Arc::<PartitionCell>::default();
        let release = hold(&cell);
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let cell = Arc::clone(&cell);
                runtime.spawn(async move { cell.lock_for_reading().is_none() })
            })
            .collect();
        for reader in &readers {
            // The runtime's only thread runs other tasks while the readers wait.
            runtime.block_on(runtime.spawn(async {})).expect("run");
            assert!(!reader.is_finished(), "the lock is held");
        }
        drop(release);
    }

    #[test]
    fn reader_may_wait_on_any_kind_of_runtime() {
        let cell = Arc::<PartitionCell>::default();
        let current = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for wait in [0, 1] {
            let release = hold(&cell);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                drop(release);
            });
            let read = async { cell.lock_for_reading().is_none() };
            assert!(if wait == 0 { current.block_on(read) } else { cell.lock_for_reading().is_none() });
        }
    }
}
