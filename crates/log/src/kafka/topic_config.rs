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

/// Who dates records; the bounds of the future and of the past since Kafka 3.6; and the older one
/// of both.
const AFTER: &str = "message.timestamp.after.max.ms";
const BEFORE: &str = "message.timestamp.before.max.ms";
const STAMP: &str = "message.timestamp.type";
const DIFFERENCE: &str = "message.timestamp.difference.max.ms";

const SHORT_RETENTION: &str = "the retention of the event topic is short: state can be rebuilt only as far back";
const UNBOUNDED: &str = "the topic takes records dated far in the future, and one such record makes all messages of its \
                         partition expire; log.accept_unbounded_time accepts that";
const SMALL_RECORDS: &str = "the topic takes only small records: larger events are refused with 413, and larger dead \
                             letters lose their values";

/// The settings of a topic that matter to the service.
const NAMES: [&str; 9] = [
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "max.message.bytes",
    "min.insync.replicas",
    STAMP,
    AFTER,
    BEFORE,
    DIFFERENCE,
];

/// One setting of a topic, and whether the service works with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSetting {
    /// By Kafka's name.
    pub name: &'static str,
    /// As Kafka writes it.
    pub value: String,
    /// The judgement of a start.
    pub judgement: Judgement,
}

/// What a start makes of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is accepted.
    Accepted,
    /// It is accepted with a warning: this sentence.
    Warned(String),
    /// It is refused with this sentence.
    Refused(String),
}

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
    let configs = read_configs(settings, admin, timeout).into_iter();
    configs.map(|(topic, config)| (topic, TopicConfig::read(&config))).collect()
}

/// Reads the settings of the required topics that matter, and judges them as a start does.
pub(super) fn describe_settings(
    settings: &KafkaSettings,
    admin: &Admin,
    timeout: Duration,
) -> Vec<(Topic, Vec<TopicSetting>)> {
    let configs = read_configs(settings, admin, timeout).into_iter();
    configs.map(|(topic, config)| (topic, judged(settings, topic, &config))).collect()
}

fn judged(settings: &KafkaSettings, topic: Topic, config: &ConfigResource) -> Vec<TopicSetting> {
    let read = TopicConfig::read(config);
    let is_events = topic == Topic::Events;
    let bound = if read.has_after { AFTER } else { DIFFERENCE };
    let judgement = |name: &str, value: &str| match name {
        "cleanup.policy" if is_events && read.is_compacted => {
            Judgement::Refused(ConnectError::Compacted(settings.events.clone()).to_string())
        }
        "retention.ms" if is_events && read.is_short() => Judgement::Warned(SHORT_RETENTION.into()),
        "retention.bytes" if is_events && parse(Some(value)).is_some_and(|bytes| bytes >= 0) => {
            Judgement::Warned(SHORT_RETENTION.into())
        }
        "max.message.bytes" if read.is_small() => Judgement::Warned(SMALL_RECORDS.into()),
        name if is_events && name == bound && !read.is_bounded => match settings.accept_unbounded_time {
            true => Judgement::Warned(UNBOUNDED.into()),
            false => Judgement::Refused(unbounded(settings, read.has_after).to_string()),
        },
        _ => Judgement::Accepted,
    };
    let of = |name: &'static str| {
        let value = config.get(name)?.value.clone()?;
        Some(TopicSetting { name, judgement: judgement(name, &value), value })
    };
    NAMES.iter().filter_map(|name| of(name)).collect()
}

fn read_configs(settings: &KafkaSettings, admin: &Admin, timeout: Duration) -> Vec<(Topic, ConfigResource)> {
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let asked = settings.required.iter().map(|topic| ResourceSpecifier::Topic(settings.topic(*topic)));
    let answers = block_on(admin.describe_configs(&Vec::from_iter(asked), &options)).unwrap_or_default();
    // The binding reports an unknown topic and a missing right as one without properties.
    let described = answers.into_iter().flatten().filter(|config| config.get("cleanup.policy").is_some());
    let of = |config: &ConfigResource| {
        let OwnedResourceSpecifier::Topic(name) = &config.specifier else { return None };
        settings.required.iter().copied().find(|topic| settings.topic(*topic) == name)
    };
    described.filter_map(|config| Some((of(&config)?, config))).collect()
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
        let is_stamped = value(STAMP) == Some("LogAppendTime");
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

    /// Tells whether Kafka deletes events before a rebuild no longer needs them.
    fn is_short(&self) -> bool {
        self.retention_ms.is_some_and(|retention_ms| (0..RETENTION_MS_EXPECTED).contains(&retention_ms))
    }

    /// Tells whether the topic takes smaller records than Kafka's topics do by default.
    fn is_small(&self) -> bool {
        self.message_bytes.is_some_and(|bytes| bytes < MESSAGE_BYTES_EXPECTED)
    }

    /// Warns of what an operator should know about the event topic and did not know `before`.
    pub(super) fn warn(&self, settings: &KafkaSettings, before: Option<&Self>) {
        let topic = settings.events.as_str();
        let is_new = before.is_none_or(|before| before.retention_ms != self.retention_ms);
        if self.is_short() && is_new {
            tracing::warn!(topic, retention_ms = self.retention_ms, "{SHORT_RETENTION}");
        }
        if !self.is_bounded && before.is_none_or(|before| before.is_bounded) {
            tracing::warn!(topic, "{UNBOUNDED}");
        }
    }

    /// Warns of a topic that takes smaller records than Kafka's topics do by default.
    pub(super) fn warn_of_small_records(&self, topic: &str) {
        if self.is_small() {
            tracing::warn!(topic, max_message_bytes = self.message_bytes, "{SMALL_RECORDS}");
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
    fn settings_are_judged_as_at_a_start() {
        let all = [
            ("cleanup.policy", "compact"),
            ("retention.ms", "86400000"),
            ("max.message.bytes", "1000"),
            (AFTER, "9223372036854775807"),
            ("min.insync.replicas", "1"),
            ("segment.ms", "7"),
        ];
        let of = |topic| judged(&KafkaSettings::default(), topic, &config(&all));
        let kinds = |settings: Vec<TopicSetting>| -> Vec<(&str, u8)> {
            let kind = |judgement: &Judgement| match judgement {
                Judgement::Accepted => 0,
                Judgement::Warned(_) => 1,
                Judgement::Refused(_) => 2,
            };
            settings.iter().map(|setting| (setting.name, kind(&setting.judgement))).collect()
        };
        assert_eq!(
            kinds(of(Topic::Events)),
            [
                ("cleanup.policy", 2),
                ("retention.ms", 1),
                ("max.message.bytes", 1),
                ("min.insync.replicas", 0),
                (AFTER, 2)
            ]
        );
        let of_updates = kinds(of(Topic::Updates));
        assert_eq!(of_updates.iter().filter(|(_, kind)| *kind > 0).collect::<Vec<_>>(), [&("max.message.bytes", 1)]);
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
