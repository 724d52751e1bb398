//! The start of a Kafka log: connects to the cluster, creates missing topics, and refuses
//! unsuitable ones.
//!
//! It changes no existing topic.

use super::context::QueryContext;
use super::settings::{KafkaSettings, RECORD_BYTES_MAX};
use crate::port::Topic;
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Why the Kafka log does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings contradict one another, or librdkafka rejects them.
    #[error("the Kafka settings are wrong: {0}")]
    Settings(String),
    /// No broker answered.
    #[error(
        "no Kafka broker answered at {bootstrap} within {waited_s} s ({cause}): check --kafka-bootstrap and that the \
         brokers run"
    )]
    Unreachable {
        /// The bootstrap brokers.
        bootstrap: String,
        /// The waiting time, seconds.
        waited_s: u64,
        /// The error of the last attempt.
        cause: String,
    },
    /// A topic is missing, and it may not or cannot be created.
    #[error("the topic {topic} is missing{cause}: create it with {advice}")]
    Missing {
        /// The topic.
        topic: String,
        /// Why it was not created; begins with a comma if there is a reason.
        cause: String,
        /// The properties with which to create it.
        advice: String,
    },
    /// The event topic is compacted, so Kafka deletes events.
    #[error(
        "the topic {0} is compacted, so Kafka deletes events and receipts would be wrong. Set cleanup.policy=delete; if \
         events are deleted already, fill a new topic from their source"
    )]
    Compacted(String),
    /// The topics have different partition counts. An update must be in the partition of its
    /// events, because positions in the two topics are compared by partition.
    #[error(
        "the topic {topic} has {held} partitions and the event topic has {events}, but updates resume at positions of \
         events, so both need the same number: name another topic with --log-updates-topic, or remove this one so that \
         it is created again"
    )]
    Partitions {
        /// The topic of updates.
        topic: String,
        /// The partitions that it has.
        held: u32,
        /// The partitions of the event topic.
        events: u32,
    },
    /// The cluster refuses a request.
    #[error("Kafka at {bootstrap} refuses to {what}: {cause}")]
    Refused {
        /// The bootstrap brokers.
        bootstrap: String,
        /// The request.
        what: &'static str,
        /// The cluster's error.
        cause: String,
    },
}

/// A shorter retention than this causes a warning: state is rebuilt from the log, and the default
/// retention of receipts is 30 days.
const RETENTION_MS_EXPECTED: i64 = 31 * 24 * 3_600 * 1_000;

/// A topic that accepts records dated further ahead than this causes a warning. Kafka 4 allows an
/// hour by default.
const FUTURE_MS_EXPECTED: i64 = 24 * 3_600 * 1_000;

/// The topics of a cluster.
struct Cluster {
    /// Partition counts by topic name.
    topics: BTreeMap<String, u32>,
    /// Topics with a partition without a leader, because they are new or brokers are down.
    leaderless: BTreeSet<String>,
    brokers: usize,
}

/// A cluster whose topics are ready.
pub(super) struct Prepared {
    /// The partition count of the event topic.
    pub(super) partitions: u32,
    /// The cluster's id; every Kafka since 0.10 has one.
    pub(super) cluster_id: Option<String>,
}

/// Connects, creates missing topics and checks the present ones.
pub(super) fn prepare(settings: &KafkaSettings) -> Result<Prepared, ConnectError> {
    settings.check()?;
    let admin = AdminClient::from_config_and_context(&settings.client(), QueryContext)
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    let mut cluster = describe(settings, &admin, settings.connect_timeout)?;
    let required = settings.required.iter().copied();
    let names: Vec<&str> = required.clone().map(|topic| settings.topic(topic)).collect();
    let missing: Vec<Topic> = required.filter(|topic| !cluster.topics.contains_key(settings.topic(*topic))).collect();
    if !missing.is_empty() {
        create(settings, &admin, &missing, cluster.brokers)?;
        cluster = await_topics(settings, &admin, &names)?;
    }
    refuse_compaction(settings, &admin)?;
    let partitions = cluster.topics.get(settings.events.as_str()).copied().unwrap_or(0);
    for name in &names {
        let held = cluster.topics.get(*name).copied().unwrap_or(0);
        if let Some(asked) = settings.create_topics.as_ref().filter(|create| create.partitions != held) {
            tracing::info!(topic = name, held, asked = asked.partitions, "the topic keeps its partition count");
        }
        if held != partitions && *name == settings.updates {
            return Err(ConnectError::Partitions { topic: settings.updates.clone(), held, events: partitions });
        }
        if held != partitions {
            tracing::warn!(
                topic = name,
                held,
                events = partitions,
                "the topic and the event topic have different partition counts"
            );
        }
    }
    let cluster_id = admin.inner().fetch_cluster_id(settings.connect_timeout);
    Ok(Prepared { partitions, cluster_id })
}

/// Describes all topics. A request for one topic by name could create it.
fn describe(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    timeout: Duration,
) -> Result<Cluster, ConnectError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        match admin.inner().fetch_metadata(None, left.min(Duration::from_secs(10))) {
            Ok(metadata) => return Ok(read_metadata(&metadata)),
            Err(error) if Instant::now() >= deadline => {
                return Err(ConnectError::Unreachable {
                    bootstrap: settings.bootstrap.clone(),
                    waited_s: timeout.as_secs(),
                    cause: error.rdkafka_error_code().map_or(error.to_string(), |code| code.to_string()),
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn read_metadata(metadata: &Metadata) -> Cluster {
    let mut cluster =
        Cluster { topics: BTreeMap::new(), leaderless: BTreeSet::new(), brokers: metadata.brokers().len() };
    for topic in metadata.topics().iter().filter(|topic| !topic.partitions().is_empty()) {
        cluster.topics.insert(topic.name().into(), topic.partitions().len() as u32);
        if topic.partitions().iter().any(|partition| partition.leader() < 0) {
            cluster.leaderless.insert(topic.name().into());
        }
    }
    cluster
}

/// Returns the properties of a new topic.
fn properties(topic: Topic, replication: i32) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("max.message.bytes", RECORD_BYTES_MAX.to_owned()),
        // One replica may be down; the others must hold every acknowledged record.
        ("min.insync.replicas", (replication - 1).max(1).to_string()),
    ];
    if topic == Topic::Events {
        properties.push(("retention.ms", "-1".to_owned()));
    }
    properties
}

/// Creates topics. A topic that exists by now is accepted.
fn create(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    missing: &[Topic],
    brokers: usize,
) -> Result<(), ConnectError> {
    let how = settings.create_topics.clone().unwrap_or_default();
    let replication = how.replication.map_or(brokers.clamp(1, 3) as i32, i32::from);
    let partitions = i32::try_from(how.partitions)
        .map_err(|_| ConnectError::Settings(format!("{} partitions are too many", how.partitions)))?;
    let failed = |topic: Topic, cause: String| {
        let properties = properties(topic, replication).into_iter().map(|(name, value)| format!("{name}={value}"));
        let advice = format!(
            "{partitions} partitions, {replication} replicas and {}",
            properties.collect::<Vec<_>>().join(", ")
        );
        ConnectError::Missing { topic: settings.topic(topic).into(), cause, advice }
    };
    if settings.create_topics.is_none() {
        return Err(failed(missing[0], String::new()));
    }
    let configs: Vec<_> = missing.iter().map(|topic| properties(*topic, replication)).collect();
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&configs)
        .map(|(topic, config)| {
            let new = NewTopic::new(settings.topic(*topic), partitions, TopicReplication::Fixed(replication));
            config.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(settings.connect_timeout))
        .operation_timeout(Some(settings.connect_timeout));
    let results =
        block_on(admin.create_topics(&topics, &options)).map_err(|error| refused(settings, "create topics", &error))?;
    for (result, topic) in results.into_iter().zip(missing) {
        match result {
            Ok(name) => tracing::info!(topic = name, partitions, replication, "created the topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(*topic, format!(", and Kafka refuses to create it ({code})"))),
        }
    }
    Ok(())
}

/// Waits until the cluster shows all topics with leaders.
fn await_topics(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    names: &[&str],
) -> Result<Cluster, ConnectError> {
    let deadline = Instant::now() + settings.connect_timeout;
    loop {
        let cluster = describe(settings, admin, settings.connect_timeout)?;
        match names.iter().find(|name| !cluster.topics.contains_key(**name) || cluster.leaderless.contains(**name)) {
            None => return Ok(cluster),
            Some(missing) if Instant::now() >= deadline => {
                return Err(ConnectError::Refused {
                    bootstrap: settings.bootstrap.clone(),
                    what: "show a topic",
                    cause: format!(
                        "{missing} exists, but its partitions have no leaders, or this user may not describe it"
                    ),
                });
            }
            Some(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Refuses a compacted event topic, and warns of a short retention and of records dated in the
/// future.
fn refuse_compaction(settings: &KafkaSettings, admin: &AdminClient<QueryContext>) -> Result<(), ConnectError> {
    let name = settings.events.as_str();
    let options = AdminOptions::new().request_timeout(Some(settings.connect_timeout));
    let answer = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options))
        .map_err(|error| refused(settings, "describe the event topic", &error))?;
    let config = match answer.into_iter().next() {
        Some(Ok(config)) => config,
        other => {
            let cause = other.and_then(Result::err).map_or("no answer".to_owned(), |code| code.to_string());
            tracing::warn!(topic = name, cause, "cannot check the topic's cleanup.policy: make sure that it is delete");
            return Ok(());
        }
    };
    let value = |property| config.get(property).and_then(|entry| entry.value.clone()).unwrap_or_default();
    if value("cleanup.policy").split(',').any(|policy| policy.trim() == "compact") {
        return Err(ConnectError::Compacted(name.into()));
    }
    match value("retention.ms").parse::<i64>() {
        Ok(ms) if (0..RETENTION_MS_EXPECTED).contains(&ms) => {
            tracing::warn!(
                topic = name,
                retention_ms = ms,
                "the retention of the event topic is short: state can be rebuilt only as far back"
            );
        }
        _ => {}
    }
    let kept_out = value("message.timestamp.after.max.ms").parse::<i64>().is_ok_and(|ms| ms <= FUTURE_MS_EXPECTED);
    if !kept_out && value("message.timestamp.type") != "LogAppendTime" {
        tracing::warn!(
            topic = name,
            "the topic accepts records dated far in the future, and one such record expires all messages older than it by \
             the retention: set message.timestamp.after.max.ms=3600000"
        );
    }
    Ok(())
}

fn refused(settings: &KafkaSettings, what: &'static str, error: &KafkaError) -> ConnectError {
    ConnectError::Refused { bootstrap: settings.bootstrap.clone(), what, cause: error.to_string() }
}
