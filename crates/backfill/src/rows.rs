//! Decodes one row, or says why no event can express it. It knows no other row.

use crate::columns::{Columns, Input};
use crate::import::Plan;
use crate::readings::Readings;
use crate::{times, values};
use receipts_event::{Kind, UpTo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
    pub(crate) readings: &'a Readings,
    /// The tenant of rows without one.
    pub(crate) tenant: &'a str,
    pub(crate) untimed: Untimed,
}

type Values = Map<String, Value>;

impl<'a> Reader<'a> {
    /// Returns the reader of a plan's table. A mapping has renamed and read its columns already.
    pub(crate) fn of(plan: &'a Plan, input: Input) -> Self {
        let is_mapped = plan.mapping.as_ref().is_some_and(|mapping| mapping.maps(input));
        let (columns, readings) =
            if is_mapped { (Columns::ours(), Readings::mapped()) } else { (&plan.columns, &plan.readings) };
        Reader { columns, readings, tenant: &plan.tenant, untimed: plan.untimed }
    }
}

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
            at_ms: of.time_from("at_ms")?,
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

    /// Returns a value as `read` does, whose sentence gets the column as its subject.
    fn by<T>(&self, name: &str, read: impl Fn(&Value) -> Result<T, String>) -> Result<Option<T>, String> {
        self.value(name).map(read).transpose().map_err(|reason| format!("{name} {reason}"))
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        self.by(name, values::text)
    }

    fn optional_id(&self, name: &str) -> Result<Option<String>, String> {
        self.by(name, values::id)
    }

    fn id(&self, name: &str) -> Result<String, String> {
        self.optional_id(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    fn ids(&self, name: &str) -> Result<Option<Vec<String>>, String> {
        self.by(name, values::ids)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        self.by(name, values::flag)
    }

    fn time(&self, name: &str) -> Result<Option<u64>, String> {
        let reading = self.reader.readings.of(self.input, name);
        Ok(self.by(name, |value| times::time(value, &reading))?.flatten())
    }

    /// Returns a time from which a row applies; `-infinity` is none, as in PostgreSQL.
    fn time_from(&self, name: &str) -> Result<Option<u64>, String> {
        let text = self.value(name).map(|value| value.get("$date").unwrap_or(value));
        if text.and_then(Value::as_str) == Some("-infinity") { Ok(None) } else { self.time(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::TENANT_DEFAULT;
    use serde_json::json;

    const SENT: u64 = 1_780_000_000_000;

    fn reader(columns: &Columns) -> Reader<'_> {
        Reader { columns, readings: Readings::mapped(), tenant: TENANT_DEFAULT, untimed: Untimed::Unread }
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
            (json!(1_780_000_000_u64), Err("--time-unit s")),
            (json!("yesterday"), Err("known form")),
            (json!(-1), Err("in no unit")),
            (json!(1.5), Err("in no unit")),
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
            (json!({"recipients": "a,b"}), "no JSON array"),
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
