//! Reads the configuration of the event topic and of the brokers: which topics must not be folded,
//! and the properties of a new one.
//!
//! It changes no topic.
//!
//! Keeps INV-LOG-TIME.

use super::connect_error::ConnectError;
use super::context::QueryContext;
use super::rights::Granter;
use super::settings::{KafkaSettings, RECORD_BYTES_MAX};
use crate::port::Topic;
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::types::RDKafkaErrorCode;
use std::time::{Duration, Instant};

/// A shorter retention than this causes a warning: state is rebuilt from the log, and the default
/// retention of receipts is 30 days.
const RETENTION_MS_EXPECTED: i64 = 31 * 24 * 3_600 * 1_000;

/// Kafka's default of `max.message.bytes`. A topic that takes less causes a warning.
const MESSAGE_BYTES_EXPECTED: usize = 1_048_588;

/// The event topic may accept records dated this far ahead, and no further: one record of the year
/// 2100 would expire every message of its partition (the contract's log time).
const FUTURE_MS_MAX: i64 = 3_600 * 1_000;

/// How long a broker may take to learn the configuration of a new topic, and the pause between two
/// questions.
const NEW_TOPIC_TIMEOUT: Duration = Duration::from_secs(5);
const NEW_TOPIC_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of the future and of the past since Kafka 3.6, and the older one of both.
const AFTER: &str = "message.timestamp.after.max.ms";
const BEFORE: &str = "message.timestamp.before.max.ms";
const DIFFERENCE: &str = "message.timestamp.difference.max.ms";

/// How far ahead of their clock the brokers of a cluster accept records by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokerBound {
    /// They are older than Kafka 3.6 and cannot bound the future alone.
    Lacking,
    /// At most an hour: a topic inherits it.
    Kept,
    /// Further, or unknown: a topic needs its own bound.
    Wide,
}

type Admin = AdminClient<QueryContext>;

/// Asks a broker for its bound.
pub(super) fn broker_bound(settings: &KafkaSettings, admin: &Admin, broker: i32) -> BrokerBound {
    let options = AdminOptions::new().request_timeout(Some(settings.connect_timeout));
    let answer = block_on(admin.describe_configs(&[ResourceSpecifier::Broker(broker)], &options));
    let Some(Ok(config)) = answer.ok().and_then(|answer| answer.into_iter().next()) else { return BrokerBound::Wide };
    match config.get("log.message.timestamp.after.max.ms") {
        None if config.get("log.message.timestamp.difference.max.ms").is_some() => BrokerBound::Lacking,
        Some(entry) if parse(entry.value.as_deref()).is_some_and(|ms| ms <= FUTURE_MS_MAX) => BrokerBound::Kept,
        _ => BrokerBound::Wide,
    }
}

fn parse(value: Option<&str>) -> Option<i64> {
    value.and_then(|value| value.parse().ok())
}

/// Returns the properties of a new topic.
pub(super) fn properties(topic: Topic, replication: i32, bound: BrokerBound) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("max.message.bytes", RECORD_BYTES_MAX.to_owned()),
        // One replica may be down; the others must hold every acknowledged record.
        ("min.insync.replicas", (replication - 1).max(1).to_string()),
    ];
    if topic == Topic::Events {
        properties.push(("retention.ms", "-1".to_owned()));
        if bound == BrokerBound::Wide {
            properties.push((AFTER, FUTURE_MS_MAX.to_string()));
        }
    }
    properties
}

/// What a topic's configuration tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TopicConfig {
    /// True if Kafka deletes older records of a key.
    pub(super) is_compacted: bool,
    /// The replicas that must hold a record before it is acknowledged.
    pub(super) min_insync: Option<usize>,
    /// The largest batch of records that the topic takes, bytes.
    pub(super) message_bytes: Option<usize>,
    retention_ms: Option<i64>,
    /// True if no record can be dated further ahead than [`FUTURE_MS_MAX`].
    is_bounded: bool,
    /// True if the brokers know [`AFTER`].
    has_after: bool,
    /// The greatest age of a record that it takes.
    pub(super) age_max: Option<Duration>,
}

/// Refuses an event topic that is compacted or takes records of any future time, and warns of a
/// short retention.
pub(super) fn check_events(settings: &KafkaSettings, admin: &Admin) -> Result<TopicConfig, ConnectError> {
    let name = settings.events.as_str();
    let options = AdminOptions::new().request_timeout(Some(settings.connect_timeout));
    let deadline = Instant::now() + NEW_TOPIC_TIMEOUT;
    let cause = loop {
        let answer = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options));
        // The asked broker may not know a topic that another one has just made. The binding reports
        // an unknown topic and a missing right as a configuration without properties.
        let (cause, may_be_new) = match answer.map(|answer| answer.into_iter().next()) {
            Ok(Some(Ok(config))) if config.get("cleanup.policy").is_some() => return judge(settings, &config),
            Ok(Some(Ok(_)) | None) => {
                ("the broker knows no such topic, or this user may not describe its configuration".to_owned(), true)
            }
            Ok(Some(Err(code))) => (code.to_string(), code == RDKafkaErrorCode::UnknownTopicOrPartition),
            Err(error) => (error.to_string(), false),
        };
        if !may_be_new || Instant::now() >= deadline {
            break cause;
        }
        std::thread::sleep(NEW_TOPIC_PAUSE);
    };
    tracing::warn!(
        topic = name,
        cause,
        command = Granter::new(settings).topic(name, &["DescribeConfigs"]),
        "the topic's configuration cannot be read: make sure that cleanup.policy is delete and that \
         message.timestamp.after.max.ms is at most 3600000, or let this user describe the topic's configs by the command"
    );
    Ok(TopicConfig::default())
}

/// Reads the configurations of the required topics. Leaves out those that cannot be read.
pub(super) fn describe_configs(
    settings: &KafkaSettings,
    admin: &Admin,
    timeout: Duration,
) -> Vec<(Topic, TopicConfig)> {
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let asked = settings.required.iter().map(|topic| ResourceSpecifier::Topic(settings.topic(*topic)));
    let answers = block_on(admin.describe_configs(&Vec::from_iter(asked), &options)).unwrap_or_default();
    let of = |topic: Topic| {
        let name = settings.topic(topic);
        let config = answers.iter().flatten().find(
            |config| matches!(&config.specifier, OwnedResourceSpecifier::Topic(described) if described == name),
        )?;
        config.get("cleanup.policy")?;
        Some((topic, TopicConfig::read(config)))
    };
    settings.required.iter().filter_map(|topic| of(*topic)).collect()
}

fn judge(settings: &KafkaSettings, config: &ConfigResource) -> Result<TopicConfig, ConnectError> {
    let config = TopicConfig::read(config);
    if config.is_compacted {
        return Err(ConnectError::Compacted(settings.events.clone()));
    }
    if !config.is_bounded && !settings.accept_unbounded_time {
        return Err(unbounded(settings, config.has_after));
    }
    config.warn(settings, None);
    Ok(config)
}

impl TopicConfig {
    fn read(config: &ConfigResource) -> Self {
        let value = |property| config.get(property).and_then(|entry| entry.value.as_deref());
        let size = |property| parse(value(property)).and_then(|size| usize::try_from(size).ok());
        // Kafka 3.6 to 3.9 obey both.
        let bound_ms = parse(value(AFTER)).into_iter().chain(parse(value(DIFFERENCE))).min();
        let is_stamped = value("message.timestamp.type") == Some("LogAppendTime");
        let age_max_ms = parse(value(BEFORE)).into_iter().chain(parse(value(DIFFERENCE))).min();
        Self {
            is_compacted: value("cleanup.policy")
                .unwrap_or_default()
                .split(',')
                .any(|policy| policy.trim() == "compact"),
            min_insync: size("min.insync.replicas"),
            message_bytes: size("max.message.bytes"),
            retention_ms: parse(value("retention.ms")),
            is_bounded: is_stamped || bound_ms.is_some_and(|ms| ms <= FUTURE_MS_MAX),
            has_after: value(AFTER).is_some(),
            age_max: age_max_ms
                .filter(|_| !is_stamped)
                .and_then(|ms| u64::try_from(ms).ok())
                .map(Duration::from_millis),
        }
    }

    /// Warns of what an operator should know about the event topic and did not know `before`.
    pub(super) fn warn(&self, settings: &KafkaSettings, before: Option<&Self>) {
        let topic = settings.events.as_str();
        let is_short = |retention_ms: &i64| (0..RETENTION_MS_EXPECTED).contains(retention_ms);
        let is_new = before.is_none_or(|before| before.retention_ms != self.retention_ms);
        if let Some(retention_ms) = self.retention_ms.filter(is_short).filter(|_| is_new) {
            tracing::warn!(
                topic,
                retention_ms,
                "the retention of the event topic is short: state can be rebuilt only as far back"
            );
        }
        if !self.is_bounded && before.is_none_or(|before| before.is_bounded) {
            tracing::warn!(
                topic,
                "the topic takes records dated far in the future, and one such record makes all messages of its partition \
                 expire; log.accept_unbounded_time accepts that"
            );
        }
    }

    /// Warns of a topic that takes smaller records than Kafka's topics do by default.
    pub(super) fn warn_of_small_records(&self, topic: &str) {
        if let Some(bytes) = self.message_bytes.filter(|bytes| *bytes < MESSAGE_BYTES_EXPECTED) {
            tracing::warn!(
                topic,
                max_message_bytes = bytes,
                "the topic takes only small records: larger events are refused with 413, and larger dead letters lose \
                 their values"
            );
        }
    }
}

/// Refuses an event topic without a bound, with the command that sets it.
pub(super) fn unbounded(settings: &KafkaSettings, has_after: bool) -> ConnectError {
    let (property, note) = match has_after {
        true => (AFTER, ""),
        false => (
            DIFFERENCE,
            " (brokers older than Kafka 3.6 have no bound for the future alone: this one refuses old records too, and \
             message.timestamp.type=LogAppendTime refuses none)",
        ),
    };
    ConnectError::UnboundedTime {
        topic: settings.events.clone(),
        command: format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} --add-config \
             {property}={FUTURE_MS_MAX}",
            settings.bootstrap, settings.events
        ),
        note: note.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::admin::{ConfigEntry, ConfigSource};

    fn config(properties: &[(&str, &str)]) -> ConfigResource {
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).into(),
            value: Some((*value).into()),
            source: ConfigSource::Default,
            is_read_only: false,
            is_default: true,
            is_sensitive: false,
        };
        ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("t".into()),
            entries: properties.iter().map(entry).collect(),
        }
    }

    #[test]
    fn only_a_bound_of_an_hour_is_accepted() {
        let unbounded = "9223372036854775807";
        for (properties, bounded) in [
            (&[(AFTER, "3600000"), (DIFFERENCE, unbounded)][..], true),
            (&[(AFTER, "600000")], true),
            (&[(AFTER, "3600001")], false),
            (&[(AFTER, unbounded), (DIFFERENCE, "3600000")], true),
            (&[(DIFFERENCE, unbounded)], false),
            (&[(AFTER, unbounded), ("message.timestamp.type", "LogAppendTime")], true),
            (&[(AFTER, unbounded), ("message.timestamp.type", "CreateTime")], false),
        ] {
            let settings = KafkaSettings::default();
            let judged = judge(&settings, &config(properties));
            assert_eq!(judged.is_ok(), bounded, "{properties:?}");
            let accepting = KafkaSettings { accept_unbounded_time: true, ..settings };
            assert!(judge(&accepting, &config(properties)).is_ok());
        }
    }

    #[test]
    fn refusal_names_the_command() {
        let sentence = unbounded(&KafkaSettings::default(), true).to_string();
        let command = "kafka-configs.sh --bootstrap-server 127.0.0.1:9092 --alter --entity-type topics --entity-name \
                       receipts.events --add-config message.timestamp.after.max.ms=3600000";
        assert!(sentence.contains(command) && sentence.contains("log.accept_unbounded_time"), "{sentence}");
        assert!(unbounded(&KafkaSettings::default(), false).to_string().contains("LogAppendTime"));
    }

    #[test]
    fn new_event_topics_carry_the_bound() {
        let has = |topic, bound| properties(topic, 3, bound).contains(&(AFTER, "3600000".to_owned()));
        assert!(has(Topic::Events, BrokerBound::Wide) && !has(Topic::Events, BrokerBound::Kept));
        assert!(!has(Topic::Updates, BrokerBound::Wide), "nothing folds their times");
    }
}
