//! Finds out from the first records of the event topic whether it had fewer partitions when they
//! were written. Reads the newest records likewise.
//!
//! It reads a few records of a few partitions, and for a short time. A topic whose first records
//! are gone, or are few, tells nothing.
//!
//! Keeps INV-PARTITION-COUNT.

use super::brokers::Brokers;
use super::fetched::FetchedMessage;
use super::inspect::query_consumer;
use super::settings::KafkaSettings;
use crate::port::OwnedRecord;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use receipts_event::partition_of;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The partitions that are read, from 0 on: those that a topic with fewer partitions had too.
const PARTITIONS: u32 = 16;
/// The records that are read of each.
const RECORDS: usize = 32;
/// How long the read may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Without any other sign, this many keys must be in the partition of the smaller count.
const MISPLACED_MIN: usize = 3;
/// One in this many keys of those partitions at least, so that a few records of a producer with
/// another partitioner are not taken for a grown topic.
const MISPLACED_SHARE: usize = 8;

/// A key and the partition of its record.
type Placed = (u32, Vec<u8>);

/// Returns the first keys of a topic that has `count` partitions, as [`first_records`] does.
pub(super) fn first_keys(settings: &KafkaSettings, brokers: &Arc<Brokers>, count: u32) -> Vec<Placed> {
    let records = first_records(settings, brokers, count).into_iter();
    records.filter_map(|record| Some((record.partition, record.key?.to_vec()))).collect()
}

/// Reads the first records of a topic that has `count` partitions. Returns fewer, or none, if they
/// do not come in time.
pub(super) fn first_records(settings: &KafkaSettings, brokers: &Arc<Brokers>, count: u32) -> Vec<OwnedRecord> {
    sample(settings, brokers, count, Offset::Beginning)
}

/// Reads the newest records, as [`first_records`] reads the first.
pub(super) fn newest_records(settings: &KafkaSettings, brokers: &Arc<Brokers>, count: u32) -> Vec<OwnedRecord> {
    sample(settings, brokers, count, Offset::OffsetTail(RECORDS as i64))
}

fn sample(settings: &KafkaSettings, brokers: &Arc<Brokers>, count: u32, from: Offset) -> Vec<OwnedRecord> {
    let mut config = settings.reader();
    config.set("fetch.message.max.bytes", "65536");
    // Of a trimmed partition less may be left than is asked for.
    config.set("auto.offset.reset", "earliest");
    let Ok(consumer) = query_consumer(config, brokers) else { return Vec::new() };
    let mut assignment = TopicPartitionList::new();
    let mut open: BTreeSet<u32> = (0..count.min(PARTITIONS)).collect();
    for &partition in &open {
        _ = assignment.add_partition_offset(&settings.events, partition as i32, from);
    }
    let (mut records, mut read) = (Vec::new(), [0; PARTITIONS as usize]);
    if consumer.assign(&assignment).is_err() {
        return records;
    }
    let deadline = Instant::now() + TIMEOUT;
    while !open.is_empty() && Instant::now() < deadline {
        match consumer.poll(deadline.saturating_duration_since(Instant::now())) {
            Some(Ok(record)) => {
                let partition = record.partition() as u32;
                if read[partition as usize] < RECORDS {
                    records.push(OwnedRecord::from(&FetchedMessage(record).record()));
                }
                read[partition as usize] += 1;
                if read[partition as usize] >= RECORDS {
                    open.remove(&partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = open.remove(&(partition as u32)),
            // A process that only writes events has no right to read them.
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => break,
            Some(Err(_)) | None => {}
        }
    }
    records
}

/// What the first records tell about the partition count that they were written with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// They are where the present count puts them, or there are too few.
    Same,
    /// They are where this smaller count puts them.
    Fewer(u32),
}

/// Judges the first keys of a topic that has `count` partitions. `hint` is a smaller count that
/// something else tells of: then a single misplaced record is enough, and so is that no record
/// contradicts it.
pub(super) fn origin(keys: &[Placed], count: u32, hint: Option<u32>) -> Origin {
    let keys: Vec<&Placed> = keys.iter().filter(|(_, key)| !is_control(key)).collect();
    let fits = |then: u32| {
        keys.iter().all(|(partition, key)| {
            let now = if *partition < then { then } else { count };
            partition_of(key, now) == *partition
        })
    };
    let misplaced: BTreeSet<&[u8]> = keys
        .iter()
        .filter(|(partition, key)| partition_of(key, count) != *partition)
        .map(|(_, key)| &key[..])
        .collect();
    match hint.filter(|hint| *hint < count) {
        Some(hint) if !fits(hint) => return Origin::Same,
        Some(hint) => {
            // Records in later partitions, all in their right ones, are of the present count.
            let later = keys.iter().any(|(partition, _)| *partition >= hint);
            let told = !misplaced.is_empty() || !later && !keys.is_empty();
            return if told { Origin::Fewer(hint) } else { Origin::Same };
        }
        None => {}
    }
    let is_told = |then: u32| {
        let of = keys.iter().filter(|(partition, _)| *partition < then).map(|(_, key)| &key[..]);
        let of = of.collect::<BTreeSet<_>>().len();
        misplaced.len() >= MISPLACED_MIN && misplaced.len() * MISPLACED_SHARE >= of && fits(then)
    };
    (1..count).rev().find(|then| is_told(*then)).map_or(Origin::Same, Origin::Fewer)
}

/// Tells whether a key is that of an event without a conversation, whose copies are in every
/// partition.
fn is_control(key: &[u8]) -> bool {
    key.iter().position(|byte| *byte == b'/').is_none_or(|at| at + 1 == key.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of conversations in the partitions of a count.
    fn keys(conversations: std::ops::Range<u32>, count: u32) -> Vec<Placed> {
        let key = |n: u32| format!("default/g{n}").into_bytes();
        conversations.map(|n| (partition_of(&key(n), count), key(n))).collect()
    }

    #[test]
    fn few_records_tell_what_a_topic_had() {
        for (then, now) in [(4, 16), (4, 8), (1, 3), (3, 4), (6, 12)] {
            assert_eq!(origin(&keys(0..12, then), now, None), Origin::Fewer(then), "{then} to {now}");
            let mixed = [keys(0..12, then), keys(50..60, now)].concat();
            let mixed: Vec<Placed> =
                mixed.into_iter().filter(|(p, key)| *p >= then || partition_of(key, then) == *p).collect();
            assert_eq!(origin(&mixed, now, None), Origin::Fewer(then), "{then} to {now}, written on");
        }
    }

    #[test]
    fn records_in_their_partitions_tell_nothing() {
        for count in [1, 4, 16] {
            assert_eq!(origin(&keys(0..200, count), count, None), Origin::Same);
            assert_eq!(origin(&[], count, Some(2)), Origin::Same);
        }
        assert_eq!(origin(&keys(0..2, 4), 16, None), Origin::Same, "too few");
        assert_eq!(origin(&keys(0..2, 4), 16, Some(4)), Origin::Fewer(4), "another sign says so too");
        assert_eq!(origin(&keys(0..200, 16), 16, Some(4)), Origin::Same, "they contradict the sign");
    }

    #[test]
    fn another_partitioner_is_not_taken_for_growth() {
        // As a producer that hashes otherwise: no partition count explains it.
        let placed = |n: u32| (n.wrapping_mul(2_654_435_761) % 4, format!("default/g{n}").into_bytes());
        let wrong: Vec<Placed> = (0..40).map(placed).collect();
        assert_eq!(origin(&wrong, 4, None), Origin::Same);
        let few = [keys(0..100, 4), wrong[..3].to_vec()].concat();
        assert_eq!(origin(&few, 4, None), Origin::Same);
    }

    #[test]
    fn copies_of_control_events_do_not_count() {
        let copies: Vec<Placed> = (0..16).map(|partition| (partition, b"default/".to_vec())).collect();
        assert_eq!(origin(&copies, 16, None), Origin::Same);
        assert_eq!(origin(&[copies, keys(0..12, 4)].concat(), 16, None), Origin::Fewer(4));
    }
}
