//! Follows partitions without being a member of a group: one consumer, assigned by hand.
//!
//! It commits nothing and joins nothing, and it never moves to another offset than the next one.

use super::context::Asking;
use super::inspect::asker;
use super::reader::{Taking, take_slices};
use super::settings::KafkaSettings;
use super::verdict::{Verdict, verdict};
use crate::port::{Polled, ReadError, Tail, Topic};
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// See [`Tail`].
pub(super) struct KafkaTail {
    consumer: BaseConsumer<Asking>,
    topic: String,
    /// By partition: the offset that its next record has at least; `None` where it is not followed.
    next: Vec<Option<u64>>,
    /// What the last poll met after it had handed records over.
    pending: Option<KafkaError>,
    stopped: Option<String>,
}

impl KafkaTail {
    pub(super) fn new(
        settings: &KafkaSettings,
        partitions: u32,
        topic: Topic,
        starts: &[(u32, u64)],
    ) -> Result<Self, ReadError> {
        let topic = settings.topic(topic).to_owned();
        let consumer = asker(settings.reader())?;
        let mut next = vec![None; partitions as usize];
        let mut places = TopicPartitionList::with_capacity(starts.len());
        for &(partition, start) in starts {
            let Some(place) = next.get_mut(partition as usize) else {
                return Err(ReadError::Stop(format!("the log has {partitions} partitions, no number {partition}")));
            };
            *place = Some(start);
            let offset = Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX));
            places
                .add_partition_offset(&topic, partition as i32, offset)
                .map_err(|error| ReadError::Stop(format!("cannot follow {topic}: {error}")))?;
        }
        consumer.assign(&places).map_err(|error| ReadError::Retry(error.to_string()))?;
        Ok(KafkaTail { consumer, topic, next, pending: None, stopped: None })
    }

    /// Decides whether an error is passing. A topic that is away may come back: whoever follows waits.
    fn judge(&mut self, error: &KafkaError) -> ReadError {
        match verdict(error, &self.topic) {
            Verdict::Retry | Verdict::Topic => ReadError::Retry(error.to_string()),
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
        let Taking { taken, any, error } =
            take_slices(&self.consumer, &mut self.next, max, Instant::now() + timeout, each);
        match error {
            Some(error) if !any => return Err(self.judge(&error)),
            error => self.pending = error,
        }
        Ok(taken)
    }
}
