//! `receipts topics create`: creates the topics that are missing. It changes no existing topic.

use clap::Args;
use receipts_assembly::{creating_kafka_settings, require_bootstrap};
use receipts_log::kafka::{PlannedTopic, create_topics};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Arguments of `receipts topics create`.
#[derive(Args)]
pub(crate) struct Create {
    /// Prints the topics that it would create, and creates none
    #[arg(long)]
    dry_run: bool,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    dry_run: bool,
    created: Vec<Created>,
}

#[derive(Serialize)]
struct Created {
    topic: String,
    partitions: i32,
    replicas: i32,
    settings: BTreeMap<&'static str, String>,
}

impl From<PlannedTopic> for Created {
    fn from(planned: PlannedTopic) -> Self {
        Self {
            topic: planned.name,
            partitions: planned.partitions,
            replicas: planned.replication,
            settings: planned.properties.into_iter().collect(),
        }
    }
}

/// Creates.
///
/// # Errors
/// What a start refuses, and a Kafka that does not answer.
pub(super) fn run(settings: &Settings, create: &Create, json: bool) -> Result<(), Failure> {
    let bootstrap = require_bootstrap("receipts topics create", settings)?;
    let planned = create_topics(creating_kafka_settings(settings, bootstrap), create.dry_run)?;
    let report = Report { dry_run: create.dry_run, created: planned.into_iter().map(Created::from).collect() };
    Ok(Output::stdout(json).write(&report, |to| write_report(to, &report))?)
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    if report.created.is_empty() {
        return writeln!(to, "all topics exist, and a start accepts them");
    }
    let done = if report.dry_run { "would create" } else { "created" };
    for Created { topic, partitions, replicas, settings } in &report.created {
        writeln!(to, "{done} {} with {partitions} partitions of {replicas} replicas", printable(topic))?;
        settings.iter().try_for_each(|(name, value)| writeln!(to, "  {name}={value}"))?;
    }
    Ok(())
}
