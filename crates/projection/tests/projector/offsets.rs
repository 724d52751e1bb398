//! INV-OFFSET: the store alone decides at which offset the projector begins to read. A log that
//! records the offsets of its polls shows it.

use crate::harness::{EPOCH_MS, Harness};
use parking_lot::Mutex;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Assignment, Log, Polled, ReadError, Reader, Writer};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The embedded log, and the offsets of all records that it delivered.
struct Recording {
    log: Arc<EmbeddedLog>,
    offsets: Arc<Mutex<Vec<u64>>>,
}

#[async_trait::async_trait]
impl Log for Recording {
    fn partition_count(&self) -> u32 {
        self.log.partition_count()
    }

    fn reader(&self, group: &str, assignment: Arc<dyn Assignment>) -> Result<Box<dyn Reader>, ReadError> {
        let reader = self.log.reader(group, assignment)?;
        Ok(Box::new(RecordingReader { reader, offsets: Arc::clone(&self.offsets) }))
    }

    fn writer(&self) -> Arc<dyn Writer> {
        self.log.writer()
    }
}

struct RecordingReader {
    reader: Box<dyn Reader>,
    offsets: Arc<Mutex<Vec<u64>>>,
}

impl Reader for RecordingReader {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        self.reader.poll(max, timeout, &mut |polled| {
            if let Polled::Records(records) = &polled {
                self.offsets.lock().extend(records.iter().map(|record| record.offset));
            }
            each(polled);
        })
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        self.reader.commit(partition, next_offset);
    }
}

#[test]
fn every_record_is_delivered_and_counted_once_across_starts() {
    let harness = Harness::new(1);
    let members: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    harness.post(&json!({"type": "members.changed", "conversation_id": "g1", "joined": members}));
    harness.post(&json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "u0",
        "sent_at_ms": EPOCH_MS, "need_read_receipt": true}));
    let mut next = 2;
    for start in 0..4 {
        for reader in 1 + 9 * start..10 + 9 * start {
            harness.post(&json!({"type": "message.read", "conversation_id": "g1", "reader_id": format!("u{reader}"),
                "message_ids": ["m1"]}));
        }
        let recording = Recording { log: Arc::clone(&harness.log), offsets: Arc::default() };
        let running = harness.start_over(&recording);
        running.folded();
        let receipt = running.receipt("g1", "m1");
        running.stop().unwrap();
        let wanted: Vec<u64> = (if start == 0 { 0 } else { next }..next + 9).collect();
        assert_eq!(*recording.offsets.lock(), wanted, "start {start}");
        next += 9;
        assert_eq!(receipt.counts.map(|counts| counts.read_count), Some(9 * (start + 1)));
    }
}
