//! Removes old versions of a table: their data files, their commits and their checkpoints. Decides
//! by age and by erasures, never by the content of a row.

use super::Plan;
use super::delta::{Delta, Version};
use crate::Error;
use std::collections::BTreeSet;

/// Files that no version names are left alone for this long, because a commit may be about to name
/// them, milliseconds. Shorter where erasures must be done sooner.
const GRACE_MS: u64 = 3_600_000;

/// The versions of a table as far as they are kept.
pub(super) struct Keeper {
    versions: Vec<Version>,
    /// When the folder was last swept, Unix milliseconds.
    swept_ms: u64,
}

impl Keeper {
    /// Reads the versions of a table.
    pub(super) fn open(delta: &Delta) -> Result<Self, Error> {
        let commits = delta.commits()?.into_iter();
        let versions = commits.map(|(version, name)| delta.read_commit(version, &name)).collect::<Result<_, _>>()?;
        Ok(Self { versions, swept_ms: 0 })
    }

    /// Notes a version that this process committed.
    pub(super) fn committed(&mut self, version: u64, committed_ms: u64, erasures: u64, added: Vec<String>) {
        self.versions.push(Version { version, committed_ms, position: None, erasures, added });
    }

    /// Removes the versions that are due, and then every file that no kept version names; returns
    /// the number of removed versions.
    pub(super) fn run(&mut self, delta: &mut Delta, plan: &Plan<'_>) -> Result<u64, Error> {
        let now_ms = (plan.now_ms)();
        let grace_ms = GRACE_MS.min(plan.erase_within_ms / 2);
        let Some(oldest) = self.versions.first().map(|version| version.version) else { return Ok(0) };
        let keep_from = keep_from(&self.versions, plan.keep_versions_ms, plan.erase_within_ms, now_ms);
        if keep_from == oldest && now_ms.saturating_sub(self.swept_ms) < grace_ms {
            return Ok(0);
        }
        if keep_from > oldest {
            // The oldest kept version must be readable without the commits before it.
            delta.checkpoint(Some(keep_from))?;
        }
        let before = self.versions.len();
        let mut named: BTreeSet<String> =
            delta.active(Some(keep_from))?.into_iter().map(|active| active.name).collect();
        let kept: Vec<Version> = self.versions.iter().filter(|version| version.version >= keep_from).cloned().collect();
        named.extend(kept.iter().flat_map(|version| version.added.iter().cloned()));
        for object in delta.objects()? {
            let mut path = object.name.split('/').skip(1);
            let is_due = match (path.next(), path.next()) {
                (Some("_delta_log"), Some(name)) => {
                    let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
                    version.is_some_and(|version| version < keep_from)
                }
                (Some(name), None) if name.starts_with("part-") => {
                    !named.contains(name) && now_ms.saturating_sub(object.modified_ms) >= grace_ms
                }
                _ => false,
            };
            if is_due {
                delta.delete(&object.name)?;
            }
        }
        if keep_from > oldest {
            // The version that is open was read from commits that are gone now.
            delta.reopen()?;
        }
        delta.sweep_staged(grace_ms, now_ms)?;
        self.versions = kept;
        self.swept_ms = now_ms;
        Ok((before - self.versions.len()) as u64)
    }
}

/// Returns the oldest version to keep: that of the time from which on versions are kept, and none
/// before an erasure that must be done by now. Half the time of erasures is left for a process that
/// does not run.
fn keep_from(versions: &[Version], keep_versions_ms: u64, erase_within_ms: u64, now_ms: u64) -> u64 {
    let is_older = |version: &&Version, ms: u64| now_ms.saturating_sub(version.committed_ms) >= ms;
    let by_age = versions.iter().rfind(|version| is_older(version, keep_versions_ms));
    let by_erasure = versions
        .windows(2)
        .filter(|pair| pair[1].erasures > pair[0].erasures)
        .map(|pair| &pair[1])
        .rfind(|version| is_older(version, erase_within_ms / 2));
    let first = versions.first().map_or(0, |version| version.version);
    [by_age, by_erasure].into_iter().flatten().map(|version| version.version).fold(first, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn versions(of: &[(u64, u64)]) -> Vec<Version> {
        let version = |(at, (hours, erasures)): (usize, &(u64, u64))| Version {
            version: at as u64 + 5,
            committed_ms: hours * HOUR_MS,
            position: None,
            erasures: *erasures,
            added: Vec::new(),
        };
        of.iter().enumerate().map(version).collect()
    }

    #[test]
    fn versions_go_by_age_and_by_erasures() {
        let of = versions(&[(0, 0), (10, 0), (20, 1), (30, 1)]);
        let keep = |hours, keep, erase| keep_from(&of, keep * HOUR_MS, erase * HOUR_MS, hours * HOUR_MS);
        assert_eq!(keep(30, 100, 100), 5);
        assert_eq!(keep(30, 20, 100), 6, "the version of twenty hours ago is still there");
        assert_eq!(keep(31, 100, 24), 5, "the erasure is eleven hours old");
        assert_eq!(keep(32, 100, 24), 7);
        assert_eq!(keep(30, 0, 24), 8, "the newest stays");
        assert_eq!(keep_from(&[], 1, 1, 1), 0);
    }
}
