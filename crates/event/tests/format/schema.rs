//! Loads and compiles the format's JSON Schemas from the repository, without network access.

#![allow(clippy::disallowed_methods, reason = "golden files are read from the repository; the crate itself does no IO")]

use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::{Registry, Validator};
use serde_json::Value;

/// Returns the folder of the event format.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/event/v1")
}

/// Returns the name (without `.json`) and content of every JSON file in `folder`, sorted by name.
pub(crate) fn json_files(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("the file can be read"))
        })
        .collect();
    files.sort();
    files
}

/// Returns the validator of a schema: `event` for any event, or a `type`.
pub(crate) fn validator(name: &str) -> Validator {
    let mut registry = Registry::new();
    let mut root = None;
    for (file, text) in json_files(&folder()) {
        let schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
        assert!(jsonschema::meta::is_valid(&schema), "{file} is no valid JSON Schema");
        let id = schema["$id"].as_str().expect("a schema has an id").to_owned();
        assert!(id.ends_with(&format!("/{file}.json")), "{file} has the id {id}");
        if file == format!("{name}.schema") {
            root = Some(schema.clone());
        }
        registry = registry.add(id, schema).expect("an id is a URI");
    }
    let registry = registry.prepare().expect("every reference has a target");
    jsonschema::options()
        .with_registry(&registry)
        .build(&root.expect("the schema is there"))
        .expect("the schema compiles")
}
