//! The pages of a state in snapshot order, and their digest. Digests are comparable between runs of
//! one store format, and with the digest of a snapshot (`schemas/snapshot/v2.md`).

use crate::{Error, ProgressMonitor};
use receipts_fold::pages::{PageKey, TableId};
use receipts_fold::{Pages, State};
use receipts_store::snapshot::{self, Digest};

/// Calls `each` with every page that answers depend on, by table and key: the order of a snapshot.
/// Some of the pages may be absent.
///
/// # Errors
/// If the store fails or is damaged, `each` fails, or the monitor stops the run.
pub(crate) fn each_page<S: Pages<Error = receipts_store::Error>>(
    state: &State<S>,
    partition: u32,
    monitor: &dyn ProgressMonitor,
    each: &mut dyn FnMut(TableId, PageKey) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut of = |wanted: TableId, pages: &[(TableId, PageKey)]| {
        if monitor.is_stopped() {
            return Err(Error::Stopped);
        }
        pages.iter().filter(|(table, _)| *table == wanted).try_for_each(|(table, key)| each(*table, *key))
    };
    let failed = Error::state(partition);
    let own = state.pages_of_partition().map_err(&failed)?;
    of(TableId::Meta, &own)?;
    for table in [TableId::Conversations, TableId::People, TableId::ReadMarks, TableId::Departures] {
        for conversation in 0..state.conversations() {
            of(table, &state.pages_of_conversation(conversation).map_err(&failed)?)?;
        }
    }
    for table in [TableId::Messages, TableId::Chunks] {
        for message in (state.first_message()..state.messages()).step_by(MESSAGES_PER_PAGE) {
            of(table, &state.pages_of_messages(message).map_err(&failed)?)?;
        }
    }
    of(TableId::Parked, &own)?;
    of(TableId::Erasures, &own)?;
    of(TableId::Policies, &own)
}

const MESSAGES_PER_PAGE: usize = receipts_fold::pages::MESSAGES_PER_PAGE as usize;

/// Builds the digest of pages that are added in snapshot order.
#[derive(Default)]
pub(crate) struct PagesDigest(Digest);

impl PagesDigest {
    /// Adds a page; an absent page adds nothing.
    pub(crate) fn add(&mut self, table: TableId, key: PageKey, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes {
            self.0.add(&snapshot::page_key(table, key), bytes);
        }
    }

    pub(crate) fn hex(self) -> String {
        snapshot::hex(&self.0.finish())
    }
}

/// Returns the digest of a state whose counters are written to its pages. It is the same for every
/// fold of one prefix with the same limits, for any memory size, and for a snapshot of that state.
///
/// # Errors
/// If the store fails or is damaged, or the monitor stops the run.
pub fn digest<S: Pages<Error = receipts_store::Error>>(
    state: &State<S>,
    partition: u32,
    monitor: &dyn ProgressMonitor,
) -> Result<String, Error> {
    let mut sum = PagesDigest::default();
    each_page(state, partition, monitor, &mut |table, key| {
        sum.add(table, key, state.page_bytes(table, key).map_err(Error::state(partition))?.as_deref());
        Ok(())
    })?;
    Ok(sum.hex())
}
