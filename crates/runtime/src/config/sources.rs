//! Reads the three sources of configuration into raw values with their origin. Must not know any
//! key: the reader checks values.

use super::foreign::is_of_a_service;
use super::mistakes::{Mistake, Origin};
use super::{BIN_ENV, COMMIT_ENV, ENV_PREFIX, ENV_PREFIX_TEST, FILE_ENV, FILTER_ENV, OTLP_ENDPOINT_ENV, Override};
use std::collections::BTreeMap;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A key whose entries the user names: `kafka.properties.security.protocol`.
pub(super) const PROPERTIES: &str = "kafka.properties";
/// The same, but the values are files that hold the values: `kafka.property_files.sasl.password`.
pub(super) const PROPERTY_FILES: &str = "kafka.property_files";
/// Another one: `access.tenants.acme.unread`.
pub(super) const TENANTS: &str = "access.tenants";
/// Another one: `auth.scope_map.chat-admin`.
pub(super) const SCOPE_MAP: &str = "auth.scope_map";
/// All keys whose entries the user names.
pub(super) const NAMED_BY_USER: [&str; 4] = [PROPERTIES, PROPERTY_FILES, TENANTS, SCOPE_MAP];

/// A value as its source has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// A text from the environment or a flag, which may be read as any type.
    Typed(String),
    /// A string of the file.
    Text(String),
    /// An integer of the file, with its sign; `None` if it exceeds 64 bits.
    Integer(Option<i64>),
    /// A number of the file with a fraction or an exponent, as it is written there.
    Fraction(String),
    /// A boolean of the file.
    Boolean(bool),
    /// A list of the file; `None` if not all items are strings.
    List(Option<Vec<String>>),
    /// A value of a type that no key takes; the text names the type.
    Other(&'static str),
}

/// A value and its origin.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// All values of all sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The winning value of each key.
    pub(super) entries: BTreeMap<String, Entry>,
    /// Every key of every source: an unknown key is a mistake even if another source wins.
    pub(super) seen: Vec<(String, Origin)>,
    /// Mistakes that concern a whole source.
    pub(super) mistakes: Vec<Mistake>,
    /// Variables with our prefix that are none of ours.
    pub(super) foreign: Vec<String>,
}

impl Sources {
    pub(super) fn add_file(&mut self, path: &Path) {
        let whole = |problem: String, line| Mistake {
            origin: Origin::File { path: path.to_owned(), line },
            key: None,
            problem,
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.mistakes.push(whole(format!("cannot be read: {error}"), None)),
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        let wrong = errors.iter().map(|error| {
            let line = error.span().map(|span| line_of(&text, span.start));
            whole(format!("not valid TOML: {}", error.message()), line)
        });
        self.mistakes.extend(wrong);
        if errors.is_empty() {
            self.add_table(path, &text, "", table.get_ref());
        }
    }

    fn add_table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            if let DeValue::Table(nested) = value.get_ref() {
                self.add_table(path, text, &key, nested);
            } else {
                let line = Some(line_of(text, name.span().start));
                self.set(key, raw_of(value.get_ref()), Origin::File { path: path.to_owned(), line });
            }
        }
    }

    pub(super) fn add_env(&mut self, env: impl IntoIterator<Item = (String, String)>) {
        let mut ours: Vec<_> = env
            .into_iter()
            .filter(|(name, value)| {
                let is_ours = name.starts_with(ENV_PREFIX)
                    && !name.starts_with(ENV_PREFIX_TEST)
                    && ![FILE_ENV, COMMIT_ENV, BIN_ENV].contains(&name.as_str());
                (is_ours || name == OTLP_ENDPOINT_ENV) && !value.is_empty()
            })
            .collect();
        // Other names of a key come first, so that its full name wins over them.
        let is_full = |name: &str| ![FILTER_ENV, OTLP_ENDPOINT_ENV].contains(&name);
        ours.sort_by(|(a, _), (b, _)| (is_full(a), a).cmp(&(is_full(b), b)));
        for (name, value) in ours {
            let key = match name.as_str() {
                FILTER_ENV => "telemetry.log_filter".to_owned(),
                OTLP_ENDPOINT_ENV => "telemetry.otlp_endpoint".to_owned(),
                _ if is_of_a_service(&name[ENV_PREFIX.len()..], &value) => {
                    self.foreign.push(name);
                    continue;
                }
                _ => name[ENV_PREFIX.len()..].to_lowercase().replace("__", "."),
            };
            self.set_typed(key, value, Origin::Env(name));
        }
    }

    pub(super) fn add_flags(&mut self, flags: &[Override]) {
        for Override { key, value, flag } in flags {
            self.set_typed(key.clone(), value.clone(), Origin::Flag(flag.clone()));
        }
    }

    /// Sets a key to a text from the environment or a flag. If the user names its entries, the text
    /// holds them: `NAME=VALUE`, several separated by commas.
    fn set_typed(&mut self, key: String, value: String, origin: Origin) {
        if !NAMED_BY_USER.contains(&key.as_str()) {
            return self.set(key, Raw::Typed(value), origin);
        }
        for entry in entries_of(&value) {
            match entry.split_once('=') {
                Some((name, value)) => {
                    self.set(format!("{key}.{}", name.trim()), Raw::Typed(value.to_owned()), origin.clone());
                }
                // The value may be a password, so the message does not show it.
                None => {
                    let problem = "not allowed; allowed: NAME=VALUE, several separated by commas; a comma within a value \
                                   is written \\,";
                    self.mistakes.push(Mistake {
                        origin: origin.clone(),
                        key: Some(key.clone()),
                        problem: problem.into(),
                    });
                }
            }
        }
    }

    fn set(&mut self, key: String, raw: Raw, origin: Origin) {
        self.seen.push((key.clone(), origin.clone()));
        self.entries.insert(key, Entry { raw, origin });
    }
}

/// Splits a text at its commas, except those behind a backslash, which stand for themselves.
fn entries_of(text: &str) -> Vec<String> {
    let mut entries = vec![String::new()];
    let mut parts = text.split(',').peekable();
    while let Some(part) = parts.next() {
        let last = entries.last_mut().expect("there is one");
        match part.strip_suffix('\\').filter(|_| parts.peek().is_some()) {
            Some(part) => last.extend([part, ","]),
            None => {
                last.push_str(part);
                if parts.peek().is_some() {
                    entries.push(String::new());
                }
            }
        }
    }
    entries
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => Raw::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok()),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => {
            let text = |item: &DeValue<'_>| item.as_str().map(str::to_owned);
            Raw::List(items.iter().map(|item| text(item.get_ref())).collect())
        }
        DeValue::Float(number) => Raw::Fraction(number.as_str().to_owned()),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a section"),
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count() + 1
}
