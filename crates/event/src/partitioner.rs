//! Names the partitioner of a foreign client that would have put a key where it stands. Only for
//! messages to people: [`partition_of`](crate::partition_of) alone decides.
//!
//! Source of the algorithms: each client's own code, compared with the clients on 206 keys
//! (`docs/producers.md` has the versions).

use crate::murmur2;

/// From this number of misplaced keys on it says something that no known partitioner explains them.
const UNEXPLAINED_MIN: u64 = 10;

/// A way in which some client chooses a partition by its default, other than Java's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partitioner {
    /// CRC-32, unsigned: librdkafka's `consistent_random`.
    Crc32,
    /// FNV-1a of 32 bits, signed, a negative remainder negated: sarama, and `Hash` of kafka-go.
    Fnv1a,
    /// murmur2 without clearing the sign: @platformatic/kafka.
    Murmur2Unsigned,
}

impl Partitioner {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Crc32, Self::Fnv1a, Self::Murmur2Unsigned];

    /// Returns the partition of a key in a topic of `partition_count` partitions.
    ///
    /// # Panics
    /// If `partition_count` is 0, because no such topic exists.
    pub fn partition_of(self, key: &[u8], partition_count: u32) -> u32 {
        match self {
            Self::Crc32 => crc32fast::hash(key) % partition_count,
            Self::Fnv1a => {
                let signed = i64::from(fnv1a(key).cast_signed()) % i64::from(partition_count);
                u32::try_from(signed.unsigned_abs()).expect("a remainder by a u32")
            }
            Self::Murmur2Unsigned => murmur2(key).cast_unsigned() % partition_count,
        }
    }

    /// Returns the partitioners that put a key into `partition`.
    pub fn candidates(key: &[u8], partition: u32, partition_count: u32) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |one| one.partition_of(key, partition_count) == partition)
    }

    /// Says which partitioner explains `count` misplaced keys, if one explains nearly all; or, of
    /// many keys, that none does. `explained` counts for each of [`Self::ALL`] the keys that it
    /// would have put where they stand. The true one explains all that come from one producer; of
    /// 12 partitions another one explains every twelfth.
    pub fn verdict(count: u64, explained: [u64; Self::ALL.len()]) -> Option<String> {
        let (most, partitioner) = explained.into_iter().zip(Self::ALL).max_by_key(|(explained, _)| *explained)?;
        if most * 10 >= count * 9 {
            let (name, remedy) = (partitioner.name(), partitioner.remedy());
            return Some(format!("{most} of {count} stand where {name} would put them: {remedy}"));
        }
        (count >= UNEXPLAINED_MIN && most * 2 < count).then(|| {
            "no partitioner that a client has by default explains them: does the producer ignore keys, or choose partitions itself?".to_owned()
        })
    }

    /// Returns the name with the clients that use it by default.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC-32 (librdkafka's default)",
            Self::Fnv1a => "FNV-1a (sarama's default)",
            Self::Murmur2Unsigned => "unsigned murmur2 (@platformatic/kafka's default)",
        }
    }

    /// Returns the change to make in such a client.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Crc32 => "set partitioner=murmur2_random",
            Self::Fnv1a => "set Producer.Partitioner = sarama.NewMurmur2Partitioner, in kafka-go Murmur2Balancer",
            Self::Murmur2Unsigned => "set partitioner: compatibilityPartitioner",
        }
    }
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition_of;

    /// Check values of the algorithms' own specifications.
    #[test]
    fn hashes_equal_their_published_check_values() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!((fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")), (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968));
    }

    #[test]
    fn a_candidate_gives_the_partition_of_the_record() {
        for conversation in 0..200 {
            let key = crate::key("default", &format!("g{conversation}"));
            for one in Partitioner::ALL {
                let partition = one.partition_of(&key, 12);
                assert!(partition < 12);
                assert!(Partitioner::candidates(&key, partition, 12).any(|found| found == one));
            }
            // The sign makes no difference in a power of two.
            assert_eq!(Partitioner::Murmur2Unsigned.partition_of(&key, 16), partition_of(&key, 16));
        }
    }
}
