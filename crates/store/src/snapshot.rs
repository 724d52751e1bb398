//! A partition as one stream of bytes, in a format of its own that outlives the store's: `schemas/snapshot/v1.md` has it byte
//! for byte. Knows neither files nor destinations.

mod header;
mod read;
mod take;
mod write;

pub use header::{Header, Summary};
pub use read::Reader;
pub use receipts_event::hex;
pub use take::{Taking, Told};
pub use write::Writer;

use receipts_fold::pages::{PageKey, TableId};
use sha2::{Digest as _, Sha256};

/// The first bytes of every snapshot.
const MAGIC: &[u8; 7] = b"RCPTSNP";
/// The format written; all up to this one are read.
const VERSION: u8 = 1;
/// What stands before a block, and before the trailer.
const BLOCK: u8 = 1;
const TRAILER: u8 = 2;
/// A block is closed once its pages take so many bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// No page is longer; nor are a block's bytes beyond the last page that begins within [`BLOCK_BYTES`].
const PAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes before the header, and of the longest header.
const PREFIX_BYTES: usize = 12;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Bytes of the trailer with its mark.
pub const TRAILER_BYTES: usize = 1 + 8 + 8 + 8 + 32 + 16 + 4;
/// The longest a snapshot's beginning can be that tells its header.
pub const START_BYTES_MAX: usize = PREFIX_BYTES + HEADER_BYTES_MAX + 4;

/// The digest of a state: a SHA-256 over the pages that answers come from, by table and key. Pages that only find others
/// (names, indexes, filters) are left out, for they may differ where the state does not.
#[derive(Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds a page by its key without part.
    pub fn add(&mut self, key: &[u8], payload: &[u8]) {
        const BESIDE_ANSWERS: [TableId; 5] =
            [TableId::Names, TableId::PeopleIndex, TableId::Index, TableId::BloomFilters, TableId::Origin];
        if key.first().is_some_and(|table| BESIDE_ANSWERS.iter().all(|beside| *beside as u8 != *table)) {
            self.0.update(key);
            self.0.update((payload.len() as u64).to_be_bytes());
            self.0.update(payload);
        }
    }

    /// The sum of all that was added.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The key of a page as snapshots have it.
pub fn page_key(table: TableId, key: PageKey) -> [u8; 13] {
    crate::envelope::page_key(table, key)
}
