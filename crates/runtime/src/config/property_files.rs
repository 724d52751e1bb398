//! Reads properties of the Kafka client from files: one file with many properties, and files with
//! the value of one property each, such as mounted secrets.
//!
//! Never shows a value. Must not know what a property means.

use super::reader::Reader;
use super::sources::PROPERTY_FILES;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Completes `given`, the properties of the settings themselves: a file of its own completes them,
/// and what neither names comes from the file of many.
pub(super) fn completed(
    from: &mut Reader,
    given: BTreeMap<String, String>,
    many: Option<&Path>,
    single: &BTreeMap<String, PathBuf>,
) -> BTreeMap<String, String> {
    let lines = many.map(|path| lines_of(from, path)).unwrap_or_default();
    let mut properties = BTreeMap::new();
    for (name, (line, value)) in lines {
        if let Some(path) = many.filter(|_| !given.contains_key(&name) && !single.contains_key(&name)) {
            from.property_of_file(&name, &value, path, Some(line));
        }
        properties.insert(name, value);
    }
    for (name, path) in single {
        let key = format!("{PROPERTY_FILES}.{name}");
        if given.contains_key(name) {
            from.contradiction(&key, format!("must not be set together with kafka.properties.{name}"));
        }
        match fs::read_to_string(path) {
            // Editors and `echo` end a file with a line break, which no value has.
            Ok(text) => {
                let value = text.trim_end_matches(['\r', '\n']).to_owned();
                from.property_of_file(name, &value, path, None);
                properties.insert(name.clone(), value);
            }
            Err(error) => from.contradiction(&key, format!("{} cannot be read: {error}", path.display())),
        }
    }
    properties.extend(given);
    properties
}

/// Reads the lines `NAME=VALUE` of a file. Empty lines and those that begin with `#` do not count.
/// Returns the number of each line too.
fn lines_of(from: &mut Reader, path: &Path) -> BTreeMap<String, (usize, String)> {
    let mut properties = BTreeMap::new();
    let text = fs::read_to_string(path).unwrap_or_else(|error| {
        from.contradiction("kafka.properties_file", format!("{} cannot be read: {error}", path.display()));
        String::new()
    });
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=').map(|(name, value)| (name.trim_end(), value.trim_start())) {
            Some((name, value)) if !name.is_empty() => {
                if properties.insert(name.to_owned(), (number, value.to_owned())).is_some() {
                    from.mistake_within(path, number, format!("{name} stands twice"));
                }
            }
            _ => from.mistake_within(path, number, "not allowed; allowed: NAME=VALUE, or # and a comment".to_owned()),
        }
    }
    properties
}
