//! INV-CLIENT: the client's types match `schemas/`: each type has all properties of its schema, and
//! a round trip loses nothing.

use crate::error::Problem;
use crate::event::{self, Event, Kind, UpTo};
use crate::types::{Accepted, Member, MembersPage, ReadMark, ReadMarksAnswer, Receipt, ReceiptsAnswer, Status, Update};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static SCHEMAS: LazyLock<Value> = LazyLock::new(|| {
    let text = std::fs::read_to_string(folder("openapi.yaml")).unwrap();
    let mut document: Value = yaml_serde::from_str(&text).unwrap();
    document["components"]["schemas"].take()
});

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(name)
}

fn schema(name: &str) -> &'static Value {
    let schema = &SCHEMAS[name];
    assert!(schema.is_object(), "schemas/openapi.yaml has no {name}");
    schema
}

/// Returns a value that a schema allows, with all its properties or only the required ones.
fn example(schema: &Value, with_all: bool) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return example(&SCHEMAS[reference.rsplit('/').next().unwrap()], with_all);
    }
    if let Some(some) = schema["enum"].as_array() {
        return some[0].clone();
    }
    let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
    match kind.as_str().unwrap_or_else(|| panic!("no type: {schema}")) {
        "string" => json!("s"),
        "integer" => schema["minimum"].as_u64().map_or(json!(7), |least| json!(least + 400)),
        "boolean" => json!(true),
        "array" => json!([example(&schema["items"], with_all)]),
        "object" => {
            let required = |name: &String| schema["required"].as_array().is_some_and(|r| r.contains(&json!(name)));
            let properties = schema["properties"].as_object().unwrap().iter();
            let some = properties.filter(|(name, _)| with_all || required(name));
            some.map(|(name, property)| (name.clone(), example(property, with_all))).collect::<Map<_, _>>().into()
        }
        other => panic!("{other}"),
    }
}

/// Checks that a round trip keeps the value. A field that the type lacks would disappear.
fn keeps<T: DeserializeOwned + Serialize>(value: &Value) {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
    assert_eq!(&serde_json::to_value(read).unwrap(), value);
}

/// Checks a type against a schema of the document.
fn is<T: DeserializeOwned + Serialize>(name: &str) {
    keeps::<T>(&example(schema(name), true));
    keeps::<T>(&example(schema(name), false));
    if schema(name)["example"].is_object() {
        keeps::<T>(&schema(name)["example"]);
    }
}

/// INV-CLIENT
#[test]
fn answer_types_have_every_property_of_their_schemas() {
    is::<Receipt>("Receipt");
    is::<ReceiptsAnswer>("ReceiptsAnswer");
    is::<ReadMarksAnswer>("ReadMarksAnswer");
    is::<Member>("Member");
    is::<ReadMark>("ReadMark");
    is::<Accepted>("Accepted");
    is::<Problem>("Problem");
    // `next_cursor` is required and may be null.
    is::<MembersPage>("MembersPage");
    let mut last = example(schema("MembersPage"), true);
    last["next_cursor"] = Value::Null;
    keeps::<MembersPage>(&last);
}

/// INV-CLIENT
#[test]
fn enums_know_every_value_of_their_schemas() {
    let mut statuses = schema("Status")["enum"].as_array().unwrap().iter();
    assert!(statuses.all(|name| serde_json::from_value::<Status>(name.clone()).unwrap() != Status::Other));
    schema("Status")["enum"].as_array().unwrap().iter().for_each(keeps::<Status>);
    schema("Kind")["enum"].as_array().unwrap().iter().for_each(keeps::<Kind>);
    assert_eq!(serde_json::from_value::<Status>(json!("new_in_version_9")).unwrap(), Status::Other);
}

/// INV-CLIENT
#[test]
fn every_example_update_round_trips() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder("update/v1/examples")).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        keeps::<Update>(&serde_json::from_slice(&text).unwrap());
        count += 1;
    }
    assert!(count > 5, "{count}");
}

/// INV-CLIENT
#[test]
fn update_types_have_every_property_of_their_schemas() {
    for name in ["receipt.updated", "read_mark.updated"] {
        let text = std::fs::read(folder(&format!("update/v1/{name}.schema.json"))).unwrap();
        let schema: Value = serde_json::from_slice(&text).unwrap();
        let mut update = Map::new();
        for (property, of) in schema["properties"].as_object().unwrap() {
            let value = match (property.as_str(), of["type"].as_str()) {
                ("newly_read", _) => json!([{"user_id": "u", "read_at_ms": 9}]),
                (_, Some("integer")) => json!(9),
                (_, Some("boolean")) => json!(true),
                ("sent_at_ms" | "up_to_sent_at_ms", _) => json!(8),
                _ => of.get("const").or(of["enum"].get(0)).cloned().unwrap_or(json!("s")),
            };
            update.insert(property.clone(), value);
        }
        keeps::<Update>(&update.into());
    }
}

/// INV-CLIENT, INV-FORMAT: the builders can set every property of an event's schema.
#[test]
fn event_builders_set_every_property_of_their_schemas() {
    let all = [
        event::conversation_configured("c", Kind::Group).group_type("t").tenant("a").event_id("e").build(),
        event::members_changed("c").joined(["a"]).left(["b"]).observers(["o"]).tenant("a").event_id("e").build(),
        event::message_sent("c", "m", "s", 1).need_read_receipt().recipients(["r"]).tenant("a").event_id("e").build(),
        event::message_read("c", "r", ["m"]).read_at_ms(2).hidden().tenant("a").event_id("e").build(),
        event::conversation_read("c", "r", UpTo::Message("m".into()))
            .read_at_ms(2)
            .hidden()
            .tenant("a")
            .event_id("e")
            .build(),
        event::conversation_read("c", "r", UpTo::SentAt(1)).build(),
        event::message_recalled("c", "m").tenant("a").event_id("e").build(),
        event::policy_changed([("*", true), ("t", false)]).partition(3).tenant("a").event_id("e").build(),
        event::user_erased("u").partition(3).tenant("a").event_id("e").build(),
    ];
    let mut document = json!({"$ref": "#/components/schemas/event"});
    document["components"]["schemas"] = SCHEMAS.clone();
    let validator = jsonschema::draft202012::new(&document).unwrap();
    let mut said = std::collections::BTreeMap::<String, Vec<String>>::new();
    for json in all.iter().map(Event::to_json) {
        let value: Value = serde_json::from_slice(&json).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{value}: {errors:?}");
        let of_type = said.entry(value["type"].as_str().unwrap().to_owned()).or_default();
        of_type.extend(value.as_object().unwrap().keys().cloned());
    }
    let types = schema("event")["oneOf"].as_array().unwrap();
    assert_eq!(types.len(), said.len());
    for name in types.iter().map(|of| of["$ref"].as_str().unwrap().rsplit('/').next().unwrap()) {
        for property in schema(name)["properties"].as_object().unwrap().keys() {
            assert!(said[name].contains(property), "no builder sets {property} of {name}");
        }
    }
}
