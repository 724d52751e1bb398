//! Reads the event topic as a member of a consumer group, on the caller's thread.
//!
//! It starts each partition at the offset that [`Assignment`] returns, and it never waits after the
//! first record of a poll. It answers a rebalance only when the caller holds no record of a poll.
//! The group waits for the answer, so a revoke is a barrier.

use super::brokers::Brokers;
use super::connect_error::WRONG_SETTINGS;
use super::fetched::{PollBatch, poll_slices};
use super::inspect::Inspector;
use super::member::leave;
use super::native::Registered;
use super::rebalance::{Rebalance, RebalanceContext, give_back, take};
use super::rights::Granter;
use super::settings::KafkaSettings;
use super::transactions::{STATISTICS_INTERVAL_MS, Transactions};
use super::verdict::{Verdict, verdict};
use super::watch::changed_count;
use crate::check::start_is_held;
use crate::contact::{Contact, Membership};
use crate::port::{Assignment, OwnedRecord, Peek, Polled, ReadError, Reader, Topic};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use receipts_metrics::log_lines::ranges;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a partition may be without a leader during the takeover.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit of one query to a broker.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after an outage the group may take partitions away because of it, and how long a lost
/// partition waits for the group after it.
const GROUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Without an answer for this long a lost partition counts as lost by an outage: twice the pause
/// between two questions of the watch.
const UNHEARD: Duration = Duration::from_secs(2);

/// The pause between two attempts to join under a name that is not free yet.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// See [`Reader`].
pub(super) struct KafkaReader {
    consumer: Registered<BaseConsumer<RebalanceContext>>,
    settings: Arc<KafkaSettings>,
    brokers: Arc<Brokers>,
    topic: String,
    group: String,
    granter: Granter,
    /// Looks at records outside the group while partitions are taken over.
    inspector: Inspector,
    assignment: Arc<dyn Assignment>,
    contact: Contact,
    /// Partitions that the group took away because of an outage. Their state waits for the group.
    lost: BTreeSet<u32>,
    /// By partition: its next record has at least this offset; `None` if it is not ours.
    next: Vec<Option<u64>>,
    /// An error of the last poll that came after some records.
    pending: Option<KafkaError>,
    /// When to join again, while the group still has the former member of the same name.
    join_at: Option<Instant>,
    /// True once the wait for that member is reported.
    waits: bool,
    stopped: Option<String>,
}

/// Returns a consumer that joins the group.
fn join(
    settings: &KafkaSettings,
    brokers: &Arc<Brokers>,
    contact: &Contact,
    group: &str,
) -> Result<Registered<BaseConsumer<RebalanceContext>>, ReadError> {
    let context = RebalanceContext::new(Arc::clone(brokers), Transactions::new(&settings.events, contact.clone()));
    let mut config = settings.member(group);
    config.set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    let consumer = BaseConsumer::from_config_and_context(&config, context)
        .map_err(|error| ReadError::Stop(format!("{WRONG_SETTINGS}: {error}")))?;
    let consumer = Registered::new(consumer, brokers.clients());
    consumer
        .subscribe(&[&settings.events])
        .map_err(|error| ReadError::Stop(format!("cannot subscribe to {}: {error}", settings.events)))?;
    Ok(consumer)
}

/// Lists the partitions of a rebalance for a log line.
fn listed(partitions: &TopicPartitionList) -> String {
    ranges(partitions.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()))
}

impl KafkaReader {
    pub(super) fn new(
        settings: Arc<KafkaSettings>,
        brokers: Arc<Brokers>,
        contact: Contact,
        partitions: u32,
        group: &str,
        assignment: Arc<dyn Assignment>,
    ) -> Result<Self, ReadError> {
        if settings.has_new_protocol() && settings.static_name().is_some() {
            tracing::warn!(
                "group.instance.id with group.protocol=consumer: the group keeps the partitions of this process for its \
                 session (45 s by default) whenever it stops, for nobody; leave group.instance.id out"
            );
        }
        let consumer = join(&settings, &brokers, &contact, group)?;
        Ok(KafkaReader {
            consumer,
            settings: settings.clone(),
            brokers: brokers.clone(),
            group: group.to_owned(),
            topic: settings.events.clone(),
            granter: Granter::new(&settings),
            inspector: Inspector::new(settings, brokers, partitions),
            assignment,
            contact,
            lost: BTreeSet::new(),
            next: vec![None; partitions as usize],
            pending: None,
            join_at: None,
            waits: false,
            stopped: None,
        })
    }

    /// Answers all rebalances. Calls the assignment, so the caller must hold no record of this
    /// poll.
    fn answer_rebalances(&mut self) -> Result<(), ReadError> {
        while let Some(rebalance) = self.consumer.context().take() {
            match rebalance {
                Rebalance::Assign(partitions) => {
                    self.take_over(&partitions)?;
                    self.contact.set_membership(Membership::Member);
                    self.waits = false;
                    // The group has decided, and these are for another member.
                    self.release_lost();
                }
                Rebalance::Revoke { partitions, lost } => self.revoke(&partitions, lost),
            }
        }
        Ok(())
    }

    /// Starts new partitions at the offsets that the assignment returns.
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
        // A reader that stops answers the group too; otherwise its drop would wait for the answer.
        // It takes all, because the group takes all away again, and librdkafka gives back only what
        // was taken. It reads nothing of them.
        if failed.is_some() {
            for element in partitions.elements() {
                if starts.find_partition(&self.topic, element.partition()).is_none() {
                    _ = starts.add_partition_offset(&self.topic, element.partition(), Offset::End);
                }
            }
        }
        let answered = take(&self.consumer, &starts).map_err(|error| format!("cannot take over partitions: {error}"));
        match failed.map_or(answered, Err) {
            Ok(()) => {
                // A group with more members than partitions assigns none to some of them.
                if starts.count() > 0 {
                    tracing::info!(topic = self.topic, partitions = listed(&starts), "took over partitions");
                }
                Ok(())
            }
            Err(sentence) => Err(self.stop(sentence)),
        }
    }

    /// Queries the bounds of a partition and asks the assignment for a start between them.
    fn start_of(&mut self, partition: u32) -> Result<u64, String> {
        let count = self.next.len() as u32;
        let Some(next) = self.next.get(partition as usize) else {
            return Err(changed_count(&self.topic, count, self.partition_count().unwrap_or(partition + 1)));
        };
        debug_assert!(next.is_none(), "partition {partition} was assigned twice");
        let (first, end) = self.bounds(partition)?;
        let start = self
            .assignment
            .assigned(partition, first, end, &Partition { inspector: &self.inspector, partition })
            .map_err(|error| format!("partition {partition} of {} cannot be taken over: {error}", self.topic))?;
        self.lost.remove(&partition);
        self.next[partition as usize] = Some(start);
        start_is_held(&self.topic, partition, start, first, end)?;
        Ok(start)
    }

    /// Returns the first and the end offset. Waits up to [`TAKE_OVER_TIMEOUT`] for a leader.
    fn bounds(&self, partition: u32) -> Result<(u64, u64), String> {
        let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
        loop {
            let cause = match self.consumer.fetch_watermarks(&self.topic, partition as i32, QUERY_TIMEOUT) {
                Ok((first, end)) if first >= 0 && end >= first => return Ok((first as u64, end as u64)),
                Ok((first, end)) => format!("it reports {first} to {end}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(format!(
                    "no leader of partition {partition} of {} has answered for {} s ({cause}): repair the brokers, then \
                     start again",
                    self.topic,
                    TAKE_OVER_TIMEOUT.as_secs()
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns how many partitions the topic has now.
    fn partition_count(&self) -> Option<u32> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), QUERY_TIMEOUT).ok()?;
        metadata.topics().first().map(|topic| topic.partitions().len() as u32)
    }

    /// Releases lost partitions that the group did not give back.
    fn release_lost(&mut self) {
        let released: Vec<u32> = std::mem::take(&mut self.lost).into_iter().collect();
        if !released.is_empty() {
            self.assignment.revoked(&released);
        }
    }

    /// Tells whether the group takes partitions away because of an outage. INV-HANDOVER: the
    /// next owner folds its own store, and a state that is kept here does not change.
    ///
    /// A session may end before the watch calls Kafka away, so a shorter silence counts too.
    fn is_outage(&self) -> bool {
        self.contact.silence().is_some()
            || self.contact.heard_at().elapsed() >= UNHEARD
            || self.contact.back_since().is_some_and(|since| since < GROUP_TIMEOUT)
    }

    /// Gives partitions back after their state is released. States of partitions that an outage
    /// took away are kept until the group has decided.
    fn revoke(&mut self, partitions: &TopicPartitionList, lost: bool) {
        let ours: Vec<u32> = partitions
            .elements()
            .iter()
            .map(|element| element.partition() as u32)
            .filter(|&partition| self.next.get_mut(partition as usize).is_some_and(|next| next.take().is_some()))
            .collect();
        if lost {
            self.contact.set_membership(Membership::Expelled);
        }
        let partitions_lost = ranges(ours.iter().copied());
        if !ours.is_empty() && lost && self.is_outage() {
            tracing::info!(
                topic = self.topic,
                partitions = partitions_lost,
                "lost the partitions because Kafka was away; their state is kept until the group decides"
            );
            self.assignment.lost(&ours);
            self.lost.extend(ours);
        } else if !ours.is_empty() {
            self.assignment.revoked(&ours);
            tracing::info!(topic = self.topic, partitions = partitions_lost, "gave partitions back to the group");
        }
        if let Err(error) = give_back(&self.consumer, partitions) {
            tracing::warn!(%error, "cannot give partitions back; the group takes them after the session timeout");
        }
    }

    fn stop(&mut self, sentence: String) -> ReadError {
        self.stopped = Some(sentence.clone());
        ReadError::Stop(sentence)
    }

    /// Decides whether an error is transient.
    fn judge(&mut self, error: &KafkaError) -> ReadError {
        match verdict(error, &self.topic, Some(&self.group), &self.granter) {
            Verdict::Retry | Verdict::Ignore => ReadError::Retry(error.to_string()),
            Verdict::Stop(sentence) => self.stop(sentence),
            Verdict::Fenced => {
                self.contact.set_membership(Membership::Fenced);
                self.stop(self.fenced())
            }
            Verdict::Topic => match self.topic_is_missing() {
                true => self.stop(format!(
                    "the topic {} does not exist any more: restore it with its records, or move the state away and start \
                     anew",
                    self.topic
                )),
                false => ReadError::Retry(error.to_string()),
            },
        }
    }

    /// Says who has taken this member's name, and what to do.
    fn fenced(&self) -> String {
        let (group, name) = (&self.group, self.settings.static_name().unwrap_or_default());
        if self.settings.names_itself() {
            format!(
                "another process has joined the consumer group {group} with the same group.instance.id ({name}) and goes on, \
                 and this one ends: give each process its own group.instance.id, or leave it out"
            )
        } else {
            format!(
                "another process has joined the consumer group {group} under this process's name ({name}) and goes on, and \
                 this one ends: its data directory is a copy of this one, or this one is a copy. Where both are wanted, \
                 start this one again: it takes another name; otherwise remove the copy"
            )
        }
    }

    /// Gives the consumer up for a while: with the new group protocol a name is free only once the
    /// session of its former member is over, and librdkafka does not wait for that.
    fn wait_for_former_member(&mut self) {
        self.join_at = Some(Instant::now() + JOIN_PAUSE);
        if !std::mem::replace(&mut self.waits, true) {
            let (group, name) = (&self.group, self.settings.static_name().unwrap_or_default());
            tracing::warn!(
                group,
                name,
                "the group still has a member with this group.instance.id; this process waits for the end of its session, \
                 45 s after its last sign unless the group's consumer.session.timeout.ms says otherwise. If that process \
                 runs, give each its own group.instance.id, or leave it out"
            );
        }
    }

    /// Joins with a new consumer once it is time, because the error of the old one is final.
    /// Returns true while it is not.
    fn waits_to_join(&mut self, timeout: Duration) -> Result<bool, ReadError> {
        let Some(at) = self.join_at else { return Ok(false) };
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            std::thread::sleep(left.min(timeout));
            return Ok(true);
        }
        self.answer_rebalances()?;
        RebalanceContext::close(&self.consumer);
        self.consumer = join(&self.settings, &self.brokers, &self.contact, &self.group)?;
        self.join_at = None;
        Ok(false)
    }

    /// Checks for some seconds, because a broker that has just started may not know a topic yet.
    /// Queries all topics, because a query for one topic could create it.
    fn topic_is_missing(&self) -> bool {
        for _ in 0..5 {
            match self.consumer.fetch_metadata(None, QUERY_TIMEOUT) {
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
        if let Some(sentence) = self.contact.fault() {
            return Err(self.stop(sentence));
        }
        if !self.lost.is_empty() && self.contact.back_since().is_some_and(|since| since >= GROUP_TIMEOUT) {
            self.release_lost();
        }
        if self.waits_to_join(timeout)? {
            return Ok(0);
        }
        if let Some(error) = self.pending.take() {
            return Err(self.judge(&error));
        }
        self.answer_rebalances()?;
        let deadline = Instant::now() + timeout;
        loop {
            let PollBatch { records, any, error } = poll_slices(&self.consumer, &mut self.next, max, deadline, each);
            match error {
                Some(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnreleasedInstanceId) => {
                    self.wait_for_former_member();
                }
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
            return Ok(records);
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
    /// Releases the state before the group can give the partitions to another member.
    fn drop(&mut self) {
        let held = (0..).zip(&self.next).filter_map(|(at, next)| next.map(|_| at));
        let held: Vec<u32> = held.chain(std::mem::take(&mut self.lost)).collect();
        if !held.is_empty() {
            self.assignment.revoked(&held);
        }
        // The consumer's drop waits until it has left the group, and every rebalance must be
        // answered for that.
        RebalanceContext::close(&self.consumer);
        let membership = self.contact.membership();
        if self.settings.static_name().is_some()
            && !self.settings.has_new_protocol()
            && membership != Membership::Fenced
        {
            leave(&self.consumer, membership == Membership::Unknown && self.contact.silence().is_none());
        }
    }
}

/// A partition of the event topic, for looking at single records.
struct Partition<'a> {
    inspector: &'a Inspector,
    partition: u32,
}

impl Peek for Partition<'_> {
    /// Retries for up to [`TAKE_OVER_TIMEOUT`] while there is no leader.
    fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError> {
        let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
        loop {
            match self.inspector.read(Topic::Events, self.partition, offset, 1) {
                Ok(records) => return Ok(records.into_iter().find(|record| record.offset == offset)),
                Err(ReadError::Retry(why)) if Instant::now() < deadline => {
                    tracing::warn!(partition = self.partition, why, "a record cannot be read now; retrying");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error),
            }
        }
    }
}
