//! `receipts topics describe`: prints the topics and the group of the projectors. It joins no group
//! and changes nothing.

use clap::Args;
use receipts_assembly::{consumer_group, creating_kafka_settings, require_bootstrap};
use receipts_log::Topic;
use receipts_log::kafka::{
    GroupSurvey, Judgement, PartitionSurvey, Presence, Survey, TopicSetting, TopicSurvey, library_version,
};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;
use std::io::{self, Write};

/// Arguments of `receipts topics describe`.
#[derive(Args)]
pub(crate) struct Describe {
    /// Consumer group of the projectors; without it projector.group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    brokers: Vec<i32>,
    cluster_id: Option<String>,
    librdkafka: String,
    topics: Vec<Described>,
    group: Group,
    /// Why a start would be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct Described {
    topic: String,
    #[serde(rename = "for")]
    used_for: &'static str,
    presence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    operations: Vec<&'static str>,
    partitions: Vec<Partition>,
    settings: Vec<Setting>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: u32,
    leader: Option<i32>,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    first_offset: Option<u64>,
    end_offset: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    value: String,
    judgement: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    state: Option<String>,
    members: usize,
    committed: Vec<Committed>,
    /// Why the group cannot be described.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Committed {
    partition: u32,
    offset: u64,
    /// Records between the committed offset and the end.
    lag: Option<u64>,
}

impl From<&TopicSurvey> for Described {
    fn from(topic: &TopicSurvey) -> Self {
        Self {
            topic: topic.name.clone(),
            used_for: match topic.topic {
                Topic::Events => "events",
                Topic::Updates => "updates",
                Topic::DeadLetters => "dead letters",
            },
            presence: match topic.presence {
                Presence::Present => "present",
                Presence::Missing => "missing",
                Presence::Denied => "denied",
            },
            id: topic.id.clone(),
            operations: topic.operations.clone(),
            partitions: topic.partitions.iter().map(Partition::from).collect(),
            settings: topic.settings.iter().map(Setting::from).collect(),
        }
    }
}

impl From<&PartitionSurvey> for Partition {
    fn from(partition: &PartitionSurvey) -> Self {
        Self {
            partition: partition.number,
            leader: partition.leader,
            replicas: partition.replicas.clone(),
            in_sync: partition.in_sync.clone(),
            first_offset: partition.offsets.as_ref().map(|offsets| offsets.start),
            end_offset: partition.offsets.as_ref().map(|offsets| offsets.end),
        }
    }
}

impl From<&TopicSetting> for Setting {
    fn from(setting: &TopicSetting) -> Self {
        let (judgement, detail) = match &setting.judgement {
            Judgement::Accepted => ("accepted", None),
            Judgement::Warned(detail) => ("warned", Some(detail.clone())),
            Judgement::Refused(detail) => ("refused", Some(detail.clone())),
        };
        Self { name: setting.name, value: setting.value.clone(), judgement, detail }
    }
}

impl Group {
    fn new(survey: GroupSurvey, events: Option<&TopicSurvey>) -> Self {
        let of = |(partition, offset): (u32, u64)| Committed {
            partition,
            offset,
            lag: events.and_then(|events| events.end_offset(partition)).map(|end| end.saturating_sub(offset)),
        };
        let GroupSurvey { name, state, members, committed } = survey;
        Self { name, state, members, committed: committed.into_iter().map(of).collect(), problem: None }
    }
}

/// Describes the topics that the settings name, and a group.
pub(crate) fn report(survey: &Survey, group: &str) -> Report {
    let of_group = match survey.group(group) {
        Ok(surveyed) => Group::new(surveyed, survey.topic(Topic::Events)),
        Err(error) => Group {
            name: group.to_owned(),
            state: None,
            members: 0,
            committed: Vec::new(),
            problem: Some(error.to_string()),
        },
    };
    Report {
        brokers: survey.brokers().to_vec(),
        cluster_id: survey.cluster_id().map(str::to_owned),
        librdkafka: library_version(),
        topics: survey.topics().iter().map(Described::from).collect(),
        group: of_group,
        refused: survey.judge().err().map(|error| error.to_string()),
    }
}

/// Describes.
///
/// # Errors
/// If the settings name no Kafka, or it does not answer.
pub(super) fn run(settings: &Settings, describe: &Describe, json: bool) -> Result<(), Failure> {
    let bootstrap = require_bootstrap("receipts topics describe", settings)?;
    let survey = Survey::connect(creating_kafka_settings(settings, bootstrap))?;
    let group = describe.group.as_deref().unwrap_or(&settings.projector.group);
    let report = report(&survey, &consumer_group(group, settings.projector.standby));
    Ok(Output::stdout(json).write(&report, |to| write_report(to, &report))?)
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let cluster = report.cluster_id.as_deref().unwrap_or("without an id");
    writeln!(to, "cluster {cluster}, {} brokers, librdkafka {}", report.brokers.len(), report.librdkafka)?;
    report.topics.iter().try_for_each(|topic| write_topic(to, topic))?;
    let group = &report.group;
    match (&group.problem, &group.state) {
        (Some(problem), _) => writeln!(to, "\ngroup {}: {}", printable(&group.name), printable(problem))?,
        (None, None) => writeln!(to, "\ngroup {}: no members", printable(&group.name))?,
        (None, Some(state)) => writeln!(to, "\ngroup {}: {state}, {} members", printable(&group.name), group.members)?,
    }
    for Committed { partition, offset, lag } in &group.committed {
        let lag = lag.map_or_else(|| "lag unknown".to_owned(), |lag| format!("lag {lag}"));
        writeln!(to, "  {partition:>5}  committed {offset}, {lag}")?;
    }
    match &report.refused {
        None => writeln!(to, "\na start accepts these topics"),
        Some(refused) => writeln!(to, "\na start is refused: {}", printable(refused)),
    }
}

fn write_topic(to: &mut dyn Write, topic: &Described) -> io::Result<()> {
    write!(to, "\n{} ({}): ", printable(&topic.topic), topic.used_for)?;
    match topic.presence {
        "present" => writeln!(to, "{} partitions", topic.partitions.len())?,
        "denied" => return writeln!(to, "this user may not describe it; `receipts topics acl` prints the commands"),
        _ => return writeln!(to, "missing; `receipts topics create` creates it"),
    }
    for setting in &topic.settings {
        let detail = setting.detail.as_ref().map(|detail| format!(" ({}: {detail})", setting.judgement));
        writeln!(to, "  {}={}{}", setting.name, printable(&setting.value), detail.unwrap_or_default())?;
    }
    if topic.settings.is_empty() {
        writeln!(to, "  its settings cannot be read: this user lacks DescribeConfigs")?;
    }
    for partition in &topic.partitions {
        let ids = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        let leader = partition.leader.map_or_else(|| "none".to_owned(), |id| id.to_string());
        write!(
            to,
            "  {:>5}  leader {leader}, replicas {}, in sync {}",
            partition.partition,
            ids(&partition.replicas),
            ids(&partition.in_sync)
        )?;
        match partition.first_offset.zip(partition.end_offset) {
            Some((first, end)) => writeln!(to, ", offsets {first} to {end}")?,
            None => writeln!(to, ", offsets unknown")?,
        }
    }
    Ok(())
}
