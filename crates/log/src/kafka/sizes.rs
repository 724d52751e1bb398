//! The largest batches that the topics take, and whether an entry can ever fit into one.
//!
//! It refuses only what is certain: where compression may help, the broker decides.

use crate::port::{Entry, Topic};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The header of a batch, bytes (record format v2).
const BATCH_HEADER_BYTES: usize = 61;

/// The largest batch that each topic takes, bytes, by [`Topic::index`]; `usize::MAX` where it is
/// not known. They change while the process runs.
#[derive(Debug)]
pub(super) struct Sizes([AtomicUsize; Topic::ALL.len()]);

impl Default for Sizes {
    fn default() -> Self {
        Self([const { AtomicUsize::new(usize::MAX) }; Topic::ALL.len()])
    }
}

/// How the producer compresses batches, as far as their size can be foretold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Lz4,
    Other,
}

impl Compression {
    /// Reads a value of `compression.type`.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "none" => Self::None,
            "lz4" => Self::Lz4,
            _ => Self::Other,
        }
    }

    /// Returns a size that a value certainly has in a batch, bytes.
    fn least_bytes(self, value: &[u8]) -> usize {
        match self {
            Self::None => value.len(),
            // librdkafka's encoder may find somewhat more to leave out than this one.
            Self::Lz4 => lz4_flex::block::compress(value).len().min(value.len()) / 16 * 15,
            Self::Other => 0,
        }
    }
}

impl Sizes {
    /// Returns the largest batch that all topics take.
    pub(super) fn least(&self) -> usize {
        self.0.iter().map(|bytes| bytes.load(Ordering::Acquire)).min().unwrap_or(usize::MAX)
    }

    /// Notes the largest batch that a topic takes.
    pub(super) fn set(&self, topic: Topic, bytes: usize) {
        self.0[topic.index()].store(bytes, Ordering::Release);
    }

    /// Returns the bound that an entry exceeds whenever it is sent; `None` if it may fit.
    pub(super) fn exceeded(&self, entry: &Entry, compression: Compression) -> Option<usize> {
        let most = self.0[entry.topic.index()].load(Ordering::Acquire);
        let value = entry.value.as_ref().map_or(&[][..], Bytes::as_ref);
        // Nearly all values are small, and need no look.
        let exceeds = value.len() > most && BATCH_HEADER_BYTES + compression.least_bytes(value) > most;
        exceeds.then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(topic: Topic, value: Vec<u8>) -> Entry {
        Entry { topic, ..Entry::event("k", value, None) }
    }

    #[test]
    fn only_what_certainly_exceeds_is_refused() {
        let sizes = Sizes::default();
        sizes.set(Topic::Events, 1_000);
        let noise: Vec<u8> = (0..2_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let (dense, thin) = (entry(Topic::Events, noise.clone()), entry(Topic::Events, vec![b'a'; 8_000]));
        for (compression, refused) in
            [(Compression::None, [true, true]), (Compression::Lz4, [true, false]), (Compression::Other, [false; 2])]
        {
            let found = [&dense, &thin].map(|entry| sizes.exceeded(entry, compression).is_some());
            assert_eq!(found, refused, "{compression:?}");
        }
        assert_eq!(sizes.exceeded(&entry(Topic::Updates, noise), Compression::None), None, "another topic");
        assert_eq!(sizes.exceeded(&entry(Topic::Events, vec![b'a'; 900]), Compression::None), None);
        assert_eq!((sizes.least(), Sizes::default().least()), (1_000, usize::MAX));
    }
}
