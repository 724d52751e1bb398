//! Decides when a partition of a shard is checkpointed, and makes it durable once its changes are
//! published. Encodes no page itself: [`crate::partition`] and the store do.

use crate::partition::{Partition, checkpoint};
use crate::publish;
use crate::settings::ProjectError;
use crate::shard::Shard;
use crate::source::Source;
use receipts_metrics::catalogue;
use receipts_metrics::log_lines::LogLimit;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Limits the lines about checkpoints that are put off.
#[derive(Debug, Default)]
pub(crate) struct PutOff {
    for_log: LogLimit,
    for_disk: LogLimit,
}

impl Shard {
    /// Checkpoints one due partition, if there is any. With `check_memory`, partitions with too
    /// many changed pages in memory become due as well. Only one per step, so that polls, updates
    /// and queries run in between.
    pub(crate) fn checkpoint_next(&self, source: &mut dyn Source, check_memory: bool) -> Result<(), ProjectError> {
        if self.shared.log_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.commit_applied(source);
        let now = Instant::now();
        let settings = &self.shared.settings;
        let candidates = self.schedule.lock().candidates(now);
        for number in candidates {
            let due = self.cell(number).partition.read().as_ref().is_some_and(|p| {
                p.folded_since_checkpoint >= settings.checkpoint_records
                    || p.first_change
                        .is_some_and(|at| now.duration_since(at) >= interval_of(settings.checkpoint_interval, number))
                    || check_memory && p.fold.pages().needs_checkpoint()
            });
            if due {
                self.schedule.lock().mark_due(number);
            }
        }
        let next = self.schedule.lock().next_checkpoint(now);
        let Some(number) = next else { return Ok(()) };
        if !self.pre_encode(number) {
            return Ok(());
        }
        // INV-UPDATE-LAST: publish first. After the checkpoint, an update lost with the process
        // would never be published again. The fold waits here, so it does not wait for the next
        // attempt of an append that the log has refused.
        let is_silent = self.shared.partitions.contact().silence().is_some();
        if is_silent && !self.is_published(number) {
            // The log's own lines tell of the outage. This thread must not wait: the log may take
            // partitions away meanwhile, and give them back.
            self.schedule.lock().postpone_one(number, now + Duration::from_secs(1), Duration::ZERO);
            return Ok(());
        }
        // INV-SAME-LOG: no state of two logs is made durable.
        self.shared.partitions.confirm_topic()?;
        let has_refused = self.publisher.lock().has_refused(number);
        let acknowledge_timeout = if has_refused {
            Duration::ZERO
        } else {
            self.schedule.lock().acknowledge_timeout(number, settings.publish_timeout)
        };
        if !self.publish_and_wait(&[number], acknowledge_timeout)? {
            let now = Instant::now();
            let pause = if has_refused { settings.append_retry_max } else { settings.publish_timeout };
            self.schedule.lock().postpone_one(number, now + pause, acknowledge_timeout);
            if let Some(count) = self.put_off.lock().for_log.count(now) {
                let publish::Unsent { dead_letters, updates } = self.publisher.lock().unsent(&[number]);
                tracing::warn!(
                    partition = number,
                    dead_letters,
                    updates,
                    count,
                    "the log does not acknowledge updates and dead letters of this partition, and its checkpoint is put off"
                );
            }
            return Ok(());
        }
        match self.save(number) {
            Ok(Some(next_offset)) => self.schedule.lock().add_in_flight(number, next_offset),
            Ok(None) => {}
            Err(ProjectError::Store(e)) if e.is_exhausted() && !self.is_over_share(number) => {
                catalogue::CHECKPOINTS_PUT_OFF.get().increment(1);
                if let Some(count) = self.put_off.lock().for_disk.count(now) {
                    tracing::warn!(
                        partition = number,
                        error = %e,
                        count,
                        "no checkpoint can be written; it is tried again, and events are folded and queries answered as \
                         long as memory lasts"
                    );
                }
                self.schedule.lock().postpone(Instant::now() + settings.publish_timeout);
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Encodes a part of the next checkpoint; returns true once little is left. INV-NO-STALL: a
    /// checkpoint stops the fold of its partition, so most of its encoding is spread over earlier
    /// steps. A partition that is behind skips this, because nobody waits for its newest records.
    fn pre_encode(&self, number: u32) -> bool {
        let mut guard = self.cell(number).partition.write();
        let bytes = self.shared.settings.pre_encode_bytes;
        guard.as_mut().is_none_or(|p| p.behind.is_some() || p.fold.pages_mut().pre_encode(bytes))
    }

    /// Commits the offsets of checkpoints that the store has applied. The log may drop the records
    /// below them.
    fn commit_applied(&self, source: &mut dyn Source) {
        let in_flight = self.schedule.lock().take_in_flight();
        for (number, next_offset) in in_flight {
            match self.cell(number).partition.read().as_ref().map(Partition::is_saving) {
                Some(true) => self.schedule.lock().add_in_flight(number, next_offset),
                Some(false) => source.commit(number, next_offset),
                None => {}
            }
        }
    }

    /// Tells whether a partition uses more than its share of the memory and so cannot postpone a
    /// checkpoint.
    fn is_over_share(&self, number: u32) -> bool {
        let share = self.shared.memory.lock().share(number);
        self.cell(number).partition.read().as_ref().is_some_and(|p| p.memory_bytes() > share)
    }

    /// Makes a partition durable; returns its next offset. All of its changes must be published and
    /// acknowledged.
    pub(crate) fn save(&self, number: u32) -> Result<Option<u64>, ProjectError> {
        let cell = self.cell(number);
        let saved = checkpoint(number, &cell.partition)?;
        if saved.is_some() {
            cell.set_unsaved_since(None);
        }
        self.schedule.lock().remove(number);
        if let Some(partition) = cell.partition.write().as_mut() {
            self.enqueue(number, partition);
        }
        Ok(saved)
    }
}

/// Returns how long a partition's changes wait for a checkpoint: the setting, shortened by up to a
/// quarter that differs between partitions. Partitions that started together would otherwise be
/// checkpointed together, and the last one would wait for all of them.
fn interval_of(interval: Duration, partition: u32) -> Duration {
    const GOLDEN_RATIO: f64 = 0.618_033_988_75;
    interval.mul_f64(1.0 - (f64::from(partition) * GOLDEN_RATIO).fract() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_start_together_checkpoint_apart() {
        let mut intervals: Vec<_> = (0..64).map(|number| interval_of(Duration::from_secs(30), number)).collect();
        intervals.sort_unstable();
        assert!(intervals[0] >= Duration::from_millis(22_500) && intervals[63] == Duration::from_secs(30));
        assert!(intervals.windows(2).all(|two| two[1] - two[0] > Duration::from_millis(30)), "{intervals:?}");
    }
}
