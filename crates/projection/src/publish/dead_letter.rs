//! Dead letters: records that could not be applied, published untouched with the reason
//! (INV-DEADLETTER). Sends nothing itself.

use crate::partition::headers_of;
use bytes::Bytes;
use receipts_event::Reason;
use receipts_fold::Headers;
use receipts_fold::effects::DeadLetter;
use receipts_log::{Entry, Record, Topic};

/// A record that could not be applied, with its key, value and headers.
pub(crate) struct DeadRecord {
    offset: u64,
    pub(crate) reason: Reason,
    detail: String,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    headers: Headers,
}

impl DeadRecord {
    /// Completes a dead letter of the fold. The letter holds a record that was parked; otherwise it
    /// is about the `record` that was just folded.
    pub(crate) fn new(letter: DeadLetter, record: &Record<'_>) -> Self {
        let DeadLetter { reason, detail, parked, .. } = letter;
        match parked {
            Some(parked) => Self {
                offset: parked.offset,
                reason,
                detail,
                key: parked.key,
                value: Some(parked.value),
                headers: parked.headers,
            },
            None => Self {
                offset: record.offset,
                reason,
                detail,
                key: record.key.map(Into::into),
                value: record.value.map(Into::into),
                headers: headers_of(record),
            },
        }
    }

    /// Returns the entry for the topic of dead letters: the record's own key, value and headers,
    /// and headers that say where it stands and why it is dead.
    pub(crate) fn into_entry(self, partition: u32, events_topic: &str) -> Entry {
        let mut headers: Vec<(String, Option<Bytes>)> = self
            .headers
            .into_iter()
            .map(|(name, value)| (name.into(), value.map(|v| Bytes::from(v.into_vec()))))
            .collect();
        let own = [
            ("dead-letter-reason", self.reason.code().to_owned()),
            ("dead-letter-detail", self.detail),
            ("dead-letter-topic", events_topic.to_owned()),
            ("dead-letter-partition", partition.to_string()),
            ("dead-letter-offset", self.offset.to_string()),
        ];
        headers.extend(own.into_iter().map(|(name, value)| (name.to_owned(), Some(Bytes::from(value)))));
        Entry {
            topic: Topic::DeadLetters,
            partition: None,
            key: self.key.map(|k| Bytes::from(k.into_vec())),
            value: self.value.map(|v| Bytes::from(v.into_vec())),
            headers,
            timestamp_ms: None,
        }
    }
}
