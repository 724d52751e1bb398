//! Checks the destination of snapshots, its credentials, and the newest snapshots. Writes one small
//! object and removes it, where removing is allowed.

use super::Examined;
use super::finding::{Finding, Findings};
use receipts_assembly::{DataDir, snapshot_destination};
use receipts_objects::{Destination, Error};
use receipts_runtime::clock::unix_ms;
use receipts_snapshots::{SnapshotEntry, Snapshots};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

const CONFIGURED: &str = "snapshots.configured";
const LIST: &str = "snapshots.list";
const WRITE: &str = "snapshots.write";
const AGE: &str = "snapshots.age";
const READABLE: &str = "snapshots.readable";

pub(super) const CHECKS: [&str; 5] = [CONFIGURED, LIST, WRITE, AGE, READABLE];

/// The object that is written and removed.
const PROBE: &str = "receipts-doctor-probe";
/// The newest snapshots that are read, a few bytes of each.
const READ_MAX: usize = 64;

pub(super) fn run(examined: &Examined, findings: &mut Findings) {
    let settings = &examined.settings;
    if !examined.part.folds() {
        return findings.skip(&CHECKS, "this part takes no snapshots");
    }
    let Some(url) = &settings.snapshot.url else {
        findings.add(Finding::warning(
            CONFIGURED,
            "no snapshots are taken: after the loss of the disk the log is folded from its beginning, or, if it is the \
             embedded one, is lost",
            "set snapshot.url (--snapshot-url DIR-OR-URL) to another disk or a bucket",
        ));
        return findings.skip(&CHECKS[1..], "snapshot.url is not set");
    };
    if let Some(folder) = missing_folder(url) {
        findings.add(Finding::warning(
            CONFIGURED,
            format!("{folder} is no directory yet, and a start makes it: is a volume not mounted?"),
            format!("mount the volume, or mkdir -p {folder}"),
        ));
        return findings.skip(&CHECKS[1..], "there is no directory yet");
    }
    let destination = match snapshot_destination(settings) {
        Ok(Some(destination)) => destination,
        Ok(None) => return findings.skip(&CHECKS, "snapshot.url is not set"),
        Err(failure) => {
            findings.add(Finding::problem(CONFIGURED, failure.detail(), "correct snapshot.url"));
            return findings.skip(&CHECKS[1..], "snapshot.url names no destination");
        }
    };
    findings.add(Finding::ok(CONFIGURED, format!("snapshots go to {destination}")));
    match destination.list("") {
        Ok(_) => findings.add(Finding::ok(LIST, "the destination can be listed")),
        Err(error) => {
            findings.add(Finding::problem(
                LIST,
                error.to_string(),
                "docs/object-stores.md has the variables and rights",
            ));
            return findings.skip(&CHECKS[2..], "the destination cannot be listed");
        }
    }
    findings.add(write(&destination));
    match of_store(examined, &destination) {
        Ok(None) => findings.skip(&[AGE, READABLE], "there is no store yet"),
        Ok(Some((snapshots, newest))) => {
            findings.add(age(examined, &newest));
            let broken = newest.values().take(READ_MAX).filter_map(|entry| {
                let error = snapshots.describe(entry).err()?;
                let command = "receipts snapshot verify; then remove the unusable ones, and receipts snapshot take";
                Some(Finding::problem(READABLE, error.to_string(), command))
            });
            findings.add_all(READABLE, broken.collect(), "the newest snapshots can be read by this program");
        }
        Err(why) => findings.skip(&[AGE, READABLE], &why),
    }
}

/// Returns the directory of a destination that does not exist: opening the destination would make
/// it.
pub(super) fn missing_folder(url: &str) -> Option<&str> {
    let folder = url.strip_prefix("file://").or((!url.contains("://")).then_some(url));
    folder.filter(|folder| !Path::new(folder).is_dir())
}

/// Writes a probe where it can be removed again: a right to remove is tried first, on nothing.
fn write(destination: &Destination) -> Finding {
    let rights = "give the user the rights to put and to delete objects there (docs/object-stores.md)";
    if let Err(error) = destination.delete(PROBE) {
        return match error {
            Error::Refused { .. } => {
                Finding::skipped(WRITE, format!("not tried, because nothing could be removed again: {error}"))
            }
            error => Finding::problem(WRITE, error.to_string(), rights),
        };
    }
    if let Err(error) = destination.put_bytes(PROBE, "receipts doctor\n") {
        return Finding::problem(WRITE, error.to_string(), rights);
    }
    match destination.delete(PROBE) {
        Ok(()) => Finding::ok(WRITE, "an object can be written and removed"),
        Err(error) => {
            let left = destination.location(PROBE);
            Finding::warning(WRITE, format!("{left} was written and cannot be removed: {error}"), rights)
        }
    }
}

type Newest = BTreeMap<u32, SnapshotEntry>;

/// Returns the newest snapshot of each partition of the store's log; `None` if there is no store.
pub(super) fn of_store(examined: &Examined, destination: &Destination) -> Result<Option<(Snapshots, Newest)>, String> {
    let bound = DataDir::bound_log_in(&examined.settings.data_dir).map_err(|error| format!("{error:#}"))?;
    let Some(log) = bound else { return Ok(None) };
    let snapshots = Snapshots::new(destination.clone(), log.name());
    let all = snapshots.list().map_err(|error| error.to_string())?;
    let newest = all.into_iter().map(|entry| (entry.partition, entry)).collect();
    Ok(Some((snapshots, newest)))
}

fn age(examined: &Examined, newest: &Newest) -> Finding {
    let settings = &examined.settings;
    let command = "receipts snapshot take; the service's log says why it takes none";
    let oldest = newest.values().map(|entry| (unix_ms().saturating_sub(entry.modified_ms), entry.partition)).max();
    // Nothing is written where nothing was folded since.
    let age_ms_max = settings.snapshot.interval_ms.saturating_mul(4).max(3_600_000);
    match oldest {
        None if settings.projector.standby => Finding::skipped(AGE, "a standby takes none"),
        None if store_age_ms(examined).is_some_and(|age_ms| age_ms <= age_ms_max) => {
            Finding::ok(AGE, "the store is too new to have a snapshot")
        }
        None => Finding::warning(AGE, "there is a store and no snapshot of its log", command),
        Some((age_ms, partition)) if age_ms > age_ms_max => {
            let hours = age_ms / 3_600_000;
            Finding::warning(AGE, format!("the newest snapshot of partition {partition} is {hours} h old"), command)
        }
        Some((age_ms, _)) => Finding::ok(AGE, format!("no newest snapshot is older than {} s", age_ms / 1_000)),
    }
}

/// Returns the time since the store was made, in milliseconds; `None` on file systems that do not
/// know it.
fn store_age_ms(examined: &Examined) -> Option<u64> {
    let made = std::fs::metadata(DataDir::store_in(&examined.settings.data_dir)).and_then(|store| store.created());
    let made_ms = made.ok()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Some(unix_ms().saturating_sub(u64::try_from(made_ms).unwrap_or(u64::MAX)))
}
