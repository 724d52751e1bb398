//! All pages of a state in one order, and their digest. The digest is comparable between runs of one version of the store's
//! format.

use receipts_fold::page::{PageKey, TableId};
use receipts_fold::{Pages, Result, State};
use sha2::{Digest as _, Sha256};

/// Calls `each` with every page that answers come from, in an order that the state alone decides.
pub(crate) fn each_page<S: Pages>(
    state: &State<S>,
    each: &mut dyn FnMut(TableId, PageKey) -> Result<(), S::Error>,
) -> Result<(), S::Error> {
    let mut all = |pages: Vec<(TableId, PageKey)>| pages.into_iter().try_for_each(|(table, key)| each(table, key));
    all(state.own_pages()?)?;
    for conversation in 0..state.conversations() {
        all(state.pages_of_conversation(conversation)?)?;
    }
    for message in (state.first_message()..state.messages()).step_by(MESSAGES_PER_PAGE) {
        all(state.pages_of_messages(message)?)?;
    }
    Ok(())
}

const MESSAGES_PER_PAGE: usize = receipts_fold::message::MESSAGES_PER_PAGE as usize;

/// A SHA-256 over pages.
#[derive(Default)]
pub(crate) struct Sum(Sha256);

impl Sum {
    /// Adds a page, or that it is absent.
    pub(crate) fn add(&mut self, table: TableId, key: PageKey, bytes: Option<&[u8]>) {
        self.0.update([table as u8]);
        self.0.update(key.a.to_be_bytes());
        self.0.update(key.b.to_be_bytes());
        self.0.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_be_bytes());
        self.0.update(bytes.unwrap_or_default());
    }

    pub(crate) fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a settled state: the same for every fold of the same prefix with the same limits, whatever its memory.
///
/// # Errors
/// Where the store fails or is broken.
pub fn digest<S: Pages>(state: &State<S>) -> Result<String, S::Error> {
    let mut sum = Sum::default();
    each_page(state, &mut |table, key| {
        sum.add(table, key, state.page_bytes(table, key)?.as_deref());
        Ok(())
    })?;
    Ok(sum.hex())
}
