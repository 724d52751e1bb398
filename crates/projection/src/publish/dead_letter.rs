//! Dead letters: records that could not be applied, published untouched with the reason
//! (INV-DEADLETTER). Sends nothing itself.

use crate::partition::headers_of;
use bytes::Bytes;
use receipts_event::Reason;
use receipts_fold::Headers;
use receipts_fold::effects::DeadLetter;
use receipts_log::{Entry, Record, Topic};

/// The headers of dead letters (`schemas/asyncapi.yaml`).
pub mod header {
    /// The stable code of the reason.
    pub const REASON: &str = "dead-letter-reason";
    /// A sentence that says why the record is dead.
    pub const DETAIL: &str = "dead-letter-detail";
    /// The topic of the record.
    pub const TOPIC: &str = "dead-letter-topic";
    /// The partition of the record.
    pub const PARTITION: &str = "dead-letter-partition";
    /// The offset of the record.
    pub const OFFSET: &str = "dead-letter-offset";
    /// The timestamp of the record, Unix milliseconds.
    pub const TIMESTAMP: &str = "dead-letter-timestamp";
    /// Says that the value is missing.
    pub const VALUE: &str = "dead-letter-value";
    /// Names the parts of the record that the letter lacks.
    pub const LEFT_OUT: &str = "dead-letter-left-out";
    /// All of them.
    pub const ALL: [&str; 8] = [REASON, DETAIL, TOPIC, PARTITION, OFFSET, TIMESTAMP, VALUE, LEFT_OUT];
}

use header::{DETAIL, LEFT_OUT, VALUE};
/// The longest detail of a dead letter that is too large for its topic, bytes.
const DETAIL_BYTES_MAX: usize = 4 << 10;

/// A record that could not be applied, with its key, value and headers.
pub(crate) struct DeadRecord {
    offset: u64,
    timestamp_ms: u64,
    pub(crate) reason: Reason,
    detail: String,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    headers: Headers,
}

impl DeadRecord {
    #[cfg(test)]
    pub(super) fn of(
        offset: u64,
        reason: Reason,
        detail: String,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers,
    ) -> Self {
        Self {
            offset,
            timestamp_ms: 0,
            reason,
            detail,
            key: key.map(Into::into),
            value: value.map(Into::into),
            headers,
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Completes a dead letter of the fold. The letter holds a record that was parked; otherwise it
    /// is about the `record` that was just folded.
    pub(crate) fn new(letter: DeadLetter, record: &Record<'_>) -> Self {
        let DeadLetter { reason, detail, parked, .. } = letter;
        match parked {
            Some(parked) => Self {
                offset: parked.offset,
                timestamp_ms: parked.timestamp_ms,
                reason,
                detail,
                key: parked.key,
                value: Some(parked.value),
                headers: parked.headers,
            },
            None => Self {
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
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
    pub(crate) fn into_letter(self, partition: u32, events_topic: &str) -> Letter {
        let mut headers: Vec<(String, Option<Bytes>)> = self
            .headers
            .into_iter()
            .map(|(name, value)| (name.into(), value.map(|v| Bytes::from(v.into_vec()))))
            .collect();
        let own_headers = headers.len();
        let about = [
            (header::REASON, self.reason.code().to_owned()),
            (DETAIL, self.detail),
            (header::TOPIC, events_topic.to_owned()),
            (header::PARTITION, partition.to_string()),
            (header::OFFSET, self.offset.to_string()),
            (header::TIMESTAMP, self.timestamp_ms.to_string()),
        ];
        headers.extend(about.into_iter().map(|(name, value)| (name.to_owned(), Some(Bytes::from(value)))));
        let entry = Entry {
            topic: Topic::DeadLetters,
            partition: None,
            key: self.key.map(|k| Bytes::from(k.into_vec())),
            value: self.value.map(|v| Bytes::from(v.into_vec())),
            headers,
            timestamp_ms: None,
        };
        Letter { entry, own_headers, offset: self.offset, left_out: Vec::new() }
    }
}

/// A dead letter as it is written. For a topic that takes no entry of its size it loses one part
/// after the other; the headers that say where the record stands always remain.
pub(crate) struct Letter {
    entry: Entry,
    /// The number of the record's own headers, which come first.
    own_headers: usize,
    offset: u64,
    left_out: Vec<&'static str>,
}

impl Letter {
    pub(crate) fn entry(&self) -> Entry {
        self.entry.clone()
    }

    /// The offset of the record.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Names the parts that were left out.
    pub(crate) fn left_out(&self) -> String {
        self.left_out.join(", ")
    }

    /// Returns the bytes of key, value and headers.
    pub(crate) fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.entry.headers.iter().map(|(name, value)| name.len() + length(value));
        length(&self.entry.key) + length(&self.entry.value) + headers.sum::<usize>()
    }

    /// Leaves out the value; if that is gone, the record's own headers, its key, and what the
    /// detail has beyond 4 KiB. A header names the missing parts. Returns false if there is nothing
    /// more to leave out.
    pub(crate) fn shrink(&mut self) -> bool {
        let before = self.left_out.len();
        if before > 0 {
            // The list of the parts left out so far, which is the last header.
            self.entry.headers.pop();
        }
        if self.entry.value.take().is_some() {
            let sentence = "left out: the record is larger than the topic of dead letters takes";
            self.entry.headers.push((VALUE.to_owned(), Some(sentence.into())));
            self.left_out.push("value");
        } else {
            if self.own_headers > 0 {
                self.entry.headers.drain(..std::mem::take(&mut self.own_headers));
                self.left_out.push("headers");
            }
            if self.entry.key.take().is_some() {
                self.left_out.push("key");
            }
            let detail = self.entry.headers.iter_mut().find(|(name, _)| name == DETAIL);
            if let Some((_, Some(detail))) = detail
                && let Some(cut) = cut(detail)
            {
                *detail = cut;
                self.left_out.push("detail");
            }
        }
        if !self.left_out.is_empty() {
            self.entry.headers.push((LEFT_OUT.to_owned(), Some(self.left_out().into())));
        }
        self.left_out.len() > before
    }
}

/// Returns the first 4 KiB of a text that is longer, cut between two characters.
fn cut(text: &Bytes) -> Option<Bytes> {
    let tail = text.get(DETAIL_BYTES_MAX..)?;
    // A byte of the form 10xxxxxx continues a character of UTF-8.
    let continues = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xC0 == 0x80);
    let mut end = DETAIL_BYTES_MAX;
    while continues(text.get(end)) && end > 0 {
        end -= 1;
    }
    (!tail.is_empty()).then(|| text.slice(..end))
}
