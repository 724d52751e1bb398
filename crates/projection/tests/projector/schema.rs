//! Validates updates against the schemas of `schemas/update/v1`. A field that they do not name is
//! an error here, so that every published field is described. Fetches nothing.

use jsonschema::{Registry, Validator};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(name)
}

/// Reads every JSON file directly in a folder, sorted by name.
fn files(folder: &Path) -> Vec<(String, Value)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).unwrap()).expect("JSON");
    paths.iter().map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), read(path))).collect()
}

/// Returns the validator for any update.
pub(crate) fn validator() -> Validator {
    let mut registry = Registry::new();
    let mut root = None;
    for (name, mut schema) in [files(&folder("event/v1")), files(&folder("update/v1"))].concat() {
        assert!(jsonschema::meta::is_valid(&schema), "{name} is no valid JSON Schema");
        let id = schema["$id"].as_str().unwrap().to_owned();
        if name.ends_with("updated.schema.json") {
            schema["additionalProperties"] = false.into();
            if let Some(reader) = schema.pointer_mut("/properties/newly_read/items") {
                reader["additionalProperties"] = false.into();
            }
        }
        if name == "update.schema.json" {
            root = Some(schema.clone());
        }
        registry = registry.add(id, schema).expect("an id is a URI");
    }
    let registry = registry.prepare().expect("every reference has a target");
    jsonschema::options().with_registry(&registry).build(&root.unwrap()).expect("the schema compiles")
}

/// Asserts that an update matches its schema.
pub(crate) fn check(validator: &Validator, update: &Value) {
    let wrong: Vec<String> = validator.iter_errors(update).map(|e| format!("{e:#?}")).collect();
    assert!(wrong.is_empty(), "{update:#}\n{}", wrong.join("\n"));
}

#[test]
fn every_golden_update_matches_its_schema() {
    let validator = validator();
    let examples = files(&folder("update/v1/examples"));
    assert!(examples.len() >= 10);
    for (_, update) in examples {
        check(&validator, &update);
    }
}
