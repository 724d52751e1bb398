//! The id of a stream over more partitions than fit into a token: the last bits of each offset.
//!
//! The edge adds the leading bits from the end of each partition, so that the stream resumes
//! exactly as long as no partition has moved on by more than those bits count. A hash tells if it
//! has: an id must never resume behind its position (INV-STREAM).

use crate::Positions;
use crate::position::BadToken;
use receipts_event::token::{Content, Kind};
use sha2::{Digest as _, Sha256};

/// The most bytes of the exact id of a stream: an edge may append some characters of its own before
/// an id has as many as a token may have.
pub(crate) const EXACT_BYTES_MAX: usize = 1_425;

/// The most partitions of an id with remainders, as of a token of format 2. An id has one remainder
/// for each partition up to the highest, so this bounds the work for numbers that were invented.
pub(crate) const PARTITIONS_MAX: u32 = 100_000;

/// Bits of an id for the last bits of all offsets, without its other fields.
const FIELD_BITS: u32 = (EXACT_BYTES_MAX as u32 - 35) * 8;

/// How many records all partitions together may have moved on, evenly spread: as many as a stream
/// may be behind.
const RECORDS: u64 = 1_000_000;

/// The most bits that are kept of an offset.
const BITS_MAX: u32 = 40;

/// The last bits of positions in the topic of updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remainders(pub(crate) Content);

impl Remainders {
    /// Keeps as many of the last bits of each offset as fit. With very many partitions it leaves
    /// out the very last ones too, so that a stream resumes somewhat earlier.
    #[must_use]
    pub fn of(positions: &Positions) -> Self {
        let count = positions.highest_partition().map_or(0, |highest| highest.saturating_add(1));
        let bits = (FIELD_BITS / count.max(1)).min(BITS_MAX);
        let behind = (RECORDS / u64::from(count.max(1))).max(1);
        // More would lose half of the records that a stream may be behind.
        let most = behind.ilog2();
        let shift = (0..most).find(|shift| behind_max(bits, *shift) >= behind).unwrap_or(most);
        let rounded = (0..count).map(|partition| positions.next_offset(partition) >> shift);
        let hash = hash(rounded.clone());
        let offsets = (0..).zip(rounded.map(|offset| offset & mask(bits))).collect();
        Self(Content { kind: Kind::Remainders { bits: bits as u8, hash }, log: None, shift, offsets })
    }

    /// # Errors
    /// If the token was invented.
    pub(crate) fn read(content: Content) -> Result<Self, BadToken> {
        let Kind::Remainders { bits, .. } = content.kind else { return Err(BadToken::Garbled) };
        let is_whole = (0..).zip(&content.offsets).all(|(at, (partition, offset))| {
            at == *partition && *offset <= mask(u32::from(bits)) && u32::from(bits) + content.shift < u64::BITS
        });
        if is_whole { Ok(Self(content)) } else { Err(BadToken::Garbled) }
    }

    /// Returns the highest partition that it names.
    #[must_use]
    pub fn highest_partition(&self) -> Option<u32> {
        self.0.offsets.last().map(|(partition, _)| *partition)
    }

    /// Returns the positions, or somewhat earlier ones, if each is near the offset that `near`
    /// returns for its partition: usually below it. `None` if one is not.
    #[must_use]
    pub fn resolve(&self, near: impl Fn(u32) -> u64) -> Option<Positions> {
        let Kind::Remainders { bits, hash: wanted } = self.0.kind else { return None };
        let (bits, shift) = (u32::from(bits), self.0.shift);
        let rounded = self.0.offsets.iter().map(|&(partition, remainder)| {
            // Another edge may have been slightly ahead: a quarter of the range lies above.
            let top = near(partition).saturating_add((1 << (bits + shift)) >> 2) >> shift;
            top.checked_sub(top.wrapping_sub(remainder) & mask(bits))
        });
        let rounded: Vec<u64> = rounded.collect::<Option<_>>()?;
        (hash(rounded.iter().copied()) == wanted)
            .then(|| (0..).zip(rounded).map(|(partition, offset)| (partition, offset << shift)).collect())
    }
}

/// Returns how far a partition may have moved on, wherever in it the id stands.
fn behind_max(bits: u32, shift: u32) -> u64 {
    let range: u64 = 1 << (bits + shift);
    (range - (range >> 2)).saturating_sub(1 << shift)
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The first 8 bytes of SHA-256.
fn hash(offsets: impl Iterator<Item = u64>) -> [u8; 8] {
    let mut sha = Sha256::new();
    offsets.for_each(|offset| sha.update(offset.to_le_bytes()));
    let digest: [u8; 32] = sha.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogTag, Since, StreamId, TOKEN_CHARS_MAX, Token};
    use proptest::prelude::*;

    /// Found by the fuzz target of tokens: one remainder for each of 4 billion partitions takes
    /// minutes.
    #[test]
    fn id_of_invented_partitions_is_written_in_full() {
        let invented: Positions = (0..1_000).map(|at| (u32::MAX - 3 * at, u64::MAX)).collect();
        let token = Token { log: None, since: Since::Stream(StreamId(invented)) };
        assert_eq!(token.to_string().parse(), Ok(token));
    }

    fn positions(count: u32, seed: u64) -> Positions {
        let offset = |at: u32| 1_000_000_000 + (seed ^ u64::from(at)).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 500_000_000;
        (0..count).map(|partition| (partition, offset(partition))).collect()
    }

    fn id(positions: &Positions) -> Remainders {
        let token = Token { log: Some(LogTag(7)), since: Since::Stream(StreamId(positions.clone())) };
        let text = token.to_string();
        assert!(text.len() <= TOKEN_CHARS_MAX - 100, "{} characters", text.len());
        match text.parse().unwrap() {
            Token { log: Some(LogTag(7)), since: Since::Remainders(remainders) } => remainders,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// INV-STREAM
        #[test]
        fn long_id_resumes_where_it_stands(count in 600_u32..11_000, seed in any::<u64>(), moved in any::<u64>()) {
            let positions = positions(count, seed);
            let id = id(&positions);
            let Kind::Remainders { bits, .. } = id.0.kind else { panic!("{id:?}") };
            let most = behind_max(u32::from(bits), id.0.shift);
            prop_assert!(most >= 32 && (count > 1_000 || most >= 1_500), "{}", most);
            let near = |partition: u32| {
                let moved = (moved ^ u64::from(partition)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                // Another edge was slightly ahead.
                positions.next_offset(partition) + moved % (most + 1) - u64::from(partition.is_multiple_of(5)) * (most / 8)
            };
            let resumed = id.resolve(near).expect("near enough");
            let lost: u64 = positions.iter().map(|(partition, next)| next - resumed.next_offset(partition)).sum();
            prop_assert!(positions.covers(&resumed) && lost < RECORDS, "{}", lost);
            prop_assert!(count > 1_000 || lost == 0);
        }

        /// INV-STREAM
        #[test]
        fn old_long_id_is_told_apart(seed in any::<u64>(), partition in 0_u32..1_000, moved in 1_600_u64..1 << 40) {
            let positions = positions(1_000, seed);
            let mut now = positions.clone();
            now.raise(partition, positions.next_offset(partition) + moved);
            let resumed = id(&positions).resolve(|partition| now.next_offset(partition));
            prop_assert!(resumed.is_none_or(|resumed| positions.covers(&resumed)));
        }
    }

    #[test]
    fn partitions_at_0_have_a_place() {
        let mut few = positions(1_000, 3);
        few = few.iter().filter(|(partition, _)| partition % 3 > 0).collect();
        assert_eq!(id(&few).resolve(|partition| few.next_offset(partition)), Some(few.clone()));
    }
}
