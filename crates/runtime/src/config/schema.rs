//! The JSON Schema of the configuration file, for editors. Made from the same calls as the settings
//! themselves; it may allow more than they do, never less.

use super::reader::KeyDoc;
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// The name of the schema, under which editors may look for it.
const ID: &str = "https://receipts.example/schemas/config/v1.schema.json";

/// The form of a value in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// A whole number.
    Integer(RangeInclusive<u64>),
    /// A number from 0 to 1.
    Share,
    /// True or false.
    Boolean,
    /// A text that matches a pattern.
    Text(Option<&'static str>),
    /// Texts that match a pattern each, or one of them.
    List(Option<&'static str>),
    /// An address to listen at.
    Address,
    /// One of a few texts.
    Choice(Vec<String>),
    /// Names that the user chooses, with texts, numbers or booleans.
    Properties,
    /// Names of tenants, with one of a few texts for each item.
    Tenants {
        /// The items.
        items: Vec<&'static str>,
        /// The texts.
        values: Vec<String>,
    },
    /// Names that the user chooses, with one or several of a few texts.
    NamedLists(Vec<String>),
}

impl Form {
    fn schema(&self, default: Option<&str>) -> Value {
        let text = |pattern: Option<&str>| match pattern {
            Some(pattern) => json!({"type": "string", "pattern": pattern}),
            None => json!({"type": "string"}),
        };
        let mut schema = match self {
            Self::Integer(range) => json!({"type": "integer", "minimum": range.start(), "maximum": range.end()}),
            Self::Share => json!({"type": "number", "minimum": 0, "maximum": 1}),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Text(pattern) => text(*pattern),
            Self::List(pattern) => {
                let item = text(*pattern);
                json!({"anyOf": [{"type": "array", "items": item}, item]})
            }
            Self::Address => text(Some(r"^(localhost|[0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+$")),
            Self::Choice(names) => json!({"type": "string", "enum": names}),
            Self::Properties => {
                nested("property", ["string", "integer", "boolean"].map(|name| json!({"type": name})).to_vec())
            }
            Self::Tenants { items, values } => {
                let item = json!({"type": "string", "enum": values});
                let items: Map<String, Value> = items.iter().map(|name| ((*name).to_owned(), item.clone())).collect();
                // A dot in the name of a tenant may make a section of its own.
                let tenant = json!({"type": "object", "properties": items,
                                    "additionalProperties": {"$ref": "#/definitions/tenant"}});
                json!({"type": "object", "additionalProperties": {"$ref": "#/definitions/tenant"}, "of": ["tenant", tenant]})
            }
            Self::NamedLists(values) => {
                let word = json!({"type": "string", "enum": values});
                // A text may hold several words.
                let text = json!({"type": "string", "pattern": format!(r"^\s*({0})(\s+({0}))*\s*$", values.join("|"))});
                nested("scopes", vec![text, json!({"type": "array", "items": word, "minItems": 1})])
            }
        };
        let default = default.map(|text| match self {
            Self::Integer(_) | Self::Share | Self::Boolean => serde_json::from_str(text).unwrap_or_default(),
            Self::List(_) => Value::from(text.split(',').collect::<Vec<_>>()),
            _ => Value::from(text),
        });
        if let (Some(default), Some(schema)) = (default, schema.as_object_mut()) {
            schema.insert("default".to_owned(), default);
        }
        schema
    }
}

/// A section whose names the user chooses: a dot in a name may make a section of its own.
fn nested(definition: &str, mut values: Vec<Value>) -> Value {
    let reference = json!({"$ref": format!("#/definitions/{definition}")});
    values.push(json!({"type": "object", "additionalProperties": reference}));
    json!({"type": "object", "additionalProperties": reference, "of": [definition, {"anyOf": values}]})
}

/// Returns the schema. Draft 7 is the newest that editors of TOML know.
pub(super) fn schema(docs: &[KeyDoc]) -> Value {
    let mut root = Map::new();
    let mut definitions = Map::new();
    for doc in docs {
        let mut schema = doc.form.schema(doc.default.as_deref());
        if let Some(fields) = schema.as_object_mut() {
            if let Some(Value::Array(named)) = fields.remove("of")
                && let [Value::String(name), definition] = &named[..]
            {
                definitions.insert(name.clone(), definition.clone());
            }
            fields.insert("description".to_owned(), doc.help.into());
        }
        match doc.key.split_once('.') {
            None => drop(root.insert(doc.key.to_owned(), schema)),
            Some((section, name)) => {
                let empty = || json!({"type": "object", "additionalProperties": false, "properties": {}});
                let section = root.entry(section).or_insert_with(empty);
                section["properties"][name] = schema;
            }
        }
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": ID,
        "title": "Configuration of receipts",
        "description": "The file that --config or RECEIPTS_CONFIG names. docs/configuration.md describes each key.",
        "type": "object",
        "additionalProperties": false,
        "properties": root,
        "definitions": definitions,
    })
}
