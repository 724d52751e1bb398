//! Every golden file: decoder and schema accept the examples and reject the others, for the stated
//! reason and with the stated pointers.

use std::collections::{BTreeMap, HashMap};

use jsonschema::Validator;
use receipts_event::{Reason, decode};
use serde_json::Value;

use crate::schema;

const TYPES: [&str; 8] = [
    "conversation.configured",
    "members.changed",
    "message.sent",
    "message.read",
    "conversation.read",
    "message.recalled",
    "policy.changed",
    "user.erased",
];

#[test]
fn schema_and_decoder_accept_every_example() {
    let any = schema::validator("event");
    let by_type: HashMap<&str, Validator> = TYPES.into_iter().map(|name| (name, schema::validator(name))).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, text) in schema::json_files(&schema::folder().join("examples")) {
        let value: Value = serde_json::from_str(&text).unwrap();
        if let Err(error) = any.validate(&value) {
            panic!("{file}: {error}");
        }
        let event = decode(text.as_bytes()).unwrap_or_else(|rejection| panic!("{file}: {rejection}"));
        let type_name = event.type_name();
        assert!(file.starts_with(&format!("{type_name}.")), "{file} is a {type_name}");
        for (name, validator) in &by_type {
            assert_eq!(validator.is_valid(&value), *name == type_name, "{file} against {name}");
        }
        let json = event.to_json();
        assert_eq!(decode(&json).as_ref(), Ok(&event), "{file}");
        assert!(any.is_valid(&serde_json::from_slice(&json).unwrap()), "{file}");
        *counts.entry(type_name).or_default() += 1;
    }
    assert_eq!(counts.len(), TYPES.len());
    assert!(counts.values().all(|count| *count >= 3), "{counts:?}");
}

#[test]
fn every_rejected_value_has_the_stated_reason_and_pointers() {
    let any = schema::validator("event");
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, text) in schema::json_files(&schema::folder().join("rejected")) {
        let case: Value = serde_json::from_str(&text).unwrap();
        let raw = match case.get("raw") {
            Some(raw) => raw.as_str().unwrap().to_owned(),
            None => case.get("value").unwrap().to_string(),
        };
        let rejection = decode(raw.as_bytes()).expect_err(&file);
        assert_eq!(rejection.reason.code(), case["reason"].as_str().unwrap(), "{file}: {rejection}");
        let mut found: Vec<&str> = rejection.problems.iter().map(|problem| problem.pointer.as_str()).collect();
        let mut stated: Vec<&str> =
            case["pointers"].as_array().unwrap().iter().map(|pointer| pointer.as_str().unwrap()).collect();
        found.sort_unstable();
        stated.sort_unstable();
        assert_eq!(found, stated, "{file}: {rejection}");

        // A schema never sees a value that is not JSON.
        let is_valid = serde_json::from_str(&raw).is_ok_and(|value: Value| any.is_valid(&value));
        let cannot_say = case.get("schema").is_some_and(|verdict| verdict == "cannot-say");
        assert_eq!(is_valid, cannot_say, "{file}: the schema rejects it unless the file says that it cannot");
        *reasons.entry(rejection.reason.code()).or_default() += 1;
    }
    let by_value =
        [Reason::InvalidJson, Reason::UnknownType, Reason::MissingField, Reason::InvalidField, Reason::LimitExceeded];
    assert!(by_value.iter().all(|reason| reasons.contains_key(reason.code())), "{reasons:?}");
}
