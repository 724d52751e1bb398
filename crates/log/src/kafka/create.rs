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

/// Creates topics. A topic that exists by now is accepted.
pub(super) fn create(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    missing: &[Topic],
    cluster: &Cluster,
) -> Result<(), ConnectError> {
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
    let failed = |topic: Topic, cause: String| {
        let properties =
            properties(topic, replication, bound).into_iter().map(|(name, value)| format!("{name}={value}"));
        let advice = format!(
            "{partitions} partitions, {replication} replicas and {}",
            properties.collect::<Vec<_>>().join(", ")
        );
        ConnectError::Missing { topic: settings.topic(topic).into(), cause, advice }
    };
    if settings.create_topics.is_none() {
        return Err(failed(missing[0], String::new()));
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
    if is_new {
        warn_of_mirrors(settings, cluster);
    }
    let configs: Vec<_> = missing.iter().map(|topic| properties(*topic, replication, bound)).collect();
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
    for (result, topic) in results.into_iter().zip(missing) {
        match result {
            Ok(name) => tracing::info!(topic = name, partitions, replication, "created the topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((
                _,
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed),
            )) => {
                let (topic, granter) = (settings.topic(*topic).to_owned(), Granter::new(settings));
                return Err(ConnectError::Denied {
                    describe: granter.topic(&topic, &["Describe"]),
                    create: granter.topic(&topic, &["Create"]),
                    topic,
                    code: code.to_string(),
                });
            }
            Err((_, code)) => return Err(failed(*topic, format!(", and Kafka refuses to create it ({code})"))),
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
