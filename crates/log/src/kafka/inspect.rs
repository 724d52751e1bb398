//! Reads topics without joining a group.
//!
//! It commits nothing, so no other reader notices it. Every read opens its own consumer, which is
//! fine for tests and tools but not for the hot path.

use super::brokers::Brokers;
use super::connect_error::WRONG_SETTINGS;
use super::context::QueryContext;
use super::fetched::FetchedMessage;
use super::native::Registered;
use super::settings::KafkaSettings;
use crate::port::{OwnedRecord, ReadError, Record, SLICE_RECORDS_MAX, Topic};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time limit of one query to a broker.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of one attempt to find the leader of a partition.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a read waits for a record that exists.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// See [`Inspect`](crate::Inspect).
pub(super) struct Inspector {
    settings: Arc<KafkaSettings>,
    brokers: Arc<Brokers>,
    partitions: u32,
}

fn transient(error: &KafkaError) -> ReadError {
    ReadError::Retry(error.to_string())
}

/// A consumer that joins no group.
pub(super) type QueryConsumer = Registered<BaseConsumer<QueryContext>>;

/// Returns a consumer that joins no group. rdkafka requires a group name anyway.
pub(super) fn query_consumer(mut config: ClientConfig, brokers: &Arc<Brokers>) -> Result<QueryConsumer, ReadError> {
    config.set("group.id", "receipts-inspect");
    let consumer = BaseConsumer::from_config_and_context(&config, QueryContext(Arc::clone(brokers)))
        .map_err(|error| ReadError::Stop(format!("{WRONG_SETTINGS}: {error}")))?;
    Ok(Registered::new(consumer, brokers.clients()))
}

/// Returns the bounds of a partition, by the consumer's isolation level.
pub(super) fn bounds_of(
    consumer: &BaseConsumer<QueryContext>,
    topic: &str,
    partition: u32,
    timeout: Duration,
) -> Result<Range<u64>, ReadError> {
    let (first, end) =
        consumer.fetch_watermarks(topic, partition as i32, timeout).map_err(|error| transient(&error))?;
    match (u64::try_from(first), u64::try_from(end)) {
        (Ok(first), Ok(end)) => Ok(first..end),
        _ => Err(ReadError::Retry(format!("the bounds of partition {partition} read {first} to {end}"))),
    }
}

impl Inspector {
    pub(super) fn new(settings: Arc<KafkaSettings>, brokers: Arc<Brokers>, partitions: u32) -> Self {
        Inspector { settings, brokers, partitions }
    }

    fn consumer(&self, topic: Topic, partition: u32) -> Result<QueryConsumer, ReadError> {
        // The topic of dead letters may have another number of partitions.
        if partition >= self.partitions && topic != Topic::DeadLetters {
            let sentence =
                format!("the log has {} partitions, but partition {partition} was requested", self.partitions);
            return Err(ReadError::Stop(sentence));
        }
        query_consumer(self.settings.reader(), &self.brokers)
    }

    /// Returns a consumer, and the bounds of a partition.
    fn consumer_with_bounds(&self, topic: Topic, partition: u32) -> Result<(QueryConsumer, Range<u64>), ReadError> {
        // The leader of a new topic, or of one that moves, may be unknown for a moment. A consumer
        // that has learned so goes on to say so, so each attempt has another one.
        let deadline = Instant::now() + QUERY_TIMEOUT;
        loop {
            let consumer = self.consumer(topic, partition)?;
            match bounds_of(&consumer, self.settings.topic(topic), partition, ATTEMPT) {
                Ok(bounds) => return Ok((consumer, bounds)),
                Err(ReadError::Retry(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for all topics, because a question for one topic could create it.
    pub(super) fn partitions(&self, topic: Topic) -> Result<u32, ReadError> {
        let name = self.settings.topic(topic);
        let consumer = query_consumer(self.settings.reader(), &self.brokers)?;
        let metadata = consumer.fetch_metadata(None, QUERY_TIMEOUT).map_err(|error| transient(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        match found.map(|found| found.partitions().len() as u32).filter(|count| *count > 0) {
            Some(count) => Ok(count),
            None => Err(ReadError::Stop(format!(
                "Kafka has no topic {name}: check its name, and that this user may describe it"
            ))),
        }
    }

    pub(super) fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError> {
        Ok(self.consumer_with_bounds(topic, partition)?.1)
    }

    pub(super) fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: u64,
        max: usize,
    ) -> Result<Vec<OwnedRecord>, ReadError> {
        let mut records = Vec::new();
        if max == 0 {
            return Ok(records);
        }
        self.scan(topic, partition, from..u64::MAX, &mut |slice| {
            let more = max - records.len();
            records.extend(slice.iter().take(more).map(OwnedRecord::from));
            if records.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(records)
    }

    /// Ends at the end of the partition at the start of the scan, so that it ends even if the log
    /// grows.
    pub(super) fn scan(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (consumer, bounds) = self.consumer_with_bounds(topic, partition)?;
        let (start, end) = (offsets.start.max(bounds.start), offsets.end.min(bounds.end));
        if start >= end {
            return Ok(());
        }
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(self.settings.topic(topic), partition as i32, Offset::Offset(start as i64))
            .and_then(|()| consumer.assign(&assignment))
            .map_err(|error| transient(&error))?;
        let mut slice = Vec::with_capacity(SLICE_RECORDS_MAX);
        let mut deadline = Instant::now() + READ_TIMEOUT;
        loop {
            let wait = if slice.is_empty() { Duration::from_millis(100) } else { Duration::ZERO };
            let over = match consumer.poll(wait) {
                Some(Ok(message)) => {
                    deadline = Instant::now() + READ_TIMEOUT;
                    let offset = message.offset() as u64;
                    if offset < end {
                        slice.push(FetchedMessage(message));
                    }
                    // The last record may be followed by transaction markers, which a consumer
                    // never returns. Then the end-of-partition report ends the scan.
                    if slice.len() < SLICE_RECORDS_MAX && offset.saturating_add(1) < end {
                        continue;
                    }
                    offset.saturating_add(1) >= end
                }
                Some(Err(KafkaError::PartitionEOF(_))) => true,
                Some(Err(error)) if Instant::now() >= deadline => return Err(transient(&error)),
                _ if Instant::now() >= deadline => {
                    return Err(ReadError::Retry(format!("no record for {} s", READ_TIMEOUT.as_secs())));
                }
                _ => false,
            };
            let records: Vec<_> = slice.iter().map(FetchedMessage::record).collect();
            let flow = if over && records.is_empty() { ControlFlow::Continue(()) } else { each(&records) };
            drop(records);
            slice.clear();
            if over || flow.is_break() {
                return Ok(());
            }
        }
    }

    pub(super) fn offset_at(&self, topic: Topic, partition: u32, time_ms: u64) -> Result<u64, ReadError> {
        let consumer = self.consumer(topic, partition)?;
        let mut times = TopicPartitionList::new();
        let time = Offset::Offset(i64::try_from(time_ms).unwrap_or(i64::MAX));
        let answer = times
            .add_partition_offset(self.settings.topic(topic), partition as i32, time)
            .and_then(|()| consumer.offsets_for_times(times, QUERY_TIMEOUT))
            .map_err(|error| transient(&error))?;
        let elements = answer.elements();
        let element =
            elements.first().ok_or_else(|| ReadError::Retry("the broker did not answer for a time".into()))?;
        element.error().map_err(|error| transient(&error))?;
        match element.offset() {
            Offset::Offset(offset) if offset >= 0 => Ok(offset as u64),
            // No record is that late: the end.
            _ => Ok(self.bounds(topic, partition)?.end),
        }
    }
}
