//! A partition as one stream of bytes. Its format outlives the store's; `schemas/snapshot/v2.md`
//! has every byte. Knows neither files nor destinations.

mod header;
mod read;
mod take;
mod write;

pub use header::{Header, Summary};
pub use read::Reader;
pub use receipts_event::hex;
pub use take::{PendingSnapshot, Provenance};
pub use write::Writer;

use receipts_fold::pages::{PageKey, TableId};
use sha2::{Digest as _, Sha256};

/// The first bytes of a snapshot.
const MAGIC: &[u8; 7] = b"RCPTSNP";
/// The marks before a block and before the trailer.
const BLOCK: u8 = 1;
const TRAILER: u8 = 2;
/// A block is closed once its pages take this many bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// The longest page, bytes. A block exceeds [`BLOCK_BYTES`] by less than one page.
const PAGE_BYTES_MAX: usize = 64 << 20;
/// The bytes before the header, and the longest header, bytes.
const PREFIX_BYTES: usize = 12;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// The trailer with its mark, bytes.
pub const TRAILER_BYTES: usize = 1 + 8 + 8 + 8 + 32 + 16 + 4;
/// The longest start of a snapshot up to the end of its header, bytes.
pub const START_BYTES_MAX: usize = PREFIX_BYTES + HEADER_BYTES_MAX + 4;

/// The digest of a state: a SHA-256 over the pages that hold answers, by table and key. Lookup
/// pages (names, indexes, filters) are left out, because they may differ between folds of the same
/// prefix.
#[derive(Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds a page by its key without part.
    pub fn add(&mut self, key: &[u8], payload: &[u8]) {
        const LOOKUP_TABLES: [TableId; 5] =
            [TableId::Names, TableId::PeopleIndex, TableId::Index, TableId::BloomFilters, TableId::Origin];
        if key.first().is_some_and(|table| LOOKUP_TABLES.iter().all(|lookup| *lookup as u8 != *table)) {
            self.0.update(key);
            self.0.update((payload.len() as u64).to_be_bytes());
            self.0.update(payload);
        }
    }

    /// Returns the digest of all added pages.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Returns the key of a page in snapshots.
pub fn page_key(table: TableId, key: PageKey) -> [u8; 13] {
    crate::envelope::page_key(table, key)
}
