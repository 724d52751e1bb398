//! Which snapshots of a partition stay. The newest ones always do.

use crate::names::Found;
use crate::{Error, Snapshots};

/// What stays of a partition's snapshots: the newest `count`, and of the others those younger than `age_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest, whatever their age; at least one.
    pub count: usize,
    /// And all that are not older, milliseconds.
    pub age_ms: u64,
}

impl Keep {
    /// Those that may go, of a partition's snapshots by offset.
    fn superfluous<'f>(&self, found: &'f [Found], now_ms: u64) -> impl Iterator<Item = &'f Found> + use<'f> {
        let Self { count, age_ms } = *self;
        let older = found.len().saturating_sub(count.max(1));
        found[..older].iter().filter(move |found| now_ms.saturating_sub(found.modified_ms) >= age_ms)
    }
}

impl Snapshots {
    /// Removes what need not be kept of a partition; returns what went.
    ///
    /// # Errors
    /// Where the destination fails: what was removed before is gone.
    pub fn prune(&self, partition: u32, keep: Keep, now_ms: u64) -> Result<Vec<Found>, Error> {
        let found = self.list_of(partition)?;
        let mut gone = Vec::new();
        for found in keep.superfluous(&found, now_ms) {
            self.destination.delete(&found.name)?;
            gone.push(found.clone());
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(count: usize, age_ms: u64, made_ms: &[u64]) -> Vec<u64> {
        let found: Vec<Found> = (0..)
            .zip(made_ms)
            .map(|(next_offset, &modified_ms)| Found {
                name: String::new(),
                partition: 0,
                next_offset,
                bytes: 0,
                modified_ms,
            })
            .collect();
        let gone: Vec<u64> = Keep { count, age_ms }.superfluous(&found, 100).map(|found| found.next_offset).collect();
        (0..made_ms.len() as u64).filter(|offset| !gone.contains(offset)).collect()
    }

    #[test]
    fn the_newest_stay_and_of_the_others_the_young() {
        assert_eq!(kept(2, 0, &[10, 20, 30, 40]), [2, 3]);
        assert_eq!(kept(2, 75, &[10, 20, 30, 40]), [2, 3]);
        assert_eq!(kept(2, 85, &[10, 20, 30, 40]), [1, 2, 3]);
        assert_eq!(kept(9, 0, &[10, 20]), [0, 1]);
        assert_eq!(kept(0, 0, &[10, 20]), [1], "the newest always");
        assert_eq!(kept(1, 0, &[]), [] as [u64; 0]);
    }

    #[test]
    fn a_destination_whose_clock_is_ahead_loses_nothing_that_is_young() {
        assert_eq!(kept(1, 1, &[500, 600]), [0, 1]);
    }
}
