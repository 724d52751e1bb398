//! The names of columns: ours, and those of a foreign table.

use crate::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The kind of a table's rows. Tables are imported in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// One row per conversation and person.
    Members,
    /// One row per message.
    Messages,
    /// One row per message and reader.
    Reads,
    /// One row per conversation and reader: how far that person has read.
    Marks,
}

/// A column: our name, whether rows need it, and an alternative name if the first is absent.
type Column = (&'static str, bool, Option<&'static str>);

impl Input {
    /// All kinds, in the order of import.
    pub const ALL: [Self; 4] = [Self::Members, Self::Messages, Self::Reads, Self::Marks];

    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Members => &[
                ("tenant", false, None),
                ("conversation_id", true, None),
                ("user_id", true, None),
                ("role", false, None),
                ("kind", false, None),
                ("group_type", false, None),
                ("at_ms", false, None),
            ],
            Self::Messages => &[
                ("tenant", false, None),
                ("conversation_id", true, None),
                ("message_id", true, None),
                ("sender_id", true, None),
                ("sent_at_ms", true, Some("sent_at")),
                ("need_read_receipt", false, None),
                ("recipients", false, None),
                ("status", false, None),
            ],
            Self::Reads => &[
                ("tenant", false, None),
                ("conversation_id", true, None),
                ("message_id", true, None),
                // The name in our own exports.
                ("user_id", true, Some("reader_id")),
                ("read_at_ms", false, Some("read_at")),
                ("hidden", false, None),
            ],
            Self::Marks => &[
                ("tenant", false, None),
                ("conversation_id", true, None),
                ("user_id", true, Some("reader_id")),
                ("up_to_message_id", false, None),
                ("up_to_sent_at_ms", false, Some("up_to_sent_at")),
                ("read_at_ms", false, Some("read_at")),
                ("hidden", false, None),
                ("thread_id", false, None),
            ],
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Members => "members",
            Self::Messages => "messages",
            Self::Reads => "reads",
            Self::Marks => "marks",
        })
    }
}

/// The column names of foreign tables, by our names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns(BTreeMap<String, String>);

/// Returns whether there is a column `NAME`, or `TABLE.NAME`.
///
/// # Errors
/// A sentence that names all columns, if there is none.
pub(crate) fn known(name: &str) -> Result<(), String> {
    let is_known = |input: Input, name: &str| input.columns().iter().any(|(known, ..)| *known == name);
    let known = match name.split_once('.') {
        Some((table, name)) => Input::ALL.into_iter().any(|input| input.to_string() == table && is_known(input, name)),
        None => Input::ALL.into_iter().any(|input| is_known(input, name)),
    };
    if known {
        return Ok(());
    }
    let mut names: Vec<_> = Input::ALL.iter().flat_map(|input| input.columns()).map(|(name, ..)| *name).collect();
    names.sort_unstable();
    names.dedup();
    Err(format!("there is no column {name}: choose one of {}", names.join(", ")))
}

impl Columns {
    /// Returns our own names.
    pub(crate) fn ours() -> &'static Self {
        static OURS: Columns = Columns(BTreeMap::new());
        &OURS
    }

    /// Adds `NAME=THEIRS` for all tables, or `TABLE.NAME=THEIRS` for one of them.
    ///
    /// # Errors
    /// A sentence, if the text has neither form or there is no such column.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        let (name, theirs) = assignment
            .split_once('=')
            .filter(|(_, theirs)| !theirs.is_empty())
            .ok_or_else(|| format!("{assignment} does not have the form NAME=THEIRS"))?;
        known(name)?;
        self.0.insert(name.to_owned(), theirs.to_owned());
        Ok(())
    }

    /// Returns the name that an assignment gives to our column, if one does.
    pub(crate) fn assigned(&self, input: Input, name: &str) -> Option<&str> {
        self.0.get(&format!("{input}.{name}")).or_else(|| self.0.get(name)).map(String::as_str)
    }

    /// Returns a table's name for our column.
    fn theirs<'a>(&'a self, input: Input, name: &'a str) -> &'a str {
        self.assigned(input, name).unwrap_or(name)
    }

    /// Rejects a file that lacks a required column. Rejects it too if no file of the table (`all`)
    /// has a column that an assignment names.
    pub(crate) fn check(&self, input: Input, path: &Path, held: &[String], all: &[String]) -> Result<(), Error> {
        for (name, is_needed, other) in input.columns() {
            let wanted = self.theirs(input, name);
            let is_named = wanted != *name;
            let is_there = |name: &str| if *is_needed { held } else { all }.iter().any(|held| held == name);
            let has_other = !is_named && other.is_some_and(is_there);
            if (*is_needed || is_named) && !is_there(wanted) && !has_other {
                let held = held.join(", ");
                return Err(Error::Column { path: path.to_owned(), wanted: wanted.to_owned(), name, held });
            }
        }
        Ok(())
    }

    /// Returns the value of a column; `None` if it is null or absent.
    pub(crate) fn value<'v>(&self, input: Input, name: &str, values: &'v Map<String, Value>) -> Option<&'v Value> {
        let wanted = self.theirs(input, name);
        values.get(wanted).or_else(|| {
            let other = input.columns().iter().find(|(known, ..)| *known == name).and_then(|(.., other)| *other);
            other.filter(|_| wanted == name).and_then(|other| values.get(other))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_column_is_found_by_its_foreign_name() {
        let mut columns = Columns::default();
        columns.set("read_at_ms=seen_at").unwrap();
        columns.set("messages.conversation_id=chat").unwrap();
        let row = json!({"seen_at": 5, "reader_id": "bob", "conversation_id": "c", "chat": "d"});
        let row = row.as_object().unwrap();
        assert_eq!(columns.value(Input::Reads, "read_at_ms", row), Some(&json!(5)));
        assert_eq!(columns.value(Input::Reads, "user_id", row), Some(&json!("bob")), "the name in our exports");
        assert_eq!(columns.value(Input::Reads, "conversation_id", row), Some(&json!("c")));
        assert_eq!(columns.value(Input::Messages, "conversation_id", row), Some(&json!("d")));
        for wrong in ["read_at_ms", "read_at_ms=", "nothing=x", "people.user_id=x", "members.hidden=x"] {
            assert!(columns.set(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_table_without_a_required_column_is_refused() {
        let held = |names: &str| names.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut columns = Columns::default();
        let check = |columns: &Columns, names: &str| {
            columns.check(Input::Reads, Path::new("reads.csv"), &held(names), &held(names))
        };
        check(&columns, "conversation_id message_id reader_id").unwrap();
        let sentence = check(&columns, "chat message_id user_id").unwrap_err().to_string();
        assert!(sentence.contains("reads.csv") && sentence.contains("--column conversation_id=THEIRS"), "{sentence}");
        columns.set("hidden=secret").unwrap();
        let sentence = check(&columns, "conversation_id message_id user_id hidden").unwrap_err().to_string();
        assert!(sentence.contains("no column secret"), "{sentence}");
    }
}
