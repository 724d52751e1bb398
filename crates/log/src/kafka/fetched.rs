//! Takes fetched messages from a consumer and passes them on as records, without a copy.
//!
//! It knows no group, and judges no error.

use super::brokers::is_contact;
use crate::port::{Polled, Record, SLICE_RECORDS_MAX};
use bytes::Bytes;
use rdkafka::consumer::ConsumerContext;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The result of one poll of a consumer.
pub(super) struct PollBatch {
    /// The number of records passed on.
    pub(super) records: usize,
    /// True if a record or an end was passed on.
    pub(super) any: bool,
    /// An error that came after those.
    pub(super) error: Option<KafkaError>,
}

/// Waits until the deadline for the first record or end, then passes on all fetched items, up to
/// `max` records. `next` has by partition the least offset of its next record, and `None` for
/// partitions that are not ours. An empty result may also mean that another event woke the
/// consumer.
pub(super) fn poll_slices<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    next: &mut [Option<u64>],
    max: usize,
    deadline: Instant,
    each: &mut dyn FnMut(Polled<'_>),
) -> PollBatch {
    let mut slice: Vec<FetchedMessage<'_>> = Vec::with_capacity(SLICE_RECORDS_MAX.min(max));
    let mut batch = PollBatch { records: 0, any: false, error: None };
    while batch.records < max {
        let wait = if batch.any { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                let partition = message.partition() as u32;
                // librdkafka drops fetched records of revoked partitions; this check makes sure.
                let Some(Some(next)) = next.get_mut(partition as usize) else { continue };
                *next = message.offset() as u64 + 1;
                if slice.len() == SLICE_RECORDS_MAX
                    || slice.first().is_some_and(|first| !first.same_partition(&message))
                {
                    pass_on(&mut slice, each);
                }
                slice.push(FetchedMessage(message));
                batch.records += 1;
                batch.any = true;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(Some(next)) = next.get(partition as usize) {
                    pass_on(&mut slice, each);
                    each(Polled::End { partition: partition as u32, next_offset: *next });
                    batch.any = true;
                }
            }
            // The watch reports an outage once; to a reader it is only a long wait.
            Some(Err(error)) if is_contact(&error) => {}
            Some(Err(error)) => {
                batch.error = Some(error);
                break;
            }
            None => break,
        }
    }
    pass_on(&mut slice, each);
    batch
}

/// Passes a slice of one partition to `each` and empties it.
fn pass_on(slice: &mut Vec<FetchedMessage<'_>>, each: &mut dyn FnMut(Polled<'_>)) {
    if !slice.is_empty() {
        let records: Vec<_> = slice.iter().map(FetchedMessage::record).collect();
        each(Polled::Records(&records));
    }
    slice.clear();
}

/// A message in librdkafka's memory.
pub(super) struct FetchedMessage<'a>(pub(super) BorrowedMessage<'a>);

impl FetchedMessage<'_> {
    fn same_partition(&self, message: &BorrowedMessage<'_>) -> bool {
        self.0.partition() == message.partition()
    }

    /// Returns the message as a record of the port.
    pub(super) fn record(&self) -> Record<'_> {
        Record {
            partition: self.0.partition() as u32,
            offset: self.0.offset() as u64,
            timestamp_ms: self.0.timestamp().to_millis().map_or(0, |time| u64::try_from(time).unwrap_or(0)),
            key: self.0.key(),
            value: self.0.payload(),
            headers: self,
        }
    }
}

impl crate::port::Headers for FetchedMessage<'_> {
    /// rdkafka panics on a header name that is not UTF-8. Such a header is skipped to keep the
    /// reader alive.
    fn to_vec(&self) -> Vec<(String, Option<Bytes>)> {
        let Some(headers) = self.0.headers() else { return Vec::new() };
        (0..headers.count())
            .filter_map(|at| catch_unwind(AssertUnwindSafe(|| headers.try_get(at))).ok().flatten())
            .map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice)))
            .collect()
    }
}
