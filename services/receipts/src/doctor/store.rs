//! Checks the data directory: its holder, the log of the store, and leftovers. Opens no store.

use super::Examined;
use super::finding::{Finding, Findings};
use receipts_assembly::DataDir;
use std::fs;
use std::path::{Path, PathBuf};

const LOCK: &str = "store.lock";
const LOG: &str = "store.log";
const DAMAGED: &str = "store.damaged";
const REPLACED: &str = "store.replaced";

pub(super) const CHECKS: [&str; 4] = [LOCK, LOG, DAMAGED, REPLACED];

pub(super) fn run(examined: &Examined, findings: &mut Findings) {
    if !examined.part.folds() {
        return findings.skip(&CHECKS, "this part keeps no data");
    }
    let path = &examined.settings.data_dir;
    if !path.exists() {
        return findings.skip(&CHECKS, &format!("{} is not made yet", path.display()));
    }
    findings.add(match DataDir::holder(path) {
        Ok(None) => Finding::ok(LOCK, "no process uses the data directory"),
        Ok(Some(holder)) => {
            let at = holder.url.map(|url| format!(", which answers at {url}")).unwrap_or_default();
            Finding::ok(LOCK, format!("{} uses the data directory{at}", holder.holder))
        }
        Err(error) => Finding::problem(LOCK, format!("{error:#}"), "run as the user of the service"),
    });
    findings.add(log(examined, path));
    let store = DataDir::store_in(path);
    let damaged = beginning_with(&store, "damaged-").into_iter().map(|folder| {
        Finding::warning(
            DAMAGED,
            format!("{} is a store that could not be read; its partitions were rebuilt from the log", folder.display()),
            format!("check the disk (smartctl, dmesg); then rm -r {}", folder.display()),
        )
    });
    findings.add_all(DAMAGED, damaged.collect(), "no store was set aside");
    let replaced = beginning_with(path, "store-before-").into_iter().map(|folder| {
        Finding::warning(
            REPLACED,
            format!("{} is a store that a rebuilt one has replaced, and takes room", folder.display()),
            "receipts rebuild --confirm removes it, receipts rebuild --undo brings it back",
        )
    });
    findings.add_all(REPLACED, replaced.collect(), "no replaced store is kept");
}

fn beginning_with(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Compares the store with an embedded log; the checks of Kafka compare it with a topic.
fn log(examined: &Examined, path: &Path) -> Finding {
    let compared = DataDir::embedded_log_in(path).and_then(|log| match (&examined.settings.kafka.bootstrap, log) {
        (Some(_), _) => Ok(DataDir::bound_log_in(path)?.map(|_| None)),
        (None, None) => Ok(None),
        (None, Some(log)) => Ok(Some(DataDir::other_log_than(path, &log)?)),
    });
    let remedy = "the sentence names both ways; without the log that belongs to the store, choose the second";
    match compared {
        Ok(None) => Finding::skipped(LOG, "there is no store yet"),
        Ok(Some(None)) if examined.settings.kafka.bootstrap.is_some() => {
            Finding::ok(LOG, "the store names its log; kafka.log compares it with the topic")
        }
        Ok(Some(None)) => Finding::ok(LOG, "the store was folded from this log"),
        Ok(Some(Some(sentence))) => Finding::problem(LOG, sentence, remedy),
        Err(error) => Finding::problem(LOG, format!("{error:#}"), remedy),
    }
}
