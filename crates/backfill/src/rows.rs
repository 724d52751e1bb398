//! Decodes one row, or says why no event can express it. It knows no other row.

use crate::columns::{Columns, Input};
use chrono::DateTime;
use receipts_event::{ID_BYTES_MAX, Kind, LISTED_IDS_MAX, TIME_MS_MAX, UpTo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Times below this are probably seconds: as milliseconds they are in the first months of 1970.
const SECONDS_BELOW: u64 = 20_000_000_000;

/// The meaning of a row of reads without a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untimed {
    /// The person has not read the message; the row gives no event.
    #[default]
    Unread,
    /// The person has read it at an unknown time; the time of the import is used.
    Read,
}

/// A row of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) conversation: Conversation,
    pub(crate) user_id: String,
    pub(crate) role: Role,
    /// The configuration of the conversation, if the row has one.
    pub(crate) configured: Option<(Kind, Option<String>)>,
    /// The row applies before messages sent later than this time, if it has one.
    pub(crate) at_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Member,
    Observer,
    Left,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Conversation {
    pub(crate) tenant: String,
    pub(crate) conversation_id: String,
}

/// A row of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) conversation: Conversation,
    pub(crate) message_id: String,
    pub(crate) sender_id: String,
    pub(crate) sent_at_ms: u64,
    pub(crate) need_read_receipt: bool,
    pub(crate) recipients: Option<Vec<String>>,
    pub(crate) is_recalled: bool,
}

/// A row of reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) conversation: Conversation,
    pub(crate) message_id: String,
    pub(crate) reader_id: String,
    pub(crate) read_at_ms: Option<u64>,
    pub(crate) hidden: bool,
}

/// A row of marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) conversation: Conversation,
    pub(crate) reader_id: String,
    pub(crate) up_to: UpTo<'static>,
    /// `None` for the time of the import.
    pub(crate) read_at_ms: Option<u64>,
    pub(crate) hidden: bool,
}

/// Decodes the rows of one table.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) columns: &'a Columns,
    /// The tenant of rows without one.
    pub(crate) tenant: &'a str,
    pub(crate) untimed: Untimed,
}

type Values = Map<String, Value>;

impl Reader<'_> {
    pub(crate) fn member(&self, values: &Values) -> Result<Member, String> {
        let of = RowView { reader: self, input: Input::Members, values };
        let role = match of.text("role")?.as_deref() {
            None | Some("member" | "joined") => Role::Member,
            Some("observer") => Role::Observer,
            Some("left") => Role::Left,
            Some(other) => return Err(format!("role: {other} is not member, observer or left")),
        };
        let kind = match of.text("kind")?.as_deref() {
            None => None,
            Some("direct") => Some(Kind::Direct),
            Some("group") => Some(Kind::Group),
            Some(other) => return Err(format!("kind: {other} is not direct or group")),
        };
        let group_type = of.optional_id("group_type")?;
        let configured = match (kind, group_type) {
            (None, None) => None,
            (Some(Kind::Direct), _) => Some((Kind::Direct, None)),
            (_, group_type) => Some((Kind::Group, group_type)),
        };
        Ok(Member {
            conversation: of.conversation()?,
            user_id: of.id("user_id")?,
            role,
            configured,
            at_ms: of.time("at_ms")?,
        })
    }

    pub(crate) fn message(&self, values: &Values) -> Result<Message, String> {
        let of = RowView { reader: self, input: Input::Messages, values };
        // The status column of our exports. Messages without support or without a request have no
        // audience.
        let status = of.text("status")?;
        let (has_audience, is_recalled) = match status.as_deref() {
            None | Some("ok") => (true, false),
            Some("not_requested" | "unsupported") => (false, false),
            Some("recalled") => (true, true),
            Some(other) => return Err(format!("status: {other} is not ok, not_requested, unsupported or recalled")),
        };
        Ok(Message {
            conversation: of.conversation()?,
            message_id: of.id("message_id")?,
            sender_id: of.id("sender_id")?,
            sent_at_ms: of.time("sent_at_ms")?.ok_or("sent_at_ms is missing")?,
            need_read_receipt: of.flag("need_read_receipt")?.unwrap_or(true) && has_audience,
            recipients: of.ids("recipients")?,
            is_recalled,
        })
    }

    /// Returns `None` for a row that records an unread message.
    pub(crate) fn read(&self, values: &Values) -> Result<Option<Read>, String> {
        let of = RowView { reader: self, input: Input::Reads, values };
        let read = Read {
            conversation: of.conversation()?,
            message_id: of.id("message_id")?,
            reader_id: of.id("user_id")?,
            read_at_ms: of.time("read_at_ms")?,
            hidden: of.flag("hidden")?.unwrap_or(false),
        };
        let is_read = read.read_at_ms.is_some() || self.untimed == Untimed::Read;
        Ok(is_read.then_some(read))
    }
}

impl Reader<'_> {
    /// A mark without a time has that of the messages up to which it reads. It never gets the time
    /// of the import unless rows without a time count as read.
    pub(crate) fn mark(&self, values: &Values) -> Result<Mark, String> {
        let of = RowView { reader: self, input: Input::Marks, values };
        if let Some(thread_id) = of.optional_id("thread_id")? {
            return Err(format!(
                "thread_id: {thread_id}: events have no threads, so a mark of a thread has no event; it is not a mark of \
                 the conversation"
            ));
        }
        let (message, sent_at) = (of.optional_id("up_to_message_id")?, of.time("up_to_sent_at_ms")?);
        let read_at_ms = of.time("read_at_ms")?.or(sent_at);
        if read_at_ms.is_none() && self.untimed == Untimed::Unread {
            return Err(
                "read_at_ms is missing, and so is up_to_sent_at_ms: add one of them, or --untimed read for the \
                        time of the import"
                    .to_owned(),
            );
        }
        // Our exports have both columns. The message is the more exact one.
        let up_to = match (message, sent_at) {
            (Some(message), _) => UpTo::Message(message.into()),
            (None, Some(sent_at)) => UpTo::SentAt(sent_at),
            (None, None) => {
                return Err("up_to_message_id and up_to_sent_at_ms are missing: a mark needs one".to_owned());
            }
        };
        Ok(Mark {
            conversation: of.conversation()?,
            reader_id: of.id("user_id")?,
            up_to,
            read_at_ms,
            hidden: of.flag("hidden")?.unwrap_or(false),
        })
    }
}

/// The values of one row with typed access.
struct RowView<'a> {
    reader: &'a Reader<'a>,
    input: Input,
    values: &'a Values,
}

impl RowView<'_> {
    fn value(&self, name: &str) -> Option<&Value> {
        self.reader.columns.value(self.input, name, self.values)
    }

    fn conversation(&self) -> Result<Conversation, String> {
        let tenant = self.optional_id("tenant")?.unwrap_or_else(|| self.reader.tenant.to_owned());
        if tenant.contains('/') {
            return Err(format!("tenant: {tenant} contains a slash"));
        }
        Ok(Conversation { tenant, conversation_id: self.id("conversation_id")? })
    }

    /// Returns a text. Whole numbers count as text, because ids of other databases are often
    /// numbers.
    fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(Some(number.to_string())),
            Some(other) => Err(format!("{name}: {other} is not text")),
        }
    }

    fn optional_id(&self, name: &str) -> Result<Option<String>, String> {
        let text = self.text(name)?;
        text.map(|text| id(name, text)).transpose()
    }

    fn id(&self, name: &str) -> Result<String, String> {
        self.optional_id(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    fn ids(&self, name: &str) -> Result<Option<Vec<String>>, String> {
        let parsed;
        let list = match self.value(name) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            // CSV has no lists, so the field holds a JSON array.
            Some(Value::String(text)) => {
                parsed = serde_json::from_str::<Vec<Value>>(text)
                    .map_err(|_| format!("{name}: {text} is not a JSON array of ids"))?;
                &parsed
            }
            Some(other) => return Err(format!("{name}: {other} is not a list")),
        };
        if list.len() > LISTED_IDS_MAX {
            return Err(format!("{name} has {} ids, at most {LISTED_IDS_MAX} are allowed", list.len()));
        }
        let ids = list.iter().map(|item| match item {
            Value::String(text) => id(name, text.clone()),
            Value::Number(number) if number.is_i64() || number.is_u64() => id(name, number.to_string()),
            other => Err(format!("{name}: {other} is not an id")),
        });
        ids.collect::<Result<_, _>>().map(Some)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(is)) => Ok(Some(*is)),
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_ascii_lowercase);
                match text.as_str() {
                    "true" | "t" | "yes" | "1" => Ok(Some(true)),
                    "false" | "f" | "no" | "0" => Ok(Some(false)),
                    _ => Err(format!("{name}: {value} is neither true nor false")),
                }
            }
        }
    }

    fn time(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let wrong = || format!("{name}: {value} is not Unix milliseconds or RFC 3339 (2026-05-28T20:26:40Z)");
        let ms = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok().or_else(|| {
                let time = DateTime::parse_from_rfc3339(text).ok()?;
                u64::try_from(time.timestamp_millis()).ok()
            }),
            _ => None,
        };
        let ms = ms.filter(|ms| *ms <= TIME_MS_MAX).ok_or_else(wrong)?;
        let is_digits = value.is_number() || value.as_str().is_some_and(|text| !text.contains('T'));
        if is_digits && ms > 0 && ms < SECONDS_BELOW {
            return Err(format!("{name}: {value} is in 1970, perhaps because it is in seconds: use milliseconds"));
        }
        Ok(Some(ms))
    }
}

fn id(name: &str, text: String) -> Result<String, String> {
    match text.len() {
        1..=ID_BYTES_MAX => Ok(text),
        bytes => Err(format!("{name} has {bytes} bytes, but an id has 1 to {ID_BYTES_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::TENANT_DEFAULT;
    use serde_json::json;

    const SENT: u64 = 1_780_000_000_000;

    fn reader(columns: &Columns) -> Reader<'_> {
        Reader { columns, tenant: TENANT_DEFAULT, untimed: Untimed::Unread }
    }

    fn object(value: Value) -> Values {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn foreign_forms_of_times_and_ids_are_accepted() {
        let columns = Columns::default();
        for (at, wanted) in [
            (json!(1_780_000_000_000_u64), Ok(Some(1_780_000_000_000))),
            (json!("1780000000000"), Ok(Some(1_780_000_000_000))),
            (json!("2026-05-28T22:26:40.250+02:00"), Ok(Some(1_780_000_000_250))),
            (json!(1_780_000_000_u64), Err("seconds")),
            (json!("yesterday"), Err("RFC 3339")),
            (json!(-1), Err("RFC 3339")),
            (json!(1.5), Err("RFC 3339")),
        ] {
            let row = object(json!({"conversation_id": 7, "message_id": "m", "user_id": 12, "read_at_ms": at}));
            match (reader(&columns).read(&row), wanted) {
                (Ok(read), Ok(wanted)) => {
                    let read = read.unwrap();
                    assert_eq!((read.read_at_ms, read.reader_id.as_str()), (wanted, "12"));
                    assert_eq!(read.conversation.conversation_id, "7");
                }
                (Err(sentence), Err(part)) => assert!(sentence.contains(part), "{sentence}"),
                (read, wanted) => panic!("{at}: {read:?} instead of {wanted:?}"),
            }
        }
    }

    #[test]
    fn a_mark_never_gets_the_time_of_the_import() {
        let columns = Columns::default();
        let at = SENT;
        let mark = |untimed, more: Value| {
            let mut row = object(json!({"conversation_id": "c", "user_id": "u"}));
            row.extend(object(more));
            Reader { untimed, ..reader(&columns) }.mark(&row).map(|mark| (mark.up_to, mark.read_at_ms))
        };
        let unread = |more| mark(Untimed::Unread, more);
        let by_message = || UpTo::Message("m".into());
        assert_eq!(unread(json!({"up_to_sent_at_ms": at})), Ok((UpTo::SentAt(at), Some(at))));
        assert_eq!(unread(json!({"up_to_message_id": "m", "read_at_ms": at + 1})), Ok((by_message(), Some(at + 1))));
        assert_eq!(unread(json!({"up_to_message_id": "m", "up_to_sent_at_ms": at})), Ok((by_message(), Some(at))));
        assert!(unread(json!({"up_to_message_id": "m"})).unwrap_err().contains("--untimed read"));
        assert_eq!(mark(Untimed::Read, json!({"up_to_message_id": "m"})), Ok((by_message(), None)));
        assert!(unread(json!({"read_at_ms": at})).unwrap_err().contains("a mark needs one"));
        assert!(unread(json!({"up_to_sent_at_ms": at, "thread_id": "t"})).unwrap_err().contains("no threads"));
    }

    #[test]
    fn rows_beyond_any_event_are_refused_by_column() {
        let columns = Columns::default();
        let of = reader(&columns);
        let message = |more: Value| {
            let mut row = object(
                json!({"conversation_id": "c", "message_id": "m", "sender_id": "s", "sent_at_ms": 1_780_000_000_000_u64}),
            );
            row.extend(object(more));
            row.retain(|_, value| !value.is_null());
            of.message(&row)
        };
        assert!(message(json!({})).unwrap().need_read_receipt);
        assert!(!message(json!({"status": "unsupported"})).unwrap().need_read_receipt);
        assert_eq!(message(json!({"recipients": "[\"a\", 2]"})).unwrap().recipients.unwrap(), ["a", "2"]);
        for (more, part) in [
            (json!({"sender_id": null}), "sender_id is missing"),
            (json!({"message_id": "x".repeat(129)}), "message_id has 129 bytes"),
            (json!({"tenant": "a/b"}), "slash"),
            (json!({"recipients": "a,b"}), "not a JSON array"),
            (json!({"need_read_receipt": "perhaps"}), "need_read_receipt"),
            (json!({"status": "gone"}), "status"),
            (json!({"sent_at_ms": null}), "sent_at_ms is missing"),
        ] {
            let sentence = message(more.clone()).unwrap_err();
            assert!(sentence.contains(part), "{more}: {sentence}");
        }
        let member = |role: &str| of.member(&object(json!({"conversation_id": "c", "user_id": "u", "role": role})));
        assert_eq!(member("left").unwrap().role, Role::Left);
        assert!(member("owner").unwrap_err().contains("role: owner"));
    }
}
