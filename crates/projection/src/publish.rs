//! Publishes receipt updates and dead letters of a shard. Decides nothing about when the fold may
//! go on.

mod dead_letter;
mod dead_letter_log;
mod outbox;
mod window;

pub(crate) use dead_letter::DeadRecord;
pub use dead_letter::header;
pub(crate) use dead_letter_log::DeadLetterLog;
pub(crate) use outbox::Unsent;

use crate::partition::{FoldError, Partition};
use crate::partitions::Partitions;
use crate::settings::Settings;
use dead_letter_log::Line;
use outbox::Outbox;
use parking_lot::Mutex;
use receipts_event::Reason;
use receipts_log::Writer;
use receipts_metrics::catalogue;
use receipts_traces::traces;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use window::UpdateWindow;

/// The pending changes of all partitions together may take this share (1/16) of
/// [`Settings::memory_bytes`], in addition to it.
const PENDING_SHARE: usize = 16;
/// The least memory for the pending changes of one partition, bytes: enough for some hundreds of
/// messages.
const PENDING_BYTES_MIN: usize = 64 << 10;

/// Carries the effects of a shard's partitions to the log.
pub(crate) struct Publisher {
    outbox: Outbox,
    updates: BTreeMap<u32, UpdateWindow>,
    /// Updates of partitions that an outage has taken away.
    held: BTreeMap<u32, UpdateWindow>,
    /// How long changes of one message are gathered; `None` if no updates are published.
    window: Option<Duration>,
    /// Memory for the pending changes of one partition, bytes.
    pending_bytes_max: usize,
    publishes_dead_letters: bool,
    /// Shared with the other shards, so that a reason has one line for the whole process.
    dead_letter_log: Arc<Mutex<DeadLetterLog>>,
    events_topic: String,
}

impl Publisher {
    /// `partitions` is the number of partitions that share the memory. Once `stop` is cancelled no
    /// append waits for room.
    pub(crate) fn new(
        writer: Arc<dyn Writer>,
        events_topic: String,
        settings: &Settings,
        partitions: u32,
        dead_letter_log: Arc<Mutex<DeadLetterLog>>,
        stop: CancellationToken,
    ) -> Self {
        for reason in Reason::ALL {
            catalogue::DEAD_LETTERS.of([reason.code()]).increment(0);
        }
        let pending = settings.memory_bytes / PENDING_SHARE / partitions.max(1) as usize;
        Self {
            outbox: Outbox::new(writer, settings.append_retry_max, stop),
            updates: BTreeMap::new(),
            held: BTreeMap::new(),
            window: (settings.publish && settings.publish_updates).then_some(settings.update_window),
            pending_bytes_max: pending.max(PENDING_BYTES_MIN),
            publishes_dead_letters: settings.publish,
            dead_letter_log,
            events_topic,
        }
    }

    /// Returns when the next update is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.updates.values().filter_map(UpdateWindow::next_due).min()
    }

    /// Takes the effects of a partition. Returns its dead letters, which the caller sends after it
    /// has released the partition's lock.
    pub(crate) fn take_effects(&mut self, number: u32, partition: &mut Partition, now: Instant) -> Vec<DeadRecord> {
        if let Some(window) = self.window {
            let updates = || UpdateWindow::new(window, self.pending_bytes_max);
            let updates = self.updates.entry(number).or_insert_with(updates);
            updates.add(&partition.effects.changed, &partition.effects.marks, now, partition.behind);
            for (context, changed, marks) in partition.traced.take(&partition.effects) {
                updates.trace(&context, changed, marks);
            }
        }
        partition.traced.clear();
        partition.effects.clear();
        std::mem::take(&mut partition.dead_letters)
    }

    /// Appends dead letters to the log.
    pub(crate) fn send_dead_letters(&mut self, number: u32, dead_letters: Vec<DeadRecord>) {
        if !self.publishes_dead_letters {
            return;
        }
        for dead in dead_letters {
            catalogue::DEAD_LETTERS.of([dead.reason.code()]).increment(1);
            self.dead_letter_log.lock().note(number, &dead);
            self.outbox.send_dead_letter(number, dead.into_letter(number, &self.events_topic));
        }
    }

    /// Writes the lines about dead letters that are due to the process's log.
    pub(crate) fn report_dead_letters(&self, now: Instant) {
        for Line { reason, count, first, last, detail, verdict } in self.dead_letter_log.lock().take_due(now) {
            tracing::warn!(
                reason = reason.code(),
                count,
                first = %format_args!("{}:{}", first.0, first.1),
                last = %format_args!("{}:{}", last.0, last.1),
                verdict,
                "dead letters: {detail}"
            );
        }
    }

    /// Appends due updates to the log, and all pending updates of the partitions in `flushed`.
    /// Those of a partition whose record is applied `in_part` wait for its end, as memory allows.
    ///
    /// # Errors
    /// The number of a partition that cannot be read, and why. Its changes are lost, so the caller
    /// must not checkpoint any more.
    pub(crate) fn publish(
        &mut self,
        partitions: &Partitions,
        now: Instant,
        flushed: &[u32],
        in_part: Option<u32>,
    ) -> Result<(), (u32, FoldError)> {
        for (number, change) in self.outbox.take_failed() {
            if let Some(updates) = self.updates.get_mut(&number).or_else(|| self.held.get_mut(&number)) {
                updates.retry(change, now);
            }
        }
        let outbox = &mut self.outbox;
        for (&number, updates) in &mut self.updates {
            let until = (!flushed.contains(&number)).then_some(now);
            if !updates.is_due(until) || in_part == Some(number) && !updates.is_far_over_limit() {
                continue;
            }
            let guard = partitions.cell(number).partition.read();
            let Some(partition) = guard.as_ref() else { continue };
            let mut sent = 0;
            let published = updates.publish(&partition.fold, partition.position, until, |mut entry, change| {
                let span = change.traces().zip(traces()).map(|(changes, traces)| {
                    let span = traces.send_update(changes);
                    let put = |name: &str, value: String| entry.headers.push((name.to_owned(), Some(value.into())));
                    span.context().put_headers(put);
                    span
                });
                outbox.send_update(entry, number, change, span);
                sent += 1;
            });
            if let Some(oldest) = published.map_err(|e| (number, e))? {
                catalogue::UPDATE_DELAY_SECONDS.get().record(now.saturating_duration_since(oldest));
            }
            catalogue::UPDATES.get().increment(sent);
        }
        Ok(())
    }

    /// Waits for the log, at most this long and at most 100 ms. Returns true if every append of the
    /// partitions is acknowledged.
    pub(crate) fn wait(&mut self, numbers: &[u32], at_most: Duration) -> bool {
        self.outbox.wait(numbers, at_most)
    }

    /// Tells whether every append of a partition is acknowledged.
    pub(crate) fn is_acknowledged(&self, number: u32) -> bool {
        self.outbox.is_acknowledged(number)
    }

    /// Tells whether the log has refused an append of a partition, which is tried again.
    pub(crate) fn has_refused(&self, number: u32) -> bool {
        self.outbox.has_refused(number)
    }

    /// Counts the unacknowledged appends of partitions.
    pub(crate) fn unsent(&self, numbers: &[u32]) -> Unsent {
        self.outbox.unsent(numbers)
    }

    /// Keeps the pending updates of a partition that an outage has taken away.
    pub(crate) fn hold(&mut self, number: u32) {
        if let Some(updates) = self.updates.remove(&number) {
            self.held.insert(number, updates);
        }
    }

    /// Publishes again the updates of a partition that was held.
    pub(crate) fn resume(&mut self, number: u32) {
        if let Some(updates) = self.held.remove(&number) {
            self.updates.insert(number, updates);
        }
    }

    /// Tells whether updates of a partition wait for their time.
    pub(crate) fn has_updates(&self, number: u32) -> bool {
        self.updates.get(&number).is_some_and(|updates| updates.next_due().is_some())
    }

    /// Drops the pending changes of a released partition.
    pub(crate) fn release(&mut self, number: u32) {
        self.updates.remove(&number);
        self.held.remove(&number);
        self.outbox.release(number);
    }
}
