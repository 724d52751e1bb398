//! Reads keys out of the sources, one call per key. The call is the key's only definition, with
//! default, allowed values and meaning. Must not stop at a mistake: it notes a wrong value and
//! continues with the default, so that all mistakes are reported at once.

use super::in_force::{InForce, hidden};
use super::mistakes::{Mistake, Mistakes, Origin, nearest};
use super::schema::Form;
use super::sources::{Entry, NAMED_BY_USER, PROPERTIES, Raw, Sources, TENANTS};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

/// The reference of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// Its name in the file: `http.listen`.
    pub key: &'static str,
    /// Its meaning, in one sentence.
    pub help: &'static str,
    /// Its default as a user would write it; `None` if the key is not set by default.
    pub default: Option<String>,
    /// The allowed values.
    pub allowed: String,
    /// The same as a form, for the JSON Schema.
    pub(super) form: Form,
}

/// The allowed values of a boolean, by which its flag is known.
pub(super) const BOOLEAN: &str = "true, false";

/// Reads a boolean that was typed into the environment or after a flag.
pub(super) fn boolean_of(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a number as TOML writes it, with `_` between digits.
fn number_in<T: FromStr>(text: &str) -> Option<T> {
    text.trim().replace('_', "").parse().ok()
}

fn boolean_in(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Boolean(value) => Some(*value),
        Raw::Typed(text) => boolean_of(text),
        _ => None,
    }
}

/// A rule that a text must keep.
pub(super) struct Rule {
    /// The rule in words, shown after "allowed: ".
    pub(super) allowed: &'static str,
    /// The rule in code.
    pub(super) holds: fn(&str) -> bool,
    /// A regular expression (ECMA 262) that no allowed text contradicts, for editors.
    pub(super) pattern: Option<&'static str>,
}

/// Reads keys and collects mistakes.
pub(super) struct Reader {
    sources: Sources,
    docs: Vec<KeyDoc>,
    mistakes: Vec<Mistake>,
    in_force: Vec<InForce>,
}

impl Reader {
    pub(super) fn new(mut sources: Sources) -> Self {
        let mistakes = std::mem::take(&mut sources.mistakes);
        Self { sources, docs: Vec::new(), mistakes, in_force: Vec::new() }
    }

    /// Reads a whole number within `allowed`.
    ///
    /// # Panics
    /// If `T` cannot hold all allowed numbers, or the default is not allowed: both are mistakes in
    /// this code.
    pub(super) fn integer<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        help: &'static str,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> T {
        assert!(allowed.contains(&default), "{key}: its default is not allowed");
        let read = self.read_integer(key, help, Some(default), allowed);
        T::try_from(read.unwrap_or(default))
            .unwrap_or_else(|_| panic!("{key}: its type cannot hold all allowed numbers"))
    }

    /// As [`Reader::integer`], but absent by default.
    pub(super) fn optional_integer<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        help: &'static str,
        allowed: RangeInclusive<u64>,
    ) -> Option<T> {
        let read = self.read_integer(key, help, None, allowed)?;
        Some(T::try_from(read).unwrap_or_else(|_| panic!("{key}: its type cannot hold all allowed numbers")))
    }

    fn read_integer(
        &mut self,
        key: &'static str,
        help: &'static str,
        default: Option<u64>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let form = Form::Integer(range.clone());
        self.read(key, help, default.map(|value| value.to_string()), allowed, form, |raw| {
            let value = match raw {
                Raw::Typed(text) => number_in(text)?,
                Raw::Integer(value) => u64::try_from((*value)?).ok()?,
                _ => return None,
            };
            range.contains(&value).then_some(value)
        })
    }

    /// Reads a number from 0 to 1.
    pub(super) fn share(&mut self, key: &'static str, help: &'static str, default: f64) -> f64 {
        let read =
            self.read(key, help, Some(default.to_string()), "a number from 0 to 1".to_owned(), Form::Share, |raw| {
                let value: f64 = match raw {
                    Raw::Typed(text) | Raw::Fraction(text) => number_in(text)?,
                    Raw::Integer(value) => (*value)? as f64,
                    _ => return None,
                };
                (0.0..=1.0).contains(&value).then_some(value)
            });
        read.unwrap_or(default)
    }

    /// Reads true or false; outside the file also on/off, yes/no and 1/0.
    pub(super) fn boolean(&mut self, key: &'static str, help: &'static str, default: bool) -> bool {
        let read = self.read(key, help, Some(default.to_string()), BOOLEAN.to_owned(), Form::Boolean, boolean_in);
        read.unwrap_or(default)
    }

    /// Reads a flag that has another default, which the caller works out.
    pub(super) fn optional_boolean(&mut self, key: &'static str, help: &'static str) -> Option<bool> {
        self.read(key, help, None, BOOLEAN.to_owned(), Form::Boolean, boolean_in)
    }

    /// Reads a text that keeps a rule.
    pub(super) fn text(&mut self, key: &'static str, help: &'static str, default: &str, rule: &Rule) -> String {
        let (allowed, form) = (rule.allowed.to_owned(), Form::Text(rule.pattern));
        let read = self.read(key, help, Some(default.to_owned()), allowed, form, |raw| text_of(raw, rule));
        read.unwrap_or_else(|| default.to_owned())
    }

    /// As [`Reader::text`], but absent by default.
    pub(super) fn optional_text(&mut self, key: &'static str, help: &'static str, rule: &Rule) -> Option<String> {
        self.read(key, help, None, rule.allowed.to_owned(), Form::Text(rule.pattern), |raw| text_of(raw, rule))
    }

    /// Reads a list of texts that keep a rule each; empty by default. Outside the file, commas
    /// separate them.
    pub(super) fn list(&mut self, key: &'static str, help: &'static str, rule: &Rule) -> Vec<String> {
        self.list_or(key, help, &[], rule)
    }

    /// As [`Reader::list`], but with a default.
    pub(super) fn list_or(
        &mut self,
        key: &'static str,
        help: &'static str,
        default: &[&str],
        rule: &Rule,
    ) -> Vec<String> {
        let shown = Some(default.join(",")).filter(|default| !default.is_empty());
        let (allowed, form) = (format!("a list, each {}", rule.allowed), Form::List(rule.pattern));
        let read = self.read(key, help, shown, allowed, form, |raw| {
            let items = items_of(raw)?;
            items.iter().all(|item| (rule.holds)(item)).then_some(items)
        });
        read.unwrap_or_else(|| default.iter().map(|item| (*item).to_owned()).collect())
    }

    /// Reads an address to listen at. `localhost` is 127.0.0.1; with port 0 the system chooses a
    /// port.
    pub(super) fn address(&mut self, key: &'static str, help: &'static str, default: SocketAddr) -> SocketAddr {
        self.read(key, help, Some(default.to_string()), ADDRESS.to_owned(), Form::Address, address_of)
            .unwrap_or(default)
    }

    /// As [`Reader::address`], but absent by default.
    pub(super) fn optional_address(&mut self, key: &'static str, help: &'static str) -> Option<SocketAddr> {
        self.read(key, help, None, ADDRESS.to_owned(), Form::Address, address_of)
    }

    /// Reads one of a few names; the first is the default.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, help: &'static str, names: &[(&str, T)]) -> T {
        let allowed: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let form = Form::Choice(allowed.iter().map(|name| (*name).to_owned()).collect());
        let read = self.read(key, help, Some(names[0].0.to_owned()), allowed.join(", "), form, |raw| match raw {
            Raw::Typed(text) | Raw::Text(text) => {
                names.iter().find(|(name, _)| *name == text.as_str()).map(|(_, value)| *value)
            }
            _ => None,
        });
        read.unwrap_or(names[0].1)
    }

    /// Reads names and values that the user chooses, below a key. Never shows their values.
    pub(super) fn properties(&mut self, all: &'static str, help: &'static str) -> BTreeMap<String, String> {
        let allowed = "NAME=VALUE, several separated by commas; a comma within a value is written `\\,`".to_owned();
        self.docs.push(KeyDoc { key: all, help, default: None, allowed, form: Form::Properties });
        let prefix = format!("{all}.");
        let mut properties = BTreeMap::new();
        let mut in_force = Vec::new();
        for (key, Entry { raw, origin }) in &self.sources.entries {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            let value = match raw {
                Raw::Typed(text) | Raw::Text(text) => Some(text.clone()),
                Raw::Integer(value) => value.map(|value| value.to_string()),
                Raw::Boolean(value) => Some(value.to_string()),
                Raw::Fraction(_) | Raw::List(_) | Raw::Other(_) => None,
            };
            match value {
                Some(value) if !name.is_empty() => {
                    let shown = if all == PROPERTIES { InForce::property(name, &value) } else { value.as_str().into() };
                    in_force.push(InForce::set(key, shown, origin));
                    properties.insert(name.to_owned(), value);
                }
                _ => self.mistakes.push(Mistake {
                    origin: origin.clone(),
                    key: Some(key.clone()),
                    problem: "not allowed; allowed: a text, a whole number or a boolean".to_owned(),
                }),
            }
        }
        self.in_force.append(&mut in_force);
        properties
    }

    /// Notes a property of the Kafka client that a file holds.
    pub(super) fn property_of_file(&mut self, name: &str, value: &str, path: &Path, line: Option<usize>) {
        let origin = Origin::File { path: path.to_owned(), line };
        let value = InForce::property(name, value);
        self.in_force.push(InForce::set(&format!("{PROPERTIES}.{name}"), value, &origin));
    }

    /// Reads rules of single tenants, below [`TENANTS`]: one of a few names for each `TENANT.ITEM`.
    /// A tenant may contain dots; the item follows the last one.
    pub(super) fn by_tenant<T: Copy>(
        &mut self,
        help: &'static str,
        items: &[&'static str],
        names: &[(&str, T)],
    ) -> BTreeMap<String, BTreeMap<&'static str, T>> {
        let values: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let keys: Vec<String> = items.iter().map(|item| format!("TENANT.{item}")).collect();
        let (values, keys) = (values.join(", "), keys.join(", "));
        let allowed = format!("{keys}, each {values}");
        let form =
            Form::Tenants { items: items.to_vec(), values: names.iter().map(|(name, _)| (*name).to_owned()).collect() };
        self.docs.push(KeyDoc { key: TENANTS, help, default: None, allowed, form });
        let prefix = format!("{TENANTS}.");
        let mut tenants: BTreeMap<String, BTreeMap<&'static str, T>> = BTreeMap::new();
        for (key, Entry { raw, origin }) in &self.sources.entries {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let rule = rest.rsplit_once('.').and_then(|(tenant, item)| {
                Some((tenant, *items.iter().find(|known| **known == item)?)).filter(|_| is_tenant(tenant))
            });
            let value = match raw {
                Raw::Typed(text) | Raw::Text(text) => names.iter().find(|(name, _)| name == text),
                _ => None,
            };
            let problem = match (rule, value) {
                (Some((tenant, item)), Some((name, value))) => {
                    self.in_force.push(InForce::set(key, (*name).into(), origin));
                    tenants.entry(tenant.to_owned()).or_default().insert(item, *value);
                    continue;
                }
                (Some(_), None) => format!("{} is not allowed for {rest}; allowed: {values}", shown(raw)),
                (None, _) => {
                    format!("{rest:?} is not allowed; allowed: {keys}; a tenant has 1 to 128 bytes and no slash")
                }
            };
            self.mistakes.push(Mistake { origin: origin.clone(), key: Some(key.clone()), problem });
        }
        tenants
    }

    /// Reads names that the user chooses, below a key, each with one or several of a few values:
    /// a list, or a text with spaces between them.
    pub(super) fn named_lists<T: Copy>(
        &mut self,
        all: &'static str,
        help: &'static str,
        values: &[(&str, T)],
    ) -> BTreeMap<String, Vec<T>> {
        let allowed = values.iter().map(|(value, _)| *value).collect::<Vec<_>>().join(", ");
        self.docs.push(KeyDoc {
            key: all,
            help,
            default: None,
            allowed: format!("NAME=VALUE, each VALUE of {allowed}"),
            form: Form::NamedLists(values.iter().map(|(value, _)| (*value).to_owned()).collect()),
        });
        let prefix = format!("{all}.");
        let mut lists = BTreeMap::new();
        for (key, Entry { raw, origin }) in &self.sources.entries {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            let words: Vec<&str> = match raw {
                Raw::Typed(text) | Raw::Text(text) => text.split_whitespace().collect(),
                Raw::List(Some(items)) => items.iter().map(String::as_str).collect(),
                _ => Vec::new(),
            };
            let value = |word: &&str| values.iter().find(|(value, _)| value == word).map(|(_, value)| *value);
            match words.iter().map(value).collect::<Option<Vec<T>>>() {
                Some(list) if !list.is_empty() && !name.is_empty() => {
                    self.in_force.push(InForce::set(key, Value::from(words.clone()), origin));
                    lists.insert(name.to_owned(), list);
                }
                _ => self.mistakes.push(Mistake {
                    origin: origin.clone(),
                    key: Some(key.clone()),
                    problem: format!("{} is not allowed; allowed: one or several of {allowed}", shown(raw)),
                }),
            }
        }
        lists
    }

    /// Notes that an allowed value contradicts another one.
    pub(super) fn contradiction(&mut self, key: &str, problem: String) {
        let origin = self.sources.entries.get(key).map_or(Origin::Default, |entry| entry.origin.clone());
        self.mistakes.push(Mistake { origin, key: Some(key.to_owned()), problem });
    }

    /// Notes a mistake within a file that a value names.
    pub(super) fn mistake_within(&mut self, path: &Path, line: usize, problem: String) {
        let origin = Origin::File { path: path.to_owned(), line: Some(line) };
        self.mistakes.push(Mistake { origin, key: None, problem });
    }

    /// Ends the reading. Each key of a source that no call has read is unknown.
    ///
    /// # Errors
    /// All mistakes, if there are any.
    pub(super) fn finish(self) -> Result<(), Mistakes> {
        let Self { sources, docs, mistakes, .. } = self;
        let known = || docs.iter().map(|doc| doc.key);
        let is_known = |key: &str| {
            let is_below = |name: &&str| key.strip_prefix(*name).is_some_and(|rest| rest.starts_with('.'));
            known().any(|name| name == key && !NAMED_BY_USER.contains(&name)) || NAMED_BY_USER.iter().any(is_below)
        };
        let (mut all, values): (Vec<_>, Vec<_>) = mistakes.into_iter().partition(|mistake| mistake.key.is_none());
        for (key, origin) in sources.seen.into_iter().filter(|(key, _)| !is_known(key)) {
            let problem = if NAMED_BY_USER.contains(&key.as_str()) {
                format!("not allowed; allowed: a section [{key}] of names and values")
            } else {
                match nearest(&key, known()).map(|name| spelled_for(&origin, name)) {
                    Some(name) => format!("unknown key; did you mean {name}?"),
                    None => "unknown key; docs/configuration.md lists all".to_owned(),
                }
            };
            all.push(Mistake { origin, key: Some(key), problem });
        }
        all.extend(values);
        Mistakes::none(all)
    }

    /// Returns the variables that were ignored because Kubernetes sets them for a Service.
    pub(super) fn foreign(&self) -> Vec<String> {
        self.sources.foreign.clone()
    }

    /// Returns all settings in force, in the order of their keys.
    pub(super) fn in_force(&mut self) -> Vec<InForce> {
        let unset = self.docs.iter().filter(|doc| NAMED_BY_USER.contains(&doc.key));
        let is_below = |key: &str, all: &str| key.strip_prefix(all).is_some_and(|rest| rest.starts_with('.'));
        let unset = unset.filter(|doc| !self.in_force.iter().any(|setting| is_below(&setting.key, doc.key)));
        let unset: Vec<InForce> = unset.map(|doc| InForce::unset(doc.key)).collect();
        let mut all = std::mem::take(&mut self.in_force);
        all.extend(unset);
        let order = |key: &str| self.docs.iter().position(|doc| doc.key == key || is_below(key, doc.key));
        all.sort_by_cached_key(|setting| (order(&setting.key), setting.key.clone()));
        all
    }

    /// Returns the reference of all keys that were read.
    pub(super) fn into_docs(self) -> Vec<KeyDoc> {
        self.docs
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        help: &'static str,
        default: Option<String>,
        allowed: String,
        form: Form,
        parse: impl FnOnce(&Raw) -> Option<T>,
    ) -> Option<T> {
        debug_assert!(self.docs.iter().all(|doc| doc.key != key), "{key} is read twice");
        let entry = self.sources.entries.get(key);
        let value = entry.and_then(|entry| parse(&entry.raw));
        let given = entry.filter(|_| value.is_some());
        let typed = default.as_ref().map(|text| Raw::Typed(text.clone()));
        let default_value = typed.and_then(|raw| json_of(&form, &raw));
        let in_force = given.map_or(default_value.clone(), |entry| json_of(&form, &entry.raw));
        let origin = given.map_or(Origin::Default, |entry| entry.origin.clone());
        let is_default = in_force == default_value;
        self.in_force.push(InForce { key: key.to_owned(), value: in_force.map(hidden), origin, is_default });
        if let (Some(Entry { raw, origin }), None) = (entry, &value) {
            let problem = format!("{} is not allowed; allowed: {allowed}", shown(raw));
            self.mistakes.push(Mistake { origin: origin.clone(), key: Some(key.to_owned()), problem });
        }
        self.docs.push(KeyDoc { key, help, default, allowed, form });
        value
    }
}

/// Returns the items of a list. Outside the file, commas separate them.
fn items_of(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::Typed(text) => Some(text.split(',').map(|item| item.trim().to_owned()).collect()),
        Raw::Text(text) => Some(vec![text.clone()]),
        Raw::List(items) => items.clone(),
        _ => None,
    }
}

/// Returns an allowed value as JSON.
fn json_of(form: &Form, raw: &Raw) -> Option<Value> {
    match (form, raw) {
        (Form::Integer(_), Raw::Typed(text)) => number_in::<u64>(text).map(Value::from),
        (Form::Boolean, Raw::Typed(text)) => boolean_of(text).map(Value::from),
        (Form::Share, Raw::Typed(text) | Raw::Fraction(text)) => number_in::<f64>(text).map(Value::from),
        (Form::List(_), raw) => items_of(raw).map(Value::from),
        (_, Raw::Integer(value)) => value.map(Value::from),
        (_, Raw::Boolean(value)) => Some(Value::from(*value)),
        (_, Raw::Typed(text) | Raw::Text(text)) => Some(Value::from(text.as_str())),
        _ => None,
    }
}

/// Returns whether a text is a tenant by the rules of events.
pub(super) fn is_tenant(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.contains('/')
}

/// The allowed addresses, in words.
const ADDRESS: &str = "IP:PORT, [IPV6]:PORT or localhost:PORT";

fn address_of(raw: &Raw) -> Option<SocketAddr> {
    let (Raw::Typed(text) | Raw::Text(text)) = raw else { return None };
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().ok()
}

fn text_of(raw: &Raw, rule: &Rule) -> Option<String> {
    match raw {
        Raw::Typed(text) | Raw::Text(text) if (rule.holds)(text) => Some(text.clone()),
        _ => None,
    }
}

fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Typed(text) | Raw::Text(text) => format!("{text:?}"),
        Raw::Integer(Some(value)) => value.to_string(),
        Raw::Integer(None) => "an integer beyond 64 bits".to_owned(),
        Raw::Boolean(value) => value.to_string(),
        Raw::List(Some(items)) => format!("{items:?}"),
        Raw::List(None) => "a list whose items are not all texts".to_owned(),
        Raw::Fraction(text) => text.clone(),
        Raw::Other(what) => (*what).to_owned(),
    }
}

/// Returns the name of a key's environment variable.
pub(super) fn env_name(key: &str) -> String {
    format!("{}{}", super::ENV_PREFIX, key.replace('.', "__").to_uppercase())
}

fn spelled_for(origin: &Origin, key: &str) -> String {
    if matches!(origin, Origin::Env(_)) { env_name(key) } else { key.to_owned() }
}
