//! The header of a snapshot identifies its state; the trailer counts its contents. Reads no page.

use super::{HEADER_BYTES_MAX, MAGIC, PREFIX_BYTES, TRAILER, TRAILER_BYTES};
use crate::error::Error;
use crate::format::{FORMAT, FormatVersion};
use receipts_fold::Limits;
use receipts_fold::pages::codec::{Malformed, Reader, Writer};

/// The header of a snapshot: its log, partition, offset and settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The log that the state was folded from, named by the process that took the snapshot.
    /// Compared as a whole.
    pub log: String,
    /// The partition of that log.
    pub partition: u32,
    /// The partition count of that log.
    pub partition_count: u32,
    /// The state holds all records below this offset.
    pub next_offset: u64,
    /// The newest record timestamp in the state, Unix milliseconds.
    pub newest_timestamp_ms: u64,
    /// The settings of the fold. The state is valid for these settings only.
    pub limits: Limits,
    /// The time of the snapshot, Unix milliseconds.
    pub taken_ms: u64,
    /// The program that took the snapshot.
    pub program: String,
}

/// The trailer of a snapshot: the counts of its contents, and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The number of blocks.
    pub blocks: u64,
    /// The number of pages.
    pub pages: u64,
    /// The bytes of the blocks before compression.
    pub plain_bytes: u64,
    /// The digest of the state: the same for every fold of the same prefix with the same limits.
    pub digest: [u8; 32],
}

impl Header {
    /// Returns the first bytes of a snapshot.
    ///
    /// # Errors
    /// If the texts are too long.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut to = Writer::default();
        to.byte(FORMAT.draft);
        to.text(&self.log);
        for number in [self.partition, self.partition_count] {
            to.number(u64::from(number));
        }
        to.number(self.next_offset);
        to.number(self.newest_timestamp_ms);
        self.limits.encode(&mut to);
        to.number(self.taken_ms);
        to.text(&self.program);
        if to.bytes.len() > HEADER_BYTES_MAX {
            return Err(Error::snapshot("the name of its log is too long"));
        }
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + to.bytes.len() + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT.version);
        bytes.extend_from_slice(&(to.bytes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&to.bytes);
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }

    /// Returns the length of a header from the bytes before it.
    pub(super) fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, Error> {
        if prefix[..7] != *MAGIC {
            return Err(Error::snapshot("it is not a snapshot"));
        }
        let length = u32::from_le_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]) as usize;
        // The checksum is checked before the version: a flipped bit is damage, not a newer format.
        if length > HEADER_BYTES_MAX { Err(Error::snapshot("its header is damaged")) } else { Ok(length) }
    }

    /// Parses the header at the start of `bytes`, and ignores the bytes after it.
    ///
    /// # Errors
    /// If the bytes are no header, or of a newer format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = || Error::snapshot("its header is damaged");
        let prefix = bytes.first_chunk::<PREFIX_BYTES>().ok_or_else(|| Error::snapshot("it is cut short"))?;
        let end = PREFIX_BYTES + Self::length(prefix)?;
        let body = bytes.get(PREFIX_BYTES..end).ok_or_else(damaged)?;
        let sum = bytes.get(end..end + 4).ok_or_else(damaged)?;
        if crc32fast::hash(&bytes[..end]).to_le_bytes() != *sum {
            return Err(damaged());
        }
        if !FormatVersion::check("a snapshot", prefix[7], body.first().copied())? {
            return Err(damaged());
        }
        Self::decode(Reader::new(&body[1..])).map_err(|_| damaged())
    }

    fn decode(mut from: Reader<'_>) -> Result<Self, Malformed> {
        let header = Self {
            log: from.text()?.to_owned(),
            partition: from.small()?,
            partition_count: from.small()?,
            next_offset: from.number()?,
            newest_timestamp_ms: from.number()?,
            limits: Limits::decode(&mut from)?,
            taken_ms: from.number()?,
            program: from.text()?.to_owned(),
        };
        from.end()?;
        Ok(header)
    }
}

impl Summary {
    /// Returns the trailer, with the checksum of all bytes before it.
    pub(super) fn encode(&self, sum: u128) -> [u8; TRAILER_BYTES] {
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.push(TRAILER);
        for number in [self.blocks, self.pages, self.plain_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.try_into().expect("the length of a trailer")
    }

    /// Parses a trailer. Returns it, and the checksum that it holds of all bytes before it. Only a
    /// read of the whole snapshot can verify that checksum.
    ///
    /// # Errors
    /// If the bytes are no trailer.
    pub fn parse(bytes: &[u8; TRAILER_BYTES]) -> Result<(Self, u128), Error> {
        let (body, sum) = bytes.split_at(TRAILER_BYTES - 4);
        if body[0] != TRAILER || crc32fast::hash(body).to_le_bytes() != *sum {
            return Err(Error::snapshot("its trailer is damaged"));
        }
        let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        let summary = Self {
            blocks: number(1),
            pages: number(9),
            plain_bytes: number(17),
            digest: body[25..57].try_into().expect("32 bytes"),
        };
        Ok((summary, u128::from_le_bytes(body[57..73].try_into().expect("16 bytes"))))
    }
}
