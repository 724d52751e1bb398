//! Follows partitions without a consumer group: one consumer with a manual assignment.
//!
//! It commits nothing, joins no group, and only moves to the next offset.

use super::brokers::Brokers;
use super::fetched::{PollBatch, poll_slices};
use super::inspect::{QueryConsumer, query_consumer};
use super::rights::Granter;
use super::settings::KafkaSettings;
use super::verdict::{Verdict, verdict};
use crate::port::{Polled, ReadError, Tail, Topic};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See [`Tail`].
pub(super) struct KafkaTail {
    consumer: QueryConsumer,
    topic: String,
    granter: Granter,
    /// By partition: its next record has at least this offset; `None` if it is not followed.
    next: Vec<Option<u64>>,
    /// An error of the last poll that came after some records.
    pending: Option<KafkaError>,
    stopped: Option<String>,
}

impl KafkaTail {
    pub(super) fn new(
        settings: &KafkaSettings,
        brokers: &Arc<Brokers>,
        partitions: u32,
        topic: Topic,
        starts: &[(u32, u64)],
    ) -> Result<Self, ReadError> {
        // The topic of dead letters may have another number of partitions.
        let highest = starts.iter().map(|(partition, _)| partition + 1).max().unwrap_or(0);
        let partitions = if topic == Topic::DeadLetters { partitions.max(highest) } else { partitions };
        let topic = settings.topic(topic).to_owned();
        let consumer = query_consumer(settings.reader(), brokers)?;
        let mut next = vec![None; partitions as usize];
        let mut assignment = TopicPartitionList::with_capacity(starts.len());
        for &(partition, start) in starts {
            let Some(next) = next.get_mut(partition as usize) else {
                let sentence = format!("the log has {partitions} partitions, but partition {partition} was requested");
                return Err(ReadError::Stop(sentence));
            };
            *next = Some(start);
            let offset = Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX));
            assignment
                .add_partition_offset(&topic, partition as i32, offset)
                .map_err(|error| ReadError::Stop(format!("cannot follow {topic}: {error}")))?;
        }
        consumer.assign(&assignment).map_err(|error| ReadError::Retry(error.to_string()))?;
        Ok(KafkaTail { consumer, topic, granter: Granter::new(settings), next, pending: None, stopped: None })
    }

    /// Decides whether an error is transient. A missing topic may come back, so a tail waits for
    /// it.
    fn judge(&mut self, error: &KafkaError) -> ReadError {
        match verdict(error, &self.topic, None, &self.granter) {
            // A tail is in no group.
            Verdict::Retry | Verdict::Topic | Verdict::Fenced | Verdict::Ignore => ReadError::Retry(error.to_string()),
            Verdict::Stop(sentence) => {
                self.stopped = Some(sentence.clone());
                ReadError::Stop(sentence)
            }
        }
    }
}

impl Tail for KafkaTail {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if let Some(sentence) = &self.stopped {
            return Err(ReadError::Stop(sentence.clone()));
        }
        if let Some(error) = self.pending.take() {
            return Err(self.judge(&error));
        }
        let PollBatch { records, any, error } =
            poll_slices(&self.consumer, &mut self.next, max, Instant::now() + timeout, each);
        match error {
            Some(error) if !any => return Err(self.judge(&error)),
            error => self.pending = error,
        }
        Ok(records)
    }
}
