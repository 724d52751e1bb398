//! Watches the cluster: asks for the event topic every second, on a thread of its own.
//!
//! It learns when Kafka is away, when a partition cannot be written, and when the topic no longer
//! has the partitions that this process counts on; [`super::topic_watch`] looks at the rest. It
//! reads no record and decides nothing about partitions.
//!
//! Keeps INV-PARTITION-COUNT.

use super::brokers::Brokers;
use super::inspect::{QueryConsumer, query_consumer};
use super::settings::KafkaSettings;
use super::topic_watch::TopicWatch;
use crate::contact::Contact;
use crate::port::{Ends, ReadError, Topic};
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The pause between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a question without an answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The time limit of a question.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Kafka counts as away after a silence of this length. A failover of one broker is shorter; the
/// sessions of a group, after which it takes partitions away, are longer.
const AWAY_AFTER: Duration = Duration::from_secs(4);
/// How often the topic must show fewer partitions before that is believed: a broker that has just
/// started may not know all of them.
const FEWER_SEEN: u32 = 5;

/// The watch of one log. Its thread ends soon after it is dropped.
pub(super) struct Watch {
    /// Sees records of open transactions too.
    consumer: QueryConsumer,
    events: String,
    partitions: u32,
    topics: TopicWatch,
    brokers: Arc<Brokers>,
    contact: Contact,
    /// The trouble with partitions that the log file has a line about.
    told: Mutex<Option<String>>,
}

impl Watch {
    /// Starts the watch.
    ///
    /// # Errors
    /// If the settings are wrong or no thread can be started.
    pub(super) fn start(
        settings: &KafkaSettings,
        partitions: u32,
        topics: TopicWatch,
        brokers: &Arc<Brokers>,
    ) -> Result<Arc<Self>, ReadError> {
        let mut config = settings.reader();
        config.set("isolation.level", "read_uncommitted");
        let watch = Arc::new(Self {
            consumer: query_consumer(config, brokers)?,
            events: settings.topic(Topic::Events).to_owned(),
            partitions,
            topics,
            brokers: Arc::clone(brokers),
            contact: Contact::default(),
            told: Mutex::default(),
        });
        let weak = Arc::downgrade(&watch);
        std::thread::Builder::new()
            .name("log-contact".into())
            .spawn(move || keep_asking(&weak))
            .map_err(|error| ReadError::Stop(format!("the thread that watches Kafka cannot be started: {error}")))?;
        Ok(watch)
    }

    pub(super) fn contact(&self) -> &Contact {
        &self.contact
    }

    pub(super) fn topics(&self) -> &TopicWatch {
        &self.topics
    }

    /// Asks once; returns how long to wait before the next question.
    fn ask(&self, fewer_seen: &mut u32) -> Duration {
        // Events of this client would pile up otherwise. It has no partitions, so no record is
        // lost.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        // Before the next question, which could create a topic that is missing.
        if !self.topics.check_ids(&self.contact) {
            let events = &self.events;
            self.contact.heard();
            self.contact.set_trouble(Some(format!("the topic {events} does not exist any more")));
            return INTERVAL;
        }
        let Ok(metadata) = self.consumer.fetch_metadata(Some(&self.events), TIMEOUT) else {
            let heard_at = self.contact.heard_at();
            let is_away = heard_at.elapsed() >= AWAY_AFTER;
            if is_away {
                self.contact.lose();
                let failing = self.brokers.failing().unwrap_or_else(|| "no answer in time".into());
                self.contact.set_trouble(Some(format!("Kafka cannot be reached: {failing}")));
            }
            self.brokers.report(false, is_away.then_some(heard_at));
            return RETRY_INTERVAL;
        };
        self.contact.heard();
        self.brokers.report(true, None);
        self.tell_trouble(self.trouble(&metadata));
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.events);
        let now = topic.map_or(0, |topic| topic.partitions().len() as u32);
        *fewer_seen = if (1..self.partitions).contains(&now) { *fewer_seen + 1 } else { 0 };
        if now > self.partitions || *fewer_seen >= FEWER_SEEN {
            self.contact.fail(changed_count(&self.events, self.partitions, now));
        }
        self.topics.check_config(&self.contact);
        INTERVAL
    }

    /// Notes why some partition takes no append; logs when that begins, changes and ends.
    fn tell_trouble(&self, trouble: Option<String>) {
        let before = std::mem::replace(&mut *self.told.lock(), trouble.clone());
        match &trouble {
            Some(cause) if before != trouble => tracing::warn!(cause, "a partition takes no append; writes fail"),
            None if before.is_some() => tracing::info!("all partitions take appends again"),
            _ => {}
        }
        self.contact.set_trouble(trouble);
    }

    /// Returns why some partition takes no append.
    fn trouble(&self, metadata: &Metadata) -> Option<String> {
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.events)?;
        topic.partitions().iter().find_map(|partition| {
            let (id, in_sync) = (partition.id(), partition.isr().len());
            let needed = self.topics.min_insync().map_or(0, |min| min.min(partition.replicas().len()));
            if partition.leader() < 0 {
                Some(format!("partition {id} of {} has no leader", self.events))
            } else if in_sync < needed {
                Some(format!(
                    "partition {id} of {} has {in_sync} replicas in sync, and min.insync.replicas asks for {needed}",
                    self.events
                ))
            } else {
                None
            }
        })
    }
}

impl Ends for Watch {
    fn ends(&self, partitions: &[u32]) -> Result<Vec<u64>, ReadError> {
        let retry = |error: rdkafka::error::KafkaError| ReadError::Retry(error.to_string());
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            // The time -1 stands for the end.
            asked.add_partition_offset(&self.events, partition as i32, Offset::End).map_err(retry)?;
        }
        let answer = self.consumer.offsets_for_times(asked, TIMEOUT).map_err(retry)?;
        let of = |partition: &u32| {
            let element = answer.find_partition(&self.events, *partition as i32);
            let element = element.filter(|element| element.error().is_ok());
            match element.map(|element| element.offset()) {
                Some(Offset::Offset(end)) if end >= 0 => Ok(end as u64),
                other => Err(ReadError::Retry(format!("the end of partition {partition} reads {other:?}"))),
            }
        };
        partitions.iter().map(of).collect()
    }

    fn confirm_topic(&self) -> Result<(), ReadError> {
        // A broker that does not answer must not hold up the caller.
        if self.contact.silence().is_some() { Ok(()) } else { self.topics.confirm(&self.contact) }
    }
}

fn keep_asking(watch: &Weak<Watch>) {
    let mut fewer_seen = 0;
    loop {
        let begun = Instant::now();
        let Some(watch) = watch.upgrade() else { return };
        let pause = watch.ask(&mut fewer_seen);
        drop(watch);
        std::thread::sleep(pause.saturating_sub(begun.elapsed()).max(RETRY_INTERVAL));
    }
}

/// Says that a topic's partition count is not the one that its records, or this process, began
/// with, and what to do. Ingest, projectors and edges say the same, before and after a restart.
pub fn changed_count(topic: &str, then: u32, now: u32) -> String {
    let what = if now > then { "got more partitions" } else { "was made anew with fewer partitions" };
    format!(
        "the topic {topic} {what} ({then} before, {now} now), so keys belong to other partitions than their earlier records, \
         and receipts would be wrong: make a new topic with the wanted number of partitions, copy all records into it by \
         their keys and in their order, and start with that topic (--log-events-topic), a new --log-updates-topic and an \
         empty --data-dir"
    )
}
