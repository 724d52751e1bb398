//! Creates missing topics, and waits until the cluster shows them.
//!
//! It changes no existing topic.

use super::brokers::Brokers;
use super::connect::{Cluster, describe};
use super::connect_error::{ConnectError, refused};
use super::context::QueryContext;
use super::inspect::QueryConsumer;
use super::rights::Granter;
use super::settings::KafkaSettings;
use super::topic_config::{BrokerBound, broker_bound, properties, unbounded};
use crate::port::Topic;
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use std::time::{Duration, Instant};

/// How long brokers that have just started may take until they hold replicas.
const NEW_BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// A topic that does not exist yet, as a start creates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTopic {
    /// The topic.
    pub topic: Topic,
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// The replicas of each partition.
    pub replication: i32,
    /// Its configuration: Kafka's names and values.
    pub properties: Vec<(&'static str, String)>,
}

impl PlannedTopic {
    /// Refuses to start without the topic.
    fn missing(&self, cause: String) -> ConnectError {
        let properties = self.properties.iter().map(|(name, value)| format!("{name}={value}"));
        let (partitions, replication) = (self.partitions, self.replication);
        let advice = format!(
            "{partitions} partitions, {replication} replicas and {}",
            properties.collect::<Vec<_>>().join(", ")
        );
        ConnectError::Missing { topic: self.name.clone(), cause, advice }
    }
}

/// Decides how missing topics are created. Refuses topics that would not fit.
pub(super) fn plan(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    missing: &[Topic],
    cluster: &Cluster,
) -> Result<Vec<PlannedTopic>, ConnectError> {
    let how = settings.create_topics.clone().unwrap_or_default();
    let replication = how.replication.map_or(cluster.brokers.len().clamp(1, 3) as i32, i32::from);
    // Topics that are missing beside an event topic get its count.
    let partitions = cluster.topics.get(&settings.events).copied().unwrap_or(how.partitions);
    let partitions = i32::try_from(partitions)
        .map_err(|_| ConnectError::Settings(format!("{partitions} partitions are too many")))?;
    let is_new = missing.contains(&Topic::Events);
    let bound = match cluster.brokers.first() {
        Some(broker) if is_new => broker_bound(settings, admin, *broker),
        _ => BrokerBound::Wide,
    };
    let of = |topic: &Topic| PlannedTopic {
        topic: *topic,
        name: settings.topic(*topic).to_owned(),
        partitions,
        replication,
        properties: properties(*topic, replication, bound),
    };
    let planned: Vec<PlannedTopic> = missing.iter().map(of).collect();
    if let (None, Some(first)) = (&settings.create_topics, planned.first()) {
        return Err(first.missing(String::new()));
    }
    if is_new && bound == BrokerBound::Lacking && !settings.accept_unbounded_time {
        return Err(unbounded(settings, false));
    }
    if let Some(&held) = cluster.topics.get(&settings.updates)
        && is_new
        && missing.len() < settings.required.len()
        && i32::try_from(held) != Ok(partitions)
        && settings.required.contains(&Topic::Updates)
    {
        let (topic, events) = (settings.updates.clone(), partitions.unsigned_abs());
        return Err(ConnectError::Partitions { topic, held, events });
    }
    Ok(planned)
}

/// Creates topics. A topic that exists by now is accepted.
pub(super) fn create(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    planned: &[PlannedTopic],
    cluster: &Cluster,
) -> Result<(), ConnectError> {
    if planned.iter().any(|planned| planned.topic == Topic::Events) {
        warn_of_mirrors(settings, cluster);
    }
    let topics: Vec<NewTopic<'_>> = planned
        .iter()
        .map(|planned| {
            let replication = TopicReplication::Fixed(planned.replication);
            let new = NewTopic::new(&planned.name, planned.partitions, replication);
            planned.properties.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let replication = planned.first().map_or(1, |planned| planned.replication);
    let options = AdminOptions::new()
        .request_timeout(Some(settings.connect_timeout))
        .operation_timeout(Some(settings.connect_timeout));
    let deadline = Instant::now() + NEW_BROKER_TIMEOUT;
    let results = loop {
        let results = block_on(admin.create_topics(&topics, &options))
            .map_err(|error| refused(settings, "create topics", &error))?;
        // The brokers are enough, but one that has just started may not hold replicas yet.
        let is_early =
            results.iter().any(|result| matches!(result, Err((_, RDKafkaErrorCode::InvalidReplicationFactor))));
        if !is_early || replication > cluster.brokers.len() as i32 || Instant::now() >= deadline {
            break results;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    for (result, planned) in results.into_iter().zip(planned) {
        match result {
            Ok(name) => {
                tracing::info!(topic = name, partitions = planned.partitions, replication, "created the topic");
            }
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((
                _,
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed),
            )) => {
                let (topic, granter) = (planned.name.clone(), Granter::new(settings));
                return Err(ConnectError::Denied {
                    describe: granter.topic(&topic, &["Describe"]),
                    create: granter.topic(&topic, &["Create"]),
                    topic,
                    code: code.to_string(),
                });
            }
            Err((_, code)) => return Err(planned.missing(format!(", and Kafka refuses to create it ({code})"))),
        }
    }
    Ok(())
}

/// Waits until the cluster shows all topics with leaders.
pub(super) fn await_topics(
    settings: &KafkaSettings,
    probe: &QueryConsumer,
    brokers: &Brokers,
    names: &[&str],
) -> Result<Cluster, ConnectError> {
    let deadline = Instant::now() + settings.connect_timeout;
    loop {
        let cluster = describe(settings, probe, brokers, settings.connect_timeout)?;
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

/// Warns if the event topic is about to be made although the cluster has one that looks like its
/// mirror: MirrorMaker puts the name of the source cluster before the topic's.
fn warn_of_mirrors(settings: &KafkaSettings, cluster: &Cluster) {
    let suffix = format!(".{}", settings.events);
    let mirrors: Vec<&str> = cluster.topics.keys().map(String::as_str).filter(|name| name.ends_with(&suffix)).collect();
    if !mirrors.is_empty() {
        let (topic, mirrors) = (&settings.events, mirrors.join(", "));
        tracing::warn!(
            topic,
            mirrors,
            "the topic is made now, so it has no events, although the cluster has topics that look like mirrors of it: if \
             the events are in one of those, stop this process, and name that topic with --log-events-topic"
        );
    }
}
