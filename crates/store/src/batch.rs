//! The entries of one checkpoint, as the bytes of its journal: entries, then a trailer that makes
//! them count. Writes no file.
//!
//! ```text
//! journal = "RCPTJRN" version:u8 draft:u8 partition:u32 entry* trailer
//! entry   = 1 key_len:u32 key value_len:u32 value      a value to write
//!         | 2 key_len:u32 key                          a key to remove
//! trailer = 3 entries:u32 next_offset:u64 crc32:u32    of all bytes before the sum
//! ```
//! Integers are little endian. A journal gets its final name only once it is whole. So a journal
//! that is not whole, or fails its checksum, was damaged later.

use crate::error::Error;
use crate::format::{FORMAT, FormatVersion};

const MAGIC: &[u8; 7] = b"RCPTJRN";
const WRITE: u8 = 1;
const REMOVE: u8 = 2;
const TRAILER: u8 = 3;
const HEADER_BYTES: usize = 13;
const TRAILER_BYTES: usize = 17;

/// The entries of a checkpoint: all of them count, or none (INV-ATOMIC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: u32,
    next_offset: u64,
    /// The position of the trailer, once the batch is sealed.
    end: Option<usize>,
}

/// One entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Writes a value.
    Write(&'a [u8], &'a [u8]),
    /// Removes a key.
    Remove(&'a [u8]),
}

impl<'a> Entry<'a> {
    /// Returns the key. [`Entry::Remove`] removes all keys that begin with it.
    pub fn key(&self) -> &'a [u8] {
        match self {
            Entry::Write(key, _) | Entry::Remove(key) => key,
        }
    }
}

impl Batch {
    /// Begins a batch of a partition. `next_offset` is the offset below which its state holds all
    /// records; `bytes_expected` is its likely size.
    pub fn new(partition: u32, next_offset: u64, bytes_expected: usize) -> Self {
        let mut bytes = Vec::with_capacity(bytes_expected.max(1 << 12));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[FORMAT.version, FORMAT.draft]);
        bytes.extend_from_slice(&partition.to_le_bytes());
        Self { bytes, entries: 0, next_offset, end: None }
    }

    /// Adds a value to write.
    pub fn write(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.push(WRITE);
        self.blob(key);
        self.blob(value);
        self.entries += 1;
    }

    /// Adds a key to remove, with all keys that begin with it.
    pub fn remove(&mut self, key: &[u8]) {
        self.bytes.push(REMOVE);
        self.blob(key);
        self.entries += 1;
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&u32::try_from(bytes.len()).expect("far below 4 GiB").to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// Seals the batch: its bytes are a journal now.
    pub fn seal(&mut self) {
        assert!(self.end.is_none(), "a batch is sealed once");
        self.end = Some(self.bytes.len());
        self.bytes.push(TRAILER);
        self.bytes.extend_from_slice(&self.entries.to_le_bytes());
        self.bytes.extend_from_slice(&self.next_offset.to_le_bytes());
        let sum = crc32fast::hash(&self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
    }

    /// Parses a journal. Returns `None` if it is cut short or damaged.
    ///
    /// # Errors
    /// If the journal is whole, but of another version or partition.
    pub fn parse(bytes: Vec<u8>, partition: u32) -> Result<Option<Self>, Error> {
        let Some((body, sum)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
        if body.len() < HEADER_BYTES + TRAILER_BYTES - 4 || crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Ok(None);
        }
        let end = body.len() - (TRAILER_BYTES - 4);
        if &body[..7] != MAGIC || body[end] != TRAILER {
            return Ok(None);
        }
        if !FormatVersion::check("a journal", body[7], Some(body[8]))? {
            return Err(Error::corrupt("a journal", "has no known format"));
        }
        if body[9..13] != partition.to_le_bytes() {
            return Err(Error::corrupt("a journal", "belongs to another partition"));
        }
        let entries = u32::from_le_bytes(body[end + 1..end + 5].try_into().expect("four bytes"));
        let next_offset = u64::from_le_bytes(body[end + 5..end + 13].try_into().expect("eight bytes"));
        let batch = Self { bytes, entries, next_offset, end: Some(end) };
        if batch.iter().count() != entries as usize {
            return Err(Error::corrupt("a journal", "does not hold the number of entries in its trailer"));
        }
        Ok(Some(batch))
    }

    /// Returns the bytes, which are a journal once the batch is sealed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the next offset: the state after this batch holds all records below it.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Returns the entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut rest = &self.bytes[HEADER_BYTES..self.end.unwrap_or(self.bytes.len())];
        std::iter::from_fn(move || {
            let (kind, after) = rest.split_first()?;
            let (key, after) = take_blob(after)?;
            let entry = if *kind == WRITE {
                let (value, after) = take_blob(after)?;
                rest = after;
                Entry::Write(key, value)
            } else {
                rest = after;
                Entry::Remove(key)
            };
            Some(entry)
        })
    }
}

fn take_blob(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Batch {
        let mut batch = Batch::new(7, 42, 0);
        batch.write(b"key", b"value");
        batch.remove(b"old");
        batch.write(b"", b"");
        batch.seal();
        batch
    }

    #[test]
    fn sealed_batch_parses_back_entry_by_entry() {
        let batch = sealed();
        let back = Batch::parse(batch.bytes().to_vec(), 7).unwrap().unwrap();
        assert_eq!(back, batch);
        let entries: Vec<_> = back.iter().collect();
        assert_eq!(entries, [Entry::Write(b"key", b"value"), Entry::Remove(b"old"), Entry::Write(b"", b"")]);
        assert_eq!(back.next_offset(), 42);
    }

    #[test]
    fn torn_or_flipped_journal_is_found() {
        let bytes = sealed().bytes().to_vec();
        for length in 0..bytes.len() {
            assert_eq!(Batch::parse(bytes[..length].to_vec(), 7).unwrap(), None, "cut to {length} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Batch::parse(flipped, 7).unwrap(), None, "bit {bit} flipped");
        }
    }

    #[test]
    fn journal_of_another_partition_is_refused() {
        assert!(Batch::parse(sealed().bytes().to_vec(), 8).is_err());
    }
}
