//! A dead letter as its topic holds it, and the filter of the commands. Judges no record.

use receipts_event::{Decoder, decode};
use receipts_log::OwnedRecord;
use receipts_projection::dead_letter_header as header;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The header of a replayed record: the [`Origin`] of its dead letter, as `TOPIC:PARTITION:OFFSET`.
pub const REPLAYED_FROM: &str = "receipts-replayed-from";

/// The location of the record that became a dead letter. A letter that is in its topic twice has
/// the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Origin {
    /// The topic of events.
    pub topic: String,
    /// The partition that the record was in.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Origin {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or(());
        let (topic, partition, offset) = (next()?, next()?, next()?);
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(Self { topic: topic.to_owned(), partition: partition.parse().map_err(|_| ())?, offset: number(offset)? })
    }
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The code of its reason; `None` if something else than a projector wrote it.
    pub reason: Option<String>,
    /// Why it is dead, as a sentence.
    pub detail: String,
    /// The location of the record; `None` if something else than a projector wrote it.
    pub origin: Option<Origin>,
    /// The timestamp of the record, Unix milliseconds; `None` in letters of earlier versions.
    pub record_timestamp_ms: Option<u64>,
    /// The parts of the record that the letter lacks, because it was too large.
    pub left_out: Option<String>,
    /// Partition, offset and timestamp of the letter; key, value and own headers of the record.
    pub record: OwnedRecord,
}

impl Letter {
    /// Reads a record of the topic of dead letters.
    pub fn new(mut record: OwnedRecord) -> Self {
        let text = |name: &str| {
            // The projector's headers stand behind the record's own.
            let found = record.headers.iter().rev().find(|(own, _)| own == name);
            found.and_then(|(_, value)| Some(String::from_utf8_lossy(value.as_deref()?).into_owned()))
        };
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        let origin = match (text(header::TOPIC), number(header::PARTITION), number(header::OFFSET)) {
            (Some(topic), Some(partition), Some(offset)) => {
                u32::try_from(partition).ok().map(|partition| Origin { topic, partition, offset })
            }
            _ => None,
        };
        let left_out = text(header::LEFT_OUT).or_else(|| text(header::VALUE).map(|_| "value".to_owned()));
        let (reason, detail) = (text(header::REASON), text(header::DETAIL).unwrap_or_default());
        let record_timestamp_ms = number(header::TIMESTAMP);
        record.headers.retain(|(name, _)| !header::ALL.contains(&name.as_str()));
        Self { reason, detail, origin, record_timestamp_ms, left_out, record }
    }

    /// Returns the time of the record, Unix milliseconds; that of the letter if it is not known.
    pub fn time_ms(&self) -> u64 {
        self.record_timestamp_ms.unwrap_or(self.record.timestamp_ms)
    }

    /// Returns tenant and conversation: those of the event or, if the value is no event, those of
    /// the key.
    pub fn names(&self, decoder: Decoder) -> (Option<String>, Option<String>) {
        let value = self.record.value.as_deref().unwrap_or_default();
        if let Ok(event) = decode(decoder.unwrap.event_of(value)) {
            return (Some(event.tenant.clone().into_owned()), event.conversation_id().map(str::to_owned));
        }
        let key = self.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let parts = key.and_then(|key| key.split_once('/'));
        (parts.map(|(tenant, _)| tenant.to_owned()), parts.map(|(_, conversation)| conversation.to_owned()))
    }
}

/// The dead letters that a command is about.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Codes of reasons; empty for all.
    pub reasons: BTreeSet<String>,
    /// Letters of this time and later ones, Unix milliseconds.
    pub since_ms: Option<u64>,
    /// Letters before this time, Unix milliseconds.
    pub until_ms: Option<u64>,
    /// Letters of this tenant.
    pub tenant: Option<String>,
    /// Letters of this conversation.
    pub conversation: Option<String>,
    /// The letter at this partition and offset.
    pub at: Option<(u32, u64)>,
}

impl Filter {
    /// Tells whether the command is about a letter.
    pub fn admits(&self, letter: &Letter, decoder: Decoder) -> bool {
        let Self { reasons, since_ms, until_ms, tenant, conversation, at } = self;
        let time_ms = letter.record.timestamp_ms;
        if at.is_some_and(|at| at != (letter.record.partition, letter.record.offset))
            || since_ms.is_some_and(|since| time_ms < since)
            || until_ms.is_some_and(|until| time_ms >= until)
            || !reasons.is_empty() && !letter.reason.as_ref().is_some_and(|reason| reasons.contains(reason))
        {
            return false;
        }
        if tenant.is_none() && conversation.is_none() {
            return true;
        }
        let (of_tenant, of_conversation) = letter.names(decoder);
        (tenant.is_none() || *tenant == of_tenant) && (conversation.is_none() || *conversation == of_conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::Unwrap;

    const DECODER: Decoder = Decoder { partition_count: 4, unwrap: Unwrap::None };

    fn letter(key: &str, value: &str, headers: &[(&str, &str)]) -> Letter {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned().into())));
        Letter::new(OwnedRecord {
            partition: 1,
            offset: 2,
            timestamp_ms: 3,
            key: Some(key.to_owned().into()),
            value: Some(value.to_owned().into()),
            headers: headers.collect(),
        })
    }

    #[test]
    fn headers_of_record_and_projector_are_told_apart() {
        let headers = [
            ("trace", "t"),
            ("dead-letter-reason", "of the producer"),
            ("dead-letter-reason", "wrong-key"),
            ("dead-letter-detail", "why"),
            ("dead-letter-topic", "e.v:1"),
            ("dead-letter-partition", "7"),
            ("dead-letter-offset", "8"),
            ("dead-letter-timestamp", "9"),
        ];
        let read = letter("default/g", "{}", &headers);
        assert_eq!((read.reason.as_deref(), read.detail.as_str(), read.time_ms()), (Some("wrong-key"), "why", 9));
        assert_eq!(read.record.headers, [("trace".to_owned(), Some("t".into()))]);
        assert_eq!(read.origin, Some(Origin { topic: "e.v:1".to_owned(), partition: 7, offset: 8 }));
        let foreign = letter("default/g", "{}", &[("dead-letter-value", "left out")]);
        assert_eq!((foreign.reason, foreign.origin, foreign.left_out.as_deref()), (None, None, Some("value")));
        assert_eq!(
            "receipts.events:7:8".parse::<Origin>().map(|origin| origin.to_string()),
            Ok("receipts.events:7:8".into())
        );
    }

    #[test]
    fn tenant_and_conversation_come_from_event_or_key() {
        let event = r#"{"type":"message.recalled","tenant":"acme","conversation_id":"g/1","message_id":"m"}"#;
        let of = |key, value| letter(key, value, &[]).names(DECODER);
        let names = |tenant: &str, conversation: &str| (Some(tenant.to_owned()), Some(conversation.to_owned()));
        assert_eq!(of("\"acme/g/1\"", event), names("acme", "g/1"));
        assert_eq!(of("acme/g/1", "no event"), names("acme", "g/1"));
        assert_eq!(of("g1", "no event"), (None, None));
        let filter = Filter { conversation: Some("g/1".to_owned()), ..Filter::default() };
        assert!(filter.admits(&letter("x", event, &[]), DECODER));
        assert!(!filter.admits(&letter("acme/g", "", &[]), DECODER));
        let filter = Filter { since_ms: Some(3), until_ms: Some(4), at: Some((1, 2)), ..Filter::default() };
        assert!(filter.admits(&letter("x", "", &[]), DECODER));
        assert!(!Filter { until_ms: Some(3), ..filter }.admits(&letter("x", "", &[]), DECODER));
    }
}
