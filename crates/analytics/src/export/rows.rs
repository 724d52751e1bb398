//! Datasets, their columns, and rows as plain values. The columns are a compatibility surface:
//! `schemas/export/v1.md`.

use serde::{Deserialize, Serialize};

/// A dataset that can be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dataset {
    /// One row per message: its receipt.
    Messages,
    /// One row per message and reader, for open reads.
    Reads,
    /// One row per conversation and person on its roster at the end.
    Rosters,
    /// One row per event.
    Events,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// UTF-8 text.
    Text,
    /// A signed 64-bit integer; times are Unix milliseconds.
    Integer,
    /// True or false.
    Flag,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// The type of its values.
    pub kind: Type,
    /// Whether it may be null.
    pub nullable: bool,
}

const fn column(name: &'static str, kind: Type) -> Column {
    Column { name, kind, nullable: false }
}

const fn nullable(name: &'static str, kind: Type) -> Column {
    Column { name, kind, nullable: true }
}

const MESSAGES: &[Column] = &[
    column("tenant", Type::Text),
    column("conversation_id", Type::Text),
    column("message_id", Type::Text),
    column("status", Type::Text),
    column("kind", Type::Text),
    column("group_type", Type::Text),
    nullable("sender_id", Type::Text),
    column("sent_at_ms", Type::Integer),
    nullable("audience_count", Type::Integer),
    nullable("read_count", Type::Integer),
    nullable("unread_count", Type::Integer),
    nullable("hidden_count", Type::Integer),
    nullable("departed_count", Type::Integer),
    nullable("all_read", Type::Flag),
    nullable("last_read_at_ms", Type::Integer),
    nullable("user_id", Type::Text),
    nullable("read_at_ms", Type::Integer),
    column("version", Type::Integer),
    column("partition", Type::Integer),
    column("offset", Type::Integer),
    column("timestamp_ms", Type::Integer),
];

const READS: &[Column] = &[
    column("tenant", Type::Text),
    column("conversation_id", Type::Text),
    column("message_id", Type::Text),
    column("reader_id", Type::Text),
    nullable("read_at_ms", Type::Integer),
    column("sent_at_ms", Type::Integer),
    column("partition", Type::Integer),
];

const ROSTERS: &[Column] = &[
    column("tenant", Type::Text),
    column("conversation_id", Type::Text),
    column("kind", Type::Text),
    column("group_type", Type::Text),
    column("user_id", Type::Text),
    column("role", Type::Text),
    column("partition", Type::Integer),
];

const EVENTS: &[Column] = &[
    column("partition", Type::Integer),
    column("offset", Type::Integer),
    column("timestamp_ms", Type::Integer),
    column("tenant", Type::Text),
    nullable("conversation_id", Type::Text),
    column("type", Type::Text),
    nullable("event_id", Type::Text),
    column("event", Type::Text),
];

impl Dataset {
    /// All datasets, in the order of export.
    pub const ALL: [Self; 4] = [Self::Messages, Self::Reads, Self::Rosters, Self::Events];

    /// Returns its name, which is also the name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Reads => "reads",
            Self::Rosters => "rosters",
            Self::Events => "events",
        }
    }

    /// Returns its columns in order.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Messages => MESSAGES,
            Self::Reads => READS,
            Self::Rosters => ROSTERS,
            Self::Events => EVENTS,
        }
    }
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Null,
    Text(Box<str>),
    Integer(i64),
    Flag(bool),
}

/// The values of one row, one for each column.
pub(crate) type Row = Vec<Value>;

impl Value {
    /// Returns the approximate size in memory, bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + if let Self::Text(text) = self { text.len() } else { 0 }
    }
}

pub(crate) fn text(text: impl AsRef<str>) -> Value {
    Value::Text(text.as_ref().into())
}

pub(crate) fn flag(is: bool) -> Value {
    Value::Flag(is)
}

/// Returns a number as a signed integer. Offsets and times stay far below 2^63; greater ones
/// saturate.
pub(crate) fn integer(number: impl Into<u64>) -> Value {
    Value::Integer(i64::try_from(number.into()).unwrap_or(i64::MAX))
}

pub(crate) fn maybe(number: Option<impl Into<u64>>) -> Value {
    number.map_or(Value::Null, integer)
}
