//! The settings of a projector, and the errors that stop it.

use receipts_fold::Limits;
use receipts_objects::Destination;
use receipts_snapshots::{Keep, Snapshots};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The usual [`Settings::pre_encode_bytes`]: about two milliseconds of encoding.
pub const PRE_ENCODE_BYTES: usize = 128 << 10;

/// The usual [`Settings::slice_messages`]: about a millisecond where the pages are in memory.
pub const SLICE_MESSAGES: u32 = 1_024;

/// The usual [`Settings::append_retry_max`].
pub const APPEND_RETRY_MAX: Duration = Duration::from_secs(1);

/// The settings of a projector.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the store; `None` keeps the store in memory, where it ends with the
    /// process.
    pub dir: Option<PathBuf>,
    /// The consumer group. It shares the partitions among projectors.
    pub group: String,
    /// The settings that decide answers.
    pub limits: Limits,
    /// Threads that fold. Each partition is folded by one thread, so there are never more threads
    /// than partitions.
    pub fold_threads: u32,
    /// Memory for the pages of all partitions and for sled's cache, in bytes.
    pub memory_bytes: usize,
    /// A partition is checkpointed after this many records …
    pub checkpoint_records: u64,
    /// … or this long after its first change since the last checkpoint.
    pub checkpoint_interval: Duration,
    /// Bytes of pages that one step encodes ahead of a checkpoint. Events are folded between steps.
    pub pre_encode_bytes: usize,
    /// Messages that the fold visits for one record, a read mark for example, before it lets
    /// readers in.
    pub slice_messages: u32,
    /// Whether checkpoints wait for the disk, and so survive a power cut.
    pub sync: bool,
    /// Whether updates and dead letters are published. A standby leaves both to the group that it
    /// stands by.
    pub publish: bool,
    /// Whether receipt updates are published.
    pub publish_updates: bool,
    /// Changes of one message within this time become one update.
    pub update_window: Duration,
    /// The longest wait of a checkpoint for the log to acknowledge the partition's updates and dead
    /// letters. After that, or if the disk is full, it is postponed by the same time.
    pub publish_timeout: Duration,
    /// How long a stop waits for the log to acknowledge updates and dead letters. Partitions with
    /// unacknowledged ones are then left as last checkpointed.
    pub stop_timeout: Duration,
    /// The longest wait before a refused append is tried again. The first wait is 10 ms, each
    /// further one twice as long.
    pub append_retry_max: Duration,
    /// Whether a partition answers before it has caught up for the first time. False if another
    /// process may still answer for it from a later position.
    pub answer_while_behind: bool,
    /// The messages of an id that a search in all conversations looks at, per partition.
    pub candidates_max: u32,
    /// Returns the time of day, Unix milliseconds. Readiness, warnings and update windows use it;
    /// no folded state depends on it.
    pub now_ms: fn() -> u64,
    /// How long a partition may be asked while the log is not heard from.
    pub stale_max: Duration,
    /// The snapshots; `None` if there are none.
    pub snapshots: Option<SnapshotSettings>,
}

impl Settings {
    /// Returns the data directory, of which the store is a folder; an empty path for a store in
    /// memory.
    pub(crate) fn data_dir(&self) -> &Path {
        let dir = self.dir.as_deref().unwrap_or(Path::new(""));
        dir.parent().unwrap_or(dir)
    }
}

/// Where snapshots are kept. A projector without a usable state restores them, and a schedule says
/// when it takes them.
#[derive(Debug, Clone)]
pub struct SnapshotSettings {
    /// The directory or bucket that holds them.
    pub destination: Destination,
    /// The name that distinguishes the log from all others.
    pub log: String,
    /// A local directory for snapshots that are being sent or received.
    pub spool: PathBuf,
    /// When they are taken; `None` for a standby, which takes none.
    pub schedule: Option<SnapshotSchedule>,
}

impl SnapshotSettings {
    /// Opens the snapshots. Their calls fail once the token is cancelled.
    pub(crate) fn open(&self, stop: &CancellationToken) -> Snapshots {
        Snapshots::new(self.destination.clone().stopped_by(stop.clone()), self.log.clone())
    }
}

/// When snapshots are taken, and how long they are kept.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotSchedule {
    /// The greatest age of a partition's newest snapshot.
    pub interval: Duration,
    /// Which snapshots are kept.
    pub keep: Keep,
}

/// Why a projector stopped. Its store is as the last checkpoint left it.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The log cannot be read any further.
    #[error(transparent)]
    Log(#[from] receipts_log::ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] receipts_store::Error),
    /// A partition's state cannot go on.
    #[error("partition {partition}: {detail}")]
    Partition {
        /// The partition's number.
        partition: u32,
        /// A sentence that says what to do.
        detail: String,
    },
    /// A partition's state is damaged. A marker beside the store records it.
    #[error("partition {partition}: {detail}. The next start drops the partition's state and rebuilds it from the log")]
    Damaged {
        /// The partition's number.
        partition: u32,
        /// The damage.
        detail: String,
    },
    /// The process stopped during a restore. The next start begins the restore again.
    #[error("stopped while a snapshot was being restored")]
    Stopped,
    /// A thread panicked.
    #[error("a thread of the projector panicked; this is a bug: please report it with the log")]
    Panicked,
}
