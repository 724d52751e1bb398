//! Folds a log into a store beside another one, and compares the two on the way. Switches nothing.

use crate::fold::{fold_into, save};
use crate::{Error, Span, Told, UpTo, Watch, digest, span};
use receipts_fold::{Limits, State};
use receipts_log::Inspect;
use receipts_store::{Paged, SledStore};
use serde::Serialize;

/// How an older store stands: its digest after all records below an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// Where it stands.
    pub next_offset: u64,
    /// Its digest there.
    pub digest: String,
}

/// A partition that was folded anew.
#[derive(Debug, Clone, Serialize)]
pub struct Rebuilt {
    /// What was read, from where an earlier attempt had got to.
    #[serde(flatten)]
    pub told: Told,
    /// Digest of the new state.
    pub digest: String,
    /// How the old one compares, where it could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

/// Two states at one offset.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// The state after all records below.
    pub next_offset: u64,
    /// Digest of the old one.
    pub old: String,
    /// Digest of the new one.
    pub new: String,
}

impl Rebuilt {
    /// Whether the old state was compared and is another one.
    pub fn differs(&self) -> bool {
        self.compared.as_ref().is_some_and(|compared| compared.old != compared.new)
    }
}

/// Folds a partition into a store, from where that stands to the end of the log, and compares it with the old one on the way.
///
/// # Errors
/// Where log, disk or state fail, the log has lost its beginning, or the watch stops it: then the next attempt goes on.
pub fn partition(
    log: &dyn Inspect,
    store: &SledStore,
    partition: u32,
    limits: Limits,
    memory_bytes: usize,
    old: Option<&Old>,
    watch: &dyn Watch,
) -> Result<Rebuilt, Error> {
    let end = span(log, partition, UpTo::End)?;
    let pages = Paged::new(store.partition(partition)?, partition, memory_bytes);
    let mut state = State::open(pages, limits).map_err(Error::state(partition))?;
    if state.next_offset() < end.first_offset {
        return Err(Error::Trimmed { partition, first: end.first_offset });
    }
    watch.skipped(state.next_offset().min(end.end_offset) - end.first_offset);
    let fold_up_to = |state: &mut State<_>, end_offset: u64| -> Result<Told, Error> {
        let first_offset = state.next_offset();
        fold_into(state, log, &Span { partition, first_offset, end_offset: end_offset.max(first_offset) }, watch)
    };
    let (mut compared, mut before) = (None, None);
    if let Some(old) = old.filter(|old| (state.next_offset()..=end.end_offset).contains(&old.next_offset)) {
        before = Some(fold_up_to(&mut state, old.next_offset)?);
        let new = digest(&state, partition, watch)?;
        compared = Some(Compared { next_offset: old.next_offset, old: old.digest.clone(), new });
    }
    let mut told = fold_up_to(&mut state, end.end_offset)?;
    if let Some(before) = before {
        told.first_offset = before.first_offset;
        told.first_timestamp_ms = before.first_timestamp_ms.or(told.first_timestamp_ms);
        told.newest_timestamp_ms = told.newest_timestamp_ms.max(before.newest_timestamp_ms);
        told.events += before.events;
        for (reason, count) in before.dead_letters {
            *told.dead_letters.entry(reason).or_default() += count;
        }
    }
    save(&mut state)?;
    state.pages().backend().wait()?;
    let digest = digest(&state, partition, watch)?;
    Ok(Rebuilt { told, digest, compared })
}
