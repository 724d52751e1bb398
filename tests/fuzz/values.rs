//! Writes a page as the values of a store, by `schemas/store/v2.md` and not by the store's code.
//! Reads no value.

use receipts_fold::pages::{PageKey, TableId};

/// The longest value, and the header of the first one, bytes.
const PART_BYTES: usize = 4_000;
const HEADER_BYTES: usize = 16;

/// Returns the key of a page without its part.
pub fn page_key(table: TableId, key: PageKey) -> Vec<u8> {
    [&[table as u8][..], &key.a.to_be_bytes(), &key.b.to_be_bytes()].concat()
}

/// Returns the key of a part.
pub fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    [key, &part.to_be_bytes()].concat()
}

/// Returns the values of a page with a right checksum, for any payload.
pub fn values(key: &[u8], offset: u64, payload: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (first, rest) = payload.split_at(payload.len().min(PART_BYTES - HEADER_BYTES));
    let parts: Vec<&[u8]> = rest.chunks(PART_BYTES).collect();
    let sum = crc32fast::hash(&[key, &offset.to_le_bytes(), payload].concat());
    let mut value = vec![2, 1];
    value.extend_from_slice(&(1 + parts.len() as u16).to_le_bytes());
    value.extend_from_slice(&sum.to_le_bytes());
    value.extend_from_slice(&offset.to_le_bytes());
    value.extend_from_slice(first);
    let others = (1..).zip(parts).map(|(part, bytes)| (part_key(key, part), bytes.to_vec()));
    std::iter::once((part_key(key, 0), value)).chain(others).collect()
}

/// Returns the payload of a page's values in order.
pub fn payload(values: &[Vec<u8>]) -> Vec<u8> {
    let (first, rest) = values.split_first().expect("a page has a first part");
    std::iter::once(&first[HEADER_BYTES..]).chain(rest.iter().map(Vec::as_slice)).flatten().copied().collect()
}
