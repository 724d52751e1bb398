//! A log with a draft behind it: reads as if the draft's records had been appended. It never
//! writes.

use async_trait::async_trait;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Assignment, Inspect, Log, OwnedRecord, ReadError, Reader, Record, Tail, Topic, Writer};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// The records of `base` below `ends`, then those of `draft`.
pub(crate) struct Overlay<'a> {
    pub(crate) base: &'a dyn Inspect,
    pub(crate) draft: &'a EmbeddedLog,
    /// The offset of the draft's first record, by partition.
    pub(crate) ends: &'a [u64],
}

fn unsupported<T>() -> Result<T, ReadError> {
    Err(ReadError::Stop("a draft can only be folded".to_owned()))
}

#[async_trait]
impl Log for Overlay<'_> {
    fn partition_count(&self) -> u32 {
        self.base.partition_count()
    }

    fn reader(&self, _: &str, _: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        unsupported()
    }

    fn writer(&self) -> Arc<dyn Writer> {
        self.draft.writer()
    }
}

impl Inspect for Overlay<'_> {
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<u64>, ReadError> {
        let end = self.ends[partition as usize];
        let start = self.base.bounds(topic, partition)?.start.min(end);
        Ok(start..end + self.draft.bounds(topic, partition)?.end)
    }

    fn read(&self, _: Topic, _: u32, _: u64, _: usize) -> Result<Vec<OwnedRecord>, ReadError> {
        unsupported()
    }

    fn scan(
        &self,
        topic: Topic,
        partition: u32,
        offsets: Range<u64>,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let end = self.ends[partition as usize];
        let mut flow = ControlFlow::Continue(());
        if offsets.start < end {
            self.base.scan(topic, partition, offsets.start..offsets.end.min(end), &mut |records| {
                flow = each(records);
                flow
            })?;
        }
        if flow.is_break() || offsets.end <= end {
            return Ok(());
        }
        let drafted = offsets.start.saturating_sub(end)..offsets.end - end;
        self.draft.scan(topic, partition, drafted, &mut |records| {
            let behind = |record: &Record<'_>| record.offset + end;
            let records: Vec<Record<'_>> =
                records.iter().map(|record| Record { offset: behind(record), ..*record }).collect();
            each(&records)
        })
    }

    fn offset_at(&self, _: Topic, _: u32, _: u64) -> Result<u64, ReadError> {
        unsupported()
    }

    fn tail(&self, _: Topic, _: &[(u32, u64)]) -> Result<Box<dyn Tail>, ReadError> {
        unsupported()
    }
}
