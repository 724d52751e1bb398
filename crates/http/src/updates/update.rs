//! An update of the topic, parsed once per process and shared by all streams that receive it.
//!
//! It must not decide what a stream may show; [`super::redact`] does.

use bytes::Bytes;
use receipts_log::Record;
use receipts_traces::TraceContext;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::Instant;

/// The subject of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Updates of one conversation.
    Conversation(String),
    /// Updates of the messages that one person sent, and read marks of their readers in direct
    /// conversations.
    Sender(String),
}

impl Interest {
    /// Returns the key under which the hub finds the streams of this interest.
    pub(crate) fn addressee(&self, tenant: &str) -> String {
        match self {
            Self::Conversation(id) => conversation_addressee(tenant, id),
            Self::Sender(id) => sender_addressee(tenant, id),
        }
    }
}

// A tenant has no slash, so no two pairs of tenant and id give the same key.

fn conversation_addressee(tenant: &str, id: &str) -> String {
    format!("c{tenant}/{id}")
}

fn sender_addressee(tenant: &str, id: &str) -> String {
    format!("s{tenant}/{id}")
}

/// The types that streams pass on. A type of a later version may name people in fields that are
/// unknown here, so it cannot be redacted and is dropped.
const TYPES: [&str; 2] = ["receipt.updated", "read_mark.updated"];

/// The fields of an update that decide which streams receive it and which people it names. They
/// borrow the text of the record.
#[derive(Deserialize)]
pub(super) struct Parsed<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    conversation_id: Cow<'a, str>,
    #[serde(borrow, default)]
    sender_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reader_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    peer_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    newly_read: Vec<Reader<'a>>,
}

#[derive(Deserialize)]
struct Reader<'a> {
    #[serde(borrow)]
    user_id: Cow<'a, str>,
}

impl<'a> Parsed<'a> {
    /// Parses the value of a record. Returns `None` if it is not an update of a known type.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(value).ok().filter(|parsed: &Self| parsed.known_type().is_some())
    }

    fn known_type(&self) -> Option<&'static str> {
        TYPES.into_iter().find(|r#type| *r#type == self.r#type)
    }

    /// The person whose streams receive it: the sender of the message, or the other person of the
    /// direct conversation of a read mark.
    fn addressed_person(&self) -> Option<&str> {
        self.sender_id.as_deref().or(self.peer_id.as_deref())
    }

    /// Returns the keys of the streams that receive it: its conversation's, and its person's.
    pub(super) fn addressees(&self) -> [Option<String>; 2] {
        let person = self.addressed_person().map(|id| sender_addressee(&self.tenant, id));
        [Some(conversation_addressee(&self.tenant, &self.conversation_id)), person]
    }

    /// Whether a stream of this tenant and interest receives it.
    pub(super) fn is_for(&self, tenant: &str, interest: &Interest) -> bool {
        self.tenant == tenant
            && match interest {
                Interest::Conversation(id) => self.conversation_id == *id,
                Interest::Sender(id) => self.addressed_person() == Some(id),
            }
    }

    /// Returns the update that streams share. `json` is the text that was parsed.
    pub(super) fn into_update(self, partition: u32, offset: u64, json: Bytes) -> Update {
        Update {
            partition,
            offset,
            r#type: self.known_type().unwrap_or_default(),
            is_one_line: !json.iter().any(|byte| matches!(byte, b'\n' | b'\r')),
            json,
            sender_id: self.sender_id.map(Cow::into_owned),
            user_id: self.user_id.map(Cow::into_owned),
            reader_id: self.reader_id.map(Cow::into_owned),
            peer_id: self.peer_id.map(Cow::into_owned),
            newly_read: self.newly_read.into_iter().map(|reader| reader.user_id.into_owned()).collect(),
            without_readers: OnceLock::new(),
            trace: None,
        }
    }
}

/// An update with its parsed fields. It holds its text and a copy of each id that it names, and at
/// most one shorter text.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(super) r#type: &'static str,
    /// The text as published.
    pub(super) json: Bytes,
    /// Whether the text fits on one line, as Server-Sent Events need it.
    pub(super) is_one_line: bool,
    pub(super) sender_id: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) reader_id: Option<String>,
    pub(super) peer_id: Option<String>,
    pub(super) newly_read: Vec<String>,
    /// The text without new readers, written when the first stream needs it.
    pub(super) without_readers: OnceLock<Option<Bytes>>,
    /// Its trace, if its deliveries are spans.
    pub(super) trace: Option<UpdateTrace>,
}

/// The trace that an update belongs to.
#[derive(Debug)]
pub(super) struct UpdateTrace {
    pub(super) context: TraceContext,
    pub(super) received: Instant,
}

impl UpdateTrace {
    /// Reads the trace of a record; `None` while traces are off, or if this one is not sampled.
    pub(super) fn of(record: &Record<'_>) -> Option<Self> {
        receipts_traces::traces()?;
        let context = TraceContext::of_record(|name| record.headers.last(name))?;
        context.is_sampled().then(|| Self { context, received: Instant::now() })
    }
}

impl Update {
    /// Notes that a stream has sent the update to its client.
    pub(super) fn note_sent(&self) {
        if let Some((UpdateTrace { context, received }, traces)) = self.trace.as_ref().zip(receipts_traces::traces()) {
            // The span ends here.
            drop(traces.deliver_update(self.partition, self.offset, received.elapsed(), context));
        }
    }

    /// Returns every person whom the update names.
    pub(super) fn people(&self) -> impl Iterator<Item = &str> {
        let single = [&self.sender_id, &self.user_id, &self.reader_id, &self.peer_id];
        single.into_iter().flatten().chain(&self.newly_read).map(String::as_str)
    }
}

#[cfg(test)]
impl Update {
    /// Parses a text as the hub does.
    pub(super) fn of(value: &str) -> Self {
        let json = Bytes::copy_from_slice(value.as_bytes());
        Parsed::parse(value.as_bytes()).expect("an update").into_update(0, 0, json)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const MARK: &str = r#"{"type":"read_mark.updated","tenant":"t","conversation_id":"d1","peer_id":"alice","reader_id":"bob","up_to_sent_at_ms":1,"read_at_ms":2,"version":3}"#;
    pub(crate) const DIRECT: &str = r#"{"type":"receipt.updated","tenant":"t","conversation_id":"d1","message_id":"m1","status":"ok","sender_id":"alice","read_count":1,"last_read_at_ms":7,"user_id":"bob","read_at_ms":7,"version":3,"newly_read":[{"user_id":"bob","read_at_ms":7},{"user_id":"carol","read_at_ms":8}],"newly_read_truncated":true}"#;

    #[test]
    fn mark_goes_to_the_peer_and_receipt_to_sender() {
        let to = |value: &str| {
            Parsed::parse(value.as_bytes()).map(|parsed| parsed.addressees().into_iter().flatten().collect::<Vec<_>>())
        };
        assert_eq!(to(MARK), Some(vec!["ct/d1".to_owned(), "st/alice".to_owned()]));
        assert_eq!(to(DIRECT), Some(vec!["ct/d1".to_owned(), "st/alice".to_owned()]));
        assert_eq!(to(r#"{"type":"typing.updated","tenant":"t","conversation_id":"d1"}"#), None);
        assert_eq!(to("[]"), None);
    }

    #[test]
    fn replay_and_hub_agree_on_the_receivers() {
        for value in [MARK, DIRECT] {
            let parsed = Parsed::parse(value.as_bytes()).unwrap();
            for id in ["d1", "alice", "bob", "carol"] {
                for interest in [Interest::Conversation(id.to_owned()), Interest::Sender(id.to_owned())] {
                    for tenant in ["t", "u"] {
                        let addressee = Some(interest.addressee(tenant));
                        assert_eq!(parsed.is_for(tenant, &interest), parsed.addressees().contains(&addressee));
                    }
                }
            }
        }
    }

    #[test]
    fn update_names_every_person_once_per_field() {
        assert_eq!(Update::of(DIRECT).people().collect::<Vec<_>>(), ["alice", "bob", "bob", "carol"]);
        assert_eq!(Update::of(MARK).people().collect::<Vec<_>>(), ["bob", "alice"]);
    }
}
