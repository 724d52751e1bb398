//! The settings of snapshots. Holds no logic.

use super::super::reader::Reader;
use super::{DAY_MS, NOT_EMPTY};

/// States kept elsewhere.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where snapshots are kept: a directory or a URL; absent: there are none.
    pub url: Option<String>,
    /// How old a partition's newest one may grow before the next is taken.
    pub interval_ms: u64,
    /// How many of the newest stay, of each partition.
    pub keep_count: usize,
    /// Beyond those, all that are not older stay.
    pub keep_ms: u64,
}

impl Snapshot {
    pub(super) fn read(from: &mut Reader) -> Self {
        let url = "Where snapshots are kept, and taken from by who has no state: a directory, file:///DIR, s3://BUCKET/PREFIX, \
                   gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, with credentials in the environment (`AWS_…`, `GOOGLE_…`, \
                   `AZURE_…`)";
        let interval =
            "How old the newest snapshot of a partition may grow before the next one is taken; a standby takes none";
        let count = "How many of the newest snapshots of a partition stay, whatever their age";
        let age = "Beyond those, snapshots that are not older stay too";
        Self {
            url: from.optional_text("snapshot.url", url, &NOT_EMPTY),
            interval_ms: from.integer("snapshot.interval_ms", interval, 900_000, 10..=30 * DAY_MS),
            keep_count: from.integer("snapshot.keep_count", count, 3, 1..=100_000),
            keep_ms: from.integer("snapshot.keep_ms", age, 0, 0..=3_650 * DAY_MS),
        }
    }
}
