//! Which partitions the loop has to look at, so that a turn costs what happened in it and not what is owned. Knows no
//! partition, only numbers.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

/// What waits for the loop. Its lock is taken last, and never held while another one is taken.
#[derive(Default)]
pub(crate) struct Agenda {
    /// Folded into since their effects were published, or with pages in memory that a checkpoint on its way still needs.
    touched: Vec<u32>,
    /// Changed since their last checkpoint.
    unsaved: BTreeSet<u32>,
    /// To be checkpointed, one a turn: polls and readers come in between.
    due: VecDeque<u32>,
    /// Checkpointed, with the next offset, and not known to count yet.
    on_their_way: Vec<(u32, u64)>,
    /// No checkpoint before: the log did not acknowledge.
    not_before: Option<Instant>,
}

impl Agenda {
    /// A partition is to be looked at; told once until it is taken.
    pub(crate) fn touch(&mut self, partition: u32) {
        self.touched.push(partition);
    }

    /// What was touched since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// A partition has changed since its last checkpoint.
    pub(crate) fn changed(&mut self, partition: u32) {
        self.unsaved.insert(partition);
    }

    /// Partitions that may need a checkpoint and do not wait for one yet; none while checkpoints are put off.
    pub(crate) fn candidates(&self, now: Instant) -> Vec<u32> {
        if self.not_before.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.unsaved.iter().copied().filter(|number| !self.due.contains(number)).collect()
    }

    /// A partition needs a checkpoint.
    pub(crate) fn due(&mut self, partition: u32) {
        self.due.push_back(partition);
    }

    /// The partition whose turn it is to be checkpointed.
    pub(crate) fn next_checkpoint(&self, now: Instant) -> Option<u32> {
        if self.not_before.is_some_and(|at| now < at) { None } else { self.due.front().copied() }
    }

    /// Lets all checkpoints wait.
    pub(crate) fn put_off(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// A checkpoint up to an offset is on its way to the disk.
    pub(crate) fn on_its_way(&mut self, partition: u32, next_offset: u64) {
        self.on_their_way.push((partition, next_offset));
    }

    /// What was on its way at the last call, or has been sent since.
    pub(crate) fn take_on_their_way(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.on_their_way)
    }

    /// A partition was checkpointed or given up.
    pub(crate) fn saved(&mut self, partition: u32) {
        self.unsaved.remove(&partition);
        // Of one that was given up nobody knows what became of its last checkpoint.
        self.on_their_way.retain(|(number, _)| *number != partition);
        self.due.retain(|number| *number != partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn checkpoints_come_one_by_one_in_the_order_in_which_they_fell_due() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        for number in [4, 2, 7] {
            agenda.changed(number);
        }
        assert_eq!(agenda.candidates(now), [2, 4, 7]);
        agenda.due(7);
        agenda.due(2);
        assert_eq!(agenda.candidates(now), [4]);
        assert_eq!(agenda.next_checkpoint(now), Some(7));
        agenda.saved(7);
        assert_eq!(agenda.next_checkpoint(now), Some(2));
        agenda.put_off(now + Duration::from_secs(1));
        assert_eq!(agenda.next_checkpoint(now), None);
        assert_eq!(agenda.next_checkpoint(now + Duration::from_secs(1)), Some(2));
    }
}
