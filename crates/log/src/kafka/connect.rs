//! The start of a Kafka log: connects to the cluster, refuses unsuitable topics, and has missing
//! ones created.
//!
//! It changes no existing topic.

use super::brokers::Brokers;
use super::causes::{SPEAKS_TLS, certificate_check};
use super::connect_error::ConnectError;
use super::context::QueryContext;
use super::create::{await_topics, create, plan};
use super::early_keys::{Origin, first_keys, origin};
use super::inspect::{QueryConsumer, query_consumer};
use super::native::{Registered, failed_certificate_check, shows_certificate};
use super::settings::KafkaSettings;
use super::topic_config::{TopicConfig, check_events};
use super::topic_id::{Described, describe as describe_topics};
use super::topic_watch::{TopicWatch, made_anew, was_deleted};
use super::watch::changed_count;
use crate::port::Topic;
use rdkafka::admin::AdminClient;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the brokers may take to tell the id of a topic, which may be new.
const NEW_TOPIC_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one question at the start may wait before it looks whether the brokers can be used.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The topics of a cluster.
pub(super) struct Cluster {
    /// Partition counts by topic name.
    pub(super) topics: BTreeMap<String, u32>,
    /// Topics with a partition without a leader, because they are new or brokers are down.
    pub(super) leaderless: BTreeSet<String>,
    /// The ids of the brokers.
    pub(super) brokers: Vec<i32>,
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

/// A cluster that has answered.
pub(super) struct Contacted {
    pub(super) admin: Registered<AdminClient<QueryContext>>,
    pub(super) probe: QueryConsumer,
    pub(super) cluster: Cluster,
    pub(super) cluster_id: Option<String>,
}

/// What a start finds before it creates anything.
pub(super) struct Found {
    /// The configuration of the event topic, if that exists.
    pub(super) config: Option<TopicConfig>,
    /// The required topics that do not exist.
    pub(super) missing: Vec<Topic>,
}

/// Connects, and asks for all topics.
pub(super) fn contact(settings: &KafkaSettings, brokers: &Arc<Brokers>) -> Result<Contacted, ConnectError> {
    let admin = AdminClient::from_config_and_context(&settings.client(), QueryContext(Arc::clone(brokers)))
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    let admin = Registered::new(admin, brokers.clients());
    let mut config = settings.reader();
    // librdkafka tells at this level that a port may speak another protocol.
    config.set_log_level(RDKafkaLogLevel::Info);
    let probe = query_consumer(config, brokers).map_err(|error| ConnectError::Settings(error.to_string()))?;
    let cluster = describe(settings, &probe, brokers, settings.connect_timeout)?;
    let cluster_id = admin.inner().fetch_cluster_id(settings.connect_timeout);
    Ok(Contacted { admin, probe, cluster, cluster_id })
}

/// Refuses topics that do not fit. Creates none, so a refusal leaves no topic behind.
pub(super) fn check(
    settings: &KafkaSettings,
    brokers: &Arc<Brokers>,
    contacted: &Contacted,
) -> Result<Found, ConnectError> {
    let Contacted { admin, cluster, cluster_id, .. } = contacted;
    let found = cluster.topics.get(&settings.events).copied();
    refuse_other(settings, cluster_id.as_deref(), found)?;
    refuse_other_topic(settings, admin, found.is_some())?;
    let config = match found {
        Some(partitions) => Some(check_found(settings, admin, brokers, cluster, partitions)?),
        None => None,
    };
    let required = settings.required.iter().copied();
    let missing = required.filter(|topic| !cluster.topics.contains_key(settings.topic(*topic))).collect();
    Ok(Found { config, missing })
}

/// Connects, refuses what does not fit, creates missing topics, and checks the present ones.
pub(super) fn prepare(settings: &Arc<KafkaSettings>, brokers: &Arc<Brokers>) -> Result<Prepared, ConnectError> {
    let contacted = contact(settings, brokers)?;
    let Found { config: checked, missing } = check(settings, brokers, &contacted)?;
    let Contacted { admin, probe, mut cluster, cluster_id } = contacted;
    let names: Vec<&str> = settings.required.iter().map(|topic| settings.topic(*topic)).collect();
    if !missing.is_empty() {
        create(settings, &admin, &plan(settings, &admin, &missing, &cluster)?, &cluster)?;
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
pub(super) fn describe(
    settings: &KafkaSettings,
    probe: &QueryConsumer,
    brokers: &Brokers,
    timeout: Duration,
) -> Result<Cluster, ConnectError> {
    let deadline = Instant::now() + timeout;
    let mut may_speak_tls = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let error = match ask(probe, left.min(ATTEMPT)) {
            Ok(metadata) => return Ok(read_metadata(&metadata)),
            Err(error) => error,
        };
        if may_speak_tls && let Some(address) = brokers.closing() {
            if shows_certificate(&settings.client(), ATTEMPT) {
                let (bootstrap, cause) = (settings.bootstrap.clone(), format!("{address} ({SPEAKS_TLS})"));
                return Err(ConnectError::Unusable { bootstrap, cause });
            }
            may_speak_tls = false;
        }
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
