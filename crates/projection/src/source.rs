//! The port from which a worker gets records and their events. Decodes; folds nothing.

use crate::partition::{Decoded, decode};
use receipts_event::Decoder;
use receipts_log::{Polled, ReadError, Reader, Record};
use std::time::Duration;

/// The maximum number of records per poll. All are folded before waiting queries are woken and
/// effects are published.
pub(crate) const POLL_RECORDS: usize = 1_024;

/// One item of a poll.
pub(crate) enum SourceItem<'a> {
    /// At least one record of one partition, in offset order, and the event of each.
    Records(&'a [Record<'a>], &'a [Decoded<'a>]),
    /// The end of a partition, as in [`Polled::End`].
    End {
        partition: u32,
        /// The next record has at least this offset.
        next_offset: u64,
    },
}

/// A reader of the log that also decodes. Assignments and revocations of partitions happen on the
/// thread that polls it, before the first item of a poll.
pub(crate) trait Source: Send {
    /// Polls as [`Reader::poll`] does, with events.
    fn poll(&mut self, wait: Duration, each: &mut dyn FnMut(SourceItem<'_>)) -> Result<usize, ReadError>;

    /// Commits an offset as [`Reader::commit`] does.
    fn commit(&mut self, partition: u32, next_offset: u64);
}

/// Reads and decodes on the thread that polls it.
pub(crate) struct InlineSource {
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) decoder: Decoder,
}

impl Source for InlineSource {
    fn poll(&mut self, wait: Duration, each: &mut dyn FnMut(SourceItem<'_>)) -> Result<usize, ReadError> {
        let decoder = self.decoder;
        self.reader.poll(POLL_RECORDS, wait, &mut |polled| match polled {
            Polled::Records(records) => {
                let events: Vec<_> = records.iter().map(|record| decode(record, decoder)).collect();
                each(SourceItem::Records(records, &events));
            }
            Polled::End { partition, next_offset } => each(SourceItem::End { partition, next_offset }),
        })
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        self.reader.commit(partition, next_offset);
    }
}
