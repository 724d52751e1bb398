//! The start of a Kafka log: connects to the cluster, refuses unsuitable topics, and creates
//! missing ones.
//!
//! It changes no existing topic.

use super::brokers::Brokers;
use super::causes::certificate_check;
use super::context::QueryContext;
use super::early_keys::{Origin, first_keys, origin};
use super::inspect::{QueryConsumer, query_consumer};
use super::native::{Registered, failed_certificate_check};
use super::rights::Granter;
use super::settings::KafkaSettings;
use super::topic_config::{BrokerBound, TopicConfig, broker_bound, check_events, properties, unbounded};
use super::topic_id::{Described, describe as describe_topics};
use super::topic_watch::{TopicWatch, made_anew, was_deleted};
use super::watch::changed_count;
use crate::port::{ReadError, Topic};
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the brokers may take to tell the id of a topic, which may be new.
const NEW_TOPIC_TIMEOUT: Duration = Duration::from_secs(5);

/// How a sentence about rejected settings begins.
pub(super) const WRONG_SETTINGS: &str = "the Kafka settings are wrong";

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
    /// Every broker fails for a cause that only another setting ends.
    #[error("no broker at {bootstrap} can be used: {cause}")]
    Unusable {
        /// The bootstrap brokers.
        bootstrap: String,
        /// The brokers, each with its cause and what to change.
        cause: String,
    },
    /// The user may neither see nor create a topic.
    #[error(
        "the topic {topic} is missing, or this user may not describe it, and may not create it ({code}). If it exists: \
         {describe}; otherwise: {create}"
    )]
    Denied {
        /// The topic.
        topic: String,
        /// The cluster's error.
        code: String,
        /// The command that lets the user describe it.
        describe: String,
        /// The command that lets the user create it.
        create: String,
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
    /// The event topic takes records of any future time.
    #[error(
        "the topic {topic} takes records dated more than an hour ahead, and one such record makes all messages of its \
         partition expire: run `{command}`{note}, or set log.accept_unbounded_time=true to accept that"
    )]
    UnboundedTime {
        /// The topic.
        topic: String,
        /// The command that bounds it.
        command: String,
        /// What to know about the command; begins with a space if there is anything.
        note: String,
    },
    /// The topic has not the partitions that the store, the updates or the records began with.
    #[error("{0}")]
    PartitionCount(String),
    /// The store was folded from a topic of another cluster.
    #[error("this is the Kafka cluster {held}, and the store was folded from one of the cluster {bound}")]
    OtherCluster {
        /// The cluster that answers.
        held: String,
        /// The cluster of the store.
        bound: String,
    },
    /// The topic was made anew, or deleted, since the store was folded from it.
    #[error("{0}")]
    OtherTopic(String),
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
    /// There is no token to authenticate with.
    #[error("no token for SASL OAUTHBEARER: {0}")]
    Token(String),
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

impl ConnectError {
    /// Converts the error of a reader that librdkafka rejects, and says once what is wrong.
    pub(super) fn rejected(error: &ReadError) -> Self {
        let sentence = error.to_string();
        let cause = sentence.strip_prefix(WRONG_SETTINGS).and_then(|rest| rest.strip_prefix(": "));
        Self::Settings(cause.unwrap_or(&sentence).to_owned())
    }
}

/// How long one question at the start may wait before it looks whether the brokers can be used.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The topics of a cluster.
struct Cluster {
    /// Partition counts by topic name.
    topics: BTreeMap<String, u32>,
    /// Topics with a partition without a leader, because they are new or brokers are down.
    leaderless: BTreeSet<String>,
    /// The ids of the brokers.
    brokers: Vec<i32>,
}

/// A cluster whose topics are ready.
pub(super) struct Prepared {
    /// The partition count of the event topic.
    pub(super) partitions: u32,
    /// The cluster's id; every Kafka since 0.10 has one.
    pub(super) cluster_id: Option<String>,
    /// The ids and the configuration of the topics, to be watched from now on.
    pub(super) topics: TopicWatch,
    /// The greatest age of a record that the event topic takes.
    pub(super) age_max: Option<Duration>,
}

/// Connects, refuses what does not fit, creates missing topics, and checks the present ones.
pub(super) fn prepare(settings: &Arc<KafkaSettings>, brokers: &Arc<Brokers>) -> Result<Prepared, ConnectError> {
    let admin = AdminClient::from_config_and_context(&settings.client(), QueryContext(Arc::clone(brokers)))
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    let admin = Registered::new(admin, brokers.clients());
    let mut config = settings.reader();
    // librdkafka tells at this level that a port may speak another protocol.
    config.set_log_level(RDKafkaLogLevel::Info);
    let probe = query_consumer(config, brokers).map_err(|error| ConnectError::Settings(error.to_string()))?;
    let mut cluster = describe(settings, &probe, brokers, settings.connect_timeout)?;
    let cluster_id = admin.inner().fetch_cluster_id(settings.connect_timeout);
    // Refusals come first: they leave no topic behind.
    let found = cluster.topics.get(&settings.events).copied();
    refuse_other(settings, cluster_id.as_deref(), found)?;
    refuse_other_topic(settings, &admin, found.is_some())?;
    let checked = match found {
        Some(partitions) => Some(check_found(settings, &admin, brokers, &cluster, partitions)?),
        None => None,
    };
    let required = settings.required.iter().copied();
    let names: Vec<&str> = required.clone().map(|topic| settings.topic(topic)).collect();
    let missing: Vec<Topic> = required.filter(|topic| !cluster.topics.contains_key(settings.topic(*topic))).collect();
    if !missing.is_empty() {
        create(settings, &admin, &missing, &cluster)?;
        cluster = await_topics(settings, &probe, brokers, &names)?;
    }
    let partitions = cluster.topics.get(settings.events.as_str()).copied().unwrap_or(0);
    let config = match checked {
        Some(config) => config,
        None => check_events(settings, &admin)?,
    };
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
    let age_max = config.age_max;
    let ids = topic_ids(settings, &admin);
    let topics = TopicWatch::new(Arc::clone(settings), admin, ids, config);
    Ok(Prepared { partitions, cluster_id, topics, age_max })
}

/// Returns the ids of the required topics, by their index. A topic that was made a moment ago is
/// asked for again.
fn topic_ids(settings: &KafkaSettings, admin: &AdminClient<QueryContext>) -> [Option<String>; Topic::ALL.len()] {
    let names: Vec<&str> = settings.required.iter().map(|topic| settings.topic(*topic)).collect();
    let deadline = Instant::now() + NEW_TOPIC_TIMEOUT;
    loop {
        let described = describe_topics(admin.inner(), &names, NEW_TOPIC_TIMEOUT).unwrap_or_default();
        let is_complete = !described.is_empty() && described.iter().all(|one| matches!(one, Described::Present(_)));
        if is_complete || Instant::now() >= deadline {
            let mut ids = [const { None }; Topic::ALL.len()];
            for (topic, described) in settings.required.iter().zip(described) {
                if let Described::Present(id) = described {
                    ids[topic.index()] = id;
                }
            }
            return ids;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Refuses an event topic that has another id than the one that the store was folded from, or that
/// is gone. A topic made in its place would be another one.
fn refuse_other_topic(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    is_found: bool,
) -> Result<(), ConnectError> {
    let Some(then) = settings.bound.as_ref().and_then(|bound| bound.topic_id.as_deref()) else { return Ok(()) };
    let name = settings.events.as_str();
    if !is_found {
        return Err(ConnectError::OtherTopic(was_deleted(name, then)));
    }
    match describe_topics(admin.inner(), &[name], NEW_TOPIC_TIMEOUT).as_deref() {
        Some([Described::Present(Some(now))]) if now != then => {
            Err(ConnectError::OtherTopic(made_anew(name, then, now)))
        }
        _ => Ok(()),
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

/// Refuses another event topic than the store was folded from.
fn refuse_other(settings: &KafkaSettings, cluster_id: Option<&str>, found: Option<u32>) -> Result<(), ConnectError> {
    let Some(bound) = &settings.bound else { return Ok(()) };
    if let (Some(held), Some(bound)) = (cluster_id, &bound.cluster_id)
        && held != bound
    {
        return Err(ConnectError::OtherCluster { held: held.into(), bound: bound.clone() });
    }
    match found {
        Some(now) if now != bound.partitions => {
            Err(ConnectError::PartitionCount(changed_count(&settings.events, bound.partitions, now)))
        }
        _ => Ok(()),
    }
}

/// Checks an event topic that exists.
fn check_found(
    settings: &KafkaSettings,
    admin: &AdminClient<QueryContext>,
    brokers: &Arc<Brokers>,
    cluster: &Cluster,
    partitions: u32,
) -> Result<TopicConfig, ConnectError> {
    let config = check_events(settings, admin)?;
    let updates = cluster.topics.get(&settings.updates).filter(|_| settings.required.contains(&Topic::Updates));
    // A store that was folded from the topic knows its count better than the records do.
    if settings.bound.is_none() && partitions > 1 {
        let keys = first_keys(settings, brokers, partitions);
        if let Origin::Fewer(then) = origin(&keys, partitions, updates.copied()) {
            return Err(ConnectError::PartitionCount(changed_count(&settings.events, then, partitions)));
        }
    }
    match updates {
        Some(&held) if held != partitions => {
            Err(ConnectError::Partitions { topic: settings.updates.clone(), held, events: partitions })
        }
        _ => Ok(config),
    }
}

/// Describes all topics. A request for one topic by name could create it.
fn describe(
    settings: &KafkaSettings,
    probe: &QueryConsumer,
    brokers: &Brokers,
    timeout: Duration,
) -> Result<Cluster, ConnectError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let error = match ask(probe, left.min(ATTEMPT)) {
            Ok(metadata) => return Ok(read_metadata(&metadata)),
            Err(error) => error,
        };
        if let Some((cause, certificate)) = brokers.unusable() {
            let check = certificate.then(|| failed_certificate_check(&settings.client(), ATTEMPT)).flatten();
            let check = check.map(|code| format!("; {}", certificate_check(code))).unwrap_or_default();
            let bootstrap = settings.bootstrap.clone();
            return Err(ConnectError::Unusable { bootstrap, cause: format!("{cause}{check}") });
        }
        if Instant::now() >= deadline {
            return Err(ConnectError::Unreachable {
                bootstrap: settings.bootstrap.clone(),
                waited_s: timeout.as_secs(),
                cause: brokers
                    .failing()
                    .unwrap_or_else(|| error.rdkafka_error_code().map_or(error.to_string(), |code| code.to_string())),
            });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Asks once. Polls meanwhile, because librdkafka tells the causes of broken connections only to a
/// client that is polled.
fn ask(probe: &QueryConsumer, timeout: Duration) -> KafkaResult<Metadata> {
    let is_asking = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while is_asking.load(Ordering::Acquire) {
                // It has no partitions, so no record is lost.
                _ = probe.poll(Duration::from_millis(50));
            }
        });
        let answer = probe.fetch_metadata(None, timeout);
        is_asking.store(false, Ordering::Release);
        answer
    })
}

fn read_metadata(metadata: &Metadata) -> Cluster {
    let brokers = metadata.brokers().iter().map(|broker| broker.id()).collect();
    let mut cluster = Cluster { topics: BTreeMap::new(), leaderless: BTreeSet::new(), brokers };
    for topic in metadata.topics().iter().filter(|topic| !topic.partitions().is_empty()) {
        cluster.topics.insert(topic.name().into(), topic.partitions().len() as u32);
        if topic.partitions().iter().any(|partition| partition.leader() < 0) {
            cluster.leaderless.insert(topic.name().into());
        }
    }
    cluster
}

/// Creates topics. A topic that exists by now is accepted.
fn create(
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
    let results =
        block_on(admin.create_topics(&topics, &options)).map_err(|error| refused(settings, "create topics", &error))?;
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
fn await_topics(
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

fn refused(settings: &KafkaSettings, what: &'static str, error: &KafkaError) -> ConnectError {
    ConnectError::Refused { bootstrap: settings.bootstrap.clone(), what, cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_settings_are_told_once() {
        let cause = "`max.poll.interval.ms` must be >= `session.timeout.ms`";
        for sentence in [cause.to_owned(), format!("{WRONG_SETTINGS}: {cause}")] {
            let told = ConnectError::rejected(&ReadError::Stop(sentence)).to_string();
            assert_eq!(told, format!("{WRONG_SETTINGS}: {cause}"));
        }
    }
}
