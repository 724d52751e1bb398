//! The key of an event's record, and the partition that Kafka's default partitioner gives that key.
//! Does no IO and knows no topic.
//!
//! Keeps INV-KEY.

use crate::Event;

/// Returns the key of a conversation's records, `{tenant}/{conversation_id}`.
///
/// ```
/// use receipts_event::{key, partition_of};
///
/// assert_eq!(key("default", "g1"), b"default/g1");
/// assert_eq!(partition_of(&key("default", "g1"), 12), 3);
/// ```
pub fn key(tenant: &str, conversation_id: &str) -> Vec<u8> {
    [tenant, "/", conversation_id].concat().into_bytes()
}

/// Returns the key of a tenant's control events, `{tenant}/`. The key does not decide the
/// partition, because each partition holds one copy.
pub fn control_key(tenant: &str) -> Vec<u8> {
    key(tenant, "")
}

impl Event<'_> {
    /// Returns the key that the event's record must have: `{tenant}/{conversation_id}`, or
    /// `{tenant}/` for a control event.
    pub fn key(&self) -> Vec<u8> {
        key(&self.tenant, self.conversation_id().unwrap_or(""))
    }

    /// Returns true if `key` is the key that the event's record must have. Allocates nothing.
    pub fn key_matches(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.tenant.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"/"))
            .is_some_and(|rest| rest == self.conversation_id().unwrap_or("").as_bytes())
    }
}

/// Returns the 32-bit murmur2 hash of `key` exactly as Kafka's Java client computes it
/// (`Utils.murmur2`).
pub fn murmur2(key: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    // Java arrays have 32-bit lengths, so the cast loses nothing for a key that Java can hold.
    let mut hash = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    (hash ^ (hash >> 15)).cast_signed()
}

/// Returns the partition of `key` in a topic of `partition_count` partitions:
/// `toPositive(murmur2(key)) % partition_count`. Java's default partitioner and librdkafka's
/// `murmur2_random` choose the same partition for a key that is not empty.
///
/// # Panics
/// If `partition_count` is 0, because no such topic exists.
pub fn partition_of(key: &[u8], partition_count: u32) -> u32 {
    assert!(partition_count > 0, "a topic has at least one partition");
    (murmur2(key).cast_unsigned() & 0x7fff_ffff) % partition_count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    #[test]
    fn hashes_and_partitions_equal_those_of_kafka() {
        let golden = include_str!("../testdata/murmur2.txt");
        let mut count = 0;
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            assert_eq!(murmur2(columns[0].as_bytes()), columns[1].parse::<i32>().unwrap(), "{line}");
            for (column, partition_count) in columns[2..].iter().zip([1, 3, 4, 12, 64, 256]) {
                let partition = partition_of(columns[0].as_bytes(), partition_count);
                assert_eq!(partition, column.parse::<u32>().unwrap(), "{line} of {partition_count}");
            }
            count += 1;
        }
        assert!(count > 50, "the golden file has only {count} lines");
    }

    #[test]
    fn a_key_matches_only_its_own_event() {
        let event =
            decode(br#"{"type":"message.recalled","tenant":"acme","conversation_id":"g/1","message_id":"m"}"#).unwrap();
        assert_eq!(event.key(), b"acme/g/1");
        assert!(event.key_matches(b"acme/g/1"));
        for other in [&b"acme/g/"[..], b"acme/g/12", b"acmeg/1", b"acme", b"acme/", b"default/g/1", b""] {
            assert!(!event.key_matches(other), "{other:?}");
        }
    }

    #[test]
    fn key_of_a_control_event_ends_with_slash() {
        let event = decode(br#"{"type":"user.erased","user_id":"u","conversation_id":"ignored"}"#).unwrap();
        assert_eq!((event.key(), control_key("default")), (b"default/".to_vec(), b"default/".to_vec()));
        assert!(event.key_matches(b"default/"));
        assert!(!event.key_matches(b"default/ignored") && !event.key_matches(b"default"));
    }
}
