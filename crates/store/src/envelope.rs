//! Splits a page into values of at most 4 KiB, with format version, checksum and offset before its
//! bytes. Knows no medium.
//!
//! ```text
//! key     = table:u8 a:u64 b:u32 part:u16              big endian, so neighbours in time are neighbours on disk
//! part 0  = version:u8 draft:u8 parts:u16 crc32:u32 offset:u64 payload    little endian
//! part n  = payload
//! ```
//! The checksum covers the key without its part, the offset and the whole payload. So a page under
//! the wrong key is found too (INV-CHECKSUM).

use crate::error::Error;
use crate::format::{FORMAT, FormatVersion};
use receipts_event::hex;
use receipts_fold::pages::{PageKey, TableId};

/// The size of a part, bytes. sled moves larger values out of its B-tree nodes into files of their
/// own, which it leaks.
const PART_BYTES: usize = 4_000;
const HEADER_BYTES: usize = 16;

/// Returns the key of a page without its part.
pub(crate) fn page_key(table: TableId, key: PageKey) -> [u8; 13] {
    let mut bytes = [0; 13];
    bytes[0] = table as u8;
    bytes[1..9].copy_from_slice(&key.a.to_be_bytes());
    bytes[9..].copy_from_slice(&key.b.to_be_bytes());
    bytes
}

/// Parses a key that [`page_key`] made.
pub(crate) fn parse_page_key(bytes: &[u8]) -> Option<PageKey> {
    let a = u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?);
    let b = u32::from_be_bytes(bytes.get(9..13)?.try_into().ok()?);
    Some(PageKey { a, b })
}

/// Returns the key of a conversation's name.
pub(crate) fn name_key(name: &[u8]) -> Vec<u8> {
    [&[TableId::Names as u8], name].concat()
}

/// Returns the key of a part.
pub(crate) fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    [key, &part.to_be_bytes()].concat()
}

fn sum(key: &[u8], offset: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&offset.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Calls `each` with the key and the value of every part of a page.
pub(crate) fn wrap(key: &[u8], offset: u64, payload: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
    let first = payload.len().min(PART_BYTES - HEADER_BYTES);
    let parts = 1 + (payload.len() - first).div_ceil(PART_BYTES);
    let mut value = Vec::with_capacity(HEADER_BYTES + first);
    value.extend_from_slice(&[FORMAT.version, FORMAT.draft]);
    value.extend_from_slice(&u16::try_from(parts).expect("a page far below 256 MiB").to_le_bytes());
    value.extend_from_slice(&sum(key, offset, payload).to_le_bytes());
    value.extend_from_slice(&offset.to_le_bytes());
    value.extend_from_slice(&payload[..first]);
    each(&part_key(key, 0), &value);
    for (part, bytes) in (1..).zip(payload[first..].chunks(PART_BYTES)) {
        each(&part_key(key, part), bytes);
    }
}

/// Joins the parts of a page; returns the offset up to which it is folded, and its bytes.
///
/// # Errors
/// If a part is missing or damaged.
pub(crate) fn unwrap<V: AsRef<[u8]>>(
    key: &[u8],
    part: impl Fn(u16) -> Result<Option<V>, Error>,
) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let corrupt = |detail: &str| Error::corrupt(format!("page {}", hex(key)), detail);
    let Some(first) = part(0)? else { return Ok(None) };
    let first = first.as_ref();
    let version = *first.first().ok_or_else(|| corrupt("is cut short"))?;
    if !FormatVersion::check("a page", version, first.get(1).copied())? {
        return Err(corrupt("has no known format"));
    }
    let (header, payload) = first.split_at_checked(HEADER_BYTES).ok_or_else(|| corrupt("is cut short"))?;
    let parts = u16::from_le_bytes([header[2], header[3]]);
    let expected = u32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
    let offset = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
    // The checksum does not cover the count. Any wrong count but 0 lacks a part or fails the
    // checksum.
    if parts == 0 {
        return Err(corrupt("has no parts"));
    }
    let mut payload = payload.to_vec();
    for n in 1..parts {
        payload.extend_from_slice(part(n)?.ok_or_else(|| corrupt("lacks a part"))?.as_ref());
    }
    if sum(key, offset, &payload) != expected {
        return Err(corrupt("fails its checksum"));
    }
    Ok(Some((offset, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn parts_of(payload: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut parts = BTreeMap::new();
        wrap(b"key", 9, payload, |k, v| _ = parts.insert(k.to_vec(), v.to_vec()));
        parts
    }

    fn together(parts: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Option<(u64, Vec<u8>)>, Error> {
        unwrap(b"key", |part| Ok(parts.get(&part_key(b"key", part))))
    }

    #[test]
    fn pages_of_any_size_join_and_values_stay_small() {
        for length in [0, 1, 3_983, 3_984, 3_985, 4_096, 8_000, 140_000] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let parts = parts_of(&payload);
            assert!(parts.values().all(|v| v.len() <= 4_096));
            assert_eq!(together(&parts).unwrap(), Some((9, payload)));
        }
    }

    #[test]
    fn flipped_bit_of_a_small_page_is_found() {
        let parts = parts_of(b"a small page");
        let (key, value) = parts.first_key_value().unwrap();
        for bit in 0..value.len() * 8 {
            let mut flipped = parts.clone();
            flipped.get_mut(key).unwrap()[bit / 8] ^= 1 << (bit % 8);
            assert!(together(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn flipped_bit_or_missing_part_is_found() {
        let payload: Vec<u8> = (0..9_000).map(|i| (i * 7) as u8).collect();
        let parts = parts_of(&payload);
        for (key, value) in &parts {
            for bit in (0..value.len() * 8).step_by(13).chain(0..120) {
                let mut flipped = parts.clone();
                flipped.get_mut(key).unwrap()[bit / 8] ^= 1 << (bit % 8);
                assert!(together(&flipped).is_err(), "bit {bit} of {key:?}");
            }
        }
        let mut lacking = parts.clone();
        lacking.remove(&part_key(b"key", 1));
        assert!(together(&lacking).unwrap_err().is_corruption());
    }
}
