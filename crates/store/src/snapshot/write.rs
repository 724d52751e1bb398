//! Writes a snapshot, block by block. Keeps one block in memory.

use super::{BLOCK, BLOCK_BYTES, Digest, Header, PAGE_BYTES_MAX, Summary};
use crate::error::Error;
use receipts_fold::pages::codec;
use std::io::Write;
use xxhash_rust::xxh3::Xxh3Default;
use zstd::bulk::Compressor;

/// The compression level: the fastest that still finds repetition. Higher levels gain a few percent
/// for twice the time.
const LEVEL: i32 = 1;

/// Writes a snapshot. Without a call of [`Self::finish`] the stream is not a snapshot.
pub struct Writer<W> {
    to: W,
    block: codec::Writer,
    compressor: Compressor<'static>,
    sum: Xxh3Default,
    digest: Digest,
    summary: Summary,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a snapshot.
    ///
    /// # Errors
    /// If `to` fails.
    pub fn new(to: W, header: &Header) -> Result<Self, Error> {
        let compressor = Compressor::new(LEVEL).map_err(Error::io("compressing a snapshot"))?;
        let summary = Summary { blocks: 0, pages: 0, plain_bytes: 0, digest: [0; 32] };
        let (block, sum, digest) = (codec::Writer::default(), Xxh3Default::new(), Digest::default());
        let mut writer = Self { to, block, compressor, sum, digest, summary, bytes: 0 };
        writer.write(&header.encode()?)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.to.write_all(bytes).map_err(Error::io("writing a snapshot"))?;
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Adds a page by its key without part. Keys must rise.
    ///
    /// # Errors
    /// If `to` fails.
    pub fn page(&mut self, key: &[u8], payload: &[u8]) -> Result<(), Error> {
        if payload.len() > PAGE_BYTES_MAX {
            return Err(Error::snapshot(format!("a page of {} bytes is longer than the bound", payload.len())));
        }
        self.digest.add(key, payload);
        self.block.blob(key);
        self.block.blob(payload);
        self.summary.pages += 1;
        if self.block.bytes.len() >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), Error> {
        let plain = &self.block.bytes;
        let stored = self.compressor.compress(plain).map_err(Error::io("compressing a snapshot"))?;
        let lengths = [(plain.len() as u32).to_le_bytes(), (stored.len() as u32).to_le_bytes()].concat();
        let sum = block_sum(self.summary.blocks, &lengths, &stored);
        self.summary.plain_bytes += plain.len() as u64;
        self.block.bytes.clear();
        self.write(&[&[BLOCK], &*lengths, &sum.to_le_bytes()].concat())?;
        self.write(&stored)?;
        self.summary.blocks += 1;
        Ok(())
    }

    /// Ends the snapshot. Returns the writer, the summary, and the length in bytes.
    ///
    /// # Errors
    /// If `to` fails.
    pub fn finish(mut self) -> Result<(W, Summary, u64), Error> {
        if !self.block.bytes.is_empty() {
            self.close_block()?;
        }
        self.summary.digest = std::mem::take(&mut self.digest).finish();
        let trailer = self.summary.encode(self.sum.digest128());
        self.write(&trailer)?;
        self.to.flush().map_err(Error::io("writing a snapshot"))?;
        Ok((self.to, self.summary, self.bytes))
    }
}

/// Returns the checksum of a block. It covers the number of the block, so a swapped block is found
/// too.
pub(super) fn block_sum(number: u64, lengths: &[u8], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(lengths);
    hasher.update(stored);
    hasher.finalize()
}
