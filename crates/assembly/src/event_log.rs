//! Opens the event log that the settings name: a Kafka, or the embedded log in the data directory.
//! Reads no event.

use crate::beginning;
use crate::data_dir::{DataDir, InUse, LogIdentity, random};
use crate::parts::fold_limits;
use crate::tokens::TokenEndpoint;
use anyhow::anyhow;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::kafka::{BoundTopic, ConnectError, CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::{Inspect, Log, PARTITIONS_DEFAULT, Topic};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

/// An open log.
pub struct EventLog {
    /// The log. It is dropped before the data directory, in which it may be.
    pub log: Arc<dyn Inspect>,
    /// Its identity, which distinguishes it from other logs.
    pub identity: LogIdentity,
    /// Its name for people: `embedded`, `memory`, or the brokers.
    pub name: String,
    /// The data directory, if it was opened together with the log. No other process uses the
    /// directory meanwhile.
    pub data: Option<DataDir>,
}

/// Opens the log, or makes it; blocks until the log answers or has failed.
///
/// # Errors
/// A failure that says what to do.
pub(crate) fn open_log(settings: &Settings, data: &DataDir) -> Result<EventLog, Failure> {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => {
            let is_new = data.next_bound_log()?.is_none();
            let log = connect_for_store(settings, bootstrap, data)?;
            if is_new {
                let accepted = settings.log.accept_missing_beginning;
                let decoder = fold_limits(settings).decoder(log.partition_count());
                beginning::check(&settings.log.events_topic, &log.first_records(), decoder, accepted)?;
            }
            Ok(of_kafka(settings, bootstrap, log))
        }
        None => of_embedded(settings, data),
    }
}

/// Opens a log that exists. Makes no log, topic or data directory: if there is none, the operator
/// has named the wrong one.
///
/// # Errors
/// A failure that says what to do; [`crate::InUse`] if another process has the embedded log.
pub fn open_existing_log(settings: &Settings) -> Result<EventLog, Failure> {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => {
            let kafka = KafkaSettings {
                create_topics: None,
                required: &[Topic::Events],
                // A look at a log does no harm to it.
                accept_unbounded_time: true,
                ..kafka_settings(settings, bootstrap)
            };
            Ok(of_kafka(settings, bootstrap, connect_with(kafka)?))
        }
        None => {
            let data = existing_data_dir(settings)?;
            let opened = of_embedded(settings, &data)?;
            Ok(EventLog { data: Some(data), ..opened })
        }
    }
}

/// Opens a log that exists and the data directory whose store was folded from it; returns the
/// store's folder too.
///
/// # Errors
/// As [`open_existing_log`], and if there is no store, or it is bound to another log.
pub fn open_existing_log_with_store(settings: &Settings) -> Result<(EventLog, PathBuf), Failure> {
    let store = DataDir::store_in(&settings.data_dir);
    if !store.is_dir() {
        return Err(anyhow!(
            "there is no store in the data directory {}: check --data-dir; `receipts serve` makes one",
            settings.data_dir.display()
        )
        .into());
    }
    let mut opened = open_existing_log(settings)?;
    let data = match opened.data.take() {
        Some(data) => data,
        None => DataDir::open(&settings.data_dir)?,
    };
    data.bind_store(&opened.identity)?;
    opened.data = Some(data);
    Ok((opened, store))
}

/// Opens a log that exists and, unless a service uses it, the data directory.
///
/// # Errors
/// As [`open_existing_log`]. An embedded log that a service has open belongs to that service alone.
pub fn open_log_beside_service(settings: &Settings) -> Result<EventLog, Failure> {
    let mut opened = open_existing_log(settings)?;
    if opened.data.is_none() {
        opened.data = match DataDir::open(&settings.data_dir) {
            Ok(data) => Some(data),
            Err(error) if error.is::<InUse>() => None,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(opened)
}

fn of_kafka(settings: &Settings, bootstrap: &str, log: KafkaLog) -> EventLog {
    let identity = LogIdentity::Kafka {
        events_topic: settings.log.events_topic.clone(),
        partitions: log.partition_count(),
        cluster_id: log.cluster_id().map(str::to_owned),
        topic_id: log.topic_id(Topic::Events).map(str::to_owned),
    };
    EventLog { log: Arc::new(log), identity, name: kafka_name(bootstrap), data: None }
}

fn of_embedded(settings: &Settings, data: &DataDir) -> Result<EventLog, Failure> {
    // The default keeps the number that an existing log was made with.
    let count = NonZeroU32::new(settings.log.partitions).filter(|count| count.get() != PARTITIONS_DEFAULT);
    let identity = data.embedded_log()?;
    let log = EmbeddedLog::open(&data.log(), count)?;
    Ok(EventLog { log: Arc::new(log), identity, name: "embedded".to_owned(), data: None })
}

/// Makes an empty log in memory, which ends with the process and writes no file.
///
/// # Errors
/// If the operating system gives no random bytes for its id.
pub fn log_in_memory(settings: &Settings) -> Result<EventLog, Failure> {
    let id = receipts_event::hex(&random::<16>()?);
    let partitions = NonZeroU32::new(settings.log.partitions).expect("the settings allow no 0");
    let log = EmbeddedLog::in_memory(partitions, &id)?;
    let identity = LogIdentity::Embedded { id };
    Ok(EventLog { log: Arc::new(log), identity, name: "memory".to_owned(), data: None })
}

/// Opens the data directory if it holds a log.
fn existing_data_dir(settings: &Settings) -> Result<DataDir, Failure> {
    let path = &settings.data_dir;
    if !EmbeddedLog::is_in(&DataDir::log_in(path)) {
        return Err(anyhow!(
            "there is no event log in the data directory {}: check --data-dir, or name a Kafka with --kafka-bootstrap. \
             `receipts serve` makes an embedded log at its first start, this command does not",
            path.display()
        )
        .into());
    }
    Ok(DataDir::open(path)?)
}

/// Returns how many partitions the embedded log of a data directory has.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn embedded_partitions(data: &DataDir) -> Result<u32, Failure> {
    if !EmbeddedLog::is_in(&data.log()) {
        return Err(
            anyhow!("there is no event log in {}: the log of this store is missing", data.log().display()).into()
        );
    }
    Ok(EmbeddedLog::open(&data.log(), None)?.partition_count())
}

/// Returns the name for people of the log that the settings name.
pub fn log_location(settings: &Settings) -> String {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => format!("the topic {} of {}", settings.log.events_topic, kafka_name(bootstrap)),
        None => format!("the embedded log in {}", settings.data_dir.display()),
    }
}

/// Returns the name of a Kafka for people.
pub fn kafka_name(bootstrap: &str) -> String {
    format!("kafka://{bootstrap}")
}

/// Returns the brokers, for a service that needs a Kafka.
///
/// # Errors
/// A usage failure that names the key, if it is not set.
pub fn require_bootstrap<'s>(service: &str, settings: &'s Settings) -> Result<&'s str, Failure> {
    settings.kafka.bootstrap.as_deref().ok_or_else(|| {
        Failure::usage(format!(
            "{service} needs the brokers of a Kafka: --kafka-bootstrap HOST:PORT, RECEIPTS_KAFKA__BOOTSTRAP, or \
             kafka.bootstrap in the file. The embedded log belongs to `receipts serve` alone"
        ))
    })
}

/// Connects to the Kafka at `bootstrap`, and makes topics that are missing; blocks until that is
/// done or has failed.
///
/// # Errors
/// A failure that says what to do.
pub fn connect(settings: &Settings, bootstrap: &str) -> Result<KafkaLog, Failure> {
    connect_with(creating_kafka_settings(settings, bootstrap))
}

/// Returns how a service reaches Kafka: as [`kafka_settings`], and with the topics that it creates.
pub fn creating_kafka_settings(settings: &Settings, bootstrap: &str) -> KafkaSettings {
    let how = CreateTopics { partitions: settings.log.partitions, replication: settings.kafka.replication };
    KafkaSettings { create_topics: Some(how), ..kafka_settings(settings, bootstrap) }
}

/// As [`connect`], for the store of a data directory: refuses another topic than the store was
/// folded from before it creates any.
fn connect_for_store(settings: &Settings, bootstrap: &str, data: &DataDir) -> Result<KafkaLog, Failure> {
    let topic = &settings.log.events_topic;
    let bound = match data.next_bound_log()? {
        None => None,
        Some(LogIdentity::Kafka { events_topic, partitions, cluster_id, topic_id }) if events_topic == *topic => {
            Some(BoundTopic { cluster_id, partitions, topic_id })
        }
        Some(_) if data.unbind_empty_store()? => None,
        Some(other) => return Err(data.other_log(&other, format!("the Kafka topic {topic}")).into()),
    };
    let of_store = bound.clone();
    // Standbys are a group of their own, in which each has its own directory and so its own name.
    let instance = Some(data.instance()?);
    let kafka = KafkaSettings { bound, instance, ..creating_kafka_settings(settings, bootstrap) };
    let connected = connect_with(kafka);
    if let Err(Failure::Failed(error)) = &connected
        && of_store.is_some()
        && matches!(error.downcast_ref(), Some(ConnectError::OtherCluster { .. }))
        && data.unbind_empty_store()?
    {
        return connect_for_store(settings, bootstrap, data);
    }
    connected.map_err(|failure| match (failure, of_store) {
        (Failure::Failed(error), Some(BoundTopic { cluster_id, partitions, .. })) => match error.downcast_ref() {
            Some(ConnectError::OtherCluster { held, .. }) => {
                let events_topic = topic.clone();
                let of = |cluster_id| LogIdentity::Kafka {
                    events_topic: events_topic.clone(),
                    partitions,
                    cluster_id,
                    topic_id: None,
                };
                data.other_log(&of(cluster_id), of(Some(held.clone()))).into()
            }
            _ => error.into(),
        },
        (failure, _) => failure,
    })
}

/// Returns how the settings reach Kafka, without topics to create.
pub fn kafka_settings(settings: &Settings, bootstrap: &str) -> KafkaSettings {
    KafkaSettings {
        bootstrap: bootstrap.to_owned(),
        events: settings.log.events_topic.clone(),
        updates: settings.log.updates_topic.clone(),
        dead_letters: settings.log.dead_letters_topic.clone(),
        properties: settings.kafka.properties.0.clone().into(),
        tokens: Some(Arc::new(TokenEndpoint)),
        accept_unbounded_time: settings.log.accept_unbounded_time,
        ..KafkaSettings::default()
    }
}

fn connect_with(kafka: KafkaSettings) -> Result<KafkaLog, Failure> {
    let bootstrap = kafka.bootstrap.clone();
    tracing::info!(bootstrap, "connecting to Kafka");
    let may_create = kafka.create_topics.is_some();
    KafkaLog::connect(kafka).map_err(|error| match error {
        ConnectError::Settings(_) => Failure::Usage(error.into()),
        ConnectError::Missing { topic, .. } if !may_create => anyhow!(
            "Kafka at {bootstrap} has no topic {topic}, or this user may not describe it: check --kafka-bootstrap and \
             --log-events-topic. `receipts serve` creates it at its first start, this command does not; `receipts topics acl` \
             prints the rights that a user needs"
        )
        .into(),
        other => other.into(),
    })
}
