//! Reads the fields of a JSON object from the body of a query, and names every invalid one.
//!
//! Unknown fields are ignored. It must not know what a field is for.

use crate::body::read_body;
use crate::edge::caller::Caller;
use crate::edge::limits::Limits;
use crate::problem::{Code, Item, Problem};
use crate::request::{Format, format, id_problem};
use axum::extract::Request;
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Reads the body of a query, which must be JSON. `split` says how to ask for less at once.
///
/// # Errors
/// The problem to answer with.
pub(crate) async fn read_json(
    request: Request,
    caller: &Caller,
    limits: &Limits,
    split: &str,
) -> Result<Bytes, Problem> {
    check_format(request.headers())?;
    Ok(read_body(request, caller, limits, split).await?.bytes)
}

fn check_format(headers: &HeaderMap) -> Result<(), Problem> {
    match format(headers)? {
        Format::Json => Ok(()),
        Format::Lines => {
            Err(Problem::new(Code::UnsupportedMediaType).item("/Content-Type", "must be application/json"))
        }
    }
}

/// The fields of an object that were not read yet, and what is wrong with the others.
pub(crate) struct Fields {
    fields: Map<String, Value>,
    items: Vec<Item>,
}

impl Fields {
    /// Reads an object. If a field appears twice, the last one counts.
    ///
    /// # Errors
    /// The problem to answer with.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Problem> {
        let body: Value =
            serde_json::from_slice(body).map_err(|error| Problem::invalid("", format!("must be JSON: {error}")))?;
        match body {
            Value::Object(fields) => Ok(Self { fields, items: Vec::new() }),
            _ => Err(Problem::invalid("", "must be an object")),
        }
    }

    /// Takes a field; null is its absence.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Notes that a field is invalid.
    pub(crate) fn refuse(&mut self, pointer: impl Into<String>, detail: &str) {
        self.items.push(Item { pointer: pointer.into(), detail: detail.to_owned().into() });
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.refuse(format!("/{name}"), "must be a string");
                None
            }
        }
    }

    /// Takes an id that may be absent.
    pub(crate) fn optional_id(&mut self, name: &str) -> Option<String> {
        let value = self.take(name)?;
        self.id(value, || format!("/{name}"))
    }

    /// Takes an id. Returns an empty text after noting what is wrong.
    pub(crate) fn required_id(&mut self, name: &str) -> String {
        match self.take(name) {
            Some(value) => self.id(value, || format!("/{name}")).unwrap_or_default(),
            None => {
                self.refuse(format!("/{name}"), "is missing");
                String::new()
            }
        }
    }

    /// Takes an array of 1 to 100 ids.
    pub(crate) fn ids(&mut self, name: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let wrong = match self.take(name) {
            Some(Value::Array(values)) if (1..=IDS_MAX).contains(&values.len()) => {
                for (index, value) in values.into_iter().enumerate() {
                    ids.extend(self.id(value, || format!("/{name}/{index}")));
                }
                return ids;
            }
            Some(Value::Array(_)) => "must hold 1 to 100 ids",
            None => "is missing",
            Some(_) => "must be an array",
        };
        self.refuse(format!("/{name}"), wrong);
        ids
    }

    /// Takes a whole number that may be absent.
    pub(crate) fn whole_number(&mut self, name: &str, range: &RangeInclusive<usize>) -> Option<usize> {
        let value = self.take(name)?;
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(
                format!("/{name}"),
                &format!("must be a whole number from {} to {}", range.start(), range.end()),
            );
        }
        number
    }

    /// # Errors
    /// The problem that names everything that is wrong.
    pub(crate) fn end(self) -> Result<(), Problem> {
        if self.items.is_empty() { Ok(()) } else { Err(Problem::new(Code::Invalid).items(self.items)) }
    }

    /// Returns the id in a value, or `None` after noting what is wrong.
    fn id(&mut self, value: Value, pointer: impl FnOnce() -> String) -> Option<String> {
        let detail = match value {
            Value::String(id) => match id_problem(&id) {
                None => return Some(id),
                Some(detail) => detail,
            },
            _ => "must be a string",
        };
        self.refuse(pointer(), detail);
        None
    }
}

/// The most ids of a query; the contract's number.
pub const IDS_MAX: usize = 100;
