//! Reads the configuration of the event topic and of the brokers: which topics must not be folded,
//! and the properties of a new one.
//!
//! It changes no topic.
//!
//! Keeps INV-LOG-TIME.

use super::connect::ConnectError;
use super::context::QueryContext;
use super::settings::{KafkaSettings, RECORD_BYTES_MAX};
use crate::port::Topic;
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::types::RDKafkaErrorCode;
use std::time::{Duration, Instant};

/// A shorter retention than this causes a warning: state is rebuilt from the log, and the default
/// retention of receipts is 30 days.
const RETENTION_MS_EXPECTED: i64 = 31 * 24 * 3_600 * 1_000;

/// The event topic may accept records dated this far ahead, and no further: one record of the year
/// 2100 would expire every message of its partition (the contract's log time).
const FUTURE_MS_MAX: i64 = 3_600 * 1_000;

/// How long a broker may take to learn the configuration of a new topic, and the pause between two
/// questions.
const NEW_TOPIC_TIMEOUT: Duration = Duration::from_secs(5);
const NEW_TOPIC_PAUSE: Duration = Duration::from_millis(100);

/// The bound since Kafka 3.6, and the older one, which bounds the past as well.
const AFTER: &str = "message.timestamp.after.max.ms";
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

/// What the event topic's configuration tells.
#[derive(Debug, Default)]
pub(super) struct TopicConfig {
    /// The replicas that must hold a record before it is acknowledged.
    pub(super) min_insync: Option<usize>,
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
        "the topic's configuration cannot be read: make sure that cleanup.policy is delete and that \
         message.timestamp.after.max.ms is at most 3600000, or let this user describe the topic's configs"
    );
    Ok(TopicConfig::default())
}

fn judge(settings: &KafkaSettings, config: &ConfigResource) -> Result<TopicConfig, ConnectError> {
    let name = settings.events.as_str();
    let value = |property| config.get(property).and_then(|entry| entry.value.as_deref());
    if value("cleanup.policy").unwrap_or_default().split(',').any(|policy| policy.trim() == "compact") {
        return Err(ConnectError::Compacted(name.into()));
    }
    let retention_ms = parse(value("retention.ms"));
    if let Some(retention_ms) = retention_ms.filter(|ms| (0..RETENTION_MS_EXPECTED).contains(ms)) {
        tracing::warn!(
            topic = name,
            retention_ms,
            "the retention of the event topic is short: state can be rebuilt only as far back"
        );
    }
    // Kafka 3.6 to 3.9 obey both.
    let bound_ms = parse(value(AFTER)).into_iter().chain(parse(value(DIFFERENCE))).min();
    let is_bounded =
        value("message.timestamp.type") == Some("LogAppendTime") || bound_ms.is_some_and(|ms| ms <= FUTURE_MS_MAX);
    if !is_bounded && !settings.accept_unbounded_time {
        return Err(unbounded(settings, value(AFTER).is_some()));
    }
    if !is_bounded {
        tracing::warn!(
            topic = name,
            "the topic takes records dated far in the future, and one such record makes all messages of its partition \
             expire; log.accept_unbounded_time accepts that"
        );
    }
    Ok(TopicConfig { min_insync: parse(value("min.insync.replicas")).and_then(|min| usize::try_from(min).ok()) })
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
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

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
