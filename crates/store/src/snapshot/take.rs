//! Takes a snapshot: an image of a partition, page by page into a stream. The pages are checked on the way.

use super::{Header, Summary, Writer};
use crate::disk::KeyValue;
use crate::envelope::{page_key, unwrap};
use crate::error::Error;
use crate::image::{Image, ImageSource};
use receipts_fold::Limits;
use receipts_fold::pages::codec::Reader;
use receipts_fold::pages::{Meta, Page as _, PageKey, TableId};
use std::collections::VecDeque;
use std::io::Write;

/// What whoever takes a snapshot knows of it.
#[derive(Debug, Clone)]
pub struct Told {
    /// As [`Header::log`].
    pub log: String,
    /// Which partition.
    pub partition: u32,
    /// Of how many.
    pub partition_count: u32,
    /// The settings that the state was folded with.
    pub limits: Limits,
    /// The time, Unix milliseconds.
    pub taken_ms: u64,
    /// The program.
    pub program: String,
}

/// A snapshot about to be written.
pub struct Taking {
    pages: Pages,
    /// The first page: the partition's counters.
    meta: KeyValue,
    header: Header,
}

impl Taking {
    /// Begins an image of a partition; `None` where nothing was ever folded.
    ///
    /// # Errors
    /// Where the store fails or is damaged, or another image of the partition is being taken.
    pub fn begin(source: &ImageSource, told: Told) -> Result<Option<Self>, Error> {
        let mut pages = Pages { image: source.begin()?, values: VecDeque::new() };
        let Some(meta) = pages.next()? else { return Ok(None) };
        if *meta.0 != page_key(TableId::Meta, PageKey { a: 0, b: 0 }) {
            return Err(Error::corrupt("a partition", "has pages and no counters"));
        }
        let counters = Meta::decode(&mut Reader::new(&meta.1));
        let counters = counters.map_err(|e| Error::corrupt("a partition's counters", e.to_string()))?;
        let Told { log, partition, partition_count, limits, taken_ms, program } = told;
        let (next_offset, newest_timestamp_ms) = (counters.next_offset, counters.newest_timestamp_ms);
        let header =
            Header { log, partition, partition_count, next_offset, newest_timestamp_ms, limits, taken_ms, program };
        Ok(Some(Self { pages, meta, header }))
    }

    /// Which state it is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Writes it; `advanced` is told of every page's bytes, and says whether to go on.
    ///
    /// # Errors
    /// Where the store or `to` fails, a page is damaged, or `advanced` says so.
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

/// The pages of an image, put together from their parts.
struct Pages {
    image: Image,
    values: VecDeque<KeyValue>,
}

impl Pages {
    /// The next page: its key without part, and its bytes.
    fn next(&mut self) -> Result<Option<KeyValue>, Error> {
        let Some((key, first)) = self.value()? else { return Ok(None) };
        let Some((base, [0, 0])) = key.split_last_chunk::<2>() else {
            return Err(Error::corrupt("a page", "lacks its first part"));
        };
        let mut parts = vec![first];
        // A page that shrank leaves parts behind: they are not read.
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
            self.values.extend(self.image.next_values()?);
        }
        Ok(self.values.front())
    }

    fn value(&mut self) -> Result<Option<KeyValue>, Error> {
        self.peek()?;
        Ok(self.values.pop_front())
    }
}
