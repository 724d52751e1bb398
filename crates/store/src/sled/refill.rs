//! Empties a partition, and fills it from a snapshot. A marker file makes a half-filled partition
//! refuse to open.

use super::open::SledStore;
use crate::envelope::wrap;
use crate::error::Error;

impl SledStore {
    /// Removes a partition's values, for a rebuild from the log.
    ///
    /// # Errors
    /// If the store fails.
    pub fn drop_partition(&self, partition: u32) -> Result<(), Error> {
        self.empty(partition)?;
        // The marker goes last: while it exists, the values may be a part of a snapshot.
        self.shared.remove(&restore_marker(partition))
    }

    /// Replaces a partition by the pages that `fill` emits. They are the state after all records
    /// below `next_offset`. `fill` must have checked all of them when it returns. Until then the
    /// partition refuses to open, also after the process died.
    ///
    /// # Errors
    /// The errors of `fill`, and where the store fails.
    pub fn refill<T>(
        &self,
        partition: u32,
        next_offset: u64,
        fill: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let disk = &*self.shared.disk;
        let marker = restore_marker(partition);
        disk.write(&marker, &[])
            .and_then(|()| disk.sync(&marker))
            .map_err(Error::io(format!("writing {}", disk.path(&marker))))?;
        self.shared.sync_names()?;
        self.empty(partition)?;
        let map = disk.map(partition)?;
        let filled = fill(&mut |key, payload| {
            let mut result = Ok(());
            wrap(key, next_offset, payload, |key, value| {
                if result.is_ok() {
                    result = map.fill(key, value);
                }
            });
            result
        })?;
        map.flush(self.shared.sync)?;
        self.shared.remove(&marker)?;
        self.shared.sync_names()?;
        Ok(filled)
    }

    fn empty(&self, partition: u32) -> Result<(), Error> {
        self.wait_for_queue();
        self.shared.barrier(partition).invalidate();
        let disk = &*self.shared.disk;
        for journal in self.shared.journals(partition)?.into_values() {
            disk.remove(&journal).map_err(Error::io(format!("removing {}", disk.path(&journal))))?;
        }
        disk.drop_map(partition)
    }
}

/// Returns the name of the marker: while this file exists, the partition may hold a part of a
/// snapshot.
pub(super) fn restore_marker(partition: u32) -> String {
    format!("p{partition}.restoring")
}
