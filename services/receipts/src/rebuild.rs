//! `receipts rebuild`: a new store beside the one in use, compared, and taken by the next start. Reads the command line and
//! prints; folding and comparing is `receipts_analytics`'.

use crate::analysis::{self, Memory, Progress};
use anyhow::{Context as _, anyhow};
use clap::Args;
use receipts_analytics::rebuild::{self, OldDigest, RebuildReport};
use receipts_analytics::{UpTo, span};
use receipts_assembly::{DataDir, EventLog, LogIdentity, fold_limits};
use receipts_runtime::clock::unix_ms;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use receipts_snapshots::Snapshots;
use receipts_store::snapshot::{Taking, Told, hex};
use receipts_store::{SledSettings, SledStore};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts rebuild --data-dir /var/lib/receipts
  receipts rebuild --data-dir /var/lib/receipts --kafka-bootstrap localhost:9092 --snapshot-url /backups/receipts
  receipts rebuild --data-dir /var/lib/receipts --confirm";

/// What is done with the old store.
#[derive(Args)]
pub(crate) struct Rebuild {
    /// Has the next start take the new store though it differs from the old one, or there was none to compare.
    #[arg(long)]
    even_if_different: bool,
    /// Removes the stores that rebuilt ones have replaced, and does nothing else.
    #[arg(long, conflicts_with_all = ["undo", "even_if_different"])]
    confirm: bool,
    /// Brings the store back that a rebuilt one has replaced, and does nothing else.
    #[arg(long, conflicts_with = "even_if_different")]
    undo: bool,
    #[command(flatten)]
    memory: Memory,
}

/// Rebuilds, or decides what was rebuilt before.
///
/// # Errors
/// Where the log or the directory cannot be used, or the new store differs.
pub(crate) fn run(settings: Settings, asked: Rebuild, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |settings, progress| {
        if asked.confirm || asked.undo {
            return decide(&DataDir::open(&settings.data_dir)?, asked.undo);
        }
        rebuild(settings, &asked, progress, json)
    })
}

fn decide(data: &DataDir, undo: bool) -> Result<(), Failure> {
    let replaced = data.replaced();
    let Some(newest) = replaced.last() else {
        return Err(anyhow!("no rebuilt store has replaced another one here: check --data-dir").into());
    };
    if !undo {
        for path in &replaced {
            fs::remove_dir_all(path).with_context(|| format!("{} cannot be removed", path.display()))?;
            tracing::info!(path = %path.display(), "removed");
        }
        return Ok(());
    }
    let (store, aside) = (data.store(), data.store().with_extension("undone"));
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    fs::remove_dir_all(&aside).or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })?;
    fs::rename(&store, &aside).or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })?;
    fs::rename(newest, &store).with_context(|| format!("{} cannot be renamed", newest.display()))?;
    fs::remove_dir_all(&aside).or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })?;
    tracing::info!(path = %newest.display(), "this store is the one in use again");
    Ok(())
}

fn rebuild(settings: &Settings, asked: &Rebuild, progress: &mut Progress, json: bool) -> Result<(), Failure> {
    let EventLog { log, identity, data, .. } = receipts_assembly::open_log_beside_service(settings)?;
    let count = log.partition_count();
    let old = old(settings, &identity, data.as_ref(), count)?;
    let place = DataDir::rebuild_in(&settings.data_dir);
    let memory_bytes = asked.memory.bytes();
    begin(&place, &format!("{} {:?} {}", env!("CARGO_PKG_VERSION"), fold_limits(settings), identity.name()))?;
    let mut offsets = 0;
    for partition in 0..count {
        offsets += span(&*log, partition, UpTo::End)?.offsets();
    }
    progress.begin(offsets);
    let mut output = Output::stdout(json);
    let (mut told, mut different, mut uncompared) = (Vec::new(), Vec::new(), Vec::new());
    {
        let store = SledStore::open_whole(&place, SledSettings { cache_bytes: (memory_bytes / 4) as u64, sync: true })?;
        let limits = fold_limits(settings);
        for partition in 0..count {
            let old = old.get(&partition);
            let rebuilt = rebuild::partition(&*log, &store, partition, limits, memory_bytes / 4 * 3, old, progress)?;
            progress.aside(|| output.write(&rebuilt, |to| write(to, &rebuilt)))?;
            different.extend(rebuilt.differs().then_some(partition));
            uncompared.extend((rebuilt.compared.is_none() && rebuilt.report.messages > 0).then_some(partition));
            told.push(rebuilt.report);
        }
    }
    SledStore::note_places(&place)?;
    progress.end(&told);
    let is_equal = different.is_empty() && uncompared.is_empty();
    if !is_equal && !asked.even_if_different {
        let why = if different.is_empty() {
            format!(
                "partitions {uncompared:?} could not be compared: stop the service, or let it take snapshots (snapshot.url)"
            )
        } else {
            format!("partitions {different:?} differ from the store in use: receipts verify names the first difference")
        };
        return Err(anyhow!(
            "{why}. The new store is in {} and nothing is switched; --even-if-different has the next start take it",
            place.display()
        )
        .into());
    }
    DataDir::mark_rebuilt(&settings.data_dir, &identity)?;
    match data {
        Some(data) => {
            data.adopt_rebuilt()?;
            tracing::info!("switched; --confirm removes the store before it, --undo brings that back");
        }
        None => tracing::info!("the next start of the service takes the new store, and keeps the old one"),
    }
    Ok(())
}

/// Makes the folder, or goes on with what an earlier attempt left that was meant alike: same program, settings and log.
fn begin(place: &Path, meant: &str) -> anyhow::Result<()> {
    let note = place.join("meant");
    if fs::read(&note).is_ok_and(|held| held == meant.as_bytes()) {
        return Ok(());
    }
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("{} cannot be removed", place.display()))?;
    }
    fs::create_dir_all(place).with_context(|| format!("{} cannot be made", place.display()))?;
    fs::write(&note, meant).with_context(|| format!("{} cannot be written", note.display()))
}

/// How the old store stands: by itself where no service uses it, else by its newest snapshot.
fn old(
    settings: &Settings,
    identity: &LogIdentity,
    data: Option<&DataDir>,
    count: u32,
) -> Result<BTreeMap<u32, OldDigest>, Failure> {
    let mut old = BTreeMap::new();
    if let Some(data) = data {
        if data.bound_log()?.as_ref() == Some(identity) {
            for partition in 0..count {
                // A store that is damaged is why one rebuilds: it is not compared.
                match stands_at(settings, data, identity, partition, count) {
                    Ok(stands) => old.extend(stands.map(|stands| (partition, stands))),
                    Err(error) => tracing::warn!(partition, %error, "the store in use cannot be compared"),
                }
            }
        }
        return Ok(old);
    }
    if let Some(destination) = receipts_assembly::snapshot_destination(settings)? {
        let snapshots = Snapshots::new(destination, identity.name());
        for partition in 0..count {
            if let Some(found) = snapshots.newest_of(partition)? {
                let (_, summary) = snapshots.describe(&found)?;
                old.insert(partition, OldDigest { next_offset: found.next_offset, digest: hex(&summary.digest) });
            }
        }
    }
    Ok(old)
}

/// How a partition of a store stands that no service uses.
fn stands_at(
    settings: &Settings,
    data: &DataDir,
    identity: &LogIdentity,
    partition: u32,
    partition_count: u32,
) -> Result<Option<OldDigest>, receipts_store::Error> {
    let store = SledStore::open_whole(&data.store(), SledSettings { cache_bytes: 64 << 20, sync: true })?;
    let told = Told {
        log: identity.name(),
        partition,
        partition_count,
        limits: fold_limits(settings),
        taken_ms: unix_ms(),
        program: String::new(),
    };
    let Some(taking) = Taking::begin(&store.partition(partition)?.image_source(), told)? else { return Ok(None) };
    let next_offset = taking.header().next_offset;
    let (_, summary, _) = taking.write(io::sink(), |_| Ok(()))?;
    Ok(Some(OldDigest { next_offset, digest: hex(&summary.digest) }))
}

fn write(to: &mut dyn io::Write, rebuilt: &RebuildReport) -> io::Result<()> {
    analysis::write_told(to, &rebuilt.report)?;
    match &rebuilt.compared {
        None => writeln!(to, "  not compared; digest {}", rebuilt.digest),
        Some(c) if c.old == c.new => {
            writeln!(to, "  as the old one at offset {}; digest {}", c.next_offset, rebuilt.digest)
        }
        Some(c) => writeln!(to, "  differs at offset {}\n    old: {}\n    new: {}", c.next_offset, c.old, c.new),
    }
}
