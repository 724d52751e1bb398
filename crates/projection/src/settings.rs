//! What a projector is told, and why it stops.

use receipts_fold::Limits;
use receipts_objects::Destination;
use receipts_snapshots::{Keep, Snapshots};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Of [`Settings::draft_bytes`], where nobody knows better: some two milliseconds of encoding.
pub const DRAFT_BYTES: usize = 128 << 10;

/// How a projector works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the store is.
    pub dir: PathBuf,
    /// Consumer group, which shares the partitions among projectors.
    pub group: String,
    /// Settings that decide answers.
    pub limits: Limits,
    /// Threads that fold. A partition is folded by one of them, so those beyond the partitions are not started.
    pub fold_threads: u32,
    /// Memory for pages of all partitions and sled's cache, bytes.
    pub memory_bytes: usize,
    /// A partition is checkpointed after so many records …
    pub checkpoint_records: u64,
    /// … or so long after its first change since the last one.
    pub checkpoint_interval: Duration,
    /// Bytes of pages that are encoded ahead of a checkpoint in a turn of the loop: in between, events are folded.
    pub draft_bytes: usize,
    /// Whether checkpoints wait for the disk, so that they survive the loss of power.
    pub sync: bool,
    /// Whether anything is published at all; a standby leaves updates and dead letters to the group that it stands by.
    pub publish: bool,
    /// Whether receipt updates are published.
    pub publish_updates: bool,
    /// Updates of one message within this time are one.
    pub update_window: Duration,
    /// How long the log may take to acknowledge updates and dead letters before a checkpoint is put off, and for how long
    /// it is put off, then and while the disk is full.
    pub publish_timeout: Duration,
    /// Whether a partition answers before it was at the end of the log once; not where another process may still answer
    /// for it from a later position.
    pub answer_while_behind: bool,
    /// The time of day, Unix milliseconds. Only readiness asks for it: nothing that is folded depends on it.
    pub now_ms: fn() -> u64,
    /// Where states are kept elsewhere, if anywhere.
    pub snapshots: Option<Snapshotting>,
}

/// States kept elsewhere: restored by whoever has none, and taken on a schedule.
#[derive(Debug, Clone)]
pub struct Snapshotting {
    /// Where.
    pub destination: Destination,
    /// What tells the log from every other one.
    pub log: String,
    /// A local directory for snapshots on their way.
    pub spool: PathBuf,
    /// When they are taken; a standby takes none.
    pub schedule: Option<Schedule>,
}

impl Snapshotting {
    /// The snapshots, whose calls give up once the token is cancelled.
    pub(crate) fn open(&self, stop: &CancellationToken) -> Snapshots {
        Snapshots::new(self.destination.clone().stopped_by(stop.clone()), self.log.clone())
    }
}

/// When snapshots are taken, and how long they stay.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How old the newest of a partition may grow.
    pub interval: Duration,
    /// Which stay.
    pub keep: Keep,
}

/// Why a projector stopped. Its store is as the last checkpoint left it.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The log cannot be read on.
    #[error("{0}")]
    Log(#[from] receipts_log::ReadError),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] receipts_store::Error),
    /// A partition's state cannot go on.
    #[error("partition {partition}: {detail}")]
    Partition {
        /// Which.
        partition: u32,
        /// A sentence with what to do.
        detail: String,
    },
    /// A partition's state is not what was written. That is noted beside the store.
    #[error("partition {partition}: {detail}. The next start drops the partition's state and rebuilds it from the log")]
    Damaged {
        /// Which.
        partition: u32,
        /// What was found.
        detail: String,
    },
    /// It was to stop while a partition was being restored: the next start begins that again.
    #[error("stopped while a snapshot was being restored")]
    Stopped,
    /// A thread is gone.
    #[error("a thread of the projector panicked; this is a bug: please report it with the log")]
    Panicked,
}
