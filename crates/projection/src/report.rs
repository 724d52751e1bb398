//! Reports to the metrics how the partitions of this process are: lag, offsets, checkpoints,
//! transactions, the size of the store. Folds and decides nothing.

use crate::partitions::{PartitionCell, Partitions};
use receipts_log::Ends;
use receipts_metrics::catalogue;
use receipts_store::SledStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The pause between two reports.
const INTERVAL: Duration = Duration::from_secs(1);
/// Reports between two questions for the ends of the log.
const ENDS_EVERY: u64 = 5;
/// Reports between two looks at the size of the store, which lists its files.
const STORE_EVERY: u64 = 15;
/// How often a pause looks whether the projector stops.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// The reports of one process.
pub(crate) struct Report {
    partitions: Partitions,
    ends: Option<Arc<dyn Ends>>,
    store: Arc<SledStore>,
    role: &'static str,
    now_ms: fn() -> u64,
    /// By partition: the end of the log as last asked for.
    known_ends: BTreeMap<u32, u64>,
}

impl Report {
    /// Returns the reports of a process that publishes what it folds, or else is a standby.
    pub(crate) fn new(
        partitions: Partitions,
        ends: Option<Arc<dyn Ends>>,
        store: Arc<SledStore>,
        publishes: bool,
        now_ms: fn() -> u64,
    ) -> Self {
        let role = if publishes { "owner" } else { "standby" };
        Self { partitions, ends, store, role, now_ms, known_ends: BTreeMap::new() }
    }

    /// Reports until the token is cancelled.
    pub(crate) fn run(mut self, stop: &CancellationToken) {
        // An alert on their increase needs a first value.
        for counter in [catalogue::STORE_DAMAGED, catalogue::FUTURE_RECORDS, catalogue::UPDATES, catalogue::REVOKED] {
            counter.get().increment(0);
        }
        catalogue::LOG_PARTITIONS.get().set(f64::from(self.partitions.count()));
        for round in 0.. {
            if round % ENDS_EVERY == 0 {
                self.ask_ends();
            }
            if round % STORE_EVERY == 0 {
                catalogue::STORE_BYTES.get().set(self.store.disk_bytes() as f64);
            }
            self.report();
            let mut left = INTERVAL;
            while !left.is_zero() {
                if stop.is_cancelled() {
                    return;
                }
                std::thread::sleep(STOP_CHECK);
                left = left.saturating_sub(STOP_CHECK);
            }
        }
    }

    /// Asks for the ends of the owned partitions. While the log is away the last ones stay.
    fn ask_ends(&mut self) {
        let owned = self.partitions.owned();
        let Some(ends) = &self.ends else { return };
        if owned.is_empty() || self.partitions.contact().silence().is_some() {
            return;
        }
        match ends.ends(&owned) {
            Ok(ends) => self.known_ends.extend(owned.into_iter().zip(ends)),
            Err(error) => tracing::debug!(%error, "the ends of the log are not known just now"),
        }
    }

    fn report(&self) {
        let owned = self.partitions.owned();
        catalogue::PARTITIONS.of([self.role]).set(owned.len() as f64);
        for number in 0..self.partitions.count() {
            let cell = self.partitions.cell(number);
            if cell.owned.load(Ordering::Acquire) {
                self.report_owned(number, cell);
            } else if cell.reported.swap(false, Ordering::AcqRel) {
                // Another process has it, and reports it.
                self.set_progress(number, Progress::default());
            }
        }
        catalogue::CHECKPOINT_AGE_SECONDS.get().set(self.partitions.checkpoint_age().as_secs_f64());
    }

    fn report_owned(&self, number: u32, cell: &PartitionCell) {
        cell.reported.store(true, Ordering::Release);
        let applied = cell.position.load(Ordering::Acquire);
        let end = self.known_ends.get(&number).copied().unwrap_or_default().max(applied);
        let timestamp_ms = cell.timestamp_ms.load(Ordering::Acquire);
        let is_behind = end > applied && timestamp_ms > 0;
        let lag_ms = if is_behind { (self.now_ms)().saturating_sub(timestamp_ms) } else { 0 };
        let is_held = self.partitions.held_long(number).is_some();
        self.set_progress(number, Progress { applied, end, lag_ms, is_held });
    }

    fn set_progress(&self, number: u32, progress: Progress) {
        let Progress { applied, end, lag_ms, is_held } = progress;
        for (gauge, value) in [
            (catalogue::APPLIED_OFFSET, applied as f64),
            (catalogue::END_OFFSET, end as f64),
            (catalogue::LAG_RECORDS, (end - applied) as f64),
            (catalogue::LAG_SECONDS, lag_ms as f64 / 1_000.0),
            (catalogue::HELD, f64::from(u8::from(is_held))),
        ] {
            gauge.of([number.to_string()]).set(value);
        }
    }
}

/// How far one partition is.
#[derive(Default)]
struct Progress {
    applied: u64,
    end: u64,
    lag_ms: u64,
    is_held: bool,
}
