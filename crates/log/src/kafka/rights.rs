//! The rights that each part of the service needs in Kafka, as `kafka-acls.sh` grants them.
//!
//! It asks no cluster. `receipts topics acl` prints these rights, and errors name the one that is
//! missing.

use super::properties;
use super::settings::KafkaSettings;
use crate::port::Topic;
use std::fmt::Write as _;

/// A part of the service that connects to Kafka as a user of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `receipts serve`: ingest, projector and query in one process.
    Service,
    /// `receipts-ingest`.
    Ingest,
    /// `receipts-projector`, also as a standby.
    Projector,
    /// `receipts-query` with streams of updates.
    Query,
    /// Commands that read events: export, stats, replay, verify, rebuild.
    Analyst,
    /// Commands that read and write: policy, erase, backfill, dead-letters.
    Operator,
}

/// What a right is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// The cluster.
    Cluster,
}

impl Resource {
    /// Its name in the flags of `kafka-acls.sh`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Group => "group",
            Self::Cluster => "cluster",
        }
    }
}

/// Operations on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// The kind of resource.
    pub resource: Resource,
    /// Its name, or how its name begins if `prefixed`; `kafka-cluster` for the cluster.
    pub name: String,
    /// True if the right is for all resources whose names begin so.
    pub prefixed: bool,
    /// By Kafka's names: `Read`, `DescribeConfigs`.
    pub operations: Vec<&'static str>,
}

impl Right {
    fn new(resource: Resource, name: &str, operations: &[&'static str]) -> Self {
        Self { resource, name: name.to_owned(), prefixed: false, operations: operations.to_vec() }
    }

    /// Returns the command that grants it.
    #[must_use]
    pub fn command(&self, bootstrap: &str, principal: &str) -> String {
        let mut command =
            format!("kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal {}", quoted(principal));
        for operation in &self.operations {
            _ = write!(command, " --operation {operation}");
        }
        _ = match self.resource {
            Resource::Cluster => write!(command, " --cluster"),
            resource => write!(command, " --{} {}", resource.name(), quoted(&self.name)),
        };
        if self.prefixed {
            command += " --resource-pattern-type prefixed";
        }
        command
    }
}

/// Quotes a text for a shell, where that is needed.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Returns the least rights of a part. `group` is the consumer group of the projectors. With
/// `create` they include that for missing topics.
///
/// No part needs a right for a group in which it is not a member, and no writer
/// [`idempotent_write`], unless its brokers are older than Kafka 2.8.
#[must_use]
pub fn rights(part: Part, settings: &KafkaSettings, group: &str, create: bool) -> Vec<Right> {
    let of = |part: Part, topic: Topic| -> &[&'static str] {
        match (part, topic) {
            (Part::Ingest, Topic::Events) => &["Describe", "DescribeConfigs", "Write"],
            (Part::Projector, Topic::Events) => &["Describe", "DescribeConfigs", "Read"],
            (Part::Service | Part::Operator, Topic::Events) => &["Describe", "DescribeConfigs", "Read", "Write"],
            (Part::Query, Topic::Events) => &["Describe", "DescribeConfigs"],
            (Part::Analyst, Topic::Events) => &["Describe", "DescribeConfigs", "Read"],
            (Part::Projector, Topic::Updates | Topic::DeadLetters) | (Part::Service, Topic::DeadLetters) => {
                &["Describe", "DescribeConfigs", "Write"]
            }
            (Part::Service, Topic::Updates) => &["Describe", "DescribeConfigs", "Read", "Write"],
            (Part::Query, Topic::Updates) | (Part::Operator, Topic::DeadLetters) => &["Describe", "Read"],
            (Part::Ingest, Topic::Updates | Topic::DeadLetters) | (Part::Query, Topic::DeadLetters) => &["Describe"],
            (Part::Analyst, Topic::Updates | Topic::DeadLetters) | (Part::Operator, Topic::Updates) => &[],
        }
    };
    let creates = create && !matches!(part, Part::Analyst | Part::Operator);
    let mut rights = Vec::new();
    for topic in Topic::ALL {
        let operations = of(part, topic);
        if !operations.is_empty() {
            let mut right = Right::new(Resource::Topic, settings.topic(topic), operations);
            right.operations.extend(creates.then_some("Create"));
            rights.push(right);
        }
    }
    if matches!(part, Part::Service | Part::Projector) {
        rights.push(Right::new(Resource::Group, group, &["Read"]));
    }
    rights
}

/// The right that writers need where the brokers are older than Kafka 2.8; `None` for parts that do
/// not write.
#[must_use]
pub fn idempotent_write(part: Part) -> Option<Right> {
    let writes = !matches!(part, Part::Query | Part::Analyst);
    writes.then(|| Right::new(Resource::Cluster, "kafka-cluster", &["IdempotentWrite"]))
}

/// Returns the same rights for all topics and groups whose names begin with `prefix`: one right for
/// each kind of resource.
///
/// # Errors
/// The first name that does not begin so.
pub fn prefixed(rights: &[Right], prefix: &str) -> Result<Vec<Right>, String> {
    let mut merged: Vec<Right> = Vec::new();
    for right in rights {
        if !right.name.starts_with(prefix) {
            return Err(right.name.clone());
        }
        let at = merged.iter().position(|other| other.resource == right.resource).unwrap_or_else(|| {
            merged.push(Right { prefixed: true, ..Right::new(right.resource, prefix, &[]) });
            merged.len() - 1
        });
        for operation in &right.operations {
            if !merged[at].operations.contains(operation) {
                merged[at].operations.push(operation);
            }
        }
    }
    merged.iter_mut().for_each(|right| right.operations.sort_unstable());
    Ok(merged)
}

/// Says which right is missing, and which command grants it.
#[derive(Debug, Clone)]
pub(super) struct Granter {
    bootstrap: String,
    principal: String,
    has_tokens: bool,
}

impl Granter {
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        // Of a certificate or a token only the brokers know the principal.
        let user = settings.properties.get("sasl.username").map_or("NAME", String::as_str);
        Self {
            bootstrap: settings.bootstrap.clone(),
            principal: format!("User:{user}"),
            has_tokens: properties::mechanism(&settings.properties) == Some("OAUTHBEARER"),
        }
    }

    /// Whether the user authenticates with tokens, which expire.
    pub(super) fn has_tokens(&self) -> bool {
        self.has_tokens
    }

    /// Returns the command that grants operations on a topic.
    pub(super) fn topic(&self, topic: &str, operations: &[&'static str]) -> String {
        Right::new(Resource::Topic, topic, operations).command(&self.bootstrap, &self.principal)
    }

    /// Returns the command that lets the user be a member of a group.
    pub(super) fn group(&self, group: &str) -> String {
        Right::new(Resource::Group, group, &["Read"]).command(&self.bootstrap, &self.principal)
    }

    /// Returns the command that lets the user write idempotently to brokers before Kafka 2.8.
    pub(super) fn idempotent_write(&self) -> String {
        Right::new(Resource::Cluster, "kafka-cluster", &["IdempotentWrite"]).command(&self.bootstrap, &self.principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(part: Part, topic: &str) -> Vec<&'static str> {
        let rights = rights(part, &KafkaSettings::default(), "g", false);
        rights.into_iter().find(|right| right.name == topic).map(|right| right.operations).unwrap_or_default()
    }

    #[test]
    fn only_writers_may_write_and_only_readers_read() {
        for (part, writes, reads) in [
            (Part::Ingest, true, false),
            (Part::Projector, false, true),
            (Part::Query, false, false),
            (Part::Analyst, false, true),
            (Part::Operator, true, true),
            (Part::Service, true, true),
        ] {
            let events = operations(part, "receipts.events");
            assert_eq!((events.contains(&"Write"), events.contains(&"Read")), (writes, reads), "{part:?}");
            assert!(events.contains(&"Describe") && !events.contains(&"Create"), "{part:?}");
        }
        let created = rights(Part::Ingest, &KafkaSettings::default(), "g", true);
        assert!(created.iter().all(|right| right.operations.contains(&"Create")));
    }

    #[test]
    fn service_has_the_rights_of_its_parts() {
        for topic in ["receipts.events", "receipts.updates", "receipts.dead-letters", "g"] {
            let service = operations(Part::Service, topic);
            for part in [Part::Ingest, Part::Projector, Part::Query] {
                let missing: Vec<_> =
                    operations(part, topic).into_iter().filter(|one| !service.contains(one)).collect();
                assert!(missing.is_empty(), "{part:?} {topic} {missing:?}");
            }
        }
    }

    #[test]
    fn commands_are_those_of_kafka() {
        let right = &rights(Part::Projector, &KafkaSettings::default(), "my group", false)[3];
        assert_eq!(
            right.command("b:9092", "User:CN=fold er"),
            "kafka-acls.sh --bootstrap-server b:9092 --add --allow-principal 'User:CN=fold er' --operation Read --group 'my \
             group'"
        );
    }

    #[test]
    fn rights_of_a_prefix_are_one_for_each_resource() {
        let all = rights(Part::Projector, &KafkaSettings::default(), "receipts-projector", false);
        let merged = prefixed(&all, "receipts").expect("all begin so");
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].operations, ["Describe", "DescribeConfigs", "Read", "Write"]);
        assert!(merged[0].command("b:1", "User:x").ends_with("--topic receipts --resource-pattern-type prefixed"));
        assert_eq!(prefixed(&all, "receipts."), Err("receipts-projector".to_owned()));
    }
}
