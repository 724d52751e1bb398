//! Audits a snapshot: restores it into a temporary store, and checks every message's counts against
//! its bits and lists. Repairs nothing.

use crate::names::SnapshotEntry;
use crate::{Error, ProgressMonitor, Requirements, Snapshots};
use receipts_fold::State;
use receipts_store::snapshot::{Header, Summary};
use receipts_store::{Paged, SledSettings, SledStore};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The memory for pages during an audit, bytes.
const MEMORY_BYTES: usize = 128 << 20;

/// The result of an audit.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The header of the snapshot.
    pub header: Header,
    /// The contents of the snapshot. All checksums are right.
    pub summary: Summary,
    /// The number of audited messages.
    pub messages: u64,
    /// The number of messages whose counts, bits and lists contradict one another.
    pub contradictions: u64,
    /// The first contradiction.
    pub first_contradiction: Option<String>,
}

/// Checks every checksum of a snapshot, and every message for contradictions. Restores the snapshot
/// into a temporary folder in `aside`.
///
/// # Errors
/// [`Error::Unusable`] where the snapshot is damaged; other errors where the disk or the
/// destination fails, or the monitor stops the audit.
pub fn audit(
    snapshots: &Snapshots,
    found: &SnapshotEntry,
    aside: &Path,
    monitor: &dyn ProgressMonitor,
) -> Result<Audit, Error> {
    // It holds ids and read times, so only its owner may enter it.
    let dir = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(aside)
        .map_err(Error::io("creating a temporary directory (set TMPDIR to choose another location)"))?;
    let store = SledStore::open_strict(dir.path(), SledSettings { cache_bytes: 64 << 20, sync: false })?;
    let partition = found.partition;
    let any = Requirements { partition, partition_count: None, limits: None, next_offset: 0..=u64::MAX };
    let restored = snapshots.restore(found, &store, &any, monitor)?;
    let limits = restored.header.limits;
    let wrong = |e: receipts_fold::Error<receipts_store::Error>| snapshots.unusable(found, &e);
    let pages = Paged::new(store.partition(partition)?, partition, MEMORY_BYTES);
    let state = State::open(pages, limits).map_err(wrong)?;
    let mut audit = Audit {
        header: restored.header,
        summary: restored.summary,
        messages: state.messages() - state.first_message().min(state.messages()),
        contradictions: 0,
        first_contradiction: None,
    };
    for message in state.first_message()..state.messages() {
        if monitor.is_stopped() {
            return Err(Error::Stopped);
        }
        let contradiction = match state.audit(message) {
            Ok(None) => continue,
            Ok(Some(sentence)) => sentence,
            Err(error) => error.to_string(),
        };
        audit.contradictions += 1;
        audit.first_contradiction.get_or_insert_with(|| format!("message number {message}: {contradiction}"));
    }
    Ok(audit)
}
