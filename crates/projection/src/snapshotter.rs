//! Takes snapshots on a schedule and on request, on a thread of its own. The fold never waits for
//! it; a failure is logged, shown to operators and tried again. Restores nothing.

use crate::partitions::Partitions;
use crate::settings::{SnapshotSchedule, SnapshotSettings};
use parking_lot::{Condvar, Mutex};
use receipts_cluster::{SnapshotControl, SnapshotPhase, SnapshotStatus, TakenSnapshot};
use receipts_fold::Limits;
use receipts_metrics::catalogue;
use receipts_snapshots::{Error, ProgressMonitor, SnapshotReport, Snapshots};
use receipts_store::snapshot::{PendingSnapshot, Provenance};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The longest sleep of the thread while no snapshot is due.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// The longest wait before a failed snapshot is tried again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Shows operators the state of the snapshots, and takes their requests.
pub(crate) struct Control {
    partitions: Partitions,
    state: Mutex<ControlState>,
    changed: Condvar,
}

#[derive(Default)]
struct ControlState {
    /// Partitions with a requested snapshot.
    requested: BTreeSet<u32>,
    states: BTreeMap<u32, SnapshotStatus>,
}

impl Control {
    fn update(&self, partition: u32, change: impl FnOnce(&mut SnapshotStatus)) {
        let mut inner = self.state.lock();
        change(inner.states.entry(partition).or_insert_with(|| SnapshotStatus::new(partition)));
    }
}

impl SnapshotControl for Control {
    fn request(&self, partitions: Option<&[u32]>) -> Vec<u32> {
        let mut requested = self.partitions.owned();
        requested.retain(|number| partitions.is_none_or(|asked| asked.contains(number)));
        let mut inner = self.state.lock();
        for number in &requested {
            inner.requested.insert(*number);
            // The thread may not know a partition yet that was assigned a moment ago.
            let state = inner.states.entry(*number).or_insert_with(|| SnapshotStatus::new(*number));
            if state.phase == SnapshotPhase::Idle {
                state.phase = SnapshotPhase::Waiting;
            }
        }
        self.changed.notify_all();
        requested
    }

    fn statuses(&self) -> Vec<SnapshotStatus> {
        self.state.lock().states.values().cloned().collect()
    }
}

/// Takes the snapshots of all owned partitions.
pub(crate) struct Snapshotter {
    partitions: Partitions,
    snapshots: Snapshots,
    schedule: SnapshotSchedule,
    spool: PathBuf,
    limits: Limits,
    now_ms: fn() -> u64,
    stop: CancellationToken,
    control: Arc<Control>,
}

/// The plan for an owned partition.
struct Plan {
    due: Instant,
    /// The next offset of the newest snapshot, if there is one.
    newest: Option<u64>,
    /// When that snapshot last equalled the state, Unix milliseconds.
    current_ms: Option<u64>,
    /// When this process got the partition, Unix milliseconds.
    since_ms: u64,
}

impl Snapshotter {
    pub(crate) fn new(
        partitions: Partitions,
        settings: &SnapshotSettings,
        schedule: SnapshotSchedule,
        limits: Limits,
        now_ms: fn() -> u64,
        stop: CancellationToken,
    ) -> Self {
        let control =
            Arc::new(Control { partitions: partitions.clone(), state: Mutex::default(), changed: Condvar::new() });
        let snapshots = settings.open(&stop);
        Self { partitions, snapshots, schedule, spool: settings.spool.clone(), limits, now_ms, stop, control }
    }

    pub(crate) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Takes snapshots until the token is cancelled.
    pub(crate) fn run(&self) {
        catalogue::SNAPSHOT_FAILURES.get().increment(0);
        if let Err(error) = Snapshots::clear(&self.spool) {
            tracing::warn!(%error, "files of an earlier process's snapshots cannot be removed from the spool");
        }
        let mut plans = BTreeMap::new();
        while !self.stop.is_cancelled() {
            self.refresh(&mut plans);
            let now = Instant::now();
            let requested = self.control.state.lock().requested.pop_first();
            let due = plans.iter().filter(|(_, plan)| plan.due <= now).min_by_key(|(_, plan)| plan.due);
            match requested.or(due.map(|(number, _)| *number)) {
                Some(number) => {
                    if let Some(plan) = plans.get_mut(&number) {
                        self.run_plan(number, plan, requested.is_some());
                    }
                }
                None => {
                    let next = plans.values().map(|plan| plan.due).min();
                    let wait = next.map_or(SLEEP_MAX, |due| due.saturating_duration_since(now).min(SLEEP_MAX));
                    let mut inner = self.control.state.lock();
                    if inner.requested.is_empty() {
                        self.control.changed.wait_for(&mut inner, wait.max(Duration::from_millis(1)));
                    }
                }
            }
        }
    }

    /// Drops the plans of released partitions, adds plans for new ones, and reports snapshot ages.
    fn refresh(&self, plans: &mut BTreeMap<u32, Plan>) {
        let owned: BTreeSet<u32> = self.partitions.owned().into_iter().collect();
        plans.retain(|number, _| owned.contains(number));
        self.control.state.lock().states.retain(|number, _| owned.contains(number));
        let now_ms = (self.now_ms)();
        for number in owned {
            plans.entry(number).or_insert_with(|| {
                self.control.update(number, |_| {});
                Plan { due: Instant::now(), newest: None, current_ms: None, since_ms: now_ms }
            });
        }
        for (number, plan) in plans {
            let age = now_ms.saturating_sub(plan.current_ms.unwrap_or(plan.since_ms)) as f64 / 1e3;
            catalogue::SNAPSHOT_AGE_SECONDS.of([number.to_string()]).set(age);
        }
    }

    fn run_plan(&self, number: u32, plan: &mut Plan, is_requested: bool) {
        let begun = Instant::now();
        // A panic here is a bug, but later snapshots are still taken.
        let taken = catch_unwind(AssertUnwindSafe(|| self.take_if_due(number, plan, is_requested)));
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
            catalogue::SNAPSHOT_FAILURES.get().increment(1);
            tracing::error!(
                partition = number,
                error = failure,
                retry_ms = retry.as_millis() as u64,
                "a snapshot could not be taken; it is tried again, and the fold goes on"
            );
        }
        self.control.update(number, |state| {
            state.phase = SnapshotPhase::Idle;
            state.attempts += 1;
            state.failure = failure;
        });
    }

    /// Takes a snapshot unless the newest one is recent enough or equals the state. Returns the
    /// time until the next check.
    fn take_if_due(&self, number: u32, plan: &mut Plan, is_requested: bool) -> Result<Duration, Error> {
        let now_ms = (self.now_ms)();
        if plan.newest.is_none() {
            // The partition's previous owner may have taken some.
            if let Some(found) = self.snapshots.newest_of(number)? {
                plan.newest = Some(found.next_offset);
                plan.current_ms = Some(found.modified_ms.min(now_ms));
                let age = Duration::from_millis(now_ms.saturating_sub(found.modified_ms));
                if !is_requested && age < self.schedule.interval {
                    return Ok(self.schedule.interval - age);
                }
            }
        }
        let Some(source) = self.partitions.snapshot_source(number) else { return Ok(self.schedule.interval) };
        let told = Provenance {
            log: self.snapshots.log().to_owned(),
            partition: number,
            partition_count: self.partitions.count(),
            limits: self.limits,
            taken_ms: now_ms,
            program: concat!("receipts ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let taking = match PendingSnapshot::begin(&source, told) {
            Ok(Some(taking)) => taking,
            Ok(None) => return Ok(self.schedule.interval),
            Err(error) => return Err(self.record_damage(number, error)),
        };
        drop(source);
        let next_offset = taking.header().next_offset;
        if plan.newest == Some(next_offset) && !is_requested {
            plan.current_ms = Some(now_ms);
            return Ok(self.schedule.interval);
        }
        self.control.update(number, |state| (state.phase, state.bytes) = (SnapshotPhase::Taking, 0));
        let taken = self.snapshots.take(taking, &self.spool, &ByteCount { number, snapshotter: self });
        let taken = taken.map_err(|error| match error {
            Error::Store(error) => self.record_damage(number, error),
            error => error,
        })?;
        plan.newest = Some(next_offset);
        plan.current_ms = Some(now_ms);
        self.report(&taken, now_ms);
        for removed in self.snapshots.prune(number, self.schedule.keep, now_ms)? {
            tracing::info!(partition = number, name = removed.name, "removed an old snapshot");
        }
        Ok(self.schedule.interval)
    }

    /// Records damage that the snapshot found, before a query or the fold meets it.
    fn record_damage(&self, number: u32, error: receipts_store::Error) -> Error {
        let error = receipts_fold::Error::Store(error);
        self.partitions.damage().record(number, &error);
        match error {
            receipts_fold::Error::Store(error) => error.into(),
            broken => receipts_store::Error::Snapshot { detail: broken.to_string() }.into(),
        }
    }

    fn report(&self, taken: &SnapshotReport, now_ms: u64) {
        let number = taken.partition;
        let label = number.to_string();
        let seconds = (taken.took.0 + taken.took.1).as_secs_f64();
        catalogue::SNAPSHOTS.get().increment(1);
        catalogue::SNAPSHOT_SECONDS.get().record(seconds);
        catalogue::SNAPSHOT_BYTES.of([label]).set(taken.bytes as f64);
        tracing::info!(
            partition = number,
            next_offset = taken.next_offset,
            bytes = taken.bytes,
            pages = taken.pages,
            read_ms = taken.took.0.as_millis() as u64,
            upload_ms = taken.took.1.as_millis() as u64,
            location = taken.location,
            "took a snapshot"
        );
        self.control.update(number, |state| {
            state.newest = Some(TakenSnapshot {
                next_offset: taken.next_offset,
                taken_ms: now_ms,
                bytes: taken.bytes,
                location: taken.location.clone(),
                digest: taken.digest.clone(),
            });
        });
    }
}

/// Counts the bytes of a snapshot being taken.
struct ByteCount<'s> {
    number: u32,
    snapshotter: &'s Snapshotter,
}

impl ProgressMonitor for ByteCount<'_> {
    fn advanced(&self, bytes: u64) {
        self.snapshotter.control.update(self.number, |state| state.bytes += bytes);
    }

    fn is_stopped(&self) -> bool {
        self.snapshotter.stop.is_cancelled()
    }
}

impl Partitions {
    fn snapshot_source(&self, partition: u32) -> Option<receipts_store::SnapshotSource> {
        let guard = self.cell(partition).partition.read();
        guard.as_ref().map(|partition| partition.fold.pages().backend().snapshot_source())
    }
}
