//! Datasets and their columns. The columns are a compatibility surface: `schemas/export/v2.md`, and
//! `schemas/export/v1.md` for the old layout. Makes no rows.

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

/// A dataset that can be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dataset {
    /// One row per message: its receipt.
    Messages,
    /// One row per message and reader, for open reads.
    Reads,
    /// One row per message and person whom one of its lists names.
    Members,
    /// One row per conversation and person on its roster at the end.
    Rosters,
    /// One row per conversation and reader with a read mark at the end.
    ReadMarks,
    /// One row per event.
    Events,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// UTF-8 text.
    Text,
    /// A signed 64-bit integer.
    Integer,
    /// True or false.
    Flag,
    /// A time in UTC, to the millisecond.
    Time,
    /// A day in UTC.
    Day,
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
    column("day", Type::Day),
    column("conversation_id", Type::Text),
    column("message_id", Type::Text),
    column("status", Type::Text),
    column("kind", Type::Text),
    column("group_type", Type::Text),
    nullable("sender_id", Type::Text),
    column("sent_at", Type::Time),
    nullable("audience_count", Type::Integer),
    nullable("read_count", Type::Integer),
    nullable("unread_count", Type::Integer),
    nullable("hidden_count", Type::Integer),
    nullable("departed_count", Type::Integer),
    nullable("all_read", Type::Flag),
    nullable("last_read_at", Type::Time),
    nullable("user_id", Type::Text),
    nullable("read_at", Type::Time),
    column("version", Type::Integer),
    column("partition", Type::Integer),
    column("offset", Type::Integer),
    column("recorded_at", Type::Time),
];

const READS: &[Column] = &[
    column("tenant", Type::Text),
    column("day", Type::Day),
    column("conversation_id", Type::Text),
    column("message_id", Type::Text),
    column("reader_id", Type::Text),
    nullable("read_at", Type::Time),
    column("sent_at", Type::Time),
    column("partition", Type::Integer),
];

const MEMBERS: &[Column] = &[
    column("tenant", Type::Text),
    column("day", Type::Day),
    column("conversation_id", Type::Text),
    column("message_id", Type::Text),
    column("user_id", Type::Text),
    column("list", Type::Text),
    nullable("read_at", Type::Time),
    column("sent_at", Type::Time),
    column("partition", Type::Integer),
];

const ROSTERS: &[Column] = &[
    column("tenant", Type::Text),
    column("conversation_id", Type::Text),
    column("user_id", Type::Text),
    column("role", Type::Text),
    column("kind", Type::Text),
    column("group_type", Type::Text),
    column("partition", Type::Integer),
];

const READ_MARKS: &[Column] = &[
    column("tenant", Type::Text),
    column("conversation_id", Type::Text),
    column("reader_id", Type::Text),
    nullable("up_to_message_id", Type::Text),
    column("up_to_sent_at", Type::Time),
    column("read_at", Type::Time),
    column("version", Type::Integer),
    column("partition", Type::Integer),
];

const EVENTS: &[Column] = &[
    column("tenant", Type::Text),
    column("day", Type::Day),
    nullable("conversation_id", Type::Text),
    column("partition", Type::Integer),
    column("offset", Type::Integer),
    column("recorded_at", Type::Time),
    column("type", Type::Text),
    nullable("event_id", Type::Text),
    column("event", Type::Text),
];

/// A column of layout v1: its name, and the name of the column of format 2 that has its values. A
/// time becomes Unix milliseconds.
pub(super) type OldColumn = (&'static str, &'static str);

const fn same(name: &'static str) -> OldColumn {
    (name, name)
}

const OLD_MESSAGES: &[OldColumn] = &[
    same("tenant"),
    same("conversation_id"),
    same("message_id"),
    same("status"),
    same("kind"),
    same("group_type"),
    same("sender_id"),
    ("sent_at_ms", "sent_at"),
    same("audience_count"),
    same("read_count"),
    same("unread_count"),
    same("hidden_count"),
    same("departed_count"),
    same("all_read"),
    ("last_read_at_ms", "last_read_at"),
    same("user_id"),
    ("read_at_ms", "read_at"),
    same("version"),
    same("partition"),
    same("offset"),
    ("timestamp_ms", "recorded_at"),
];

const OLD_READS: &[OldColumn] = &[
    same("tenant"),
    same("conversation_id"),
    same("message_id"),
    same("reader_id"),
    ("read_at_ms", "read_at"),
    ("sent_at_ms", "sent_at"),
    same("partition"),
];

const OLD_ROSTERS: &[OldColumn] = &[
    same("tenant"),
    same("conversation_id"),
    same("kind"),
    same("group_type"),
    same("user_id"),
    same("role"),
    same("partition"),
];

const OLD_EVENTS: &[OldColumn] = &[
    same("partition"),
    same("offset"),
    ("timestamp_ms", "recorded_at"),
    same("tenant"),
    same("conversation_id"),
    same("type"),
    same("event_id"),
    same("event"),
];

impl Dataset {
    /// All datasets, in the order of export.
    pub const ALL: [Self; 6] =
        [Self::Messages, Self::Reads, Self::Members, Self::Rosters, Self::ReadMarks, Self::Events];

    /// Returns its name, which is also the name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Reads => "reads",
            Self::Members => "members",
            Self::Rosters => "rosters",
            Self::ReadMarks => "read_marks",
            Self::Events => "events",
        }
    }

    /// Returns its columns in order.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Messages => MESSAGES,
            Self::Reads => READS,
            Self::Members => MEMBERS,
            Self::Rosters => ROSTERS,
            Self::ReadMarks => READ_MARKS,
            Self::Events => EVENTS,
        }
    }

    /// Returns the columns by which its rows are sorted, ascending, nulls first. No two rows agree
    /// in all of them.
    pub fn order(self) -> &'static [&'static str] {
        match self {
            Self::Messages => &["tenant", "day", "conversation_id", "message_id"],
            Self::Reads => &["tenant", "day", "conversation_id", "message_id", "reader_id"],
            Self::Members => &["tenant", "day", "conversation_id", "message_id", "user_id"],
            Self::Rosters => &["tenant", "conversation_id", "user_id"],
            Self::ReadMarks => &["tenant", "conversation_id", "reader_id"],
            Self::Events => &["tenant", "day", "conversation_id", "partition", "offset"],
        }
    }

    /// Returns whether layout v1 has it.
    pub fn is_in_v1(self) -> bool {
        !self.columns_v1().is_empty()
    }

    /// Returns the columns of layout v1 in order; none if that layout lacks the dataset.
    pub(super) fn columns_v1(self) -> &'static [OldColumn] {
        match self {
            Self::Messages => OLD_MESSAGES,
            Self::Reads => OLD_READS,
            Self::Rosters => OLD_ROSTERS,
            Self::Events => OLD_EVENTS,
            Self::Members | Self::ReadMarks => &[],
        }
    }

    /// Returns the number of a column.
    pub(super) fn index_of(self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }

    /// Returns its columns as an Arrow schema; the same for every batch and file.
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 6]> = LazyLock::new(|| Dataset::ALL.map(schema_of));
        Arc::clone(&SCHEMAS[self as usize])
    }
}

fn schema_of(dataset: Dataset) -> SchemaRef {
    let field = |column: &Column| Field::new(column.name, column.kind.data_type(), column.nullable);
    Arc::new(Schema::new(dataset.columns().iter().map(field).collect::<Vec<_>>()))
}

impl Type {
    fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Flag => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Day => DataType::Date32,
        }
    }
}
