//! The rows of one table after its mapping: a source row gives none, one or several. It knows no
//! meaning of a column.

use crate::Error;
use crate::columns::Input;
use crate::import::Plan;
use crate::jq::{Jq, json, val};
use crate::mapping::{Column, Mapping, Origin, Section};
use crate::sources::Source;
use crate::times::time;
use receipts_analytics::table::{Cursor, Row, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::path::Path;

/// A position between two rows after the mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The position in the source.
    #[serde(flatten)]
    pub(crate) source: Cursor,
    /// The number of rows already taken from the next source row.
    #[serde(default)]
    pub(crate) within: u64,
}

/// One row after the mapping: its values by our names, or the reason why it has none.
pub(crate) struct Item {
    pub(crate) values: Result<Map<String, Value>, String>,
    /// The source row.
    pub(crate) source: Row,
}

/// A table with its mapping.
pub(crate) struct Feed {
    table: Table,
    mapped: Option<Mapped>,
    /// The rest of the current source row.
    items: VecDeque<Item>,
    position: Position,
    skip: u64,
    /// Rows within the current source row that `where` leaves out.
    left_out: u64,
    read_bytes: u64,
    counts: FeedCounts,
}

/// Counts since the last [`Feed::counted`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FeedCounts {
    /// Source rows.
    pub(crate) rows: u64,
    /// Rows that `where` leaves out.
    pub(crate) left_out: u64,
    /// Bytes of the source.
    pub(crate) bytes: u64,
}

impl Feed {
    /// Opens a table of a plan, and continues it at `position`.
    pub(crate) fn open(plan: &Plan, source: &Source, position: Position) -> Result<Self, Error> {
        let table = Table::open(source.files.clone(), source.options.clone(), position.source)?;
        let mapped = plan.mapping.as_ref().and_then(|mapping| Mapped::compile(mapping, source.input, plan));
        let (skip, read_bytes) = (position.within, table.read_bytes());
        Ok(Self {
            read_bytes,
            table,
            mapped,
            items: VecDeque::new(),
            position,
            skip,
            left_out: 0,
            counts: FeedCounts::default(),
        })
    }

    /// Returns the position before the row that [`Self::take`] returns next.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Returns the path of a row's file.
    pub(crate) fn path(&self, row: &Row) -> &Path {
        self.table.path(row)
    }

    /// Returns how many bytes of the files are read.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Returns the counts since the last call: of rows that are consumed as a whole.
    pub(crate) fn counted(&mut self) -> FeedCounts {
        std::mem::take(&mut self.counts)
    }

    /// Returns the next row without consuming it.
    pub(crate) fn peek(&mut self) -> Result<Option<&Item>, Error> {
        while self.items.is_empty() {
            let Some(row) = self.table.take()? else { return Ok(None) };
            let Some(mapped) = &self.mapped else {
                self.items.push_back(Item { values: row.values.clone(), source: row });
                break;
            };
            let (rows, left_out) = match mapped.rows(&row) {
                Ok(found) => found,
                Err(reason) => (vec![Err(reason)], 0),
            };
            self.left_out = left_out;
            let skip = usize::try_from(std::mem::take(&mut self.skip)).unwrap_or(usize::MAX);
            self.items.extend(rows.into_iter().skip(skip).map(|values| Item { values, source: row.clone() }));
            if self.items.is_empty() {
                self.consumed();
            }
        }
        Ok(self.items.front())
    }

    /// Consumes and returns the next row.
    pub(crate) fn take(&mut self) -> Result<Option<Item>, Error> {
        self.peek()?;
        let item = self.items.pop_front();
        if item.is_some() {
            self.position.within += 1;
            if self.items.is_empty() {
                self.consumed();
            }
        }
        Ok(item)
    }

    /// Counts the current source row.
    fn consumed(&mut self) {
        let after = self.table.cursor();
        self.counts.rows += 1;
        self.counts.left_out += std::mem::take(&mut self.left_out);
        let read_bytes = self.table.read_bytes();
        self.counts.bytes += read_bytes.saturating_sub(self.read_bytes);
        self.read_bytes = read_bytes;
        self.position = Position { source: after, within: 0 };
    }
}

/// A compiled section of a mapping file.
pub(crate) struct Mapped {
    rows: Option<Jq>,
    filter: Option<Jq>,
    columns: Vec<(&'static str, Column, Option<Jq>)>,
}

/// Rows by our names, and how many `where` left out.
type Rows = (Vec<Result<Map<String, Value>, String>>, u64);

impl Mapped {
    /// Compiles the section of a table; `None` if the mapping has none. An assignment of `--column`
    /// goes before the mapping's column.
    pub(crate) fn compile(mapping: &Mapping, input: Input, plan: &Plan) -> Option<Self> {
        let Section { rows, filter, columns: held, .. } = mapping.tables.get(&input)?;
        let compile = |code: &String| Jq::compile(code).expect("the mapping was checked");
        let mut held = held.clone();
        for (name, ..) in input.columns() {
            if let Some(theirs) = plan.columns.assigned(input, name) {
                let time = held
                    .get(name)
                    .map_or_else(|| name.ends_with("_ms").then(|| plan.readings.of(input, name)), |held| held.time);
                held.insert(name, Column { from: Origin::Column(theirs.to_owned()), time });
            }
        }
        let columns = held.into_iter().map(|(name, column)| {
            let jq = if let Origin::Jq(code) = &column.from { Some(compile(code)) } else { None };
            (name, column, jq)
        });
        Some(Self {
            rows: rows.as_ref().map(compile),
            filter: filter.as_ref().map(compile),
            columns: columns.collect(),
        })
    }

    /// Rejects a file that lacks a column which the section names. If the column is not required,
    /// one file of the table (`all`) with it is enough.
    pub(crate) fn check(&self, input: Input, path: &Path, held: &[String], all: &[String]) -> Result<(), Error> {
        if self.rows.is_some() {
            return Ok(());
        }
        for (name, column, _) in &self.columns {
            let is_needed = input.columns().iter().any(|(known, is_needed, _)| known == name && *is_needed);
            let among = if is_needed { held } else { all };
            if let Origin::Column(wanted) = &column.from
                && !among.contains(wanted)
            {
                let held = held.join(", ");
                return Err(Error::Column { path: path.to_owned(), wanted: wanted.clone(), name, held });
            }
        }
        Ok(())
    }

    fn rows(&self, row: &Row) -> Result<Rows, String> {
        let values = row.values.clone()?;
        let source = val(&Value::Object(values.clone()))?;
        let found = match &self.rows {
            None => vec![source],
            Some(jq) => jq.run(&source).map_err(|reason| format!("rows: {reason}"))?,
        };
        let (mut rows, mut left_out) = (Vec::new(), 0);
        for found in found {
            match self.counts(&found) {
                Ok(true) => {
                    let whole = if self.rows.is_none() { Ok(values.clone()) } else { object(&found) };
                    rows.push(whole.and_then(|values| self.row(&found, &values)));
                }
                Ok(false) => left_out += 1,
                Err(reason) => rows.push(Err(reason)),
            }
        }
        Ok((rows, left_out))
    }

    /// Returns whether `where` lets a row count.
    fn counts(&self, found: &jaq_json::Val) -> Result<bool, String> {
        let Some(jq) = &self.filter else { return Ok(true) };
        match jq.run(found).map_err(|reason| format!("where: {reason}"))?.as_slice() {
            [jaq_json::Val::Bool(counts)] => Ok(*counts),
            [other] => Err(format!("where: gives {other}, which is not true or false")),
            all => Err(format!("where: gives {} values instead of true or false", all.len())),
        }
    }

    fn row(&self, found: &jaq_json::Val, values: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        let mut row = Map::new();
        for (name, column, jq) in &self.columns {
            let value = match (&column.from, jq) {
                (Origin::Column(theirs), _) => values.get(theirs).cloned(),
                (Origin::Value(value), _) => Some(value.clone()),
                (Origin::Jq(_), None) => None,
                (Origin::Jq(_), Some(jq)) => {
                    match jq.run(found).map_err(|reason| format!("{name}: {reason}"))?.as_slice() {
                        [] => None,
                        [value] => Some(json(value).map_err(|reason| format!("{name}: {reason}"))?),
                        all => return Err(format!("{name}: jq gives {} values instead of one", all.len())),
                    }
                }
            };
            let Some(value) = value.filter(|value| !value.is_null()) else { continue };
            let value = match &column.time {
                None => Some(value),
                Some(reading) => time(&value, reading).map_err(|reason| format!("{name} {reason}"))?.map(Value::from),
            };
            if let Some(value) = value {
                row.insert((*name).to_owned(), value);
            }
        }
        Ok(row)
    }
}

fn object(value: &jaq_json::Val) -> Result<Map<String, Value>, String> {
    match json(value)? {
        Value::Object(values) => Ok(values),
        other => Err(format!("rows: gives {other}, which is not an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Readings, Untimed};
    use std::path::PathBuf;

    #[test]
    fn a_feed_resumes_between_rows_of_one_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen.ndjson");
        let rows = "{\"id\":\"m1\",\"seen\":[\"a\",\"b\",null,\"c\"]}\n{\"id\":\"m2\",\"seen\":[null]}\n{\"id\":\"m3\",\"seen\":[\"d\",\"e\"]}\n";
        std::fs::write(&path, rows).unwrap();
        let text = "[reads]\nrows = '.seen[] as $u | {id, u: $u}'\nwhere = '.u != null'\nconversation_id = { value = \"c\" }\n\
                    message_id = \"id\"\nuser_id = \"u\"\n";
        let plan = Plan {
            sources: vec![Source::new(Input::Reads, &[path], None).unwrap()],
            columns: crate::Columns::default(),
            readings: Readings::default(),
            mapping: Some(Mapping::parse(Path::new("m.toml"), text).unwrap()),
            tenant: "default".to_owned(),
            untimed: Untimed::Unread,
            dry_run: false,
            progress: PathBuf::new(),
            rejects: PathBuf::new(),
            run: String::new(),
            judgement: None,
            log: String::new(),
        };
        let open = |position| Feed::open(&plan, &plan.sources[0], position).unwrap();
        let rest = |feed: &mut Feed| -> Vec<String> {
            let user = |item: Item| item.values.unwrap()["user_id"].as_str().unwrap().to_owned();
            std::iter::from_fn(|| feed.take().unwrap().map(user)).collect()
        };
        assert_eq!(rest(&mut open(Position::default())), ["a", "b", "c", "d", "e"]);
        for taken in 0..=5 {
            let mut feed = open(Position::default());
            (0..taken).for_each(|_| _ = feed.take().unwrap());
            _ = feed.peek().unwrap();
            let before = feed.counted();
            let mut resumed = open(feed.position());
            assert_eq!(rest(&mut resumed), ["a", "b", "c", "d", "e"][taken..], "from {taken}");
            let after = resumed.counted();
            assert_eq!((before.rows + after.rows, before.left_out + after.left_out), (3, 2), "from {taken}");
        }
    }
}
