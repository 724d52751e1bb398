//! The configuration of Kafka, and the librdkafka properties that follow from it.
//!
//! It does not connect. Properties that correctness depends on cannot be overridden.

use super::connect_error::ConnectError;
use super::context::QueryContext;
use super::properties::{self, Kind, Properties};
use super::sizes::Compression;
use crate::PARTITIONS_DEFAULT;
use crate::port::Topic;
use crate::token::TokenSource;
use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaType;
use std::sync::Arc;
use std::time::Duration;

/// How to create missing topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopics {
    /// Partitions of each new topic; an existing topic keeps its number. [`PARTITIONS_DEFAULT`] by
    /// default.
    pub partitions: u32,
    /// Replicas of each partition; `None` stands for the smaller of 3 and the number of brokers.
    pub replication: Option<u16>,
}

impl Default for CreateTopics {
    fn default() -> Self {
        CreateTopics { partitions: PARTITIONS_DEFAULT, replication: None }
    }
}

/// The event topic that a store was folded from, as the store notes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundTopic {
    /// The cluster of the topic, if the store notes it.
    pub cluster_id: Option<String>,
    /// The partitions that it had.
    pub partitions: u32,
    /// Its id (KIP-516), if the store notes it.
    pub topic_id: Option<String>,
}

/// How to reach Kafka, and the names of the topics.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// The bootstrap brokers: `HOST:PORT`, separated by commas.
    pub bootstrap: String,
    /// The event topic; `receipts.events` by default.
    pub events: String,
    /// The topic of receipt updates; `receipts.updates` by default.
    pub updates: String,
    /// The topic of dead letters; `receipts.dead-letters` by default.
    pub dead_letters: String,
    /// How to create missing topics; `None` refuses to start without them.
    pub create_topics: Option<CreateTopics>,
    /// The topics that must exist, the event topic among them; all three by default. A process that
    /// only writes or reads events requires that topic alone, and needs no rights for the others.
    pub required: &'static [Topic],
    /// The event topic that the caller's store was folded from. Another one is refused before any
    /// topic is created.
    pub bound: Option<BoundTopic>,
    /// Accepts an event topic that takes records dated far in the future. False by default.
    pub accept_unbounded_time: bool,
    /// How long to wait for the cluster at the start. 30 s by default.
    pub connect_timeout: Duration,
    /// How long an append and its retries may take before its outcome is unknown. 30 s by default.
    pub delivery_timeout: Duration,
    /// The name by which a group knows this process across restarts, unique in the group; `None` by
    /// default. A process with a name has its partitions back as soon as it has restarted. Used
    /// with the classic group protocol only, and not where `properties` has `group.instance.id`.
    pub instance: Option<String>,
    /// Further librdkafka properties, for instance `security.protocol`. Properties that the log
    /// sets for correctness are refused. Each client gets those of its kind.
    pub properties: Properties,
    /// Fetches tokens if `properties` ask for OAUTHBEARER by OIDC.
    pub tokens: Option<Arc<dyn TokenSource>>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings {
            bootstrap: "127.0.0.1:9092".into(),
            events: "receipts.events".into(),
            updates: "receipts.updates".into(),
            dead_letters: "receipts.dead-letters".into(),
            create_topics: Some(CreateTopics::default()),
            required: &Topic::ALL,
            bound: None,
            accept_unbounded_time: false,
            connect_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(30),
            instance: None,
            properties: Properties::default(),
            tokens: None,
        }
    }
}

/// The maximum record size of clients and of topics created here, bytes: a request body of 1 MiB
/// with room for the headers of a dead letter.
pub(super) const RECORD_BYTES_MAX: &str = "4194304";

/// librdkafka's default of `batch.size`, bytes.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// Room for the header of a batch and for what its records take beside keys, values and headers.
pub(super) const BATCH_HEADER_BYTES: usize = 128;

/// The property of a member's name across restarts.
const STATIC_NAME: &str = "group.instance.id";

/// Properties that correctness depends on; `properties` may not change them.
const READER_FIXED: [(&str, &str); 6] = [
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("isolation.level", "read_committed"),
    ("check.crcs", "true"),
    ("enable.partition.eof", "true"),
];
const WRITER_FIXED: [(&str, &str); 3] =
    [("acks", "all"), ("enable.idempotence", "true"), ("partitioner", "murmur2_random")];
const ELSEWHERE_FIXED: [(&str, &str); 3] = [
    ("bootstrap.servers", "use the bootstrap setting"),
    ("group.id", "use the group setting"),
    ("transactional.id", "this service uses no transactions"),
];

/// Defaults that `properties` may override.
const READER_DEFAULTS: [(&str, &str); 3] =
    [("fetch.queue.backoff.ms", "10"), ("queued.max.messages.kbytes", "32768"), ("fetch.wait.max.ms", "50")];
/// Defaults of the classic group protocol. With the new protocol the broker decides them, and the
/// client rejects them. A killed process keeps its partitions until its session ends, and readers
/// wait that long: librdkafka's default of 45 s is too long.
const CLASSIC_DEFAULTS: [(&str, &str); 3] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "3000"),
];
/// Properties that the broker decides with the new group protocol, and where they are set instead.
const BROKER_DECIDES: [(&str, &str); 3] = [
    ("session.timeout.ms", "the group's consumer.session.timeout.ms"),
    ("heartbeat.interval.ms", "the group's consumer.heartbeat.interval.ms"),
    ("partition.assignment.strategy", "the property group.remote.assignor (uniform or range)"),
];
/// The writer has each batch sent at once, and decides itself when entries wait for one another
/// (`batching.rs`). The 5 ms are for entries that it has just queued: without them librdkafka would
/// send the first ones alone.
const WRITER_DEFAULTS: [(&str, &str); 3] =
    [("compression.type", "lz4"), ("linger.ms", "5"), ("queue.buffering.max.kbytes", "65536")];

impl KafkaSettings {
    /// Returns the name of a topic.
    pub fn topic(&self, topic: Topic) -> &str {
        match topic {
            Topic::Events => &self.events,
            Topic::Updates => &self.updates,
            Topic::DeadLetters => &self.dead_letters,
        }
    }

    /// Refuses settings that contradict one another.
    pub fn check(&self) -> Result<(), ConnectError> {
        for (name, value) in READER_FIXED.iter().chain(&WRITER_FIXED) {
            if self.properties.get(*name).is_some_and(|own| own != value) {
                return Err(ConnectError::Settings(format!("the property {name} must be {value}: leave it out")));
            }
        }
        for (name, why) in ELSEWHERE_FIXED {
            if self.properties.contains_key(name) {
                return Err(ConnectError::Settings(format!("remove the property {name}: {why}")));
            }
        }
        let decided = BROKER_DECIDES.iter().find(|(name, _)| self.properties.contains_key(*name));
        if let Some((name, instead)) = decided
            && self.has_new_protocol()
        {
            return Err(ConnectError::Settings(format!(
                "remove the property {name}: with group.protocol=consumer the brokers decide it. Set {instead} instead; \
                 docs/kafka.md has the command"
            )));
        }
        if self.properties.get(STATIC_NAME).is_some_and(|name| name.trim().is_empty()) {
            return Err(ConnectError::Settings(format!("the property {STATIC_NAME} is empty: leave it out")));
        }
        if self.bootstrap.trim().is_empty() {
            return Err(ConnectError::Settings("the bootstrap brokers are empty: name HOST:PORT".into()));
        }
        let names = [&self.events, &self.updates, &self.dead_letters];
        if (1..names.len()).any(|at| names[..at].contains(&names[at])) {
            return Err(ConnectError::Settings(format!("the three topics need three different names, not {names:?}")));
        }
        if let Some(CreateTopics { partitions: 0, .. } | CreateTopics { replication: Some(0), .. }) = self.create_topics
        {
            return Err(ConnectError::Settings("topics need at least 1 partition and 1 replica".into()));
        }
        properties::check(&self.properties)?;
        check_client(self.reader(), RDKafkaType::RD_KAFKA_CONSUMER)?;
        check_client(self.writer(usize::MAX), RDKafkaType::RD_KAFKA_PRODUCER)
    }

    /// Returns the properties of a client for administration.
    pub(super) fn client(&self) -> ClientConfig {
        self.of_kind(Kind::Admin)
    }

    fn of_kind(&self, kind: Kind) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "receipts").set("message.max.bytes", RECORD_BYTES_MAX);
        // Notices a broken connection before the next request, and reconnects soon after a
        // failover.
        config.set("socket.keepalive.enable", "true").set("reconnect.backoff.max.ms", "2000");
        for (name, value) in self.properties.iter().filter(|(name, _)| properties::goes_to(name, kind)) {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Returns the properties of a reader that is a member of `group`.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.reader();
        config.set("group.id", group);
        if let Some(name) = self.static_name() {
            config.set(STATIC_NAME, name);
        }
        config
    }

    /// Returns the name by which the group knows this process across restarts, if it has one.
    pub(super) fn static_name(&self) -> Option<&str> {
        let named = self.properties.get(STATIC_NAME).map(String::as_str);
        named.or(self.instance.as_deref().filter(|_| !self.has_new_protocol()))
    }

    /// Tells whether the operator has chosen the static name.
    pub(super) fn names_itself(&self) -> bool {
        self.properties.contains_key(STATIC_NAME)
    }

    /// Returns how the writer compresses.
    pub(super) fn compression(&self) -> Compression {
        let set = ["compression.type", "compression.codec"].iter().find_map(|name| self.properties.get(*name));
        Compression::named(set.map_or("lz4", String::as_str))
    }

    /// Tells whether the operator has set how long librdkafka lets entries wait for one another.
    pub(super) fn sets_linger(&self) -> bool {
        ["linger.ms", "queue.buffering.max.ms"].iter().any(|name| self.properties.contains_key(*name))
    }

    /// Tells whether the group uses the protocol of KIP-848.
    pub(super) fn has_new_protocol(&self) -> bool {
        self.properties.get("group.protocol").is_some_and(|protocol| protocol == "consumer")
    }

    /// Returns the properties of a reader, without its group.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.of_kind(Kind::Consumer);
        self.set_defaults(&mut config, &READER_DEFAULTS);
        if !self.has_new_protocol() {
            self.set_defaults(&mut config, &CLASSIC_DEFAULTS);
        }
        READER_FIXED.iter().for_each(|(name, value)| _ = config.set(*name, *value));
        config
    }

    /// Returns the properties of the writer. Its topics take batches of at most `message_bytes`,
    /// and a broker refuses a larger batch as a whole, even if each of its records would fit.
    pub(super) fn writer(&self, message_bytes: usize) -> ClientConfig {
        let mut config = self.of_kind(Kind::Producer);
        self.set_defaults(&mut config, &WRITER_DEFAULTS);
        let batch_bytes = message_bytes.saturating_sub(BATCH_HEADER_BYTES).clamp(1, BATCH_BYTES_MAX);
        self.set_defaults(&mut config, &[("batch.size", &batch_bytes.to_string())]);
        config.set("message.timeout.ms", self.delivery_timeout.as_millis().max(1).to_string());
        WRITER_FIXED.iter().for_each(|(name, value)| _ = config.set(*name, *value));
        config
    }

    fn set_defaults(&self, config: &mut ClientConfig, defaults: &[(&str, &str)]) {
        for (name, value) in defaults.iter().filter(|(name, _)| !self.properties.contains_key(*name)) {
            config.set(*name, *value);
        }
    }
}

/// Makes a client that knows no broker, and so connects to none: librdkafka finds contradictions
/// among properties only then.
fn check_client(mut config: ClientConfig, kind: RDKafkaType) -> Result<(), ConnectError> {
    config.remove("bootstrap.servers");
    let refused = |error: KafkaError| ConnectError::Settings(error.to_string());
    let native = config.create_native_config().map_err(refused)?;
    Client::new(&config, native, kind, QueryContext(Arc::default())).map(drop).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn with(name: &str, value: &str) -> KafkaSettings {
        let properties = BTreeMap::from([(name.to_owned(), value.to_owned())]).into();
        KafkaSettings { properties, ..KafkaSettings::default() }
    }

    #[test]
    fn fixed_properties_cannot_be_overridden() {
        for (name, value) in [
            ("auto.offset.reset", "latest"),
            ("partitioner", "consistent_random"),
            ("acks", "1"),
            ("group.id", "mine"),
            ("bootstrap.servers", "other:9092"),
        ] {
            let sentence = with(name, value).check().unwrap_err().to_string();
            assert!(sentence.contains(name), "{sentence}");
        }
    }

    /// Before any topic is made.
    #[test]
    fn contradictions_among_properties_need_no_broker() {
        for (name, value) in [
            ("max.poll.interval.ms", "6000"),
            ("fetch.max.bytes", "1000"),
            ("max.in.flight", "6"),
            ("linger.ms", "40000"),
        ] {
            let sentence = with(name, value).check().unwrap_err().to_string();
            assert!(sentence.contains(name), "{sentence}");
        }
        KafkaSettings::default().check().unwrap();
    }

    #[test]
    fn a_tuning_property_overrides_the_default() {
        let settings = with("fetch.wait.max.ms", "500");
        settings.check().unwrap();
        assert_eq!(settings.reader().get("fetch.wait.max.ms"), Some("500"));
        assert_eq!(settings.reader().get("auto.offset.reset"), Some("error"));
        assert_eq!(with("linger.ms", "50").writer(usize::MAX).get("linger.ms"), Some("50"));
    }

    #[test]
    fn the_new_group_protocol_sets_no_classic_defaults() {
        let new = with("group.protocol", "consumer").reader();
        let classic = KafkaSettings::default().reader();
        for (name, value) in CLASSIC_DEFAULTS {
            assert_eq!((new.get(name), classic.get(name)), (None, Some(value)));
        }
        assert_eq!(with("session.timeout.ms", "45000").reader().get("session.timeout.ms"), Some("45000"));
    }

    #[test]
    fn properties_of_the_broker_name_their_setting() {
        for (name, value) in [
            ("session.timeout.ms", "45000"),
            ("heartbeat.interval.ms", "1000"),
            ("partition.assignment.strategy", "range"),
        ] {
            let mut settings = with(name, value);
            settings.check().unwrap();
            settings.properties.insert("group.protocol".into(), "consumer".into());
            let sentence = settings.check().unwrap_err().to_string();
            assert!(sentence.contains(name) && sentence.contains("instead"), "{sentence}");
        }
    }

    #[test]
    fn only_classic_members_have_a_name_by_themselves() {
        let named = |properties: &[(&str, &str)]| {
            let properties = properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let settings = KafkaSettings { instance: Some("ours".into()), properties, ..KafkaSettings::default() };
            settings.member("g").get(STATIC_NAME).map(str::to_owned)
        };
        assert_eq!(named(&[]).as_deref(), Some("ours"));
        assert_eq!(named(&[("group.protocol", "classic")]).as_deref(), Some("ours"));
        assert_eq!(named(&[("group.protocol", "consumer")]), None);
        assert_eq!(named(&[(STATIC_NAME, "theirs")]).as_deref(), Some("theirs"));
        assert_eq!(named(&[("group.protocol", "consumer"), (STATIC_NAME, "theirs")]).as_deref(), Some("theirs"));
        assert_eq!(KafkaSettings::default().member("g").get(STATIC_NAME), None);
        assert!(with(STATIC_NAME, " ").check().unwrap_err().to_string().contains("leave it out"));
    }

    #[test]
    fn clients_accept_records_as_large_as_new_topics_do() {
        let settings = KafkaSettings::default();
        for config in [settings.reader(), settings.writer(usize::MAX)] {
            assert_eq!(config.get("message.max.bytes"), Some(RECORD_BYTES_MAX));
        }
    }

    #[test]
    fn batches_fit_the_smallest_topic() {
        let batch = |settings: KafkaSettings, bytes| settings.writer(bytes).get("batch.size").map(str::to_owned);
        let settings = KafkaSettings::default;
        assert_eq!(batch(settings(), usize::MAX).as_deref(), Some("1000000"));
        assert_eq!(batch(settings(), 1_000).as_deref(), Some("872"));
        assert_eq!(batch(settings(), 0).as_deref(), Some("1"));
        assert_eq!(batch(with("batch.size", "5000"), 1_000).as_deref(), Some("5000"), "the operator's own");
    }

    #[test]
    fn equal_topic_names_are_refused() {
        let settings = KafkaSettings { updates: "receipts.events".into(), ..KafkaSettings::default() };
        assert!(settings.check().unwrap_err().to_string().contains("three different names"));
    }
}
