//! `receipts rebuild`: reads its arguments, prints the comparison and switches stores.
//! `receipts_analytics` folds and compares.

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
use receipts_store::snapshot::{PendingSnapshot, Provenance, hex};
use receipts_store::{SledSettings, SledStore};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts rebuild --data-dir /var/lib/receipts
  receipts rebuild --data-dir /var/lib/receipts --kafka-bootstrap localhost:9092 --snapshot-url /backups/receipts
  receipts rebuild --data-dir /var/lib/receipts --confirm";

/// Arguments of `receipts rebuild`.
#[derive(Args)]
pub(crate) struct Rebuild {
    /// Switches to the new store even if it differs from the old one, or there was none to compare.
    #[arg(long)]
    even_if_different: bool,
    /// Removes the stores that rebuilt ones have replaced, and rebuilds nothing.
    #[arg(long, conflicts_with_all = ["undo", "even_if_different"])]
    confirm: bool,
    /// Brings back the store that a rebuilt one has replaced, and rebuilds nothing.
    #[arg(long, conflicts_with = "even_if_different")]
    undo: bool,
    #[command(flatten)]
    memory: Memory,
}

/// Rebuilds a store, or confirms or undoes an earlier rebuild.
///
/// # Errors
/// If the log or the directory cannot be used, or the new store differs.
pub(crate) fn run(settings: Settings, asked: Rebuild, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |settings, progress| {
        if asked.confirm || asked.undo {
            return confirm_or_undo(&DataDir::open(&settings.data_dir)?, asked.undo);
        }
        rebuild(settings, &asked, progress, json)
    })
}

fn confirm_or_undo(data: &DataDir, undo: bool) -> Result<(), Failure> {
    let replaced = data.replaced();
    let Some(newest) = replaced.last() else {
        return Err(anyhow!("no rebuilt store has replaced another one here: check --data-dir").into());
    };
    if !undo {
        // Newest first: an interruption must leave no gap, because numbers are counted up to one.
        for path in replaced.iter().rev() {
            fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
            tracing::info!(path = %path.display(), "removed a replaced store");
        }
        return Ok(());
    }
    let (store, aside) = (data.store(), data.store().with_extension("undone"));
    let ignore_missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    };
    fs::remove_dir_all(&aside).or_else(ignore_missing)?;
    fs::rename(&store, &aside).or_else(ignore_missing)?;
    fs::rename(newest, &store).with_context(|| format!("cannot rename {}", newest.display()))?;
    fs::remove_dir_all(&aside).or_else(ignore_missing)?;
    tracing::info!(path = %newest.display(), "brought back the store that was in use before");
    Ok(())
}

fn rebuild(settings: &Settings, asked: &Rebuild, progress: &mut Progress, json: bool) -> Result<(), Failure> {
    let EventLog { log, identity, data, .. } = receipts_assembly::open_log_beside_service(settings)?;
    let count = log.partition_count();
    let old = old_digests(settings, &identity, data.as_ref(), count)?;
    let folder = DataDir::rebuild_in(&settings.data_dir);
    let memory_bytes = asked.memory.bytes();
    begin(&folder, &format!("{} {:?} {}", env!("CARGO_PKG_VERSION"), fold_limits(settings), identity.name()))?;
    let mut offsets = 0;
    for partition in 0..count {
        offsets += span(&*log, partition, UpTo::End)?.offsets();
    }
    progress.begin(offsets);
    let mut output = Output::stdout(json);
    let (mut told, mut different, mut uncompared) = (Vec::new(), Vec::new(), Vec::new());
    {
        let store =
            SledStore::open_strict(&folder, SledSettings { cache_bytes: (memory_bytes / 4) as u64, sync: true })?;
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
    SledStore::write_sled_snapshot(&folder)?;
    progress.end(&told);
    let is_equal = different.is_empty() && uncompared.is_empty();
    if !is_equal && !asked.even_if_different {
        let why = if different.is_empty() {
            format!(
                "partitions {uncompared:?} could not be compared: stop the service, or have it take snapshots (snapshot.url)"
            )
        } else {
            format!(
                "partitions {different:?} differ from the store in use: `receipts verify` names the first difference"
            )
        };
        return Err(anyhow!(
            "{why}. The new store is in {} and nothing is switched; --even-if-different switches nevertheless",
            folder.display()
        )
        .into());
    }
    DataDir::mark_rebuilt(&settings.data_dir, &identity)?;
    match data {
        Some(data) => {
            data.adopt_rebuilt()?;
            tracing::info!("switched to the new store; --confirm removes the replaced one, --undo brings it back");
        }
        None => tracing::info!("the next start of the service switches to the new store, and keeps the old one"),
    }
    Ok(())
}

/// Makes the folder of the new store. Keeps the folder of an earlier attempt with the same inputs:
/// program, settings and log.
fn begin(folder: &Path, inputs: &str) -> anyhow::Result<()> {
    let note = folder.join("meant");
    if fs::read(&note).is_ok_and(|held| held == inputs.as_bytes()) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&note, inputs).with_context(|| format!("cannot write {}", note.display()))
}

/// Returns position and digest of each partition of the old store: from the store itself if no
/// service uses it, and otherwise from its newest snapshot.
fn old_digests(
    settings: &Settings,
    identity: &LogIdentity,
    data: Option<&DataDir>,
    count: u32,
) -> Result<BTreeMap<u32, OldDigest>, Failure> {
    let mut old = BTreeMap::new();
    if let Some(data) = data {
        if data.bound_log()?.as_ref() == Some(identity) {
            for partition in 0..count {
                // A damaged store is a reason to rebuild, so it is only not compared.
                match digest_of_store(settings, data, identity, partition, count) {
                    Ok(digest) => old.extend(digest.map(|digest| (partition, digest))),
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

/// Returns position and digest of a partition of a store that no service uses.
fn digest_of_store(
    settings: &Settings,
    data: &DataDir,
    identity: &LogIdentity,
    partition: u32,
    partition_count: u32,
) -> Result<Option<OldDigest>, receipts_store::Error> {
    let store = SledStore::open_strict(&data.store(), SledSettings { cache_bytes: 64 << 20, sync: true })?;
    let told = Provenance {
        log: identity.name(),
        partition,
        partition_count,
        limits: fold_limits(settings),
        taken_ms: unix_ms(),
        program: String::new(),
    };
    let Some(taking) = PendingSnapshot::begin(&store.partition(partition)?.snapshot_source(), told)? else {
        return Ok(None);
    };
    let next_offset = taking.header().next_offset;
    let (_, summary, _) = taking.write(io::sink(), |_| Ok(()))?;
    Ok(Some(OldDigest { next_offset, digest: hex(&summary.digest) }))
}

fn write(to: &mut dyn io::Write, rebuilt: &RebuildReport) -> io::Result<()> {
    analysis::write_summary(to, &rebuilt.report)?;
    match &rebuilt.compared {
        None => writeln!(to, "  not compared; digest {}", rebuilt.digest),
        Some(c) if c.old == c.new => {
            writeln!(to, "  agrees with the old store at offset {}; digest {}", c.next_offset, rebuilt.digest)
        }
        Some(c) => writeln!(to, "  differs at offset {}\n    old: {}\n    new: {}", c.next_offset, c.old, c.new),
    }
}
