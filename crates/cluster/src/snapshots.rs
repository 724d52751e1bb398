//! What an operator and a process that takes snapshots say to one another, version 1. Knows no transport, and takes none.

use serde::{Deserialize, Serialize};

/// Where snapshots are asked for (POST) and how they stand (GET).
pub const SNAPSHOTS_PATH: &str = "/internal/v1/snapshots";

/// Which snapshots are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAsk {
    /// The partitions; absent: all that the process owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Vec<u32>>,
}

/// How snapshots of a process stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReply {
    /// The partitions that were asked for and are owned.
    #[serde(default)]
    pub asked: Vec<u32>,
    /// Every partition that is owned.
    pub states: Vec<SnapshotState>,
}

/// How the snapshots of one partition stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// Which.
    pub partition: u32,
    /// What is being done.
    pub doing: SnapshotDoing,
    /// Bytes of pages that the one being taken has so far.
    pub bytes: u64,
    /// How often one was due or asked for and that came to an end, well or not.
    pub attempts: u64,
    /// The newest that this process took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<SnapshotNewest>,
    /// Why the last attempt came to nothing, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl SnapshotState {
    /// Of a partition of which nothing was taken yet.
    pub fn new(partition: u32) -> Self {
        Self { partition, doing: SnapshotDoing::Nothing, bytes: 0, attempts: 0, newest: None, failure: None }
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotDoing {
    /// None is due.
    Nothing,
    /// One was asked for.
    Waiting,
    /// One is on its way.
    Taking,
}

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotNewest {
    /// The state after all records below.
    pub next_offset: u64,
    /// Unix milliseconds.
    pub taken_ms: u64,
    /// How long it is.
    pub bytes: u64,
    /// Its address.
    pub place: String,
    /// Digest of the state, as hexadecimal digits.
    pub digest: String,
}

/// A process that takes snapshots.
pub trait SnapshotDesk: Send + Sync {
    /// Asks for a snapshot of each of these partitions that is owned, or of all that are; returns which.
    fn ask_for(&self, partitions: Option<&[u32]>) -> Vec<u32>;

    /// How all owned partitions stand.
    fn states(&self) -> Vec<SnapshotState>;
}
