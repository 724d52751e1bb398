//! Prunes the snapshots of a partition. The newest one always stays (INV-KEEP).

use crate::names::SnapshotEntry;
use crate::{Error, Snapshots};

/// The retention of a partition's snapshots: the newest `count` stay, and all that are newer than
/// `age_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The number of newest snapshots that stay at any age; at least one.
    pub count: usize,
    /// The age below which a snapshot stays, milliseconds.
    pub age_ms: u64,
}

impl Keep {
    /// Returns the snapshots to remove. `found` is sorted by offset.
    fn superfluous<'f>(
        &self,
        found: &'f [SnapshotEntry],
        now_ms: u64,
    ) -> impl Iterator<Item = &'f SnapshotEntry> + use<'f> {
        let Self { count, age_ms } = *self;
        let older = found.len().saturating_sub(count.max(1));
        found[..older].iter().filter(move |found| now_ms.saturating_sub(found.modified_ms) >= age_ms)
    }
}

impl Snapshots {
    /// Removes the snapshots of a partition that need not stay; returns the removed ones.
    ///
    /// # Errors
    /// If the destination fails: some snapshots may be removed already.
    pub fn prune(&self, partition: u32, keep: Keep, now_ms: u64) -> Result<Vec<SnapshotEntry>, Error> {
        let found = self.list_of(partition)?;
        let mut removed = Vec::new();
        for found in keep.superfluous(&found, now_ms) {
            self.destination.delete(&found.name)?;
            removed.push(found.clone());
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(count: usize, age_ms: u64, made_ms: &[u64]) -> Vec<u64> {
        let found: Vec<SnapshotEntry> = (0..)
            .zip(made_ms)
            .map(|(next_offset, &modified_ms)| SnapshotEntry {
                name: String::new(),
                partition: 0,
                next_offset,
                bytes: 0,
                modified_ms,
            })
            .collect();
        let removed: Vec<u64> =
            Keep { count, age_ms }.superfluous(&found, 100).map(|found| found.next_offset).collect();
        (0..made_ms.len() as u64).filter(|offset| !removed.contains(offset)).collect()
    }

    #[test]
    fn newest_and_recent_snapshots_stay() {
        assert_eq!(kept(2, 0, &[10, 20, 30, 40]), [2, 3]);
        assert_eq!(kept(2, 75, &[10, 20, 30, 40]), [2, 3]);
        assert_eq!(kept(2, 85, &[10, 20, 30, 40]), [1, 2, 3]);
        assert_eq!(kept(9, 0, &[10, 20]), [0, 1]);
        assert_eq!(kept(0, 0, &[10, 20]), [1], "the newest one always stays");
        assert_eq!(kept(1, 0, &[]), [] as [u64; 0]);
    }

    #[test]
    fn clock_ahead_at_the_destination_removes_nothing() {
        assert_eq!(kept(1, 1, &[500, 600]), [0, 1]);
    }
}
