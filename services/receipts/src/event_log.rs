//! Opens the event log that the settings ask for: a Kafka, or the embedded one in the data directory. Decides no more
//! than which.

use crate::data_dir::{DataDir, LogIdentity};
use receipts_log::Log;
use receipts_log::embedded::{self, EmbeddedLog};
use receipts_log::kafka::{ConnectError, CreateTopics, KafkaLog, KafkaSettings};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use std::num::NonZeroU32;
use std::sync::Arc;

/// An open log.
pub(crate) struct EventLog {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) identity: LogIdentity,
    /// For people: `embedded`, or the brokers.
    pub(crate) name: String,
}

/// Opens the log; blocks until it is there or is known not to be.
///
/// # Errors
/// Says what to do.
pub(crate) fn open(settings: &Settings, data: &DataDir) -> Result<EventLog, Failure> {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => open_kafka(settings, bootstrap),
        None => open_embedded(settings, data),
    }
}

fn open_embedded(settings: &Settings, data: &DataDir) -> Result<EventLog, Failure> {
    let identity = data.embedded_log()?;
    // The default means "as it is": a log that was made with another number keeps it.
    let asked = NonZeroU32::new(settings.log.partitions).filter(|asked| asked.get() != embedded::PARTITIONS_DEFAULT);
    let log = EmbeddedLog::open(&data.log(), asked)?;
    Ok(EventLog { log: Arc::new(log), identity, name: "embedded".to_owned() })
}

fn open_kafka(settings: &Settings, bootstrap: &str) -> Result<EventLog, Failure> {
    tracing::info!(bootstrap, "connecting to Kafka");
    let log = KafkaLog::connect(KafkaSettings {
        bootstrap: bootstrap.to_owned(),
        events: settings.log.events_topic.clone(),
        updates: settings.log.updates_topic.clone(),
        dead_letters: settings.log.dead_letters_topic.clone(),
        create_topics: Some(CreateTopics {
            partitions: settings.log.partitions,
            replication: settings.kafka.replication,
        }),
        properties: settings.kafka.properties.0.clone(),
        ..KafkaSettings::default()
    });
    let log = log.map_err(|error| match error {
        ConnectError::Settings(_) => Failure::Usage(error.into()),
        other => other.into(),
    })?;
    let identity =
        LogIdentity::Kafka { events_topic: settings.log.events_topic.clone(), partitions: log.partition_count() };
    Ok(EventLog { log: Arc::new(log), identity, name: format!("kafka://{bootstrap}") })
}
