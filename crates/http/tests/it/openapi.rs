//! Tests that `schemas/openapi.yaml` is the document that the code generates.

use serde_json::Value;
use std::path::Path;
use yaml_serde::Mapping;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/openapi.yaml");

/// Fields that come first, in this order. All others follow by name.
const FIRST: [&str; 9] =
    ["openapi", "info", "tags", "paths", "components", "operationId", "summary", "description", "type"];

/// Returns the document with its fields in a fixed order, independent of the JSON library.
fn ordered(value: &Value) -> yaml_serde::Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields
                .sort_by_key(|(name, _)| (FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()), *name));
            let pairs = fields.into_iter().map(|(name, value)| (name.clone().into(), ordered(value)));
            yaml_serde::Value::Mapping(pairs.collect::<Mapping>())
        }
        Value::Array(values) => yaml_serde::Value::Sequence(values.iter().map(ordered).collect()),
        other => yaml_serde::to_value(other).unwrap(),
    }
}

#[test]
fn file_equals_the_generated_document() {
    let document = receipts_http::openapi_document();
    let text = format!(
        "# Made by the tests of crates/http with RECEIPTS_TEST_WRITE_SCHEMAS=1; changed there, not here.\n{}",
        yaml_serde::to_string(&ordered(&document)).unwrap()
    );
    if std::env::var_os("RECEIPTS_TEST_WRITE_SCHEMAS").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let file = std::fs::read_to_string(Path::new(FILE)).unwrap();
    assert!(file == text, "schemas/openapi.yaml is out of date: run this test with RECEIPTS_TEST_WRITE_SCHEMAS=1");
    let back: Value = yaml_serde::from_str(&file).unwrap();
    assert_eq!(back, document);
}

#[test]
fn every_reference_leads_somewhere() {
    fn visit<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| visit(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| visit(value, found)),
            _ => {}
        }
    }
    let document = receipts_http::openapi_document();
    let mut references = Vec::new();
    visit(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
}

#[test]
fn every_component_is_used_by_some_reference() {
    let document = receipts_http::openapi_document();
    let text = document.to_string();
    for kind in ["schemas", "headers", "parameters", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(text.contains(&format!("\"#/components/{kind}/{name}\"")), "{kind} {name} is not used");
        }
    }
}

#[test]
fn document_is_openapi_3_1() {
    let document = receipts_http::openapi_document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["paths"].as_object().unwrap().len(), 13);
}

#[test]
fn example_token_is_valid() {
    let document = receipts_http::openapi_document();
    let token = &document["components"]["schemas"]["Accepted"]["properties"]["position"]["example"];
    assert_eq!(token.as_str().unwrap().parse(), Ok(receipts_query::Positions::written(3, 41)));
}
