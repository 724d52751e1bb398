//! The names of snapshots. They sort by log, partition and offset, so a listing needs no reads.
//! Uses no destination.
//!
//! ```text
//! {first 16 hexadecimal digits of the SHA-256 of the log's name}/p{partition, 5 digits}/{next_offset, 20 digits}.snapshot
//! ```

use receipts_objects::Object;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

const ENDING: &str = ".snapshot";
const OFFSET_DIGITS: usize = 20;
const FOLDER_DIGITS: usize = 16;

/// A snapshot in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotEntry {
    /// The name within the destination.
    pub name: String,
    /// The partition.
    pub partition: u32,
    /// The state holds all records below this offset.
    pub next_offset: u64,
    /// The length, bytes.
    pub bytes: u64,
    /// The time of the upload, Unix milliseconds, by the destination's clock.
    pub modified_ms: u64,
}

/// Returns the folder of a log.
pub(crate) fn folder(log: &str) -> String {
    let mut digits = receipts_store::snapshot::hex(&Sha256::digest(log.as_bytes()));
    digits.truncate(FOLDER_DIGITS);
    digits
}

/// Returns the folder of a partition.
pub(crate) fn folder_of(log: &str, partition: u32) -> String {
    format!("{}/p{partition:05}", folder(log))
}

/// Returns the name of a snapshot.
pub(crate) fn name(log: &str, partition: u32, next_offset: u64) -> String {
    format!("{}/{next_offset:0OFFSET_DIGITS$}{ENDING}", folder_of(log, partition))
}

/// Parses the name of an object. Returns `None` unless it is exactly a name that [`name`] makes.
pub(crate) fn found(object: Object) -> Option<SnapshotEntry> {
    let (folder, rest) = object.name.split_once('/')?;
    let (partition, file) = rest.split_once('/')?;
    let is_folder = folder.len() == FOLDER_DIGITS && folder.bytes().all(|b| b.is_ascii_hexdigit());
    let partition: u32 = digits(partition.strip_prefix('p')?)?.parse().ok()?;
    let offset = digits(file.strip_suffix(ENDING)?).filter(|offset| offset.len() == OFFSET_DIGITS)?;
    let next_offset: u64 = offset.parse().ok()?;
    let Object { name, bytes, modified_ms } = object;
    is_folder.then_some(SnapshotEntry { name, partition, next_offset, bytes, modified_ms })
}

/// Returns the log's folder from the name of a snapshot; `None` for other names.
pub(crate) fn folder_of_snapshot(name: &str) -> Option<&str> {
    let object = Object { name: name.to_owned(), bytes: 0, modified_ms: 0 };
    found(object).and_then(|_| name.split('/').next())
}

fn digits(text: &str) -> Option<&str> {
    (text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> Object {
        Object { name: name.to_owned(), bytes: 7, modified_ms: 9 }
    }

    #[test]
    fn names_parse_back_and_sort_by_partition_and_offset() {
        let mut names = Vec::new();
        for partition in [0, 9, 10, 255, 9_999] {
            for next_offset in [1, 9, 10, u64::MAX] {
                let name = name("a log", partition, next_offset);
                let found = found(object(&name)).expect("a name of a snapshot");
                assert_eq!((found.partition, found.next_offset), (partition, next_offset));
                names.push(name);
            }
        }
        assert!(names.is_sorted(), "{names:?}");
        assert_ne!(name("a log", 0, 1), name("another", 0, 1));
    }

    #[test]
    fn other_names_are_not_snapshots() {
        let ours = name("a log", 3, 4);
        for other in [
            ours.replace(".snapshot", ".snapshot#1"),
            ours.replace(".snapshot", ""),
            ours.replace("/p", "/q"),
            format!("x/{ours}"),
            ours[1..].to_owned(),
            ours.replace("00000000000000000004", "4"),
            String::new(),
        ] {
            assert_eq!(found(object(&other)), None, "{other}");
        }
    }
}
