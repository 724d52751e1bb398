//! Adds a field to an event's JSON, for instance to make the copies of a control event. It changes
//! no other byte and checks nothing: [`decode`](crate::decode) does.

use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Returns the copies of a control event that names no partition: one per partition, with its
/// number. All other bytes stay, including unknown fields. `value` is the event as JSON.
///
/// ```
/// use receipts_event::{copies, decode};
///
/// let written: Vec<_> = copies(br#"{"type":"user.erased","user_id":"bob"}"#, 3).collect();
/// assert_eq!(written.len(), 3);
/// assert_eq!(written[2].0, 2);
/// assert_eq!(decode(&written[2].1).unwrap().partition(), Some(2));
/// ```
pub fn copies(value: &[u8], partition_count: u32) -> impl Iterator<Item = (u32, Vec<u8>)> + '_ {
    (0..partition_count).map(move |partition| (partition, with_field(value, "partition", &partition.to_string())))
}

/// Returns true if a JSON object has a field that is not `null`.
pub fn names_field(object: &[u8], field: &str) -> bool {
    fields(object).get(field).is_some_and(|value| value.get() != "null")
}

/// Returns a JSON object with an added field: it replaces a `null` of that name, or else becomes
/// the first field. All other bytes stay. `object` is a JSON object with at least one field, `json`
/// the value as JSON.
pub fn with_field(object: &[u8], field: &str, json: &str) -> Vec<u8> {
    let mut with = Vec::with_capacity(object.len() + field.len() + json.len() + 4);
    if let Some(null) = fields(object).get(field) {
        let at = null.get().as_ptr().addr() - object.as_ptr().addr();
        with.extend_from_slice(&object[..at]);
        with.extend_from_slice(json.as_bytes());
        with.extend_from_slice(&object[at + null.get().len()..]);
    } else {
        with.extend_from_slice(format!("{{\"{field}\":{json},").as_bytes());
        with.extend_from_slice(object.trim_ascii_start().strip_prefix(b"{").unwrap_or(object));
    }
    with
}

/// Returns the fields of a JSON object with their raw values.
fn fields(object: &[u8]) -> BTreeMap<Cow<'_, str>, &RawValue> {
    serde_json::from_slice(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    /// INV-COPIES
    #[test]
    fn every_partition_gets_a_copy_with_its_number() {
        for (value, before, after) in [
            (
                r#" {"type":"user.erased","user_id":"u","more":[1]}"#,
                "{",
                r#""type":"user.erased","user_id":"u","more":[1]}"#,
            ),
            (
                r#"{"type":"user.erased","partition" : null,"user_id":"u"}"#,
                r#"{"type":"user.erased","#,
                r#","user_id":"u"}"#,
            ),
        ] {
            let all: Vec<(u32, Vec<u8>)> = copies(value.as_bytes(), 5).collect();
            assert_eq!(all.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
            for (partition, copy) in all {
                assert_eq!(decode(&copy).unwrap().partition(), Some(partition), "{value}");
                let copy = String::from_utf8(copy).unwrap();
                assert!(copy.starts_with(before) && copy.ends_with(after), "{copy}");
            }
        }
    }
}
