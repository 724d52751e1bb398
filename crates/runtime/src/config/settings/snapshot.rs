//! The settings of snapshots. Holds no logic.

use super::super::reader::Reader;
use super::{DAY_MS, NOT_EMPTY};

/// Snapshots: copies of the state at another location.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The destination of snapshots, a directory or a URL; if absent, none are taken.
    pub url: Option<String>,
    /// The age of a partition's newest snapshot at which the next is taken, in milliseconds.
    pub interval_ms: u64,
    /// The newest snapshots of each partition that are kept at any age.
    pub keep_count: usize,
    /// The age up to which further snapshots are kept, in milliseconds.
    pub keep_ms: u64,
}

impl Snapshot {
    pub(super) fn read(from: &mut Reader) -> Self {
        let url = "Destination of snapshots, and the source for a process without state: a directory, file:///DIR, \
                   s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, with credentials in the environment \
                   (`AWS_…`, `GOOGLE_…`, `AZURE_…`); if not set, no snapshots are taken";
        let interval =
            "Age of a partition's newest snapshot at which the next is taken, in milliseconds; a standby takes none";
        let count = "Newest snapshots of a partition that are kept at any age";
        let age = "Age up to which further snapshots are kept, in milliseconds";
        Self {
            url: from.optional_text("snapshot.url", url, &NOT_EMPTY),
            interval_ms: from.integer("snapshot.interval_ms", interval, 900_000, 10..=30 * DAY_MS),
            keep_count: from.integer("snapshot.keep_count", count, 3, 1..=100_000),
            keep_ms: from.integer("snapshot.keep_ms", age, 0, 0..=3_650 * DAY_MS),
        }
    }
}
