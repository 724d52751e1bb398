//! The log in Apache Kafka.
//!
//! It gets partitions by the classic group protocol, starts at the caller's offsets, and writes
//! idempotently. It never chooses a start offset, never commits an offset of its own, and never
//! starts a Kafka transaction.

mod batching;
mod brokers;
mod causes;
mod connect;
mod connect_error;
mod context;
mod create;
mod early_keys;
mod fetched;
mod inspect;
mod member;
mod native;
mod outcomes;
mod properties;
mod property_names;
mod reader;
mod rebalance;
mod rights;
mod settings;
mod sizes;
mod survey;
mod tail;
mod tokens;
mod topic_config;
mod topic_id;
mod topic_watch;
mod transactions;
mod verdict;
mod watch;
mod writer;

use crate::contact::Contact;
use crate::port::{
    Assignment, Ends, Inspect, Log, OwnedRecord, ReadError, Reader, Record, Tail, Topic, Writer, tag_of,
};
use async_trait::async_trait;
use brokers::Brokers;
pub use connect_error::ConnectError;
pub use create::PlannedTopic;
use inspect::Inspector;
pub use properties::Properties;
pub use rights::{Part, Resource, Right, idempotent_write, prefixed, rights};
pub use settings::{BoundTopic, CreateTopics, KafkaSettings};
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;
pub use survey::{GroupSurvey, PartitionSurvey, Presence, Survey, TopicSurvey, create_topics};
pub use topic_config::{Judgement, TopicSetting};
pub use topic_watch::made_anew;
use watch::Watch;
pub use watch::changed_count;
use writer::KafkaWriter;

/// A log in Kafka: three topics of one cluster.
pub struct KafkaLog {
    settings: Arc<KafkaSettings>,
    partitions: u32,
    cluster_id: Option<String>,
    age_max: Option<Duration>,
    writer: Arc<KafkaWriter>,
    inspector: Inspector,
    brokers: Arc<Brokers>,
    watch: Arc<Watch>,
}

impl KafkaLog {
    /// Connects, creates missing topics if the settings allow it, and checks that the event topic
    /// may be folded. Blocks until the cluster answers, for at most `connect_timeout` plus the
    /// creation of topics. Call it from a thread that may block.
    ///
    /// # Errors
    /// [`ConnectError`] says what to do.
    pub fn connect(settings: KafkaSettings) -> Result<Self, ConnectError> {
        let settings = Arc::new(settings);
        let brokers = Arc::<Brokers>::default();
        settings.check()?;
        tokens::start(&settings, &brokers)?;
        let connect::Prepared { partitions, cluster_id, topics, age_max } = connect::prepare(&settings, &brokers)?;
        let writer = Arc::new(KafkaWriter::new(&settings, &brokers, topics.sizes())?);
        let inspector = Inspector::new(settings.clone(), brokers.clone(), partitions);
        let watch =
            Watch::start(&settings, partitions, topics, &brokers).map_err(|error| ConnectError::rejected(&error))?;
        Ok(KafkaLog { settings, partitions, cluster_id, age_max, writer, inspector, brokers, watch })
    }

    /// Returns the cluster's unique id, if the cluster reports one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// Returns the first records of the event topic, a few of each of its first partitions. Leaves
    /// out partitions that no longer begin at offset 0, and may leave out others if the brokers are
    /// slow. Blocks for at most a few seconds.
    #[must_use]
    pub fn first_records(&self) -> Vec<OwnedRecord> {
        let records = early_keys::first_records(&self.settings, &self.brokers, self.partitions);
        let whole: BTreeSet<u32> = records.iter().filter(|record| record.offset == 0).map(|r| r.partition).collect();
        records.into_iter().filter(|record| whole.contains(&record.partition)).collect()
    }

    /// Returns the id of a topic (KIP-516) at the start; `None` if the brokers tell none, as those
    /// older than Kafka 2.8.
    #[must_use]
    pub fn topic_id(&self, topic: Topic) -> Option<&str> {
        self.watch.topics().id(topic)
    }
}

#[async_trait]
impl Log for KafkaLog {
    fn partition_count(&self) -> u32 {
        self.partitions
    }

    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        let (settings, brokers, contact) = (self.settings.clone(), self.brokers.clone(), self.contact());
        Ok(Box::new(reader::KafkaReader::new(settings, brokers, contact, self.partitions, group, assignment)?))
    }

    fn tag(&self, topic: Topic) -> Option<u32> {
        self.topic_id(topic).map(tag_of)
    }

    fn contact(&self) -> Contact {
        self.watch.contact().clone()
    }

    fn age_max(&self) -> Option<Duration> {
        self.age_max
    }

    fn ends(&self) -> Option<Arc<dyn Ends>> {
        Some(self.watch.clone())
    }

    fn writer(&self) -> Arc<dyn Writer> {
        self.writer.start();
        self.writer.clone()
    }
}

impl Inspect for KafkaLog {
    fn partitions(&self, topic: Topic) -> Result<u32, ReadError> {
        self.inspector.partitions(topic)
    }

    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError> {
        self.inspector.bounds(topic, partition)
    }

    fn read(&self, topic: Topic, partition: u32, from: u64, max: usize) -> Result<Vec<OwnedRecord>, ReadError> {
        self.inspector.read(topic, partition, from, max)
    }

    fn scan(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.inspector.scan(topic, partition, offsets, each)
    }

    fn offset_at(&self, topic: Topic, partition: u32, time_ms: u64) -> Result<u64, ReadError> {
        self.inspector.offset_at(topic, partition, time_ms)
    }

    fn tail(&self, topic: Topic, starts: &[(u32, u64)]) -> Result<Box<dyn Tail>, ReadError> {
        self.watch.topics().follow(topic);
        Ok(Box::new(tail::KafkaTail::new(&self.settings, &self.brokers, self.partitions, topic, starts)?))
    }
}

/// Returns the version of librdkafka.
#[must_use]
pub fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
