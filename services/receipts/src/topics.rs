//! `receipts topics`: creates and describes the topics, and prints the least rights of a part in
//! Kafka. It changes no existing topic and grants nothing.

mod create;
pub(crate) mod describe;

use clap::{Args, Subcommand, ValueEnum};
use receipts_assembly::{consumer_group, kafka_settings};
use receipts_log::kafka::{Part, Right, idempotent_write, prefixed, rights};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use receipts_runtime::telemetry;
use serde_json::json;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts topics acl --principal User:receipts --kafka-bootstrap localhost:9092
  receipts topics acl --principal User:folder --part projector --group receipts-projector
  receipts topics acl --principal User:receipts --prefixed receipts --topics-exist --json";

pub(crate) const CREATE_EXAMPLES: &str = "Examples:
  receipts topics create --kafka-bootstrap localhost:9092 --dry-run
  receipts topics create --kafka-bootstrap localhost:9092 --log-partitions 24 --kafka-replication 3";

pub(crate) const DESCRIBE_EXAMPLES: &str = "Examples:
  receipts topics describe --kafka-bootstrap localhost:9092
  receipts topics describe --kafka-bootstrap localhost:9092 --group receipts-projector --json";

/// Stands for the brokers where the settings name none.
const BOOTSTRAP: &str = "HOST:PORT";

/// The commands of `receipts topics`.
#[derive(Subcommand)]
pub(crate) enum Topics {
    /// Creates the topics that are missing, as the first start of a service would.
    ///
    /// Refuses what a start refuses, with the same sentences, and changes no existing topic.
    /// --dry-run prints the topics and creates none. Exit code 1: a topic does not fit or cannot be
    /// created.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(create::Create),
    /// Describes the topics: partitions, replicas, settings that matter and whether the service
    /// accepts them, offsets, and the lag of the projectors' group.
    ///
    /// Joins no group and changes nothing. The committed offsets serve lag tools only: a projector
    /// starts at the offsets of its store. Exit code 1: no broker answers.
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe(describe::Describe),
    /// Prints the least rights that a part needs in Kafka, as commands of kafka-acls.sh.
    ///
    /// Connects to no broker: run the printed commands as an administrator of the cluster. The
    /// names of topics and of the group are those of the settings. --json prints the rights as data
    /// beside the commands.
    #[command(after_help = EXAMPLES)]
    Acl(Acl),
}

/// Arguments of `receipts topics acl`.
#[derive(Args)]
pub(crate) struct Acl {
    /// User that gets the rights, as the brokers name it: User:NAME
    #[arg(long, value_name = "TYPE:NAME", value_parser = principal)]
    principal: String,
    /// Part that connects as this user
    #[arg(long, value_enum, default_value = "service")]
    part: Named,
    /// Consumer group of the projectors; without it projector.group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Grants for all topics and groups whose names begin with PREFIX, instead of single names
    #[arg(long, value_name = "PREFIX")]
    prefixed: Option<String>,
    /// Leaves out the right to create topics: they exist already
    #[arg(long)]
    topics_exist: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Named {
    /// receipts serve: ingest, projector and query in one process
    Service,
    /// receipts-ingest
    Ingest,
    /// receipts-projector, also as a standby
    Projector,
    /// receipts-query with streams of updates
    Query,
    /// Commands that read events: export, stats, replay, verify, rebuild
    Analyst,
    /// Commands that also write events: policy, erase, backfill, dead-letters
    Operator,
}

impl From<Named> for Part {
    fn from(named: Named) -> Self {
        match named {
            Named::Service => Part::Service,
            Named::Ingest => Part::Ingest,
            Named::Projector => Part::Projector,
            Named::Query => Part::Query,
            Named::Analyst => Part::Analyst,
            Named::Operator => Part::Operator,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// Wrong usage, or a Kafka that does not answer or does not fit.
pub(crate) fn run(settings: &Settings, command: &Topics, json: bool) -> Result<(), Failure> {
    telemetry::init(&settings.telemetry)?;
    match command {
        Topics::Create(create) => create::run(settings, create, json),
        Topics::Describe(describe) => describe::run(settings, describe, json),
        Topics::Acl(acl) => print_acl(settings, acl, json),
    }
}

fn principal(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        _ => Err("a principal is TYPE:NAME, for instance User:receipts".to_owned()),
    }
}

/// Prints the rights of a part.
fn print_acl(settings: &Settings, acl: &Acl, json: bool) -> Result<(), Failure> {
    let bootstrap = settings.kafka.bootstrap.as_deref().unwrap_or(BOOTSTRAP);
    let group = acl.group.as_deref().unwrap_or(&settings.projector.group);
    let group = consumer_group(group, settings.projector.standby);
    let part = Part::from(acl.part);
    let mut all = rights(part, &kafka_settings(settings, bootstrap), &group, !acl.topics_exist);
    if let Some(prefix) = &acl.prefixed {
        all = prefixed(&all, prefix).map_err(|name| {
            Failure::usage(format!("--prefixed {prefix}: {name} does not begin so; choose a shorter prefix"))
        })?;
    }
    let old = idempotent_write(part);
    let command = |right: &Right| right.command(bootstrap, &acl.principal);
    let shown = |right: &Right| {
        json!({"resource": right.resource.name(), "name": right.name,
               "pattern": if right.prefixed { "prefixed" } else { "literal" },
               "operations": right.operations, "command": command(right)})
    };
    let data = json!({"principal": acl.principal, "rights": all.iter().map(shown).collect::<Vec<_>>(),
                      "before_kafka_2_8": old.iter().map(shown).collect::<Vec<_>>()});
    Output::stdout(json).write(&data, |to| {
        for right in &all {
            writeln!(to, "{}", printable(&command(right)))?;
        }
        match &old {
            None => Ok(()),
            Some(old) => {
                writeln!(to, "# Only brokers older than Kafka 2.8 need this right too:\n# {}", printable(&command(old)))
            }
        }
    })?;
    Ok(())
}
