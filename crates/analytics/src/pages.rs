//! All pages of a state in one order, and their digest. The digest is comparable between runs of one version of the store's
//! format, and with that of a snapshot (`schemas/snapshot/v1.md`).

use crate::{Error, Watch};
use receipts_fold::page::{PageKey, TableId};
use receipts_fold::{Pages, State};
use receipts_store::snapshot::{self, Digest};

/// Calls `each` with every page that answers come from, in the order of tables and keys, which is that of a snapshot. Some
/// may be absent.
///
/// # Errors
/// Where the store fails or is broken, `each` fails, or the watch stops it.
pub(crate) fn each_page<S: Pages<Error = receipts_store::Error>>(
    state: &State<S>,
    partition: u32,
    watch: &dyn Watch,
    each: &mut dyn FnMut(TableId, PageKey) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut of = |wanted: TableId, pages: &[(TableId, PageKey)]| {
        if watch.is_stopped() {
            return Err(Error::Stopped);
        }
        pages.iter().filter(|(table, _)| *table == wanted).try_for_each(|(table, key)| each(*table, *key))
    };
    let failed = Error::state(partition);
    let own = state.own_pages().map_err(&failed)?;
    of(TableId::Meta, &own)?;
    for table in [TableId::Heads, TableId::People, TableId::Marks, TableId::Leaves] {
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
    of(TableId::Erased, &own)
}

const MESSAGES_PER_PAGE: usize = receipts_fold::message::MESSAGES_PER_PAGE as usize;

/// The digest of pages that come in order.
#[derive(Default)]
pub(crate) struct Sum(Digest);

impl Sum {
    /// Adds a page; an absent one adds nothing.
    pub(crate) fn add(&mut self, table: TableId, key: PageKey, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes {
            self.0.add(&snapshot::page_key(table, key), bytes);
        }
    }

    pub(crate) fn hex(self) -> String {
        snapshot::hex(&self.0.finish())
    }
}

/// The digest of a settled state: the same for every fold of the same prefix with the same limits, whatever its memory, and
/// for a snapshot of it.
///
/// # Errors
/// Where the store fails or is broken, or the watch stops it.
pub fn digest<S: Pages<Error = receipts_store::Error>>(
    state: &State<S>,
    partition: u32,
    watch: &dyn Watch,
) -> Result<String, Error> {
    let mut sum = Sum::default();
    each_page(state, partition, watch, &mut |table, key| {
        sum.add(table, key, state.page_bytes(table, key).map_err(Error::state(partition))?.as_deref());
        Ok(())
    })?;
    Ok(sum.hex())
}
