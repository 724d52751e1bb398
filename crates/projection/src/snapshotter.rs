//! Snapshots on a schedule and on demand, on a thread of its own: the fold never waits for it, and its failures are told and
//! tried again. Restores nothing.

use crate::settings::{Schedule, Snapshotting};
use crate::shared::Partitions;
use parking_lot::{Condvar, Mutex};
use receipts_cluster::{SnapshotControl, SnapshotPhase, SnapshotStatus, TakenSnapshot};
use receipts_fold::Limits;
use receipts_snapshots::{Error, Snapshots, Taken, Watch};
use receipts_store::snapshot::{Taking, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long the thread sleeps at most where nothing is due.
const NAP: Duration = Duration::from_millis(500);
/// How soon what failed is tried again, at the latest.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// What operators see of snapshots, and may ask for.
pub(crate) struct Desk {
    partitions: Partitions,
    board: Mutex<Board>,
    changed: Condvar,
}

#[derive(Default)]
struct Board {
    asked: BTreeSet<u32>,
    states: BTreeMap<u32, SnapshotStatus>,
}

impl Desk {
    fn update(&self, partition: u32, change: impl FnOnce(&mut SnapshotStatus)) {
        let mut board = self.board.lock();
        change(board.states.entry(partition).or_insert_with(|| SnapshotStatus::new(partition)));
    }
}

impl SnapshotControl for Desk {
    fn request(&self, partitions: Option<&[u32]>) -> Vec<u32> {
        let asked: Vec<u32> = self.partitions.owned();
        let asked: Vec<u32> =
            asked.into_iter().filter(|number| partitions.is_none_or(|asked| asked.contains(number))).collect();
        let mut board = self.board.lock();
        for number in &asked {
            board.asked.insert(*number);
            // The thread may not have seen a partition yet that is ours since a moment ago.
            let state = board.states.entry(*number).or_insert_with(|| SnapshotStatus::new(*number));
            if state.phase == SnapshotPhase::Idle {
                state.phase = SnapshotPhase::Waiting;
            }
        }
        self.changed.notify_all();
        asked
    }

    fn statuses(&self) -> Vec<SnapshotStatus> {
        self.board.lock().states.values().cloned().collect()
    }
}

/// What the thread works with.
pub(crate) struct Snapshotter {
    partitions: Partitions,
    snapshots: Snapshots,
    schedule: Schedule,
    how: Snapshotting,
    limits: Limits,
    now_ms: fn() -> u64,
    stop: CancellationToken,
    desk: Arc<Desk>,
}

/// What is known of a partition that is ours.
struct Plan {
    due: Instant,
    /// The newest snapshot's offset, where there is one.
    newest: Option<u64>,
    /// When that one was the whole state, Unix milliseconds.
    true_ms: Option<u64>,
}

impl Snapshotter {
    pub(crate) fn new(
        partitions: Partitions,
        how: &Snapshotting,
        schedule: Schedule,
        limits: Limits,
        now_ms: fn() -> u64,
        stop: CancellationToken,
    ) -> Self {
        let desk = Arc::new(Desk { partitions: partitions.clone(), board: Mutex::default(), changed: Condvar::new() });
        let snapshots = how.open(&stop);
        Self { partitions, snapshots, schedule, how: how.clone(), limits, now_ms, stop, desk }
    }

    pub(crate) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Takes snapshots until it is stopped.
    pub(crate) fn run(&self) {
        if let Err(error) = Snapshots::clear(&self.how.spool) {
            tracing::warn!(%error, "what an earlier process left of its snapshots stays");
        }
        let mut plans = BTreeMap::new();
        while !self.stop.is_cancelled() {
            self.look_around(&mut plans);
            let now = Instant::now();
            let asked = self.desk.board.lock().asked.pop_first();
            let due = plans.iter().filter(|(_, plan)| plan.due <= now).min_by_key(|(_, plan)| plan.due);
            match asked.or(due.map(|(number, _)| *number)) {
                Some(number) => {
                    if let Some(plan) = plans.get_mut(&number) {
                        self.attend(number, plan, asked.is_some());
                    }
                }
                None => {
                    let next = plans.values().map(|plan| plan.due).min();
                    let wait = next.map_or(NAP, |due| due.saturating_duration_since(now).min(NAP));
                    let mut board = self.desk.board.lock();
                    if board.asked.is_empty() {
                        self.desk.changed.wait_for(&mut board, wait.max(Duration::from_millis(1)));
                    }
                }
            }
        }
    }

    /// Forgets partitions that are not ours any more, and finds out what there is of new ones.
    fn look_around(&self, plans: &mut BTreeMap<u32, Plan>) {
        let owned: BTreeSet<u32> = self.partitions.owned().into_iter().collect();
        plans.retain(|number, _| owned.contains(number));
        self.desk.board.lock().states.retain(|number, _| owned.contains(number));
        for number in owned {
            plans.entry(number).or_insert_with(|| {
                self.desk.update(number, |_| {});
                Plan { due: Instant::now(), newest: None, true_ms: None }
            });
        }
        let now_ms = (self.now_ms)();
        for (number, plan) in plans {
            if let Some(true_ms) = plan.true_ms {
                let age = now_ms.saturating_sub(true_ms) as f64 / 1e3;
                metrics::gauge!("receipts_snapshot_age_seconds", "partition" => number.to_string()).set(age);
            }
        }
    }

    fn attend(&self, number: u32, plan: &mut Plan, is_asked: bool) {
        let begun = Instant::now();
        // A panic here is a bug, and no reason for the fold to go without snapshots from then on.
        let taken = catch_unwind(AssertUnwindSafe(|| self.take_if_due(number, plan, is_asked)));
        let failure = match taken {
            Ok(Ok(after)) => {
                plan.due = begun + after;
                None
            }
            Ok(Err(_)) if self.stop.is_cancelled() => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("taking it panicked; this is a bug: please report it with the log".to_owned()),
        };
        if let Some(failure) = &failure {
            let retry = self.schedule.interval.min(RETRY_AFTER_MAX);
            plan.due = Instant::now() + retry;
            metrics::counter!("receipts_snapshot_failures_total").increment(1);
            tracing::error!(
                partition = number,
                error = failure,
                retry_ms = retry.as_millis() as u64,
                "a snapshot could not be taken; it is tried again, and the fold goes on"
            );
        }
        self.desk.update(number, |state| {
            state.phase = SnapshotPhase::Idle;
            state.attempts += 1;
            state.failure = failure;
        });
    }

    /// Takes a snapshot, unless there is one that is young enough or as new as it would be; returns after what time to look
    /// again.
    fn take_if_due(&self, number: u32, plan: &mut Plan, is_asked: bool) -> Result<Duration, Error> {
        let now_ms = (self.now_ms)();
        if plan.newest.is_none() {
            // Whoever had the partition before has taken some.
            if let Some(found) = self.snapshots.newest_of(number)? {
                plan.newest = Some(found.next_offset);
                plan.true_ms = Some(found.modified_ms.min(now_ms));
                let age = Duration::from_millis(now_ms.saturating_sub(found.modified_ms));
                if !is_asked && age < self.schedule.interval {
                    return Ok(self.schedule.interval - age);
                }
            }
        }
        let Some(source) = self.partitions.image_source(number) else { return Ok(self.schedule.interval) };
        let told = Told {
            log: self.snapshots.log().to_owned(),
            partition: number,
            partition_count: self.partitions.count(),
            limits: self.limits,
            taken_ms: now_ms,
            program: concat!("receipts ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let taking = match Taking::begin(&source, told) {
            Ok(Some(taking)) => taking,
            Ok(None) => return Ok(self.schedule.interval),
            Err(error) => return Err(self.note(number, error)),
        };
        drop(source);
        let next_offset = taking.header().next_offset;
        if plan.newest == Some(next_offset) && !is_asked {
            plan.true_ms = Some(now_ms);
            return Ok(self.schedule.interval);
        }
        self.desk.update(number, |state| (state.phase, state.bytes) = (SnapshotPhase::Taking, 0));
        let taken = self.snapshots.take(taking, &self.how.spool, &Telling { number, of: self });
        let taken = taken.map_err(|error| match error {
            Error::Store(error) => self.note(number, error),
            error => error,
        })?;
        plan.newest = Some(next_offset);
        plan.true_ms = Some(now_ms);
        self.tell(&taken, now_ms);
        for gone in self.snapshots.prune(number, self.schedule.keep, now_ms)? {
            tracing::info!(partition = number, name = gone.name, "removed an old snapshot");
        }
        Ok(self.schedule.interval)
    }

    /// A damaged page that is met here is known before anybody asks for it.
    fn note(&self, number: u32, error: receipts_store::Error) -> Error {
        let error = receipts_fold::Error::Store(error);
        self.partitions.shared.damage.note(number, &error);
        match error {
            receipts_fold::Error::Store(error) => error.into(),
            broken => receipts_store::Error::Snapshot { detail: broken.to_string() }.into(),
        }
    }

    fn tell(&self, taken: &Taken, now_ms: u64) {
        let number = taken.partition;
        let label = number.to_string();
        let seconds = (taken.took.0 + taken.took.1).as_secs_f64();
        metrics::counter!("receipts_snapshots_total").increment(1);
        metrics::histogram!("receipts_snapshot_seconds").record(seconds);
        metrics::gauge!("receipts_snapshot_bytes", "partition" => label).set(taken.bytes as f64);
        tracing::info!(
            partition = number,
            next_offset = taken.next_offset,
            bytes = taken.bytes,
            pages = taken.pages,
            image_ms = taken.took.0.as_millis() as u64,
            sending_ms = taken.took.1.as_millis() as u64,
            place = taken.place,
            "took a snapshot"
        );
        self.desk.update(number, |state| {
            state.newest = Some(TakenSnapshot {
                next_offset: taken.next_offset,
                taken_ms: now_ms,
                bytes: taken.bytes,
                location: taken.place.clone(),
                digest: taken.digest.clone(),
            });
        });
    }
}

/// Counts the bytes of a snapshot being taken.
struct Telling<'s> {
    number: u32,
    of: &'s Snapshotter,
}

impl Watch for Telling<'_> {
    fn advanced(&self, bytes: u64) {
        self.of.desk.update(self.number, |state| state.bytes += bytes);
    }

    fn is_stopped(&self) -> bool {
        self.of.stop.is_cancelled()
    }
}

impl Partitions {
    fn owned(&self) -> Vec<u32> {
        let slots = (0..).zip(&self.shared.slots);
        slots.filter_map(|(number, slot)| slot.owned.load(Ordering::Acquire).then_some(number)).collect()
    }

    fn image_source(&self, partition: u32) -> Option<receipts_store::ImageSource> {
        let guard = self.shared.slots.get(partition as usize)?.partition.read();
        guard.as_ref().map(|partition| partition.fold.pages().backend().image_source())
    }
}
