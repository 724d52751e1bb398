//! The partitions that a worker must publish or checkpoint next. The cost of a step thus follows
//! the changed partitions, not the owned ones. Knows only the numbers of partitions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// The partitions of a shard that need work. Its lock is taken last: no other lock is taken under
/// it.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Folded since the last publish, or with pages that a checkpoint in flight still keeps in
    /// memory.
    enqueued: Vec<u32>,
    /// Changed since their last checkpoint.
    unsaved: BTreeSet<u32>,
    /// Due for a checkpoint. Each step makes one, so that polls and queries get in between.
    due: VecDeque<u32>,
    /// Checkpoints, with their next offset, that the store may not have applied yet.
    in_flight: Vec<(u32, u64)>,
    /// No checkpoint before this time, because the disk is full.
    not_before: Option<Instant>,
    /// Partitions whose updates or dead letters the log has not acknowledged in time.
    unacknowledged: BTreeMap<u32, Unacknowledged>,
}

/// A partition whose checkpoint waits for the log.
#[derive(Debug, Clone, Copy)]
struct Unacknowledged {
    not_before: Instant,
    /// The longest time that its last checkpoint waited for the log.
    waited: Duration,
}

/// How long the first checkpoint of a partition waits for the log: longer than an acknowledgement
/// takes, and short for those who wait for the partition's next records. Each further one waits
/// twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

impl Schedule {
    /// Adds a partition to the next publish. The caller adds it at most once between two calls of
    /// [`Self::take_enqueued`].
    pub(crate) fn enqueue(&mut self, partition: u32) {
        self.enqueued.push(partition);
    }

    /// Takes the partitions that were enqueued since the last call.
    pub(crate) fn take_enqueued(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.enqueued)
    }

    /// Marks a partition as changed since its last checkpoint.
    pub(crate) fn mark_unsaved(&mut self, partition: u32) {
        self.unsaved.insert(partition);
    }

    /// Returns changed partitions that are not due yet; none while checkpoints are postponed.
    pub(crate) fn candidates(&self, now: Instant) -> Vec<u32> {
        if self.is_postponed(now) {
            return Vec::new();
        }
        self.unsaved.iter().copied().filter(|number| !self.due.contains(number)).collect()
    }

    /// Appends a partition to those due for a checkpoint.
    pub(crate) fn mark_due(&mut self, partition: u32) {
        self.due.push_back(partition);
    }

    /// Returns the partition to checkpoint next; none while checkpoints are postponed.
    pub(crate) fn next_checkpoint(&self, now: Instant) -> Option<u32> {
        if self.is_postponed(now) {
            return None;
        }
        let waits = |number: &u32| self.unacknowledged.get(number).is_some_and(|u| now < u.not_before);
        self.due.iter().copied().find(|number| !waits(number))
    }

    /// Returns how long a partition's next checkpoint waits for the log, `longest` at most.
    pub(crate) fn acknowledge_timeout(&self, partition: u32, longest: Duration) -> Duration {
        let waited = self.unacknowledged.get(&partition).map(|u| u.waited);
        waited.map_or(FIRST_WAIT, |waited| (waited * 2).max(FIRST_WAIT)).min(longest)
    }

    /// Postpones a partition's checkpoint, for which the log was given `waited`. Others go first.
    pub(crate) fn postpone_one(&mut self, partition: u32, not_before: Instant, waited: Duration) {
        self.due.retain(|number| *number != partition);
        self.due.push_back(partition);
        self.unacknowledged.insert(partition, Unacknowledged { not_before, waited });
    }

    fn is_postponed(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| now < at)
    }

    /// Postpones all checkpoints.
    pub(crate) fn postpone(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// Adds a checkpoint that the store has accepted and may not have applied yet.
    pub(crate) fn add_in_flight(&mut self, partition: u32, next_offset: u64) {
        self.in_flight.push((partition, next_offset));
    }

    /// Takes all checkpoints in flight. The caller adds those again that are not applied yet.
    pub(crate) fn take_in_flight(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.in_flight)
    }

    /// Removes a partition that was checkpointed or released.
    pub(crate) fn remove(&mut self, partition: u32) {
        self.unsaved.remove(&partition);
        // After a release the worker can no longer ask whether the last checkpoint was applied.
        self.in_flight.retain(|(number, _)| *number != partition);
        self.due.retain(|number| *number != partition);
        self.unacknowledged.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_one_by_one_in_due_order() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        for number in [4, 2, 7] {
            schedule.mark_unsaved(number);
        }
        assert_eq!(schedule.candidates(now), [2, 4, 7]);
        schedule.mark_due(7);
        schedule.mark_due(2);
        assert_eq!(schedule.candidates(now), [4]);
        assert_eq!(schedule.next_checkpoint(now), Some(7));
        schedule.remove(7);
        assert_eq!(schedule.next_checkpoint(now), Some(2));
        schedule.postpone(now + Duration::from_secs(1));
        assert_eq!(schedule.next_checkpoint(now), None);
        assert_eq!(schedule.next_checkpoint(now + Duration::from_secs(1)), Some(2));
    }

    #[test]
    fn unacknowledged_partition_holds_no_other_up() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut schedule = Schedule::default();
        [3, 5].into_iter().for_each(|number| schedule.mark_due(number));
        assert_eq!(schedule.acknowledge_timeout(3, 10 * second), FIRST_WAIT);
        schedule.postpone_one(3, now + second, FIRST_WAIT);
        assert_eq!(schedule.next_checkpoint(now), Some(5));
        schedule.remove(5);
        assert_eq!(schedule.next_checkpoint(now), None);
        assert_eq!(schedule.next_checkpoint(now + second), Some(3));
        assert_eq!(
            (schedule.acknowledge_timeout(3, 10 * second), schedule.acknowledge_timeout(3, Duration::ZERO)),
            (second, Duration::ZERO)
        );
        schedule.remove(3);
        assert_eq!(schedule.acknowledge_timeout(3, 10 * second), FIRST_WAIT);
    }
}
