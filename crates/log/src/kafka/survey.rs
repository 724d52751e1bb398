//! Looks at a cluster as an operator does: brokers, topics, settings, rights, offsets and a group.
//!
//! It judges by the same rules as a start. It creates and changes nothing, and joins no group.

use super::brokers::Brokers;
use super::connect::{Contacted, Found, check, contact, prepare};
use super::connect_error::{ConnectError, refused};
use super::context::QueryContext;
use super::create::{PlannedTopic, plan};
use super::early_keys::newest_records;
use super::inspect::QueryConsumer;
use super::native::Registered;
use super::rights::{Part, Right, rights};
use super::settings::KafkaSettings;
use super::tokens;
use super::topic_config::{TopicSetting, describe_settings};
use super::topic_id::{Access, Described, access};
use crate::port::{OwnedRecord, Topic};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::ops::Range;
use std::sync::Arc;

/// A topic as the cluster describes it to this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSurvey {
    /// The topic.
    pub topic: Topic,
    /// Its name.
    pub name: String,
    /// Whether it exists.
    pub presence: Presence,
    /// Its id (KIP-516); `None` if the brokers tell none.
    pub id: Option<String>,
    /// The operations that this user may use, by Kafka's names; empty if the brokers do not tell.
    pub operations: Vec<&'static str>,
    /// By number; empty if it does not exist.
    pub partitions: Vec<PartitionSurvey>,
    /// The settings that matter to the service; empty if this user may not read them.
    pub settings: Vec<TopicSetting>,
}

impl TopicSurvey {
    /// Returns the end of a partition; `None` if it is unknown, or there is no such partition.
    pub fn end_offset(&self, partition: u32) -> Option<u64> {
        let found = self.partitions.iter().find(|found| found.number == partition)?;
        Some(found.offsets.as_ref()?.end)
    }
}

/// Whether a topic exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Present,
    /// It does not.
    Missing,
    /// This user may not know.
    Denied,
}

/// A partition as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSurvey {
    /// Its number.
    pub number: u32,
    /// The id of the broker that leads it; `None` if none does.
    pub leader: Option<i32>,
    /// The ids of the brokers that keep it.
    pub replicas: Vec<i32>,
    /// Those of them that are up to date.
    pub in_sync: Vec<i32>,
    /// The first offset and the end, without records of open transactions; `None` if unknown.
    pub offsets: Option<Range<u64>>,
}

/// A consumer group as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSurvey {
    /// Its name.
    pub name: String,
    /// Its state by Kafka's name (`Stable`, `Empty`); `None` if there is no such group.
    pub state: Option<String>,
    /// How many members it has.
    pub members: usize,
    /// The next offsets that it has committed, by partition of the event topic.
    pub committed: Vec<(u32, u64)>,
}

/// A cluster that has answered. All calls block, each for at most `connect_timeout`.
pub struct Survey {
    settings: Arc<KafkaSettings>,
    brokers: Arc<Brokers>,
    contacted: Contacted,
    topics: Vec<TopicSurvey>,
}

impl Survey {
    /// Connects and describes the required topics.
    ///
    /// # Errors
    /// As [`KafkaLog::connect`](super::KafkaLog::connect), if the settings are wrong or no broker
    /// answers. Topics that do not fit are no errors.
    pub fn connect(settings: KafkaSettings) -> Result<Self, ConnectError> {
        let (settings, brokers) = begin(settings)?;
        let contacted = contact(&settings, &brokers)?;
        let topics = describe(&settings, &contacted)?;
        Ok(Self { settings, brokers, contacted, topics })
    }

    /// Returns the cluster's unique id, if the cluster reports one.
    pub fn cluster_id(&self) -> Option<&str> {
        self.contacted.cluster_id.as_deref()
    }

    /// Returns the ids of the brokers.
    pub fn brokers(&self) -> &[i32] {
        &self.contacted.cluster.brokers
    }

    /// Returns the required topics.
    pub fn topics(&self) -> &[TopicSurvey] {
        &self.topics
    }

    /// Returns one of the required topics.
    pub fn topic(&self, topic: Topic) -> Option<&TopicSurvey> {
        self.topics.iter().find(|surveyed| surveyed.topic == topic)
    }

    /// Returns how many partitions the event topic has; 0 if it does not exist.
    pub fn partitions(&self) -> u32 {
        self.topic(Topic::Events).map_or(0, |events| events.partitions.len() as u32)
    }

    /// Judges the topics as a start would, except that missing ones are no error.
    ///
    /// # Errors
    /// Why a start would be refused.
    pub fn judge(&self) -> Result<(), ConnectError> {
        check(&self.settings, &self.brokers, &self.contacted).map(drop)
    }

    /// Describes a group.
    ///
    /// # Errors
    /// If this user may not describe it: then the command that grants it. Or if the cluster does
    /// not answer.
    pub fn group(&self, name: &str) -> Result<GroupSurvey, ConnectError> {
        let timeout = self.settings.connect_timeout;
        let failed = |error: KafkaError| match error.rdkafka_error_code() {
            Some(code @ RDKafkaErrorCode::GroupAuthorizationFailed) => ConnectError::Refused {
                bootstrap: self.settings.bootstrap.clone(),
                what: "describe a group",
                cause: format!(
                    "this user may not be a member of the group {name} ({code}): {}",
                    super::rights::Granter::new(&self.settings).group(name)
                ),
            },
            _ => refused(&self.settings, "describe a group", &error),
        };
        let mut config = self.settings.reader();
        config.set("group.id", name);
        let context = QueryContext(Arc::clone(&self.brokers));
        let consumer = BaseConsumer::from_config_and_context(&config, context).map_err(failed)?;
        let consumer = Registered::new(consumer, self.brokers.clients());
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions() {
            asked.add_partition(&self.settings.events, partition as i32);
        }
        let answer = consumer.committed_offsets(asked, timeout).map_err(failed)?;
        let committed = answer.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) if element.error().is_ok() => {
                Some((element.partition() as u32, u64::try_from(offset).ok()?))
            }
            _ => None,
        });
        let committed = committed.collect();
        // Brokers differ in how they say that there is no such group.
        let groups = self.contacted.probe.fetch_group_list(Some(name), timeout).ok();
        let group = groups.as_ref().and_then(|groups| groups.groups().iter().find(|group| group.name() == name));
        let group = group.filter(|group| !["", "Dead"].contains(&group.state()));
        Ok(GroupSurvey {
            name: name.to_owned(),
            state: group.map(|group| group.state().to_owned()),
            members: group.map_or(0, |group| group.members().len()),
            committed,
        })
    }

    /// Returns the rights on existing topics that a part needs and this user lacks. Leaves out
    /// topics of which the brokers do not tell.
    pub fn missing_rights(&self, part: Part) -> Vec<Right> {
        let needed = rights(part, &self.settings, "", false).into_iter();
        needed
            .filter_map(|mut right| {
                let topic = self.topics.iter().find(|topic| topic.name == right.name)?;
                match topic.presence {
                    Presence::Present if topic.operations.is_empty() => return None,
                    Presence::Present => right.operations.retain(|needed| !topic.operations.contains(needed)),
                    // It may as well be missing, which is another matter.
                    Presence::Missing => return None,
                    Presence::Denied => {}
                }
                (!right.operations.is_empty()).then_some(right)
            })
            .collect()
    }

    /// Returns the newest records of the event topic, a few of each of its first partitions. May
    /// leave out some if the brokers are slow; blocks for at most a few seconds.
    pub fn newest_records(&self) -> Vec<OwnedRecord> {
        newest_records(&self.settings, &self.brokers, self.partitions())
    }
}

/// Returns the missing topics as a start would create them, and creates them unless `is_dry`.
///
/// # Errors
/// As [`KafkaLog::connect`](super::KafkaLog::connect).
pub fn create_topics(settings: KafkaSettings, is_dry: bool) -> Result<Vec<PlannedTopic>, ConnectError> {
    let (settings, brokers) = begin(settings)?;
    let contacted = contact(&settings, &brokers)?;
    let Found { missing, .. } = check(&settings, &brokers, &contacted)?;
    let planned = match missing.is_empty() {
        true => Vec::new(),
        false => plan(&settings, &contacted.admin, &missing, &contacted.cluster)?,
    };
    if !is_dry {
        drop(contacted);
        prepare(&settings, &brokers)?;
    }
    Ok(planned)
}

fn begin(settings: KafkaSettings) -> Result<(Arc<KafkaSettings>, Arc<Brokers>), ConnectError> {
    let (settings, brokers) = (Arc::new(settings), Arc::<Brokers>::default());
    settings.check()?;
    tokens::start(&settings, &brokers)?;
    Ok((settings, brokers))
}

fn describe(settings: &KafkaSettings, contacted: &Contacted) -> Result<Vec<TopicSurvey>, ConnectError> {
    let Contacted { admin, probe, .. } = contacted;
    let timeout = settings.connect_timeout;
    let metadata = probe.fetch_metadata(None, timeout).map_err(|error| refused(settings, "list topics", &error))?;
    let names: Vec<&str> = settings.required.iter().map(|topic| settings.topic(*topic)).collect();
    let mut accesses = access(admin.inner(), &names, timeout).unwrap_or_default().into_iter();
    let mut configs = describe_settings(settings, admin, timeout);
    let of = |topic: Topic| {
        let name = settings.topic(topic);
        let unknown = || Access { described: Described::Unknown, is_denied: false, operations: Vec::new() };
        let Access { described, is_denied, operations } = accesses.next().unwrap_or_else(unknown);
        let found = metadata.topics().iter().find(|found| found.name() == name && !found.partitions().is_empty());
        let at = configs.iter().position(|(described, _)| *described == topic);
        TopicSurvey {
            topic,
            name: name.to_owned(),
            presence: match found {
                Some(_) => Presence::Present,
                None if is_denied => Presence::Denied,
                None => Presence::Missing,
            },
            id: if let Described::Present(id) = described { id } else { None },
            operations,
            partitions: found.map(|found| partitions(probe, found, settings)).unwrap_or_default(),
            settings: at.map(|at| configs.swap_remove(at).1).unwrap_or_default(),
        }
    };
    Ok(settings.required.iter().copied().map(of).collect())
}

fn partitions(probe: &QueryConsumer, topic: &MetadataTopic, settings: &KafkaSettings) -> Vec<PartitionSurvey> {
    let at = |time: Offset| {
        let mut asked = TopicPartitionList::new();
        for partition in topic.partitions() {
            asked.add_partition_offset(topic.name(), partition.id(), time)?;
        }
        probe.offsets_for_times(asked, settings.connect_timeout)
    };
    // The times -2 and -1 stand for the beginning and the end.
    let ends = at(Offset::Beginning).and_then(|first| Ok((first, at(Offset::End)?))).ok();
    let offset = |list: &TopicPartitionList, partition: i32| {
        let element = list.find_partition(topic.name(), partition)?;
        match element.offset() {
            Offset::Offset(offset) if element.error().is_ok() => u64::try_from(offset).ok(),
            _ => None,
        }
    };
    let mut partitions: Vec<PartitionSurvey> = topic
        .partitions()
        .iter()
        .map(|partition| PartitionSurvey {
            number: partition.id() as u32,
            leader: Some(partition.leader()).filter(|leader| *leader >= 0),
            replicas: partition.replicas().to_vec(),
            in_sync: partition.isr().to_vec(),
            offsets: ends
                .as_ref()
                .and_then(|(first, end)| Some(offset(first, partition.id())?..offset(end, partition.id())?)),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.number);
    partitions
}
