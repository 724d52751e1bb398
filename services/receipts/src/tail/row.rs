//! A record as `receipts tail` shows it: as a line for people, or as JSON. Decides nothing about
//! events: the projector's decoder does.

use super::filter::{Filter, Verdict};
use crate::analysis::shown;
use crate::dead_letters::text;
use receipts_analytics::dead_letters::{Letter, Origin};
use receipts_event::{Body, Decoder, Event, Kind, UpTo, decode};
use receipts_log::{OwnedRecord, Topic};
use receipts_runtime::output::printable;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

/// Ids of a list that a line shows.
const IDS_SHOWN: usize = 5;
/// Characters of an unreadable value that a line shows.
const VALUE_SHOWN: usize = 120;

/// Reads records of a topic.
pub(super) struct Reader {
    pub(super) topic: Topic,
    pub(super) decoder: Decoder,
    pub(super) filter: Filter,
}

/// A record that is shown.
#[derive(Serialize)]
pub(super) struct Row {
    partition: u32,
    offset: u64,
    at_ms: u64,
    /// `null` if the value is no event, or no update.
    #[serde(rename = "type")]
    kind: Option<String>,
    key: Option<String>,
    /// JSON as it is, other text as a string, other bytes as their escapes.
    value: Option<Value>,
    /// Why the record is no event, or why it is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The location of the record that became a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    /// The line behind time and location.
    #[serde(skip)]
    says: String,
}

impl Row {
    /// The order in which rows are shown: by time, then by location.
    pub(super) fn order(&self) -> (u64, u32, u64) {
        (self.at_ms, self.partition, self.offset)
    }

    /// Returns the line for people.
    pub(super) fn line(&self) -> String {
        format!("{}  {}:{}  {}", shown(self.at_ms), self.partition, self.offset, self.says)
    }
}

impl Reader {
    /// Judges a record, and reads it if it passes.
    pub(super) fn read(&self, record: OwnedRecord) -> Verdict<Row> {
        match self.topic {
            Topic::Events => self.event(record),
            Topic::Updates => self.update(record),
            Topic::DeadLetters => self.dead_letter(record),
        }
    }

    fn event(&self, record: OwnedRecord) -> Verdict<Row> {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let rejection = self.decoder.decode(record.partition, key, value).err();
        let event = self.event_of(value);
        let row = |event: Option<&Event<'_>>| {
            let mut row = row_of(&record, value.map(|value| self.decoder.unwrap.event_of(value)));
            row.kind = event.map(|event| event.type_name().to_owned());
            row.says = match &rejection {
                None => String::new(),
                Some(rejection) => format!("({})  ", rejection.reason.code()),
            };
            row.says += &event.map_or_else(|| unreadable(&record), says);
            if let Some(rejection) = &rejection {
                let detail = rejection.to_string();
                _ = write!(row.says, ": {}", printable(&detail));
                (row.reason, row.detail) = (Some(rejection.reason.code().to_owned()), Some(detail));
            }
            row
        };
        match event {
            Some(event) if self.filter.admits_event(&event) => Verdict::Passes(row(Some(&event))),
            Some(_) => Verdict::Fails,
            None => self.filter.admits_key(key, || row(None)),
        }
    }

    fn update(&self, record: OwnedRecord) -> Verdict<Row> {
        let value = record.value.as_deref();
        let update = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        let row = |kind: Option<&str>, says: String| {
            let mut row = row_of(&record, value);
            (row.kind, row.says) = (kind.map(str::to_owned), says);
            row
        };
        match update.as_ref().and_then(|update| Some((update, update["type"].as_str()?))) {
            Some((update, kind)) if self.filter.admits_update(update) => {
                Verdict::Passes(row(Some(kind), says_update(kind, update)))
            }
            Some(_) => Verdict::Fails,
            None => {
                let says = || row(None, format!("(no update)  {}", unreadable(&record)));
                self.filter.admits_key(record.key.as_deref(), says)
            }
        }
    }

    fn dead_letter(&self, record: OwnedRecord) -> Verdict<Row> {
        let Letter { reason, detail, origin, record, .. } = Letter::new(record);
        let value = record.value.as_deref();
        let event = self.event_of(value);
        let row = |event: Option<&Event<'_>>| {
            let mut row = row_of(&record, value.map(|value| self.decoder.unwrap.event_of(value)));
            let at = origin.as_ref().map(|at| format!("{}:{}  ", at.partition, at.offset)).unwrap_or_default();
            row.says = format!("{}  {at}", printable(reason.as_deref().unwrap_or("(not of a projector)")));
            row.says += &event.map_or_else(|| unreadable(&record), says);
            _ = write!(row.says, ": {}", printable(&detail));
            row.kind = event.map(|event| event.type_name().to_owned());
            (row.reason, row.detail, row.origin) = (reason.clone(), Some(detail.clone()), origin.clone());
            row
        };
        match event {
            Some(event) if self.filter.admits_event(&event) => Verdict::Passes(row(Some(&event))),
            Some(_) => Verdict::Fails,
            None => self.filter.admits_key(record.key.as_deref(), || row(None)),
        }
    }

    /// Returns the event of a value. Its key and its partition do not matter.
    fn event_of<'v>(&self, value: Option<&'v [u8]>) -> Option<Event<'v>> {
        decode(self.decoder.unwrap.event_of(value?)).ok()
    }
}

fn row_of(record: &OwnedRecord, value: Option<&[u8]>) -> Row {
    Row {
        partition: record.partition,
        offset: record.offset,
        at_ms: record.timestamp_ms,
        kind: None,
        key: record.key.as_deref().map(text),
        value: value.map(|value| serde_json::from_slice(value).unwrap_or_else(|_| Value::from(text(value)))),
        reason: None,
        detail: None,
        origin: None,
        says: String::new(),
    }
}

/// Says what there is of a record that cannot be read.
fn unreadable(record: &OwnedRecord) -> String {
    let key = record.key.as_deref().map_or_else(|| "no key".to_owned(), |key| format!("key {}", printable(&text(key))));
    let Some(value) = record.value.as_deref().map(text) else { return format!("{key}, no value") };
    let begins: String = value.chars().take(VALUE_SHOWN).collect();
    let more = if begins.len() < value.len() { "…" } else { "" };
    format!("{key}, value {}{more}", printable(&begins))
}

/// Says an event in one line.
fn says(event: &Event<'_>) -> String {
    let conversation = event.conversation_id().unwrap_or_default();
    let head = format!("{}  {}", event.type_name(), printable(&format!("{}/{conversation}", event.tenant)));
    format!("{head}  {}", printable(&of_body(&event.body)))
}

fn of_body(body: &Body<'_>) -> String {
    let hidden = |hidden: bool| if hidden { ", hidden" } else { "" };
    match body {
        Body::ConversationConfigured(body) => match (body.kind, &body.group_type) {
            (Kind::Direct, _) => "direct".to_owned(),
            (Kind::Group, None) => "group".to_owned(),
            (Kind::Group, Some(group_type)) => format!("group of type {group_type}"),
        },
        Body::MembersChanged(body) => {
            let lists = [("left", &body.left), ("joined", &body.joined), ("observers", &body.observers)];
            let lists = lists.into_iter().filter(|(_, ids)| !ids.is_empty());
            lists.map(|(what, ids)| format!("{what} {}", list(ids.iter()))).collect::<Vec<_>>().join("; ")
        }
        Body::MessageSent(body) => {
            let asks = if body.need_read_receipt { "" } else { ", no receipt" };
            let to = body.recipients.as_ref().map(|to| format!(" to {}", list(to.iter()))).unwrap_or_default();
            format!("{} by {}{to}{asks}", body.message_id, body.sender_id)
        }
        Body::MessageRead(body) => {
            format!("{} read {}{}", body.reader_id, list(body.message_ids.iter()), hidden(body.hidden))
        }
        Body::ConversationRead(body) => {
            let up_to = match &body.up_to {
                UpTo::Message(message) => message.to_string(),
                UpTo::SentAt(ms) => shown(*ms),
            };
            format!("{} read up to {up_to}{}", body.reader_id, hidden(body.hidden))
        }
        Body::MessageRecalled(body) => body.message_id.to_string(),
        Body::PolicyChanged(body) => {
            let types = body.read_receipts.iter();
            list(types.map(|(group_type, on)| format!("{group_type} {}", if *on { "on" } else { "off" })))
        }
        Body::UserErased(body) => body.user_id.to_string(),
    }
}

/// Says an update in one line.
fn says_update(kind: &str, update: &Value) -> String {
    let field = |name: &str| update[name].as_str().unwrap_or("-");
    let head = format!("{kind}  {}/{}  ", field("tenant"), field("conversation_id"));
    let says = match kind {
        "receipt.updated" => {
            let by = update["sender_id"].as_str().map(|sender| format!(" by {sender}")).unwrap_or_default();
            let message = format!("{}{by}", field("message_id"));
            match (field("status"), update["read_count"].as_u64(), update["audience_count"].as_u64()) {
                ("ok", Some(read), Some(audience)) => {
                    let new = update["newly_read"].as_array().cloned().unwrap_or_default();
                    let names = list(new.iter().filter_map(|reader| reader["user_id"].as_str()));
                    let names = if names.is_empty() { names } else { format!(", newly by {names}") };
                    format!("{message}: read by {read} of {audience}{names}")
                }
                (status, ..) => format!("{message}: {status}"),
            }
        }
        "read_mark.updated" => {
            let up_to = update["up_to_message_id"].as_str().map(str::to_owned);
            let up_to = up_to.or_else(|| update["up_to_sent_at_ms"].as_u64().map(shown)).unwrap_or_default();
            format!("{} read up to {up_to}", field("reader_id"))
        }
        // A type of a later version.
        _ => String::new(),
    };
    printable(&format!("{head}{says}")).trim_end().to_owned()
}

/// Lists the first few, and counts the others.
fn list(items: impl Iterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<_> = items.collect();
    let first: Vec<&str> = items.iter().take(IDS_SHOWN).map(AsRef::as_ref).collect();
    match items.len().saturating_sub(IDS_SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
