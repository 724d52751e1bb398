//! How much of the memory for pages each partition may take. Knows no partition, only numbers.

/// The memory of all partitions together. An equal share is each one's own; what the others leave of theirs is anybody's, for
/// groups are not of one size, and a large one would not get along with its share while most of the memory lies idle.
pub(crate) struct Memory {
    bytes_max: usize,
    /// Bytes by partition, as last told.
    taken: Vec<usize>,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize, partitions: u32) -> Self {
        Self { bytes_max, taken: vec![0; partitions as usize] }
    }

    fn own_share(&self) -> usize {
        self.bytes_max / self.taken.len().max(1)
    }

    /// Bytes that a partition may take.
    pub(crate) fn share(&self, partition: u32) -> usize {
        let others = self.taken.iter().sum::<usize>() - self.taken[partition as usize];
        self.bytes_max.saturating_sub(others).max(self.own_share())
    }

    /// A partition takes so much now.
    pub(crate) fn takes(&mut self, partition: u32, bytes: usize) {
        self.taken[partition as usize] = bytes;
        metrics::gauge!("receipts_memory_bytes", "partition" => partition.to_string()).set(bytes as f64);
    }

    /// Partitions that have to give back what is others': those beyond their own share, while all take too much together.
    pub(crate) fn too_large(&self) -> Vec<u32> {
        if self.taken.iter().sum::<usize>() <= self.bytes_max {
            return Vec::new();
        }
        let own_share = self.own_share();
        (0..).zip(&self.taken).filter_map(|(number, taken)| (*taken > own_share).then_some(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-MEMORY
    #[test]
    fn what_others_leave_is_anybodys_and_an_equal_share_is_each_ones_own() {
        let mut memory = Memory::new(400, 4);
        assert_eq!(memory.share(0), 400, "all of it, while nobody else takes any");
        memory.takes(0, 300);
        memory.takes(1, 50);
        assert_eq!([0, 1, 2].map(|n| memory.share(n)), [350, 100, 100]);
        assert!(memory.too_large().is_empty());
        memory.takes(2, 90);
        assert_eq!((memory.too_large(), memory.share(0)), (vec![0], 260), "it gives back what is the others'");
        memory.takes(0, 260);
        assert!(memory.too_large().is_empty());
        (1..4).for_each(|n| memory.takes(n, 100));
        assert_eq!((memory.too_large(), memory.share(0)), (vec![0], 100));
    }
}
