//! Where the loop has its events from. Decodes; knows nothing of what is done with an event.

use receipts_event::decode_record;
use receipts_event::{Event, Rejection};
use receipts_log::{Polled, ReadError, Reader, Record};
use std::time::Duration;

/// Records of one poll: what is folded before readers are told and effects are looked at.
pub(crate) const POLL_RECORDS: usize = 1_024;

/// What a record says, or why it says nothing.
pub(crate) type Decoded<'a> = Result<Event<'a>, Rejection>;

/// What a source hands over.
pub(crate) enum Handed<'a> {
    /// Records of one partition in offset order, at least one, and what each of them says.
    Records(&'a [Record<'a>], &'a [Decoded<'a>]),
    /// The end of a partition, as [`Polled::End`] has it.
    End {
        /// Which.
        partition: u32,
        /// The offset that the next record has at least.
        next_offset: u64,
    },
}

/// A reader of the log with its events. Tells of partitions that come and go on the thread that polls it, and only between
/// what it hands over.
pub(crate) trait Source: Send {
    /// As [`Reader::poll`], with events.
    fn poll(&mut self, wait: Duration, each: &mut dyn FnMut(Handed<'_>)) -> Result<usize, ReadError>;

    /// As [`Reader::commit`].
    fn commit(&mut self, partition: u32, next_offset: u64);
}

/// Reads and decodes while it is polled: for whoever has one thread.
pub(crate) struct InTurns {
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) partition_count: u32,
}

impl Source for InTurns {
    fn poll(&mut self, wait: Duration, each: &mut dyn FnMut(Handed<'_>)) -> Result<usize, ReadError> {
        let count = self.partition_count;
        self.reader.poll(POLL_RECORDS, wait, &mut |polled| match polled {
            Polled::Records(records) => {
                let events: Vec<_> = records
                    .iter()
                    .map(|record| decode_record(record.partition, record.key, record.value, count))
                    .collect();
                each(Handed::Records(records, &events));
            }
            Polled::End { partition, next_offset } => each(Handed::End { partition, next_offset }),
        })
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        self.reader.commit(partition, next_offset);
    }
}
