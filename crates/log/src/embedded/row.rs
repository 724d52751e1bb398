//! The layout of one record as a row of the embedded log.
//!
//! It encodes and decodes rows. It does no IO and never returns a record with a wrong checksum.
//!
//! Format 1, integers little-endian, lengths as LEB128:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | format version, 1 |
//! | 4 | CRC-32 of everything after it |
//! | 8 | timestamp, Unix milliseconds |
//! | 1 | bit 0: has a key; bit 1: has a value |
//! | n | key: length and bytes, if it has one |
//! | n | number of headers; for each: length and bytes of the name, 0 or length + 1, bytes of the value |
//! | rest | value |

use crate::port::{Entry, Headers, Record};
use bytes::Bytes;

/// The newest format, which is written.
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 8 + 1;
const HAS_KEY: u8 = 1;
const HAS_VALUE: u8 = 2;

/// A decoded row that borrows its bytes.
pub(super) struct Row<'a> {
    pub(super) timestamp_ms: u64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: RowHeaders<'a>,
}

/// Why a row cannot be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum RowError {
    #[error("the checksum is wrong: the file is damaged")]
    Checksum,
    #[error("the row is cut short: the file is damaged")]
    Short,
    #[error("the row has format version {0}, but this program reads up to {FORMAT}: use a newer program")]
    Version(u8),
}

impl<'a> Row<'a> {
    /// Decodes a row without copying it.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, RowError> {
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(RowError::Version(other)),
            None => return Err(RowError::Short),
        }
        let Some((head, mut rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Err(RowError::Short) };
        let (mut crc, mut timestamp) = ([0; 4], [0; 8]);
        crc.copy_from_slice(&head[1..5]);
        timestamp.copy_from_slice(&head[5..13]);
        if crc32fast::hash(&bytes[5..]) != u32::from_le_bytes(crc) {
            return Err(RowError::Checksum);
        }
        let flags = head[13];
        let key = if flags & HAS_KEY != 0 { Some(take_sized(&mut rest)?) } else { None };
        let headers = RowHeaders(rest);
        let count = take_number(&mut rest)?;
        for _ in 0..count {
            take_header(&mut rest)?;
        }
        let value = (flags & HAS_VALUE != 0).then_some(rest);
        Ok(Row { timestamp_ms: u64::from_le_bytes(timestamp), key, value, headers })
    }

    /// Returns the row as a record of the port.
    pub(super) fn record(&self, partition: u32, offset: u64) -> Record<'_> {
        Record {
            partition,
            offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key,
            value: self.value,
            headers: &self.headers,
        }
    }
}

/// The encoded headers of a row, from their count on.
struct RowHeaders<'a>(&'a [u8]);

impl Headers for RowHeaders<'_> {
    fn to_vec(&self) -> Vec<(String, Option<Bytes>)> {
        let mut rest = self.0;
        let mut all = Vec::new();
        // `decode` has checked that they are complete.
        for _ in 0..take_number(&mut rest).unwrap_or(0) {
            let Ok((name, value)) = take_header(&mut rest) else { break };
            all.push((String::from_utf8_lossy(name).into_owned(), value.map(Bytes::copy_from_slice)));
        }
        all
    }
}

/// Encodes an entry into `row`, replacing its content, so that one buffer serves many entries.
pub(super) fn encode(entry: &Entry, timestamp_ms: u64, row: &mut Vec<u8>) {
    row.clear();
    row.push(FORMAT);
    row.extend_from_slice(&[0; 4]);
    row.extend_from_slice(&timestamp_ms.to_le_bytes());
    row.push(if entry.key.is_some() { HAS_KEY } else { 0 } | if entry.value.is_some() { HAS_VALUE } else { 0 });
    if let Some(key) = &entry.key {
        put_sized(row, key);
    }
    put_number(row, entry.headers.len() as u64);
    for (name, value) in &entry.headers {
        put_sized(row, name.as_bytes());
        match value {
            None => put_number(row, 0),
            Some(value) => {
                put_number(row, value.len() as u64 + 1);
                row.extend_from_slice(value);
            }
        }
    }
    if let Some(value) = &entry.value {
        row.extend_from_slice(value);
    }
    let crc = crc32fast::hash(&row[5..]);
    row[1..5].copy_from_slice(&crc.to_le_bytes());
}

fn put_number(row: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        row.push(number as u8 | 0x80);
        number >>= 7;
    }
    row.push(number as u8);
}

fn put_sized(row: &mut Vec<u8>, bytes: &[u8]) {
    put_number(row, bytes.len() as u64);
    row.extend_from_slice(bytes);
}

fn take_number(rest: &mut &[u8]) -> Result<u64, RowError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(RowError::Short)?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(RowError::Short)
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], RowError> {
    let length = usize::try_from(length).map_err(|_| RowError::Short)?;
    let (bytes, tail) = rest.split_at_checked(length).ok_or(RowError::Short)?;
    *rest = tail;
    Ok(bytes)
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RowError> {
    let length = take_number(rest)?;
    take_bytes(rest, length)
}

fn take_header<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), RowError> {
    let name = take_sized(rest)?;
    let value = match take_number(rest)? {
        0 => None,
        length => Some(take_bytes(rest, length - 1)?),
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{OwnedRecord, Topic};

    fn entry(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> Entry {
        Entry {
            topic: Topic::Events,
            partition: None,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: vec![
                ("a".into(), Some(Bytes::from_static(b"1"))),
                ("b".into(), None),
                ("c".into(), Some(Bytes::new())),
            ],
            timestamp_ms: None,
        }
    }

    #[test]
    fn row_round_trips_with_distinct_nulls_and_empty_values() {
        for key in [None, Some(&b""[..]), Some(b"k")] {
            for value in [None, Some(&b""[..]), Some(&[7; 300])] {
                let (written, mut row) = (entry(key, value), Vec::new());
                encode(&written, 1_780_000_000_000, &mut row);
                let read = OwnedRecord::from(&Row::decode(&row).unwrap().record(3, 9));
                assert_eq!((read.partition, read.offset, read.timestamp_ms), (3, 9, 1_780_000_000_000));
                assert_eq!((read.key, read.value, read.headers), (written.key, written.value, written.headers));
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let mut row = Vec::new();
        encode(&entry(Some(b"key"), Some(b"value")), 5, &mut row);
        for bit in 0..row.len() * 8 {
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(Row::decode(&row).is_err(), "bit {bit}");
            row[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn any_cut_is_found() {
        let mut row = Vec::new();
        encode(&entry(Some(b"key"), Some(b"value")), 5, &mut row);
        for length in 0..row.len() {
            assert!(Row::decode(&row[..length]).is_err(), "length {length}");
        }
    }

    /// The golden row of format 1, which must stay readable as long as the format is supported.
    #[test]
    fn a_row_of_format_1_has_the_documented_layout() {
        let mut row = Vec::new();
        let mut written = entry(Some(b"k"), Some(b"v"));
        written.headers.truncate(2);
        encode(&written, 0x0102_0304, &mut row);
        assert_eq!(row[0], 1);
        assert_eq!(row[5..], *b"\x04\x03\x02\x01\0\0\0\0\x03\x01k\x02\x01a\x021\x01b\0v");
    }

    #[test]
    fn a_newer_format_is_distinguished_from_damage() {
        assert_eq!(Row::decode(&[2, 0, 0]).err(), Some(RowError::Version(2)));
    }
}
