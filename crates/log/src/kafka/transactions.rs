//! Finds the partitions whose records wait for a transaction that some producer has open.
//!
//! A reader gets records up to the last stable offset, and the broker reports the end of the
//! partition there. So nothing but a comparison of both ends shows that records wait. Each answer
//! to a fetch carries both, and librdkafka's statistics tell them: this file asks no broker. It
//! decides nothing about the partition.
//!
//! Keeps INV-TRANSACTIONS.

use crate::contact::Contact;
use parking_lot::Mutex;
use rdkafka::statistics::{Partition, Statistics};
use std::collections::BTreeSet;
use std::time::Instant;

/// How often librdkafka tells its statistics, milliseconds.
pub(super) const STATISTICS_INTERVAL_MS: &str = "2000";

/// The partitions of one reader.
pub(super) struct Transactions {
    topic: String,
    contact: Contact,
    /// Partitions with a warning in the log.
    warned: Mutex<BTreeSet<u32>>,
}

impl Transactions {
    pub(super) fn new(topic: &str, contact: Contact) -> Self {
        Self { topic: topic.to_owned(), contact, warned: Mutex::default() }
    }

    /// Takes librdkafka's statistics.
    pub(super) fn observe(&self, statistics: &Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        for (number, partition) in &topic.partitions {
            if let Ok(number) = u32::try_from(*number) {
                self.note(number, first_held(partition), Instant::now());
            }
        }
    }

    /// Notes from which offset on the records of a partition wait, and writes a line if they have
    /// waited for long, or waited for long before.
    fn note(&self, partition: u32, offset: Option<u64>, now: Instant) {
        let before = self.contact.set_held(partition, offset, now);
        let mut warned = self.warned.lock();
        if let Some(before) = before
            && warned.remove(&partition)
        {
            let (offset, seconds) = (before.offset, now.saturating_duration_since(before.since).as_secs());
            tracing::info!(
                topic = self.topic,
                partition,
                offset,
                seconds,
                "the transaction is over, and records that waited for it are read"
            );
        }
        let Some(held) = self.contact.held(partition).filter(|held| held.is_long(now)) else { return };
        if warned.insert(partition) {
            let seconds = now.saturating_duration_since(held.since).as_secs();
            tracing::warn!(
                topic = self.topic,
                partition,
                offset = held.offset,
                seconds,
                "a producer's transaction is open, and all records from this offset on wait for it: the process is not ready \
                 until the producer commits or aborts it. `kafka-transactions.sh --bootstrap-server HOST:PORT \
                 describe-producers --topic {} --partition {partition}` names the producer",
                self.topic
            );
        }
    }
}

/// Returns the first offset whose record waits for a transaction, if the reader has read all
/// records before it.
fn first_held(partition: &Partition) -> Option<u64> {
    let Partition { ls_offset, hi_offset, eof_offset, .. } = *partition;
    let is_held = partition.fetch_state == "active" && ls_offset < hi_offset && eof_offset == ls_offset;
    u64::try_from(ls_offset).ok().filter(|_| is_held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::HELD_LONG;
    use std::time::Duration;

    /// INV-TRANSACTIONS
    #[test]
    fn only_a_reader_at_the_stable_end_is_held() {
        let partition = |fetch_state: &str, eof_offset, ls_offset, hi_offset| Partition {
            fetch_state: fetch_state.to_owned(),
            eof_offset,
            ls_offset,
            hi_offset,
            ..Partition::default()
        };
        assert_eq!(first_held(&partition("active", 7, 7, 9)), Some(7));
        assert_eq!(first_held(&partition("active", 0, 0, 1)), Some(0));
        for other in [("active", 9, 9, 9), ("active", 3, 7, 9), ("stopped", 7, 7, 9), ("active", -1001, -1001, -1001)] {
            assert_eq!(first_held(&partition(other.0, other.1, other.2, other.3)), None, "{other:?}");
        }
    }

    #[test]
    fn time_counts_from_the_first_sight_of_an_offset() {
        let transactions = Transactions::new("t", Contact::default());
        let start = Instant::now();
        let held = || transactions.contact.held(3);
        let is_warned = || transactions.warned.lock().contains(&3);
        transactions.note(3, Some(7), start);
        transactions.note(3, Some(7), start + Duration::from_secs(1));
        assert_eq!(held().map(|held| (held.offset, held.since)), Some((7, start)));
        assert!(!is_warned());
        transactions.note(3, Some(7), start + HELD_LONG);
        assert!(is_warned() && held().is_some_and(|held| held.is_long(start + HELD_LONG)));
        transactions.note(3, Some(8), start + HELD_LONG);
        assert!(!is_warned() && held().is_some_and(|held| held.offset == 8 && !held.is_long(start + HELD_LONG)));
        transactions.note(3, None, start + HELD_LONG);
        assert_eq!(held(), None);
    }
}
