//! Checks Kafka: brokers, topics, settings, rights, the newest records and the group; and the store
//! and the snapshots against the topic.

use super::finding::{Finding, Findings};
use super::{Examined, Part, snapshots};
use receipts_assembly::{DataDir, LogIdentity, consumer_group, creating_kafka_settings, snapshot_destination};
use receipts_event::{Partitioner, partition_of};
use receipts_log::kafka::{self, ConnectError, Judgement, KafkaSettings, Presence, Survey, library_version};
use receipts_log::{OwnedRecord, Topic};
use receipts_runtime::clock::unix_ms;
use receipts_runtime::config::Settings;

const SETTINGS: &str = "kafka.settings";
const REACHABLE: &str = "kafka.reachable";
const VERSION: &str = "kafka.version";
const TOPICS: &str = "kafka.topics";
const PARTITIONS: &str = "kafka.partitions";
const CLEANUP: &str = "kafka.cleanup";
const TIME_BOUND: &str = "kafka.time_bound";
const RETENTION: &str = "kafka.retention";
const RECORD_BYTES: &str = "kafka.record_bytes";
const REPLICAS: &str = "kafka.replicas";
const RIGHTS: &str = "kafka.rights";
const GROUP: &str = "kafka.group";
const PARTITIONER: &str = "kafka.partitioner";
const DEAD_LETTERS: &str = "kafka.dead_letters";
const LOG: &str = "kafka.log";
const REACH: &str = "snapshots.reach";
const CLOCK: &str = "clock.records";

pub(super) const CHECKS: [&str; 17] = [
    SETTINGS,
    REACHABLE,
    VERSION,
    TOPICS,
    PARTITIONS,
    CLEANUP,
    TIME_BOUND,
    RETENTION,
    RECORD_BYTES,
    REPLICAS,
    RIGHTS,
    GROUP,
    PARTITIONER,
    DEAD_LETTERS,
    LOG,
    REACH,
    CLOCK,
];

/// A newest record that is further ahead than this tells of a wrong clock.
const AHEAD_MS: u64 = 60_000;

pub(super) fn run(examined: &Examined, findings: &mut Findings) {
    let settings = &examined.settings;
    let Some(bootstrap) = &settings.kafka.bootstrap else {
        if matches!(examined.part, Part::Ingest | Part::Projector) {
            let (detail, remedy) = ("this part needs a Kafka", "set kafka.bootstrap (--kafka-bootstrap HOST:PORT)");
            findings.add(Finding::problem(SETTINGS, detail, remedy));
            return findings.skip(&CHECKS[1..], "kafka.bootstrap is not set");
        }
        return findings.skip(&CHECKS, "kafka.bootstrap is not set");
    };
    let kafka = KafkaSettings { connect_timeout: examined.patience, ..creating_kafka_settings(settings, bootstrap) };
    let survey = match Survey::connect(kafka) {
        Ok(survey) => survey,
        Err(error) => return unreachable(&error, bootstrap, findings),
    };
    let brokers = survey.brokers().len();
    findings.add(Finding::ok(SETTINGS, format!("librdkafka {} takes the properties", library_version())));
    findings.add(Finding::ok(REACHABLE, format!("{brokers} brokers answer at {bootstrap}")));
    findings.add(version(&survey));
    topics(&survey, findings);
    judged(&survey, bootstrap, findings);
    findings.add(replicas(&survey));
    rights(examined, &survey, bootstrap, findings);
    findings.add(group(examined, &survey));
    let records = survey.newest_records();
    findings.add(partitioner(&records, survey.partitions()));
    findings.add(dead_letters(&survey));
    findings.add(log(settings, examined.part, &survey));
    findings.add(reach(examined, &survey));
    findings.add(clock(&records));
}

fn unreachable(error: &ConnectError, bootstrap: &str, findings: &mut Findings) {
    let sentence = error.to_string();
    match error {
        ConnectError::Settings(_) => {
            findings.add(Finding::problem(SETTINGS, sentence, "correct kafka.properties (docs/kafka.md)"));
            findings.skip(&CHECKS[1..], "the settings of Kafka are wrong");
        }
        _ => {
            findings.add(Finding::ok(SETTINGS, format!("librdkafka {} takes the properties", library_version())));
            let remedy = format!(
                "kcat -L -b {bootstrap} from this machine; check kafka.bootstrap, advertised.listeners and \
                 kafka.properties"
            );
            findings.add(Finding::problem(REACHABLE, sentence, remedy));
            findings.skip(&CHECKS[2..], "no broker answers");
        }
    }
}

/// The brokers tell no version; the settings of their topics do.
fn version(survey: &Survey) -> Finding {
    let has = |name: &str| survey.topics().iter().any(|topic| topic.settings.iter().any(|one| one.name == name));
    let has_id = survey.topics().iter().any(|topic| topic.id.is_some());
    match () {
        () if !has("cleanup.policy") => Finding::skipped(VERSION, "no topic tells what the brokers know"),
        () if !has("message.timestamp.after.max.ms") => Finding::warning(
            VERSION,
            "the brokers are older than Kafka 3.6, which cannot bound the future of records alone",
            "update the brokers, or set message.timestamp.type=LogAppendTime for the event topic",
        ),
        () if !has_id => Finding::warning(
            VERSION,
            "the brokers tell no ids of topics, so a topic that is made anew is not noticed by its id",
            "update the brokers to Kafka 2.8 or newer",
        ),
        () if has("message.timestamp.difference.max.ms") => Finding::ok(VERSION, "Kafka 3.6 or newer"),
        () => Finding::ok(VERSION, "Kafka 4.0 or newer"),
    }
}

fn topics(survey: &Survey, findings: &mut Findings) {
    let absent = survey.topics().iter().filter_map(|topic| match topic.presence {
        Presence::Present => None,
        Presence::Denied => {
            let command = "receipts topics acl prints the commands";
            Some(Finding::problem(TOPICS, format!("this user may not describe the topic {}", topic.name), command))
        }
        Presence::Missing => Some(Finding::warning(
            TOPICS,
            format!("the topic {} does not exist; the first start creates it", topic.name),
            "receipts topics create --dry-run, and without --dry-run to create it now; or correct its name \
             (log.*_topic)",
        )),
    });
    findings.add_all(TOPICS, absent.collect(), "all topics exist");
    let counts = survey.topics().iter().map(|topic| format!("{} of {}", topic.partitions.len(), topic.name));
    findings.add(match survey.judge() {
        Err(error @ (ConnectError::Partitions { .. } | ConnectError::PartitionCount(_))) => {
            Finding::problem(PARTITIONS, error.to_string(), "docs/kafka.md says how to fill a new topic")
        }
        _ if survey.partitions() == 0 => Finding::skipped(PARTITIONS, "there is no event topic"),
        _ => Finding::ok(PARTITIONS, counts.collect::<Vec<_>>().join(", ")),
    });
}

/// The judgements of a start on the settings of the topics.
fn judged(survey: &Survey, bootstrap: &str, findings: &mut Findings) {
    let checks = [
        (CLEANUP, &["cleanup.policy"][..]),
        (TIME_BOUND, &["message.timestamp.after.max.ms", "message.timestamp.difference.max.ms"]),
        (RETENTION, &["retention.ms", "retention.bytes"]),
        (RECORD_BYTES, &["max.message.bytes"]),
    ];
    let all = || survey.topics().iter().flat_map(|topic| topic.settings.iter().map(move |setting| (topic, setting)));
    for (check, names) in checks {
        let of_check = all().filter(|(_, setting)| names.contains(&setting.name));
        if of_check.clone().next().is_none() {
            findings.add(Finding::skipped(check, "the settings of the topics cannot be read"));
            continue;
        }
        let found = of_check.filter_map(|(topic, setting)| {
            let (topic, name, value) = (&topic.name, setting.name, &setting.value);
            let wanted = match check {
                CLEANUP => "delete",
                RETENTION => "-1",
                RECORD_BYTES => "4194304",
                _ => "3600000",
            };
            let command = format!(
                "kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {topic} \
                 --add-config {name}={wanted}"
            );
            match &setting.judgement {
                Judgement::Accepted => None,
                Judgement::Warned(why) => {
                    Some(Finding::warning(check, format!("{topic} has {name}={value}: {why}"), command))
                }
                Judgement::Refused(why) => Some(Finding::problem(check, why, command)),
            }
        });
        findings.add_all(check, found.collect(), "accepted for all topics");
    }
}

fn replicas(survey: &Survey) -> Finding {
    for topic in survey.topics() {
        let setting = topic.settings.iter().find(|setting| setting.name == "min.insync.replicas");
        let needed = setting.and_then(|setting| setting.value.parse::<usize>().ok()).unwrap_or(1);
        for partition in &topic.partitions {
            let (number, in_sync, all) = (partition.number, partition.in_sync.len(), partition.replicas.len());
            let of = format!("partition {number} of {}", topic.name);
            if partition.leader.is_none() {
                return Finding::problem(REPLICAS, format!("{of} has no leader"), "start the brokers that keep it");
            }
            if needed > all {
                return Finding::problem(
                    REPLICAS,
                    format!("{of} has {all} replicas, and min.insync.replicas={needed} refuses every write"),
                    format!("kafka-reassign-partitions.sh adds replicas; or set min.insync.replicas={all}"),
                );
            }
            if in_sync < needed {
                return Finding::problem(
                    REPLICAS,
                    format!(
                        "{of} has {in_sync} replicas in sync, and min.insync.replicas={needed} refuses every write"
                    ),
                    "start the brokers of the other replicas",
                );
            }
            if in_sync < all || (all == 1 && survey.brokers().len() > 1) {
                return Finding::warning(
                    REPLICAS,
                    format!("{of} has {in_sync} of {all} replicas in sync: the next failure loses it or stops writes"),
                    "kafka-topics.sh --describe --under-replicated-partitions shows all; \
                     kafka-reassign-partitions.sh adds replicas",
                );
            }
        }
    }
    match survey.partitions() {
        0 => Finding::skipped(REPLICAS, "there is no event topic"),
        _ => Finding::ok(REPLICAS, "all replicas are in sync"),
    }
}

fn rights(examined: &Examined, survey: &Survey, bootstrap: &str, findings: &mut Findings) {
    let part = match examined.part {
        Part::Service => kafka::Part::Service,
        Part::Ingest => kafka::Part::Ingest,
        Part::Projector => kafka::Part::Projector,
        Part::Query => kafka::Part::Query,
    };
    if survey.topics().iter().all(|topic| topic.presence == Presence::Present && topic.operations.is_empty()) {
        return findings.add(Finding::skipped(RIGHTS, "the brokers do not tell rights"));
    }
    let user = examined.settings.kafka.properties.0.get("sasl.username").map_or("NAME", String::as_str);
    let missing = survey.missing_rights(part).into_iter().map(|right| {
        Finding::problem(
            RIGHTS,
            format!("this user lacks {} on the topic {}", right.operations.join(", "), right.name),
            right.command(bootstrap, &format!("User:{user}")),
        )
    });
    findings.add_all(RIGHTS, missing.collect(), "this user has the rights on all topics that exist");
}

fn group(examined: &Examined, survey: &Survey) -> Finding {
    let projector = &examined.settings.projector;
    if !examined.part.folds() {
        return Finding::skipped(GROUP, "this part is in no group");
    }
    let name = consumer_group(&projector.group, projector.standby);
    let group = match survey.group(&name) {
        Ok(group) => group,
        Err(error) => {
            return Finding::problem(GROUP, error.to_string(), "receipts topics acl prints the commands");
        }
    };
    let events = survey.topic(Topic::Events);
    let end = |partition: u32| events?.end_offset(partition);
    let beyond = group.committed.iter().find(|(partition, offset)| end(*partition).is_some_and(|end| end < *offset));
    if let Some((partition, offset)) = beyond {
        return Finding::problem(
            GROUP,
            format!(
                "the group {name} has committed offset {offset} of partition {partition}, which ends before it: the \
                 topic was made anew, or lost records"
            ),
            "put the right topic back, or point --data-dir at an empty directory and choose another projector.group",
        );
    }
    let lag: u64 =
        group.committed.iter().filter_map(|(partition, at)| Some(end(*partition)?.saturating_sub(*at))).sum();
    let state = group.state.as_deref().unwrap_or("not there yet");
    Finding::ok(GROUP, format!("{name} is {state}, has {} members, and lags by {lag} records", group.members))
}

fn partitioner(records: &[OwnedRecord], partitions: u32) -> Finding {
    let keyed: Vec<(u32, &[u8])> =
        records.iter().filter_map(|record| Some((record.partition, record.key.as_deref()?))).collect();
    // Copies of control events are in every partition.
    let keyed: Vec<(u32, &[u8])> = keyed.into_iter().filter(|(_, key)| !key.ends_with(b"/")).collect();
    if keyed.is_empty() {
        return Finding::skipped(PARTITIONER, "there are no records with keys, or this user may not read them");
    }
    let wrong: Vec<&(u32, &[u8])> =
        keyed.iter().filter(|(partition, key)| partition_of(key, partitions) != *partition).collect();
    if wrong.is_empty() {
        return Finding::ok(PARTITIONER, format!("the newest {} records stand where their keys belong", keyed.len()));
    }
    let explained = Partitioner::ALL
        .map(|one| wrong.iter().filter(|(at, key)| one.partition_of(key, partitions) == *at).count() as u64);
    let verdict = Partitioner::verdict(wrong.len() as u64, explained);
    Finding::problem(
        PARTITIONER,
        format!("{} of the newest {} records are in other partitions than their keys", wrong.len(), keyed.len()),
        verdict.unwrap_or_else(|| "docs/producers.md has the setting of each client".to_owned()),
    )
}

fn dead_letters(survey: &Survey) -> Finding {
    let topic = survey.topic(Topic::DeadLetters);
    let partitions = topic.map(|topic| topic.partitions.as_slice()).unwrap_or_default();
    let held = partitions.iter().filter_map(|partition| partition.offsets.as_ref()).map(|at| at.end - at.start).sum();
    match (partitions.is_empty(), held) {
        (true, _) => Finding::skipped(DEAD_LETTERS, "there is no topic of dead letters"),
        (false, 0_u64) => Finding::ok(DEAD_LETTERS, "there are none"),
        (false, held) => Finding::warning(
            DEAD_LETTERS,
            format!("{held} records could not be applied"),
            "receipts dead-letters list says why; receipts dead-letters replay --dry-run what can be repaired",
        ),
    }
}

/// Compares the store with the topic.
fn log(settings: &Settings, part: Part, survey: &Survey) -> Finding {
    let Some(events) = survey.topic(Topic::Events).filter(|events| !events.partitions.is_empty() && part.folds())
    else {
        return Finding::skipped(LOG, "there is no store, or no event topic");
    };
    let now = LogIdentity::Kafka {
        events_topic: events.name.clone(),
        partitions: survey.partitions(),
        cluster_id: survey.cluster_id().map(str::to_owned),
        topic_id: events.id.clone(),
    };
    match DataDir::other_log_than(&settings.data_dir, &now) {
        Ok(None) => Finding::ok(LOG, format!("the store is of {now}, or there is none")),
        Ok(Some(sentence)) => Finding::problem(
            LOG,
            sentence,
            "name the topic of the store with --log-events-topic, or choose another --data-dir",
        ),
        Err(error) => Finding::skipped(LOG, format!("{error:#}")),
    }
}

/// Compares the newest snapshots with the beginning of the topic.
fn reach(examined: &Examined, survey: &Survey) -> Finding {
    let url = examined.settings.snapshot.url.as_deref().filter(|url| snapshots::missing_folder(url).is_none());
    let Some(destination) = url.and_then(|_| snapshot_destination(&examined.settings).ok().flatten()) else {
        return Finding::skipped(REACH, "there are no snapshots");
    };
    let newest = match snapshots::of_store(examined, &destination) {
        Ok(Some((_, newest))) if !newest.is_empty() => newest,
        Ok(_) => return Finding::skipped(REACH, "there are no snapshots"),
        Err(why) => return Finding::skipped(REACH, why),
    };
    let events = survey.topic(Topic::Events);
    for partition in events.map(|events| events.partitions.as_slice()).unwrap_or_default() {
        let (Some(offsets), number) = (&partition.offsets, partition.number) else { continue };
        let reached = newest.get(&number).map_or(0, |entry| entry.next_offset);
        if reached < offsets.start {
            return Finding::problem(
                REACH,
                format!(
                    "partition {number} begins at offset {}, and its newest snapshot ends at {reached}: after the loss of \
                     the disk the records between would be missing",
                    offsets.start
                ),
                "receipts snapshot take, and a longer retention.ms of the event topic",
            );
        }
    }
    Finding::ok(REACH, "the topic still has all records after the newest snapshots")
}

fn clock(records: &[OwnedRecord]) -> Finding {
    let Some(newest) = records.iter().max_by_key(|record| record.timestamp_ms) else {
        return Finding::skipped(CLOCK, "there are no records, or this user may not read them");
    };
    match newest.timestamp_ms.saturating_sub(unix_ms()) {
        ahead_ms if ahead_ms > AHEAD_MS => Finding::warning(
            CLOCK,
            format!(
                "the record at {}:{} is dated {} s ahead of this machine's clock",
                newest.partition,
                newest.offset,
                ahead_ms / 1_000
            ),
            "timedatectl status here, at the brokers and at the producers; turn on NTP (chronyd, systemd-timesyncd)",
        ),
        _ => Finding::ok(CLOCK, "no newest record is dated ahead of this machine's clock"),
    }
}
