//! In which stretches of the log a conversation has messages: an id is looked for there and nowhere else, so that a look-up
//! costs what the conversation is spread over and not what the partition holds.

use crate::wire::{Malformed, Reader, Writer};
use smallvec::SmallVec;

/// Stretches by number, as runs of neighbours, rising.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretches(SmallVec<[Run; 2]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
}

impl Stretches {
    /// Adds a stretch that none of those before lies behind, and forgets those below `oldest`.
    pub fn add(&mut self, stretch: u32, oldest: u32) {
        match self.0.last_mut() {
            Some(run) if run.last == stretch => return,
            Some(run) if run.last + 1 == stretch => run.last = stretch,
            _ => self.0.push(Run { first: stretch, last: stretch }),
        }
        self.0.retain(|run| run.last >= oldest);
    }

    /// All of them, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = u32> {
        self.0.iter().rev().flat_map(|run| (run.first..=run.last).rev())
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        if self.0.spilled() { self.0.capacity() * size_of::<Run>() } else { 0 }
    }

    pub(crate) fn encode(&self, to: &mut Writer) {
        to.number(self.0.len() as u64);
        let mut last = 0;
        for run in &self.0 {
            to.number((run.first - last).into());
            to.number((run.last - run.first).into());
            last = run.last;
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(2)?;
        let mut runs = SmallVec::with_capacity(count);
        let beyond = Malformed("a stretch beyond 32 bits");
        let mut last: u32 = 0;
        for _ in 0..count {
            let first = last.checked_add(from.small()?).ok_or(beyond)?;
            last = first.checked_add(from.small()?).ok_or(beyond)?;
            runs.push(Run { first, last });
        }
        Ok(Self(runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_come_back_newest_first_without_those_that_are_forgotten() {
        let mut stretches = Stretches::default();
        for stretch in [3, 3, 4, 5, 9, 9, 11, 12] {
            stretches.add(stretch, 0);
        }
        assert_eq!(stretches.newest_first().collect::<Vec<_>>(), [12, 11, 9, 5, 4, 3]);
        let mut writer = Writer::default();
        stretches.encode(&mut writer);
        assert_eq!(Stretches::decode(&mut Reader::new(&writer.bytes)), Ok(stretches.clone()));
        stretches.add(14, 5);
        assert_eq!(stretches.newest_first().collect::<Vec<_>>(), [14, 12, 11, 9, 5, 4, 3], "a run goes as a whole");
        stretches.add(15, 10);
        assert_eq!(stretches.newest_first().collect::<Vec<_>>(), [15, 14, 12, 11]);
    }

    /// INV-MEMORY
    #[test]
    fn two_runs_stand_in_place_and_more_are_accounted_for() {
        let mut stretches = Stretches::default();
        [1, 3].into_iter().for_each(|stretch| stretches.add(stretch, 0));
        assert_eq!(stretches.heap_bytes(), 0);
        (2..20).for_each(|stretch| stretches.add(2 * stretch + 1, 0));
        assert_eq!(stretches.heap_bytes(), 32 * size_of::<Run>(), "room for 32 runs, of which 20 are there");
    }
}
