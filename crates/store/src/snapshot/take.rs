//! Takes a snapshot: reads a partition as of one moment, checks its pages, and writes them to a
//! stream (INV-SNAPSHOT). Opens no file.

use super::{Header, Summary, Writer};
use crate::cow::{CowReader, SnapshotSource};
use crate::disk::KeyValue;
use crate::envelope::{page_key, unwrap};
use crate::error::Error;
use receipts_fold::Limits;
use receipts_fold::pages::codec::Reader;
use receipts_fold::pages::{Meta, Page as _, PageKey, TableId};
use std::collections::VecDeque;
use std::io::Write;

/// The facts about a snapshot that its caller knows.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// As [`Header::log`].
    pub log: String,
    /// The partition.
    pub partition: u32,
    /// The partition count.
    pub partition_count: u32,
    /// The settings of the fold.
    pub limits: Limits,
    /// The time of the snapshot, Unix milliseconds.
    pub taken_ms: u64,
    /// The program that takes the snapshot.
    pub program: String,
}

/// A snapshot that has begun and is not written yet.
pub struct PendingSnapshot {
    pages: Pages,
    /// The first page: the partition's counters.
    meta: KeyValue,
    header: Header,
}

impl PendingSnapshot {
    /// Begins a snapshot of a partition. Returns `None` if no record was ever folded.
    ///
    /// # Errors
    /// If the store fails or is damaged, or another snapshot of the partition is being taken.
    pub fn begin(source: &SnapshotSource, provenance: Provenance) -> Result<Option<Self>, Error> {
        let mut pages = Pages { reader: source.begin()?, values: VecDeque::new() };
        let Some(meta) = pages.next()? else { return Ok(None) };
        if *meta.0 != page_key(TableId::Meta, PageKey { a: 0, b: 0 }) {
            return Err(Error::corrupt("a partition", "has pages but no counters"));
        }
        let counters = Meta::decode(&mut Reader::new(&meta.1));
        let counters = counters.map_err(|e| Error::corrupt("a partition's counters", e.to_string()))?;
        let Provenance { log, partition, partition_count, limits, taken_ms, program } = provenance;
        let (next_offset, newest_timestamp_ms) = (counters.next_offset, counters.newest_timestamp_ms);
        let header =
            Header { log, partition, partition_count, next_offset, newest_timestamp_ms, limits, taken_ms, program };
        Ok(Some(Self { pages, meta, header }))
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Writes the snapshot. Calls `advanced` with the bytes of every page; an error of it stops the
    /// snapshot. Returns `to`, the summary and the length in bytes.
    ///
    /// # Errors
    /// If the store, `to` or `advanced` fails, or a page is damaged.
    pub fn write<W: Write>(
        mut self,
        to: W,
        mut advanced: impl FnMut(u64) -> Result<(), Error>,
    ) -> Result<(W, Summary, u64), Error> {
        let mut writer = Writer::new(to, &self.header)?;
        let mut next = Some(self.meta);
        while let Some((key, payload)) = next {
            writer.page(&key, &payload)?;
            advanced((key.len() + payload.len()) as u64)?;
            next = self.pages.next()?;
        }
        writer.finish()
    }
}

/// The pages of a partition, joined from their parts.
struct Pages {
    reader: CowReader,
    values: VecDeque<KeyValue>,
}

impl Pages {
    /// Returns the next page: its key without part, and its bytes.
    fn next(&mut self) -> Result<Option<KeyValue>, Error> {
        let Some((key, first)) = self.value()? else { return Ok(None) };
        let Some((base, [0, 0])) = key.split_last_chunk::<2>() else {
            return Err(Error::corrupt("a page", "lacks its first part"));
        };
        let mut parts = vec![first];
        // A page that shrank may have left parts of its earlier form. They are skipped.
        while let Some((key, _)) = self.peek()? {
            match key.split_last_chunk::<2>() {
                Some((other, part)) if other == base && *part != [0, 0] => {
                    if usize::from(u16::from_be_bytes(*part)) == parts.len() {
                        parts.extend(self.value()?.map(|(_, value)| value));
                    } else {
                        self.value()?;
                    }
                }
                _ => break,
            }
        }
        let page = unwrap(base, |part| Ok(parts.get(usize::from(part))))?;
        let (_, payload) = page.ok_or_else(|| Error::corrupt("a page", "lacks its first part"))?;
        Ok(Some((base.to_vec(), payload)))
    }

    fn peek(&mut self) -> Result<Option<&KeyValue>, Error> {
        if self.values.is_empty() {
            self.values.extend(self.reader.next_values()?);
        }
        Ok(self.values.front())
    }

    fn value(&mut self) -> Result<Option<KeyValue>, Error> {
        self.peek()?;
        Ok(self.values.pop_front())
    }
}
