//! Reads the event topic as a member of a consumer group, on the caller's thread.
//!
//! It starts each partition where the [`Assignment`] says, never elsewhere, and it never waits after the first record
//! of a poll. A rebalance that librdkafka reports is kept until no record of the poll is in the caller's hands, and is
//! answered only then: the group waits meanwhile, so a revoke stays a barrier.

use super::context;
use super::inspect::Inspector;
use super::settings::KafkaSettings;
use super::verdict::{Verdict, verdict};
use crate::check::start_is_held;
use crate::port::{Assignment, OwnedRecord, Peek, Polled, ReadError, Reader, Record, SLICE_RECORDS_MAX, Topic};
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a partition's leader may be away while the partition is taken over.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one question to a broker may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the group decided and nobody answered yet.
enum Change {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// Takes note of rebalances; answers them itself only while the consumer closes.
#[derive(Default)]
struct Rebalances {
    open: Mutex<VecDeque<Change>>,
    any: AtomicBool,
    closing: AtomicBool,
}

impl Rebalances {
    fn take(&self) -> Option<Change> {
        let mut open = self.open.lock();
        let change = open.pop_front();
        self.any.store(!open.is_empty(), Ordering::Release);
        change
    }

    fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, reason: KafkaError, message: &str) {
        context::error(&reason, message);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let answered = if assign { take(consumer, partitions) } else { give_back(consumer, partitions) };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance while the reader closes");
            }
            return;
        }
        let change = if assign { Change::Assign(partitions.clone()) } else { Change::Revoke(partitions.clone()) };
        self.open.lock().push_back(change);
        self.any.store(true, Ordering::Release);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "an advisory commit failed");
        }
    }
}

/// Begins to fetch; an empty list answers the group all the same.
fn take(consumer: &BaseConsumer<Rebalances>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
        _ => consumer.assign(partitions),
    }
}

/// Ends to fetch.
fn give_back(consumer: &BaseConsumer<Rebalances>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        _ => consumer.unassign(),
    }
}

/// See [`Reader`].
pub(super) struct KafkaReader {
    consumer: BaseConsumer<Rebalances>,
    topic: String,
    /// Looks at records beside the group, while partitions are taken over.
    inspector: Inspector,
    assignment: Arc<dyn Assignment>,
    /// By partition: the offset that its next record has at least; `None` where it is not ours.
    next: Vec<Option<u64>>,
    /// What the last poll met after it had handed records over.
    pending: Option<KafkaError>,
    stopped: Option<String>,
}

impl KafkaReader {
    pub(super) fn new(
        settings: Arc<KafkaSettings>,
        partitions: u32,
        group: &str,
        assignment: Arc<dyn Assignment>,
    ) -> Result<Self, ReadError> {
        let mut config = settings.reader();
        config.set("group.id", group);
        let consumer = BaseConsumer::from_config_and_context(&config, Rebalances::default())
            .map_err(|error| ReadError::Stop(format!("the Kafka settings are wrong: {error}")))?;
        consumer
            .subscribe(&[&settings.events])
            .map_err(|error| ReadError::Stop(format!("cannot subscribe to {}: {error}", settings.events)))?;
        Ok(KafkaReader {
            consumer,
            topic: settings.events.clone(),
            inspector: Inspector::new(settings, partitions),
            assignment,
            next: vec![None; partitions as usize],
            pending: None,
            stopped: None,
        })
    }

    /// Answers what the group decided. Calls the assignment, so nothing of this poll may be in the caller's hands.
    fn answer_rebalances(&mut self) -> Result<(), ReadError> {
        while let Some(change) = self.consumer.context().take() {
            match change {
                Change::Assign(partitions) => self.take_over(&partitions)?,
                Change::Revoke(partitions) => self.revoke(&partitions),
            }
        }
        Ok(())
    }

    /// Starts new partitions where the assignment says.
    fn take_over(&mut self, partitions: &TopicPartitionList) -> Result<(), ReadError> {
        let mut starts = TopicPartitionList::new();
        let mut failed = None;
        for element in partitions.elements() {
            match self.start_of(element.partition() as u32) {
                Ok(start) => {
                    let offset = Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX));
                    if let Err(error) = starts.add_partition_offset(&self.topic, element.partition(), offset) {
                        failed = Some(error.to_string());
                    }
                }
                Err(sentence) => failed = Some(sentence),
            }
            if failed.is_some() {
                break;
            }
        }
        // The group is answered even by a reader that stops, or its drop would wait for the answer.
        let answered = take(&self.consumer, &starts).map_err(|error| format!("cannot take partitions over: {error}"));
        match failed.map_or(answered, Err) {
            Ok(()) => {
                tracing::info!(topic = self.topic, partitions = starts.count(), "took partitions over");
                Ok(())
            }
            Err(sentence) => Err(self.stop(sentence)),
        }
    }

    /// Asks the log for its bounds and the assignment for a start between them.
    fn start_of(&mut self, partition: u32) -> Result<u64, String> {
        let Some(next) = self.next.get(partition as usize) else {
            return Err(format!(
                "{} has got more than {} partitions: keys have moved between partitions, and state folded so far does \
                 not fit. Fill a new topic with the wanted number of partitions instead",
                self.topic,
                self.next.len()
            ));
        };
        debug_assert!(next.is_none(), "partition {partition} was assigned twice");
        let (first, end) = self.bounds(partition)?;
        let start = self
            .assignment
            .assigned(partition, first, end, &Partition { inspector: &self.inspector, partition })
            .map_err(|error| format!("partition {partition} of {} cannot be taken over: {error}", self.topic))?;
        self.next[partition as usize] = Some(start);
        start_is_held(&self.topic, partition, start, first, end)?;
        Ok(start)
    }

    /// First and end offset, as long as it takes a new leader to be found.
    fn bounds(&self, partition: u32) -> Result<(u64, u64), String> {
        let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
        loop {
            let cause = match self.consumer.fetch_watermarks(&self.topic, partition as i32, ASK_TIMEOUT) {
                Ok((first, end)) if first >= 0 && end >= first => return Ok((first as u64, end as u64)),
                Ok((first, end)) => format!("it says {first} to {end}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(format!(
                    "partition {partition} of {} has no leader that answers since {} s ({cause}): see to the brokers, \
                     then start again",
                    self.topic,
                    TAKE_OVER_TIMEOUT.as_secs()
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Gives partitions back once their state is released.
    fn revoke(&mut self, partitions: &TopicPartitionList) {
        let ours: Vec<u32> = partitions
            .elements()
            .iter()
            .map(|element| element.partition() as u32)
            .filter(|&partition| self.next.get_mut(partition as usize).is_some_and(|next| next.take().is_some()))
            .collect();
        if !ours.is_empty() {
            self.assignment.revoked(&ours);
        }
        if let Err(error) = give_back(&self.consumer, partitions) {
            tracing::warn!(%error, "cannot give partitions back; the group takes them after the session timeout");
        }
    }

    fn stop(&mut self, sentence: String) -> ReadError {
        self.stopped = Some(sentence.clone());
        ReadError::Stop(sentence)
    }

    /// Decides whether an error is passing.
    fn judge(&mut self, error: &KafkaError) -> ReadError {
        match verdict(error, &self.topic) {
            Verdict::Retry => ReadError::Retry(error.to_string()),
            Verdict::Stop(sentence) => self.stop(sentence),
            Verdict::Topic => match self.topic_is_missing() {
                true => self.stop(format!(
                    "the topic {} does not exist any more: put it back with its records, or set the state aside and \
                     start anew",
                    self.topic
                )),
                false => ReadError::Retry(error.to_string()),
            },
        }
    }

    /// A broker that has just started may not know a topic yet, so this asks for some seconds, of all topics: to ask
    /// for one by name could create it.
    fn topic_is_missing(&self) -> bool {
        for _ in 0..5 {
            match self.consumer.fetch_metadata(None, ASK_TIMEOUT) {
                Ok(all) if all.topics().iter().any(|topic| topic.name() == self.topic) => return false,
                Ok(_) => std::thread::sleep(Duration::from_secs(1)),
                Err(_) => return false,
            }
        }
        true
    }
}

impl Reader for KafkaReader {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if let Some(sentence) = &self.stopped {
            return Err(ReadError::Stop(sentence.clone()));
        }
        if let Some(error) = self.pending.take() {
            return Err(self.judge(&error));
        }
        self.answer_rebalances()?;
        let deadline = Instant::now() + timeout;
        loop {
            let Taking { taken, any, error } = take_slices(&self.consumer, &mut self.next, max, deadline, each);
            match error {
                Some(error) if any => self.pending = Some(error),
                Some(error) => return Err(self.judge(&error)),
                None if any || max == 0 => {}
                None if self.consumer.context().any() => {
                    self.answer_rebalances()?;
                    continue;
                }
                None if Instant::now() < deadline => continue,
                None => {}
            }
            return Ok(taken);
        }
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        if !self.next.get(partition as usize).is_some_and(Option::is_some) {
            return;
        }
        let mut offsets = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(i64::try_from(next_offset).unwrap_or(i64::MAX));
        let queued = offsets
            .add_partition_offset(&self.topic, partition as i32, offset)
            .and_then(|()| self.consumer.commit(&offsets, CommitMode::Async));
        if let Err(error) = queued {
            tracing::debug!(%error, partition, "an advisory commit was not queued");
        }
    }
}

impl Drop for KafkaReader {
    /// Releases the state before the group may give the partitions to anybody else.
    fn drop(&mut self) {
        let held: Vec<u32> = (0..).zip(&self.next).filter_map(|(at, next)| next.map(|_| at)).collect();
        if !held.is_empty() {
            self.assignment.revoked(&held);
        }
        // The consumer's own drop waits until the group has let it go, and for that every change must be answered.
        self.consumer.context().closing.store(true, Ordering::Release);
        while let Some(change) = self.consumer.context().take() {
            let answered = match &change {
                Change::Assign(partitions) => take(&self.consumer, partitions),
                Change::Revoke(partitions) => give_back(&self.consumer, partitions),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance while the reader closes");
            }
        }
    }
}

/// A partition of the event topic, for who wants to know it again.
struct Partition<'a> {
    inspector: &'a Inspector,
    partition: u32,
}

impl Peek for Partition<'_> {
    /// Asks for as long as a leader may be away.
    fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError> {
        let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
        loop {
            match self.inspector.read(Topic::Events, self.partition, offset, 1) {
                Ok(records) => return Ok(records.into_iter().find(|record| record.offset == offset)),
                Err(ReadError::Retry(why)) if Instant::now() < deadline => {
                    tracing::warn!(partition = self.partition, why, "a record cannot be looked at just now");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a consumer had at hand.
pub(super) struct Taking {
    /// Records handed over.
    pub(super) taken: usize,
    /// Whether anything was: a record, or an end.
    pub(super) any: bool,
    /// What came after that.
    pub(super) error: Option<KafkaError>,
}

/// Waits until the deadline for the first record or end, then hands over what is at hand, up to `max` records. `next` has
/// by partition the offset that the next record has at least, and `None` for those that are not ours. Nothing at all may
/// also mean that something else than a record woke the consumer.
pub(super) fn take_slices<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    next: &mut [Option<u64>],
    max: usize,
    deadline: Instant,
    each: &mut dyn FnMut(Polled<'_>),
) -> Taking {
    let mut slice: Vec<Taken<'_>> = Vec::with_capacity(SLICE_RECORDS_MAX.min(max));
    let mut taking = Taking { taken: 0, any: false, error: None };
    while taking.taken < max {
        let wait = if taking.any { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                let partition = message.partition() as u32;
                // librdkafka drops what it had fetched of partitions that were given back; this is the proof.
                let Some(Some(next)) = next.get_mut(partition as usize) else { continue };
                *next = message.offset() as u64 + 1;
                if slice.len() == SLICE_RECORDS_MAX || slice.first().is_some_and(|first| !first.is_beside(&message)) {
                    hand_over(&mut slice, each);
                }
                slice.push(Taken(message));
                taking.taken += 1;
                taking.any = true;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(Some(next)) = next.get(partition as usize) {
                    hand_over(&mut slice, each);
                    each(Polled::End { partition: partition as u32, next_offset: *next });
                    taking.any = true;
                }
            }
            Some(Err(error)) => {
                taking.error = Some(error);
                break;
            }
            None => break,
        }
    }
    hand_over(&mut slice, each);
    taking
}

/// Hands over what a poll has taken of one partition.
fn hand_over(slice: &mut Vec<Taken<'_>>, each: &mut dyn FnMut(Polled<'_>)) {
    if !slice.is_empty() {
        let records: Vec<_> = slice.iter().map(Taken::record).collect();
        each(Polled::Records(&records));
    }
    slice.clear();
}

/// A message, as librdkafka has it in memory.
pub(super) struct Taken<'a>(pub(super) BorrowedMessage<'a>);

impl Taken<'_> {
    fn is_beside(&self, message: &BorrowedMessage<'_>) -> bool {
        self.0.partition() == message.partition()
    }

    /// The message as a record of the port.
    pub(super) fn record(&self) -> Record<'_> {
        Record {
            partition: self.0.partition() as u32,
            offset: self.0.offset() as u64,
            timestamp_ms: self.0.timestamp().to_millis().map_or(0, |time| u64::try_from(time).unwrap_or(0)),
            key: self.0.key(),
            value: self.0.payload(),
            headers: self,
        }
    }
}

impl crate::port::Headers for Taken<'_> {
    /// rdkafka panics on a header name that is not UTF-8; such a header is left out rather than ending the reader.
    fn to_vec(&self) -> Vec<(String, Option<Bytes>)> {
        let Some(headers) = self.0.headers() else { return Vec::new() };
        (0..headers.count())
            .filter_map(|at| catch_unwind(AssertUnwindSafe(|| headers.try_get(at))).ok().flatten())
            .map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice)))
            .collect()
    }
}
