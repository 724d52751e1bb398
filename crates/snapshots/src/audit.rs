//! Audits a snapshot: restored aside, every message's counts against its bits and lists. Repairs nothing.

use crate::names::Found;
use crate::{Error, Snapshots, Wanted, Watch};
use receipts_fold::State;
use receipts_store::snapshot::{Header, Summary};
use receipts_store::{Paged, SledSettings, SledStore};
use std::path::Path;

/// Memory for pages while auditing, bytes.
const MEMORY_BYTES: usize = 128 << 20;

/// What an audit found.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Which state it is.
    pub header: Header,
    /// What it holds; all checksums are right.
    pub summary: Summary,
    /// Messages that were looked at.
    pub messages: u64,
    /// Messages that contradict themselves.
    pub contradictions: u64,
    /// The first of them.
    pub first_contradiction: Option<String>,
}

/// Checks every checksum of a snapshot, and every message with itself. `aside` is where it is restored for that.
///
/// # Errors
/// [`Error::Unusable`] where it is damaged; else where disk or destination fail, or the watch stops it.
pub fn audit(snapshots: &Snapshots, found: &Found, aside: &Path, watch: &dyn Watch) -> Result<Audit, Error> {
    let dir =
        tempfile::tempdir_in(aside).map_err(Error::io("making a temporary directory; TMPDIR chooses another place"))?;
    let store = SledStore::open_whole(dir.path(), SledSettings { cache_bytes: 64 << 20, sync: false })?;
    let partition = found.partition;
    let any = Wanted { partition, partition_count: None, limits: None, next_offset: 0..=u64::MAX };
    let restored = snapshots.restore(found, &store, &any, watch)?;
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
        if watch.is_stopped() {
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
