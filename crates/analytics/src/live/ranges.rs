//! The data files of one partition in a table: disjoint ranges of pages, by the names of the files.
//! Decides which ranges a round writes anew. Does no IO and reads no clock.

use std::collections::BTreeSet;
use std::ops::Range;

/// Files below this size count as equally small.
const SMALL_BYTES: u64 = 1 << 20;
/// A level of size holds files up to this many times those of the level below.
const LEVEL: u64 = 4;
/// The number of neighbours of one level that are merged.
const NEIGHBOURS: usize = 4;
/// A file that changes is cut into pieces of this part of the full size, so that the next change of
/// it costs less.
const PIECES: u64 = 16;
/// A file is cold once it has not changed for this long, milliseconds.
pub(super) const COLD_MS: u64 = 10 * 60 * 1_000;

/// A data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DataFile {
    /// The log's partition.
    pub(super) partition: u32,
    /// The pages whose rows it holds.
    pub(super) pages: Range<u64>,
    /// The oldest record timestamp of its rows, Unix milliseconds; `u64::MAX` where they never
    /// expire.
    pub(super) oldest_ms: u64,
    /// The first digits of the SHA-256 of its bytes.
    pub(super) digest: String,
    /// The length, bytes.
    pub(super) bytes: u64,
    /// When it was written, Unix milliseconds.
    pub(super) written_ms: u64,
    /// The conversations in it, by their hash; `None` if the process does not know them.
    pub(super) conversations: Option<BTreeSet<u64>>,
}

impl DataFile {
    /// Returns the name within the table's folder. It holds no tenant and no id.
    pub(super) fn name(&self) -> String {
        let Self { partition, pages, oldest_ms, digest, .. } = self;
        format!("part-{partition:05}-{:012}-{:012}-{oldest_ms:016x}-{digest}.parquet", pages.start, pages.end)
    }

    /// Reads a name; `None` if it is not of a file that a live table wrote.
    pub(super) fn parse(name: &str, bytes: u64, written_ms: u64) -> Option<Self> {
        let mut parts = name.strip_prefix("part-")?.strip_suffix(".parquet")?.split('-');
        let partition = parts.next()?.parse().ok()?;
        let pages = parts.next()?.parse().ok()?..parts.next()?.parse().ok()?;
        let oldest_ms = u64::from_str_radix(parts.next()?, 16).ok()?;
        let digest = parts.next()?.to_owned();
        let file = Self { partition, pages, oldest_ms, digest, bytes, written_ms, conversations: None };
        (parts.next().is_none() && file.pages.start < file.pages.end && file.name() == name).then_some(file)
    }
}

/// A range that a round writes anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewrite {
    /// The pages.
    pub(super) pages: Range<u64>,
    /// Indexes of the files that it replaces.
    pub(super) replaces: Range<usize>,
    /// The size at which a new file begins, bytes.
    pub(super) file_bytes: u64,
}

/// Decides what to write for one partition. `files` are in the order of their pages, `is_changed`
/// says which of them may have other rows now, `pages` are the changed pages.
pub(super) fn plan(
    files: &[DataFile],
    is_changed: &dyn Fn(&DataFile) -> bool,
    pages: &BTreeSet<u64>,
    file_bytes: u64,
    now_ms: u64,
) -> Vec<Rewrite> {
    let full = if files.is_empty() { file_bytes } else { (file_bytes / PIECES).max(SMALL_BYTES).min(file_bytes) };
    let mut rewrites: Vec<Rewrite> = Vec::new();
    let mut add = |pages: Range<u64>, replaces: Range<usize>| match rewrites.last_mut() {
        // Neighbours without an unchanged file between them become one range.
        Some(last) if last.replaces.end == replaces.start => {
            last.pages.end = pages.end;
            last.replaces.end = replaces.end;
        }
        _ => rewrites.push(Rewrite { pages, replaces, file_bytes: full }),
    };
    let mut from = 0;
    for (at, file) in files.iter().enumerate() {
        if let Some(gap) = span_of(pages, from..file.pages.start) {
            add(gap, at..at);
        }
        if pages.range(file.pages.clone()).next().is_some() || is_changed(file) {
            add(file.pages.clone(), at..at + 1);
        }
        from = file.pages.end;
    }
    if let Some(gap) = span_of(pages, from..u64::MAX) {
        add(gap, files.len()..files.len());
    }
    if let Some(merge) = merge(files, &rewrites, file_bytes, now_ms) {
        rewrites.push(merge);
    }
    rewrites
}

/// Returns the range from the first to the last page of a set within a range.
fn span_of(pages: &BTreeSet<u64>, within: Range<u64>) -> Option<Range<u64>> {
    let mut found = pages.range(within);
    let first = *found.next()?;
    Some(first..found.next_back().copied().unwrap_or(first) + 1)
}

/// Finds cold neighbours of about the same size to merge: the smallest first.
fn merge(files: &[DataFile], rewrites: &[Rewrite], file_bytes: u64, now_ms: u64) -> Option<Rewrite> {
    let is_free = |at: usize| {
        let file = &files[at];
        now_ms.saturating_sub(file.written_ms) >= COLD_MS
            && file.bytes <= file_bytes / 2
            && !rewrites.iter().any(|rewrite| {
                rewrite.replaces.contains(&at)
                    || (rewrite.pages.start < file.pages.end && file.pages.start < rewrite.pages.end)
            })
    };
    // A rewrite of a gap between two files must not lie within the merged range.
    let meets = |pages: &Range<u64>| {
        rewrites.iter().any(|rewrite| rewrite.pages.start < pages.end && pages.start < rewrite.pages.end)
    };
    let mut level = SMALL_BYTES;
    while level < file_bytes.max(SMALL_BYTES + 1) {
        let mut at = 0;
        while at < files.len() {
            let (begin, mut bytes) = (at, 0);
            while at < files.len() && is_free(at) && files[at].bytes <= level && bytes + files[at].bytes <= file_bytes {
                bytes += files[at].bytes;
                at += 1;
            }
            if at - begin >= NEIGHBOURS {
                let pages = files[begin].pages.start..files[at - 1].pages.end;
                if !meets(&pages) {
                    return Some(Rewrite { pages, replaces: begin..at, file_bytes });
                }
            }
            at = at.max(begin + 1);
        }
        level = level.saturating_mul(LEVEL);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pages: Range<u64>, bytes: u64) -> DataFile {
        let digest = "0123456789abcdef".to_owned();
        DataFile { partition: 3, pages, oldest_ms: 7, digest, bytes, written_ms: 0, conversations: None }
    }

    fn planned(files: &[DataFile], pages: &[u64], now_ms: u64) -> Vec<(Range<u64>, Range<usize>)> {
        let plan = plan(files, &|_| false, &pages.iter().copied().collect(), 64 << 20, now_ms);
        plan.into_iter().map(|rewrite| (rewrite.pages, rewrite.replaces)).collect()
    }

    #[test]
    fn a_name_holds_what_the_next_process_needs() {
        let file = file(4..9, 100);
        assert_eq!(DataFile::parse(&file.name(), 100, 0), Some(file));
        for name in ["part-1.parquet", "part-00003-000000000009-000000000004-0000000000000007-aa.parquet", "x"] {
            assert_eq!(DataFile::parse(name, 1, 1), None, "{name}");
        }
    }

    #[test]
    fn a_change_rewrites_its_file_and_gap_only() {
        let files = [file(0..4, 9), file(4..8, 9), file(10..12, 9)];
        assert_eq!(planned(&files, &[], 0), []);
        assert_eq!(planned(&files, &[5], 0), [(4..8, 1..2)]);
        assert_eq!(planned(&files, &[1, 11], 0), [(0..4, 0..1), (10..12, 2..3)]);
        assert_eq!(planned(&files, &[9], 0), [(9..10, 2..2)]);
        assert_eq!(planned(&files, &[7, 8, 9, 11, 14], 0), [(4..15, 1..3)]);
        assert_eq!(planned(&[], &[0, 3], 0), [(0..4, 0..0)]);
    }

    #[test]
    fn cold_neighbours_are_merged_and_no_changed_ones() {
        let files: Vec<DataFile> = (0..6).map(|at| file(at * 2..at * 2 + 1, 9)).collect();
        assert_eq!(planned(&files, &[], COLD_MS - 1), []);
        assert_eq!(planned(&files, &[], COLD_MS), [(0..11, 0..6)]);
        assert_eq!(planned(&files, &[2], COLD_MS), [(2..3, 1..2), (4..11, 2..6)]);
        assert_eq!(planned(&files, &[5], COLD_MS), [(5..6, 3..3)], "the gap lies within the merged range");
    }

    #[test]
    fn full_files_are_left_alone() {
        let mut files: Vec<DataFile> = (0..4).map(|at| file(at..at + 1, 40 << 20)).collect();
        assert_eq!(planned(&files, &[], COLD_MS), []);
        files.iter_mut().for_each(|file| file.bytes = 17 << 20);
        assert_eq!(planned(&files, &[], COLD_MS), [], "four of them are more than a file");
        files.iter_mut().for_each(|file| file.bytes = 16 << 20);
        assert_eq!(planned(&files, &[], COLD_MS), [(0..4, 0..4)]);
    }
}
