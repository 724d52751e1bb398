//! The call by which an operator has a running process take snapshots, version 1.
//!
//! Knows no transport and takes no snapshot.

use serde::{Deserialize, Serialize};

/// The path at which snapshots are requested (POST) and their status is read (GET).
pub const SNAPSHOTS_PATH: &str = "/internal/v1/snapshots";

/// A request for snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The partitions; if absent, all that the process owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Vec<u32>>,
}

/// The status of a process's snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReply {
    /// The requested partitions that the process owns.
    #[serde(default, rename = "asked")]
    pub requested: Vec<u32>,
    /// The status of every owned partition.
    #[serde(rename = "states")]
    pub statuses: Vec<SnapshotStatus>,
}

/// The status of one partition's snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// The partition.
    pub partition: u32,
    /// The phase of its next snapshot.
    #[serde(rename = "doing")]
    pub phase: SnapshotPhase,
    /// Bytes of pages written so far into the snapshot that is being taken.
    pub bytes: u64,
    /// How many attempts have ended, successful or not.
    pub attempts: u64,
    /// The newest snapshot that this process took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<TakenSnapshot>,
    /// Why the last attempt failed; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl SnapshotStatus {
    /// The status of a partition that this process has taken no snapshot of.
    pub fn new(partition: u32) -> Self {
        Self { partition, phase: SnapshotPhase::Idle, bytes: 0, attempts: 0, newest: None, failure: None }
    }
}

/// The phase of a partition's next snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPhase {
    /// No snapshot is due.
    #[serde(rename = "nothing")]
    Idle,
    /// A snapshot was requested and waits for its turn.
    Waiting,
    /// A snapshot is being taken.
    Taking,
}

/// A snapshot that a process took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenSnapshot {
    /// The offset after the last record that the snapshot holds.
    pub next_offset: u64,
    /// When it was taken, Unix milliseconds.
    pub taken_ms: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its address.
    #[serde(rename = "place")]
    pub location: String,
    /// The digest of the state, as hexadecimal digits.
    pub digest: String,
}

/// A process that takes snapshots on request.
pub trait SnapshotControl: Send + Sync {
    /// Requests a snapshot of each named partition that the process owns, or of all that it owns.
    /// Returns the partitions of the requested snapshots.
    fn request(&self, partitions: Option<&[u32]>) -> Vec<u32>;

    /// Returns the status of every owned partition.
    fn statuses(&self) -> Vec<SnapshotStatus>;
}
