//! Opens the event log that the settings ask for: a Kafka, or the embedded one in the data directory. Decides no more
//! than which, and whether one that is missing is made.

use crate::data_dir::{DataDir, InUse, LogIdentity};
use anyhow::anyhow;
use receipts_log::embedded::{self, EmbeddedLog};
use receipts_log::kafka::{ConnectError, CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::{Inspect, Log, Topic};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

/// An open log.
pub struct EventLog {
    /// The log.
    pub log: Arc<dyn Inspect>,
    /// What tells it from others.
    pub identity: LogIdentity,
    /// For people: `embedded`, or the brokers.
    pub name: String,
}

/// An open log that was there before, for a command that goes again.
pub struct ExistingLog {
    /// Goes first, for it is in the directory.
    pub log: Arc<dyn Inspect>,
    /// As [`EventLog::name`].
    pub name: String,
    /// What tells it from others.
    pub identity: LogIdentity,
    /// Keeps the directory to this process.
    _data: Option<DataDir>,
}

/// Opens the log, or makes it; blocks until it is there or is known not to be.
///
/// # Errors
/// Says what to do.
pub fn open(settings: &Settings, data: &DataDir) -> Result<EventLog, Failure> {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => {
            let log = connect(settings, bootstrap)?;
            let identity = kafka_identity(settings, &log);
            Ok(EventLog { log: Arc::new(log), identity, name: kafka_name(bootstrap) })
        }
        None => {
            let identity = data.embedded_log()?;
            Ok(EventLog { log: Arc::new(open_embedded(settings, data)?), identity, name: EMBEDDED.to_owned() })
        }
    }
}

/// Opens the log, and makes neither a log nor a topic nor a data directory: where there is none, an operator has named the
/// wrong one.
///
/// # Errors
/// Says what to do; [`crate::data_dir::InUse`] where another process has the embedded log.
pub fn open_existing(settings: &Settings) -> Result<ExistingLog, Failure> {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => Ok(existing_kafka(settings, bootstrap)?.0),
        None => {
            let data = existing_data_dir(settings)?;
            let (log, identity) = (Arc::new(open_embedded(settings, &data)?), data.embedded_log()?);
            Ok(ExistingLog { log, name: EMBEDDED.to_owned(), identity, _data: Some(data) })
        }
    }
}

/// Opens the log and the data directory whose store was folded from it; returns where the store is too.
///
/// # Errors
/// As [`open_existing`], and where there is no store, or another log's.
pub fn open_with_store(settings: &Settings) -> Result<(ExistingLog, PathBuf), Failure> {
    let store = DataDir::store_in(&settings.data_dir);
    if !store.is_dir() {
        return Err(anyhow!(
            "there is no store in the data directory {}: check --data-dir; `receipts serve` makes one",
            settings.data_dir.display()
        )
        .into());
    }
    let (opened, identity, data) = match &settings.kafka.bootstrap {
        Some(bootstrap) => {
            let (opened, identity) = existing_kafka(settings, bootstrap)?;
            (opened, identity, DataDir::open(&settings.data_dir)?)
        }
        None => {
            let data = existing_data_dir(settings)?;
            let log = Arc::new(open_embedded(settings, &data)?);
            let identity = data.embedded_log()?;
            let opened = ExistingLog { log, name: EMBEDDED.to_owned(), identity: identity.clone(), _data: None };
            (opened, identity, data)
        }
    };
    data.bind_store(&identity)?;
    Ok((ExistingLog { _data: Some(data), ..opened }, store))
}

/// A log beside a store that may be in use.
pub struct Beside {
    /// Goes first, for it may be in the directory.
    pub log: Arc<dyn Inspect>,
    /// What tells it from others.
    pub identity: LogIdentity,
    /// The data directory, unless a service has it.
    pub data: Option<DataDir>,
}

/// Opens a log that is there, whether or not a service uses the data directory just now.
///
/// # Errors
/// As [`open_existing`]: an embedded log that a service has open is that service's alone.
pub fn open_beside(settings: &Settings) -> Result<Beside, Failure> {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => {
            let (opened, identity) = existing_kafka(settings, bootstrap)?;
            let data = match DataDir::open(&settings.data_dir) {
                Ok(data) => Some(data),
                Err(error) if error.is::<InUse>() => None,
                Err(error) => return Err(error.into()),
            };
            Ok(Beside { log: opened.log, identity, data })
        }
        None => {
            let data = existing_data_dir(settings)?;
            let log = Arc::new(open_embedded(settings, &data)?);
            Ok(Beside { log, identity: data.embedded_log()?, data: Some(data) })
        }
    }
}

fn existing_kafka(settings: &Settings, bootstrap: &str) -> Result<(ExistingLog, LogIdentity), Failure> {
    let log =
        connect_to(KafkaSettings { create_topics: None, required: &[Topic::Events], ..kafka(settings, bootstrap) })?;
    let identity = kafka_identity(settings, &log);
    let (log, name) = (Arc::new(log), kafka_name(bootstrap));
    Ok((ExistingLog { log, name, identity: identity.clone(), _data: None }, identity))
}

/// The data directory, if it has a log.
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

fn kafka_identity(settings: &Settings, log: &KafkaLog) -> LogIdentity {
    LogIdentity::Kafka {
        events_topic: settings.log.events_topic.clone(),
        partitions: log.partition_count(),
        cluster_id: log.cluster_id().map(str::to_owned),
    }
}

/// Says for people which log the settings ask for.
pub fn place(settings: &Settings) -> String {
    match &settings.kafka.bootstrap {
        Some(bootstrap) => format!("the topic {} of {}", settings.log.events_topic, kafka_name(bootstrap)),
        None => format!("the embedded log in {}", settings.data_dir.display()),
    }
}

const EMBEDDED: &str = "embedded";

/// The brokers, for a service that is nothing without a Kafka.
///
/// # Errors
/// A usage failure that names the key, where none are set.
pub fn bootstrap<'s>(service: &str, settings: &'s Settings) -> Result<&'s str, Failure> {
    settings.kafka.bootstrap.as_deref().ok_or_else(|| {
        Failure::usage(format!(
            "{service} needs the brokers of a Kafka: --kafka-bootstrap HOST:PORT, RECEIPTS_KAFKA__BOOTSTRAP, or \
             kafka.bootstrap in the file. The embedded log belongs to `receipts serve` alone"
        ))
    })
}

/// The name of a Kafka for people.
pub fn kafka_name(bootstrap: &str) -> String {
    format!("kafka://{bootstrap}")
}

fn open_embedded(settings: &Settings, data: &DataDir) -> Result<EmbeddedLog, Failure> {
    // The default means "as it is": a log that was made with another number keeps it.
    let asked = NonZeroU32::new(settings.log.partitions).filter(|asked| asked.get() != embedded::PARTITIONS_DEFAULT);
    Ok(EmbeddedLog::open(&data.log(), asked)?)
}

/// How many partitions the embedded log of a data directory has.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn embedded_partitions(data: &DataDir) -> Result<u32, Failure> {
    if !EmbeddedLog::is_in(&data.log()) {
        return Err(anyhow!("there is no event log in {}: the store's own is gone", data.log().display()).into());
    }
    Ok(EmbeddedLog::open(&data.log(), None)?.partition_count())
}

/// What the settings say of the Kafka at `bootstrap`.
fn kafka(settings: &Settings, bootstrap: &str) -> KafkaSettings {
    KafkaSettings {
        bootstrap: bootstrap.to_owned(),
        events: settings.log.events_topic.clone(),
        updates: settings.log.updates_topic.clone(),
        dead_letters: settings.log.dead_letters_topic.clone(),
        properties: settings.kafka.properties.0.clone(),
        ..KafkaSettings::default()
    }
}

/// Connects to the Kafka at `bootstrap`, and makes topics that are missing; blocks until that is done or known to fail.
///
/// # Errors
/// Says what to do.
pub fn connect(settings: &Settings, bootstrap: &str) -> Result<KafkaLog, Failure> {
    let how = CreateTopics { partitions: settings.log.partitions, replication: settings.kafka.replication };
    connect_to(KafkaSettings { create_topics: Some(how), ..kafka(settings, bootstrap) })
}

fn connect_to(kafka: KafkaSettings) -> Result<KafkaLog, Failure> {
    let bootstrap = kafka.bootstrap.clone();
    tracing::info!(bootstrap, "connecting to Kafka");
    let may_create = kafka.create_topics.is_some();
    KafkaLog::connect(kafka).map_err(|error| match error {
        ConnectError::Settings(_) => Failure::Usage(error.into()),
        ConnectError::Missing { topic, .. } if !may_create => anyhow!(
            "Kafka at {bootstrap} has no topic {topic}: check --kafka-bootstrap and --log-events-topic. `receipts serve` \
             creates it at its first start, this command does not"
        )
        .into(),
        other => other.into(),
    })
}
