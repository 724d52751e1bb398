//! Reads a snapshot, and trusts no byte until its checksum is verified (INV-SNAPSHOT-WHOLE). Keeps
//! one block in memory.

use super::write::block_sum;
use super::{BLOCK, BLOCK_BYTES, Digest, Header, PAGE_BYTES_MAX, PREFIX_BYTES, Summary, TRAILER, TRAILER_BYTES};
use crate::error::Error;
use receipts_fold::pages::codec;
use std::io::{self, ErrorKind, Read};
use xxhash_rust::xxh3::Xxh3Default;
use zstd::bulk::Decompressor;

/// The longest block before compression, bytes: its last page may begin just below [`BLOCK_BYTES`].
const PLAIN_BYTES_MAX: usize = BLOCK_BYTES + PAGE_BYTES_MAX + 64;

/// Reads a snapshot.
pub struct Reader<R> {
    from: R,
    header: Header,
    decompressor: Decompressor<'static>,
    sum: Xxh3Default,
    digest: Digest,
    /// The pages that were read so far.
    seen: Summary,
    last_key: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If `from` fails, or is not a snapshot of a known format.
    pub fn new(mut from: R) -> Result<Self, Error> {
        let mut prefix = [0; PREFIX_BYTES];
        fill(&mut from, &mut prefix)?;
        let mut bytes = prefix.to_vec();
        bytes.resize(PREFIX_BYTES + Header::length(&prefix)? + 4, 0);
        fill(&mut from, &mut bytes[PREFIX_BYTES..])?;
        let header = Header::parse(&bytes)?;
        let mut sum = Xxh3Default::new();
        sum.update(&bytes);
        let decompressor = Decompressor::new().map_err(Error::io("reading a snapshot"))?;
        let seen = Summary { blocks: 0, pages: 0, plain_bytes: 0, digest: [0; 32] };
        Ok(Self { from, header, decompressor, sum, digest: Digest::default(), seen, last_key: Vec::new() })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Calls `each` with every page in the order of the keys. Returns once the whole snapshot was
    /// read and checked; until then the caller must not rely on any page.
    ///
    /// # Errors
    /// If reading or `each` fails, or any part is damaged.
    pub fn read(mut self, mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<Summary, Error> {
        loop {
            let mut kind = [0];
            fill(&mut self.from, &mut kind)?;
            match kind[0] {
                BLOCK => self.block(&mut each)?,
                TRAILER => return self.trailer(),
                _ => return Err(Error::snapshot(format!("it is damaged after block {}", self.seen.blocks))),
            }
        }
    }

    fn block(&mut self, each: &mut impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let number = self.seen.blocks;
        let damaged = || Error::snapshot(format!("block {number} is damaged"));
        let mut head = [0; 12];
        fill(&mut self.from, &mut head)?;
        let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
        let (plain_bytes, stored_bytes) = (length(0), length(4));
        if plain_bytes > PLAIN_BYTES_MAX || stored_bytes > PLAIN_BYTES_MAX {
            return Err(damaged());
        }
        let mut stored = Vec::new();
        // Grows only with the bytes that arrive, so a damaged length takes no memory.
        (&mut self.from).take(stored_bytes as u64).read_to_end(&mut stored).map_err(reading)?;
        if stored.len() < stored_bytes {
            return Err(Error::snapshot("it is cut short"));
        }
        if block_sum(number, &head[..8], &stored).to_le_bytes() != head[8..] {
            return Err(damaged());
        }
        self.sum.update(&[BLOCK]);
        self.sum.update(&head);
        self.sum.update(&stored);
        let plain = self.decompressor.decompress(&stored, plain_bytes).map_err(|_| damaged())?;
        let mut pages = codec::Reader::new(&plain);
        while pages.remaining() > 0 {
            let key = pages.blob().map_err(|_| damaged())?;
            let payload = pages.blob().map_err(|_| damaged())?;
            if key.is_empty() || *key <= *self.last_key {
                return Err(damaged());
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
            self.digest.add(key, payload);
            each(key, payload)?;
            self.seen.pages += 1;
        }
        self.seen.plain_bytes += plain.len() as u64;
        self.seen.blocks += 1;
        Ok(())
    }

    fn trailer(mut self) -> Result<Summary, Error> {
        let mut bytes = [TRAILER; TRAILER_BYTES];
        fill(&mut self.from, &mut bytes[1..])?;
        let (expected, sum) = Summary::parse(&bytes)?;
        if self.sum.digest128() != sum {
            return Err(Error::snapshot("its checksum does not match"));
        }
        self.seen.digest = self.digest.finish();
        if self.seen != expected {
            return Err(Error::snapshot("its pages do not match its trailer"));
        }
        match self.from.read(&mut [0]).map_err(reading)? {
            0 => Ok(expected),
            _ => Err(Error::snapshot("it has bytes after its end")),
        }
    }
}

fn reading(error: io::Error) -> Error {
    Error::io("reading a snapshot")(error)
}

fn fill(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), Error> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::snapshot("it is cut short"),
        _ => reading(error),
    })
}
