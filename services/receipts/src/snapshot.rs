//! `receipts snapshot`: reads the arguments of list, take, restore and verify, and prints results.
//! `receipts_snapshots` does the work.

mod progress;
mod restore;
mod take;

use anyhow::anyhow;
use chrono::DateTime;
use clap::{Args, Subcommand};
use progress::Progress;
use receipts_analytics::TemporaryFolder;
use receipts_objects::Destination;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use receipts_snapshots::{SnapshotEntry, Snapshots, audit};
use receipts_store::snapshot::{Header, Summary, hex};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts snapshot list --snapshot-url s3://backups/receipts
  receipts snapshot take --data-dir /var/lib/receipts --snapshot-url /backups/receipts
  receipts snapshot restore --data-dir /var/lib/receipts --snapshot-url gs://backups/receipts
  receipts snapshot verify --snapshot-url /backups/receipts --all";

/// The commands of `receipts snapshot`.
#[derive(Subcommand)]
pub(crate) enum Snapshot {
    /// Lists snapshots by log, partition and offset, with the metadata that each holds.
    #[command(after_help = EXAMPLES)]
    List(Which),
    /// Takes a snapshot of every partition.
    ///
    /// If a service uses the data directory, the command asks it to take the snapshots into its own
    /// snapshot.url; the service goes on serving. Otherwise the command takes them itself. The
    /// state is that of the last checkpoint.
    #[command(after_help = EXAMPLES)]
    Take(Which),
    /// Restores the newest usable snapshot of every partition into a data directory that holds no
    /// state.
    ///
    /// The next start of the service folds the later records of the log. A service that has
    /// snapshot.url set restores by itself if it finds no state.
    #[command(after_help = EXAMPLES)]
    Restore(restore::Restore),
    /// Verifies snapshots: every checksum, and every message's counts against its bits and lists.
    #[command(after_help = EXAMPLES)]
    Verify(Verify),
}

/// Arguments that choose partitions.
#[derive(Args)]
pub(crate) struct Which {
    /// Only these partitions, separated by commas.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    partitions: Option<Vec<u32>>,
}

impl Which {
    fn includes(&self, partition: u32) -> bool {
        self.partitions.as_ref().is_none_or(|partitions| partitions.contains(&partition))
    }
}

/// Arguments of `receipts snapshot verify`.
#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    which: Which,
    /// Verifies all snapshots instead of the newest of each partition.
    #[arg(long)]
    all: bool,
}

/// Runs the command on its own thread.
///
/// # Errors
/// The failure of the command.
pub(crate) fn run(settings: Settings, command: Snapshot, json: bool) -> Result<(), Failure> {
    let own = settings.clone();
    receipts_assembly::run(crate::service::NAME, &settings, async |stop, _| {
        receipts_assembly::on_thread("snapshots", move || {
            let (settings, progress) = (own, Progress::new(stop));
            match command {
                Snapshot::List(which) => list(&settings, &which, json),
                Snapshot::Take(which) => take::run(&settings, &which, &progress, json),
                Snapshot::Restore(restore) => restore::run(&settings, &restore, &progress, json),
                Snapshot::Verify(asked) => verify(&settings, &asked, &progress, json),
            }
        })
        .await
    })
}

/// Returns the destination that the settings name.
fn destination(settings: &Settings) -> Result<Destination, Failure> {
    receipts_assembly::snapshot_destination(settings)?.ok_or_else(|| {
        Failure::usage("snapshot.url is not set: --snapshot-url DIR-OR-URL names the destination of snapshots")
    })
}

/// Returns every log's snapshots at the destination.
fn all_logs(settings: &Settings) -> Result<Vec<Snapshots>, Failure> {
    let destination = destination(settings)?;
    let logs = Snapshots::logs_at(&destination)?;
    Ok(logs.into_iter().map(|log| Snapshots::new(destination.clone(), log)).collect())
}

/// A snapshot as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    log: &'a str,
    #[serde(flatten)]
    found: &'a SnapshotEntry,
    place: String,
    #[serde(flatten)]
    described: Option<Described>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Described {
    partition_count: u32,
    newest_timestamp_ms: u64,
    taken_ms: u64,
    program: String,
    pages: u64,
    plain_bytes: u64,
    digest: String,
}

impl Described {
    fn new((header, summary): (Header, Summary)) -> Self {
        Self {
            partition_count: header.partition_count,
            newest_timestamp_ms: header.newest_timestamp_ms,
            taken_ms: header.taken_ms,
            program: header.program,
            pages: summary.pages,
            plain_bytes: summary.plain_bytes,
            digest: hex(&summary.digest),
        }
    }
}

fn list(settings: &Settings, which: &Which, json: bool) -> Result<(), Failure> {
    let mut output = Output::stdout(json);
    let (mut shown, mut undescribed) = (0, 0);
    for snapshots in all_logs(settings)? {
        let mut is_named = false;
        for found in snapshots.list()?.iter().filter(|found| which.includes(found.partition)) {
            let (described, problem) = match snapshots.describe(found) {
                Ok(described) => (Some(Described::new(described)), None),
                Err(error) => (None, Some(error.to_string())),
            };
            undescribed += u32::from(problem.is_some());
            let place = snapshots.location_of(found);
            let line = Shown { log: snapshots.log(), found, place, described, problem };
            let first = !std::mem::replace(&mut is_named, true);
            output.write(&line, |to| write_shown(to, &line, first))?;
            shown += 1;
        }
    }
    if shown == 0 && !json {
        tracing::info!(location = %destination(settings)?, "there are no snapshots");
    }
    if undescribed > 0 {
        return Err(anyhow!("{undescribed} of {shown} snapshots cannot be read: their lines say why").into());
    }
    Ok(())
}

fn write_shown(to: &mut dyn Write, line: &Shown<'_>, first: bool) -> io::Result<()> {
    if first {
        writeln!(to, "log {}", line.log)?;
    }
    let SnapshotEntry { partition, next_offset, bytes, .. } = line.found;
    write!(to, "  partition {partition} at offset {next_offset}, {bytes} bytes")?;
    match (&line.described, &line.problem) {
        (Some(d), _) => {
            let (taken, pages, digest) = (shown(d.taken_ms), d.pages, &d.digest[..16]);
            writeln!(to, ", taken {taken}, {pages} pages, digest {digest}…")
        }
        (None, problem) => writeln!(to, ": {}", problem.as_deref().unwrap_or_default()),
    }
}

/// The result of verifying one snapshot.
#[derive(Serialize)]
struct Verdict {
    place: String,
    partition: u32,
    next_offset: u64,
    messages: u64,
    contradictions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

fn verify(settings: &Settings, asked: &Verify, progress: &Progress, json: bool) -> Result<(), Failure> {
    let mut output = Output::stdout(json);
    let (mut wrong, mut all) = (0, 0);
    let aside = TemporaryFolder::new()?;
    for snapshots in all_logs(settings)? {
        let mut found = snapshots.list()?;
        found.retain(|found| asked.which.includes(found.partition));
        let newest = |at: usize| found.get(at + 1).is_none_or(|next| next.partition != found[at].partition);
        let chosen: Vec<&SnapshotEntry> =
            (0..found.len()).filter(|at| asked.all || newest(*at)).map(|at| &found[at]).collect();
        progress.begin("verifying", chosen.iter().map(|found| found.bytes).sum());
        for found in chosen {
            let verdict = audited(&snapshots, found, aside.path(), progress)?;
            wrong += u32::from(verdict.problem.is_some());
            all += 1;
            progress.aside(|| {
                output.write(&verdict, |to| {
                    let Verdict { partition, next_offset, messages, .. } = verdict;
                    match &verdict.problem {
                        Some(problem) => writeln!(to, "partition {partition} at offset {next_offset}: {problem}"),
                        None => writeln!(
                            to,
                            "partition {partition} at offset {next_offset}: intact, {messages} messages consistent, digest {}",
                            verdict.digest.as_deref().unwrap_or_default()
                        ),
                    }
                })
            })?;
        }
        progress.end();
    }
    if all == 0 {
        return Err(anyhow!("there are no snapshots in {}", destination(settings)?).into());
    }
    if wrong > 0 {
        return Err(anyhow!(
            "{wrong} of {all} snapshots are unusable: a restore skips damaged ones; remove them, and take new ones"
        )
        .into());
    }
    Ok(())
}

fn audited(
    snapshots: &Snapshots,
    found: &SnapshotEntry,
    aside: &Path,
    progress: &Progress,
) -> Result<Verdict, Failure> {
    let mut verdict = Verdict {
        place: snapshots.location_of(found),
        partition: found.partition,
        next_offset: found.next_offset,
        messages: 0,
        contradictions: 0,
        digest: None,
        problem: None,
    };
    match audit(snapshots, found, aside, progress) {
        Ok(audit) => {
            verdict.messages = audit.messages;
            verdict.contradictions = audit.contradictions;
            verdict.digest = Some(hex(&audit.summary.digest));
            verdict.problem = audit
                .first_contradiction
                .map(|first| format!("{} messages contradict themselves; the first is {first}", audit.contradictions));
        }
        Err(error @ receipts_snapshots::Error::Unusable { .. }) => verdict.problem = Some(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    Ok(verdict)
}

/// Formats a time for people.
fn shown(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
