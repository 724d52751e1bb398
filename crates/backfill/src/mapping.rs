//! A mapping file: which values of another system's tables are which of our columns
//! (schemas/backfill/mapping-v1.md). It reports all mistakes of the file at once, and reads no
//! table.

use crate::columns::Input;
use crate::jq::Jq;
use crate::times::{TimeReading, TimeUnit, ZeroTime, zone};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The parts of a table's section that are no columns.
const SECTION_KEYS: [&str; 3] = ["files", "rows", "where"];
const COLUMN_KEYS: [&str; 6] = ["column", "jq", "unit", "value", "zero", "zone"];

/// A mapping file that was read and is free of mistakes.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The whole text, which identifies the mapping.
    pub(crate) text: String,
    pub(crate) tables: BTreeMap<Input, Section>,
}

/// The mapping of one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Section {
    pub(crate) files: Vec<PathBuf>,
    /// jq: the rows within one row.
    pub(crate) rows: Option<String>,
    /// jq: whether a row counts.
    pub(crate) filter: Option<String>,
    pub(crate) columns: BTreeMap<&'static str, Column>,
}

/// The mapping of one column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) from: Origin,
    /// Only for times.
    pub(crate) time: Option<TimeReading>,
}

/// The origin of a column's value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origin {
    Column(String),
    Value(Value),
    Jq(String),
}

/// All mistakes of a mapping file, one a line: file, line, key, problem.
#[derive(Debug)]
pub struct Mistakes {
    path: PathBuf,
    all: Vec<(usize, String)>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mapping file has mistakes:")?;
        self.all.iter().try_for_each(|(line, problem)| write!(f, "\n  {} line {line}, {problem}", self.path.display()))
    }
}

impl std::error::Error for Mistakes {}

impl Mapping {
    /// Reads a mapping from its text; `path` names it in errors.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Mistakes> {
        let mut check = Check { text, all: Vec::new() };
        let mut tables = BTreeMap::new();
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            check.add(at, format!("not valid TOML: {}", error.message()));
        }
        if check.all.is_empty() {
            for (name, value) in table.get_ref() {
                let at = name.span().start;
                let Some(input) = Input::ALL.into_iter().find(|input| input.to_string() == *name.get_ref()) else {
                    check.unknown(at, "", name.get_ref(), Input::ALL.iter().map(Input::to_string));
                    continue;
                };
                match value.get_ref() {
                    DeValue::Table(section) => _ = tables.insert(input, check.section(input, section, at)),
                    _ => check.add(at, format!("key {input}: not a section: write [{input}]")),
                }
            }
            if table.get_ref().is_empty() {
                check.add(0, "the file maps no table: write [members], [messages], [reads] or [marks]".to_owned());
            }
        }
        let mut all = check.all;
        all.sort();
        if all.is_empty() {
            Ok(Self { text: text.to_owned(), tables })
        } else {
            Err(Mistakes { path: path.to_owned(), all })
        }
    }

    /// Returns whether the mapping has a section for a table.
    pub fn maps(&self, input: Input) -> bool {
        self.tables.contains_key(&input)
    }

    /// Returns the files that the mapping names for a table.
    pub fn files(&self, input: Input) -> &[PathBuf] {
        self.tables.get(&input).map_or(&[], |section| &section.files)
    }
}

struct Check<'t> {
    text: &'t str,
    all: Vec<(usize, String)>,
}

impl Check<'_> {
    fn add(&mut self, at: usize, problem: String) {
        let line = self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        self.all.push((line, problem));
    }

    fn unknown(&mut self, at: usize, prefix: &str, name: &str, known: impl Iterator<Item = String>) {
        let mut known: Vec<String> = known.collect();
        known.sort_by_cached_key(|known| strsim::damerau_levenshtein(known, name));
        let near = known.first().filter(|near| strsim::damerau_levenshtein(near, name) <= 1 + name.len() / 4);
        let hint = match near {
            Some(near) => format!("did you mean {prefix}{near}?"),
            None => {
                known.sort();
                format!("choose one of {}", known.join(", "))
            }
        };
        self.add(at, format!("key {prefix}{name}: unknown; {hint}"));
    }

    fn section(&mut self, input: Input, section: &DeTable<'_>, start: usize) -> Section {
        let mut read = Section::default();
        let prefix = format!("{input}.");
        for (name, value) in section {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            let key = format!("{prefix}{name}");
            match name {
                "files" => read.files = self.files(&key, value, at),
                "where" => read.filter = self.jq(&key, value, at),
                "rows" => read.rows = self.jq(&key, value, at),
                name => {
                    let Some((known, ..)) =
                        input.columns().iter().find(|(known, _, other)| *known == name || *other == Some(name))
                    else {
                        let known = input.columns().iter().map(|(known, ..)| *known);
                        self.unknown(at, &prefix, name, known.chain(SECTION_KEYS).map(str::to_owned));
                        continue;
                    };
                    if let Some(column) = self.column(&key, known.ends_with("_ms"), value, at) {
                        read.columns.insert(known, column);
                    }
                }
            }
        }
        let is_there = |name: &&str| section.iter().any(|(key, _)| key.get_ref() == *name);
        for (name, is_needed, other) in input.columns() {
            if *is_needed && !is_there(name) && !other.is_some_and(|other| is_there(&other)) {
                self.add(start, format!("key {prefix}{name}: missing, and every row of {input} needs it"));
            }
        }
        read
    }

    fn files(&mut self, key: &str, value: &Spanned<DeValue<'_>>, at: usize) -> Vec<PathBuf> {
        let texts = match value.get_ref() {
            DeValue::String(text) => Some(vec![PathBuf::from(text.as_ref())]),
            DeValue::Array(list) => {
                list.iter().map(|item| item.get_ref().as_str().map(PathBuf::from)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        texts.unwrap_or_else(|| {
            self.add(at, format!("key {key}: not a path or a list of paths"));
            Vec::new()
        })
    }

    fn jq(&mut self, key: &str, value: &Spanned<DeValue<'_>>, at: usize) -> Option<String> {
        let Some(code) = value.get_ref().as_str() else {
            self.add(at, format!("key {key}: not a text that holds a jq expression"));
            return None;
        };
        match Jq::compile(code) {
            Ok(_) => Some(code.to_owned()),
            Err(problem) => {
                self.add(at, format!("key {key}: not a jq expression: {problem}"));
                None
            }
        }
    }

    fn column(&mut self, key: &str, is_time: bool, value: &Spanned<DeValue<'_>>, at: usize) -> Option<Column> {
        let time = is_time.then(TimeReading::default);
        let parts = match value.get_ref() {
            // The short form of { column = "name" }.
            DeValue::String(name) => return Some(Column { from: Origin::Column(name.to_string()), time }),
            DeValue::Table(parts) => parts,
            _ => {
                self.add(at, format!("key {key}: not a column's name and not a table like {{ jq = \".u._id\" }}"));
                return None;
            }
        };
        let (mut origins, mut time) = (Vec::new(), time);
        for (name, value) in parts {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            let whole = format!("{key}.{name}");
            match name {
                "column" => match value.get_ref().as_str() {
                    Some(name) => origins.push(Origin::Column(name.to_owned())),
                    None => self.add(at, format!("key {whole}: not a column's name")),
                },
                "value" => match constant(value.get_ref()) {
                    Some(value) => origins.push(Origin::Value(value)),
                    None => self.add(at, format!("key {whole}: not a text, whole number, true or false")),
                },
                "jq" => origins.extend(self.jq(&whole, value, at).map(Origin::Jq)),
                "unit" | "zone" | "zero" => {
                    let text = value.get_ref().as_str().unwrap_or_default();
                    match &mut time {
                        None => self.add(at, format!("key {whole}: {key} is no time, so it has no {name}")),
                        Some(time) => {
                            if let Err(problem) = set(time, name, text) {
                                self.add(at, format!("key {whole}: {problem}"));
                            }
                        }
                    }
                }
                name => self.unknown(at, &format!("{key}."), name, COLUMN_KEYS.into_iter().map(str::to_owned)),
            }
        }
        let given =
            ["column", "value", "jq"].into_iter().filter(|name| parts.iter().any(|(key, _)| key.get_ref() == *name));
        if given.count() != 1 {
            self.add(at, format!("key {key}: needs exactly one of column, value and jq"));
        }
        Some(Column { from: origins.pop()?, time })
    }
}

/// Sets a part of how a column's times are read.
fn set(time: &mut TimeReading, name: &str, text: &str) -> Result<(), String> {
    match (name, text) {
        ("unit", text) => time.unit = text.parse::<TimeUnit>()?,
        ("zone", text) => time.zone = Some(zone(text)?),
        (_, "reject") => time.zero = ZeroTime::Reject,
        (_, "unread") => time.zero = ZeroTime::Unread,
        (_, other) => return Err(format!("{other:?} is not reject or unread")),
    }
    Ok(())
}

fn constant(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(text.as_ref().into()),
        DeValue::Boolean(flag) => Some((*flag).into()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = "[reads]\n\
                    conversation_id = \"room\"\n\
                    mesage_id = { jq = \".id\" }\n\
                    user_id = { column = \"u\", jq = \".u\" }\n\
                    read_at_ms = { column = \"ts\", unit = \"m\", zone = \"Berlin\" }\n\
                    hidden = { value = 1.5, unti = \"s\" }\n\
                    where = '.x |'\n\
                    [reeds]\n";
        let sentence = Mapping::parse(Path::new("m.toml"), text).unwrap_err().to_string();
        for part in [
            "m.toml line 1, key reads.message_id: missing",
            "m.toml line 3, key reads.mesage_id: unknown; did you mean reads.message_id?",
            "m.toml line 4, key reads.user_id: needs exactly one of column, value and jq",
            "m.toml line 5, key reads.read_at_ms.unit: ",
            "m.toml line 5, key reads.read_at_ms.zone: ",
            "m.toml line 6, key reads.hidden.value: not a text",
            "m.toml line 6, key reads.hidden.unti: unknown; did you mean reads.hidden.unit?",
            "m.toml line 7, key reads.where: not a jq expression: expected",
            "m.toml line 8, key reeds: unknown; did you mean reads?",
        ] {
            assert!(sentence.contains(part), "{part}: {sentence}");
        }
    }

    #[test]
    fn a_column_has_a_short_form_and_constants() {
        let text = "[marks]\nconversation_id = \"rid\"\nreader_id = { jq = \".u._id\" }\nup_to_sent_at_ms = { column = \"ls\", unit = \"us\" }\nhidden = { value = true }\n";
        let mapping = Mapping::parse(Path::new("m.toml"), text).unwrap();
        let columns = &mapping.tables[&Input::Marks].columns;
        assert_eq!(columns["conversation_id"].from, Origin::Column("rid".to_owned()));
        assert_eq!(columns["user_id"].from, Origin::Jq(".u._id".to_owned()));
        assert_eq!(columns["hidden"].from, Origin::Value(true.into()));
        assert_eq!(columns["up_to_sent_at_ms"].time.unwrap().unit, TimeUnit::Microseconds);
        assert!(Mapping::parse(Path::new("m.toml"), "").is_err() && Mapping::parse(Path::new("m.toml"), "[a").is_err());
    }
}
