//! `receipts doctor`: checks the set-up of a service, and says what is wrong and what to type.
//!
//! It changes nothing, joins no group and starts no service. The one object that it writes, at the
//! destination of snapshots, it removes again.

mod finding;
mod kafka;
mod machine;
mod peers;
mod settings;
mod snapshots;
mod store;
mod tokens;

use finding::{Finding, Status};
pub(crate) use machine::size_of_entry;

use clap::{Args, ValueEnum};
use finding::Findings;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use receipts_runtime::telemetry;
use serde_json::json;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub(crate) const EXAMPLES: &str = "Examples:
  receipts doctor --config receipts.toml
  receipts doctor --kafka-bootstrap localhost:9092 --data-dir /var/lib/receipts --strict
  receipts doctor --part query --query-projectors projector:8081 --json";

/// Arguments of `receipts doctor`.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Part of the service that runs with these settings on this machine
    #[arg(long, value_enum, default_value = "service")]
    part: Part,
    /// Exit code 1 for a warning too
    #[arg(long)]
    strict: bool,
    /// Time for each group of checks, in seconds; a check without a result by then is a problem
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

/// A part of the service, as the doctor looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// receipts serve: ingest, projector and query in one process
    Service,
    /// receipts-ingest
    Ingest,
    /// receipts-projector, also as a standby
    Projector,
    /// receipts-query
    Query,
}

impl Part {
    /// Whether it keeps a data directory.
    fn folds(self) -> bool {
        matches!(self, Self::Service | Self::Projector)
    }
}

/// What all checks share.
pub(crate) struct Examined {
    settings: Settings,
    part: Part,
    /// How long one request may take.
    patience: Duration,
}

/// Checks that run one after the other, beside those of the other groups.
struct Group {
    /// The names of its checks, in the order of the output.
    checks: &'static [&'static str],
    run: fn(&Examined, &mut Findings),
}

const GROUPS: [Group; 7] = [
    Group { checks: &settings::CHECKS, run: settings::run },
    Group { checks: &machine::CHECKS, run: machine::run },
    Group { checks: &store::CHECKS, run: store::run },
    Group { checks: &kafka::CHECKS, run: kafka::run },
    Group { checks: &snapshots::CHECKS, run: snapshots::run },
    Group { checks: &tokens::CHECKS, run: tokens::run },
    Group { checks: &peers::CHECKS, run: peers::run },
];

/// Runs all checks. A group that has no result within `timeout` is left behind, and told.
pub(crate) fn examine(settings: Settings, part: Part, timeout: Duration) -> Vec<Finding> {
    let examined = Arc::new(Examined { settings, part, patience: timeout / 3 });
    let deadline = Instant::now() + timeout;
    let running = GROUPS.map(|group| {
        let (sender, findings) = channel();
        let examined = Arc::clone(&examined);
        // A thread that hangs, on a file system that is away for instance, ends with the process.
        let started = std::thread::Builder::new()
            .name("doctor".into())
            .spawn(move || (group.run)(&examined, &mut Findings::new(sender)));
        (group.checks, findings, started)
    });
    let mut all = Vec::new();
    for (checks, findings, started) in running {
        let mut found: Vec<Finding> = Vec::new();
        let ended = loop {
            match findings.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(finding) => found.push(finding),
                Err(error) => break error,
            }
        };
        let lacks = match (&started, ended) {
            (Err(error), _) => format!("no thread can be started: {error}"),
            (Ok(_), RecvTimeoutError::Timeout) => format!("no result within {} s", timeout.as_secs()),
            (Ok(_), RecvTimeoutError::Disconnected) => "an earlier check of its group has failed".to_owned(),
        };
        for check in checks {
            let of_check: Vec<Finding> = found.extract_if(.., |finding| finding.check == *check).collect();
            if !of_check.is_empty() {
                all.extend(of_check);
            } else if matches!(ended, RecvTimeoutError::Timeout) || started.is_err() {
                all.push(Finding::problem(check, lacks.clone(), "try again with a longer --timeout"));
            } else {
                all.push(Finding::skipped(check, lacks.clone()));
            }
        }
    }
    all
}

/// Examines and prints.
///
/// # Errors
/// If there is a problem or, with `--strict`, a warning.
pub(crate) fn run(settings: Settings, doctor: &Doctor, json: bool) -> Result<(), Failure> {
    telemetry::init(&receipts_runtime::config::Telemetry {
        // The findings tell what the lines of the parts would.
        log_filter: "error".into(),
        ..settings.telemetry.clone()
    })?;
    let findings = examine(settings, doctor.part, Duration::from_secs(doctor.timeout));
    let mut output = Output::stdout(json);
    for finding in &findings {
        output.write(finding, |to| {
            let Finding { check, status, detail, remedy } = finding;
            writeln!(to, "{:<8} {check}: {}", status.name(), printable(detail))?;
            remedy.iter().try_for_each(|remedy| writeln!(to, "         -> {}", printable(remedy)))
        })?;
    }
    let count = |status: Status| findings.iter().filter(|finding| finding.status == status).count();
    let (problems, warnings) = (count(Status::Problem), count(Status::Warning));
    if json {
        let skipped = count(Status::Skipped);
        output.write(&json!({"problems": problems, "warnings": warnings, "skipped": skipped}), |_| Ok(()))?;
    }
    match (problems, warnings) {
        (0, 0) => Ok(()),
        (0, _) if !doctor.strict => Ok(()),
        _ => Err(anyhow::anyhow!("problems: {problems}, warnings: {warnings}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn document_lists_every_check_once() {
        let document = include_str!("../../../docs/operating.md");
        let names: Vec<&str> = GROUPS.iter().flat_map(|group| group.checks).copied().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            assert_eq!(document.matches(&format!("| `{name}` |")).count(), 1, "{name} in docs/operating.md");
        }
    }
}
