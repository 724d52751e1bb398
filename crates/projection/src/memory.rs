//! Divides the memory for pages among partitions. Knows only the numbers of partitions.

use receipts_metrics::catalogue;

/// The memory of all partitions together. Each partition is guaranteed an equal share. A partition
/// may borrow memory that others do not use, and returns it when they need it. Without borrowing, a
/// partition with large groups could exceed its share while most memory is idle (ADR 0029).
pub(crate) struct Memory {
    bytes_max: usize,
    /// Bytes used per partition, as last reported.
    used: Vec<usize>,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize, partitions: u32) -> Self {
        Self { bytes_max, used: vec![0; partitions as usize] }
    }

    fn guaranteed(&self) -> usize {
        self.bytes_max / self.used.len().max(1)
    }

    /// Returns the bytes that a partition may use now.
    pub(crate) fn share(&self, partition: u32) -> usize {
        let others = self.used.iter().sum::<usize>() - self.used[partition as usize];
        self.bytes_max.saturating_sub(others).max(self.guaranteed())
    }

    /// Sets the bytes that a partition uses.
    pub(crate) fn set_used(&mut self, partition: u32, bytes: usize) {
        self.used[partition as usize] = bytes;
        catalogue::MEMORY_BYTES.of([partition.to_string()]).set(bytes as f64);
    }

    /// Returns the partitions that must return borrowed memory: those beyond their guaranteed
    /// share, while all together use too much.
    pub(crate) fn over_share(&self) -> Vec<u32> {
        if self.used.iter().sum::<usize>() <= self.bytes_max {
            return Vec::new();
        }
        let guaranteed = self.guaranteed();
        (0..).zip(&self.used).filter_map(|(number, used)| (*used > guaranteed).then_some(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-MEMORY
    #[test]
    fn partitions_borrow_idle_memory_and_keep_a_guaranteed_share() {
        let mut memory = Memory::new(400, 4);
        assert_eq!(memory.share(0), 400, "all of it while other partitions use none");
        memory.set_used(0, 300);
        memory.set_used(1, 50);
        assert_eq!([0, 1, 2].map(|n| memory.share(n)), [350, 100, 100]);
        assert!(memory.over_share().is_empty());
        memory.set_used(2, 90);
        assert_eq!((memory.over_share(), memory.share(0)), (vec![0], 260), "it returns borrowed memory");
        memory.set_used(0, 260);
        assert!(memory.over_share().is_empty());
        (1..4).for_each(|n| memory.set_used(n, 100));
        assert_eq!((memory.over_share(), memory.share(0)), (vec![0], 100));
    }
}
