//! Decodes a record's value in one pass and borrows strings if possible. It accepts only values
//! that are certainly right and passes all others to the diagnosis, which decides. It never panics
//! on any bytes.
//!
//! Keeps INV-FORMAT.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::diagnosis::diagnose;
use crate::field::{EventType, Field, Fields};
use crate::flat::{Flat, PolicyEntries, Source};
use crate::rejection::{Findings, Reason, Rejection};
use crate::text::{FieldName, Id, Ids, KindName, Policy, TimeMs, TypeName};
use crate::{Event, Kind};

/// Decodes one event from a record's value and checks all rules that need only the value.
///
/// Strings without JSON escapes are borrowed from `value`. Fields of other event types are ignored,
/// whether valid or not. `null` means that an optional field is absent.
///
/// ```
/// use receipts_event::{Body, Reason, decode};
///
/// let event = decode(br#"{"type":"message.recalled","conversation_id":"g1","message_id":"m1"}"#).unwrap();
/// assert_eq!((&*event.tenant, event.conversation_id()), ("default", Some("g1")));
/// assert!(matches!(event.body, Body::MessageRecalled(_)));
///
/// let rejection = decode(br#"{"type":"message.recalled","conversation_id":""}"#).unwrap_err();
/// assert_eq!(rejection.reason, Reason::MissingField);
/// assert_eq!(rejection.to_string(), "/conversation_id must not be empty; /message_id is missing");
/// ```
///
/// # Errors
/// A [`Rejection`] with all problems, up to [`PROBLEMS_MAX`](crate::PROBLEMS_MAX). The record is a
/// dead letter, and a retry changes nothing.
pub fn decode(value: &[u8]) -> Result<Event<'_>, Rejection> {
    let json = match std::str::from_utf8(value) {
        Ok(json) => json,
        Err(error) => {
            let detail = format!("is not UTF-8 at byte {}", error.valid_up_to());
            return Err(Rejection::new(Reason::InvalidJson, "", detail));
        }
    };
    match read(json) {
        Some(event) => Ok(event),
        None => diagnose(json),
    }
}

/// Reads an event in one pass. Returns `None` if the diagnosis must look at it: mostly because it
/// has a mistake, seldom because a field of another event type comes before `type` and has an
/// invalid value.
fn read(json: &str) -> Option<Event<'_>> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let flat = parser.deserialize_map(FlatVisitor).ok()?;
    parser.end().ok()?;
    flat.build(&mut Findings::default())
}

struct FlatVisitor;

impl<'de> Visitor<'de> for FlatVisitor {
    type Value = Flat<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Flat<'de>, A::Error> {
        let mut flat = Flat::default();
        let mut known = Fields::ALL;
        while let Some(FieldName(field)) = map.next_key()? {
            match field {
                Some(field) if known.contains(field) => {
                    if !flat.seen.insert(field) {
                        return Err(A::Error::duplicate_field(field.name()));
                    }
                    flat.read(field, Next(&mut map))?;
                    if field == Field::Type {
                        known = flat.event_type.map_or(known, EventType::fields);
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(flat)
    }
}

/// The next value of the parser.
struct Next<'m, A>(&'m mut A);

impl<'de, A: MapAccess<'de>> Source<'de> for Next<'_, A> {
    type Error = A::Error;

    fn event_type(self) -> Result<Option<EventType>, A::Error> {
        Ok(self.0.next_value::<Option<TypeName>>()?.map(|TypeName(event_type)| event_type))
    }

    fn id(self) -> Result<Option<Cow<'de, str>>, A::Error> {
        Ok(self.0.next_value::<Option<Id<'de>>>()?.map(|Id(id)| id))
    }

    fn ids(self, count_max: usize) -> Result<Option<Vec<Cow<'de, str>>>, A::Error> {
        self.0.next_value_seed(Ids { count_max })
    }

    fn kind(self) -> Result<Option<Kind>, A::Error> {
        Ok(self.0.next_value::<Option<KindName>>()?.map(|KindName(kind)| kind))
    }

    fn flag(self) -> Result<Option<bool>, A::Error> {
        self.0.next_value()
    }

    fn time_ms(self) -> Result<Option<u64>, A::Error> {
        Ok(self.0.next_value::<Option<TimeMs>>()?.map(|TimeMs(ms)| ms))
    }

    fn partition(self) -> Result<Option<u32>, A::Error> {
        self.0.next_value()
    }

    fn policy(self) -> Result<Option<PolicyEntries<'de>>, A::Error> {
        Ok(self.0.next_value::<Option<Policy<'de>>>()?.map(|Policy(entries)| entries))
    }
}

#[cfg(test)]
#[path = "../tests/format/near.rs"]
mod near;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::near::near_event;
    use super::*;

    fn config() -> ProptestConfig {
        ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() }
    }

    #[test]
    fn the_diagnosis_agrees_with_the_one_pass_reader() {
        proptest!(config(), |(near in near_event())| {
            let thorough = diagnose(&near.json);
            if let Some(event) = read(&near.json) {
                prop_assert_eq!(thorough.as_ref(), Ok(&event));
            }
            prop_assert_eq!(decode(near.json.as_bytes()), thorough.clone());
            let speaks_of_twins = thorough.is_err_and(|rejection| rejection.to_string().contains("must not appear twice"));
            prop_assert!(near.has_twins || !speaks_of_twins);
        });
    }

    #[test]
    fn both_readers_agree_if_the_type_comes_first() {
        proptest!(config(), |(near in near_event())| {
            if near.json.starts_with(r#"{"type":"#) {
                prop_assert_eq!(read(&near.json), diagnose(&near.json).ok());
            }
        });
    }

    #[test]
    fn unknown_fields_before_the_type_are_ignored() {
        let json = r#"{"hidden":7,"hidden":"yes","message_id":"m","conversation_id":"c","type":"message.recalled"}"#;
        assert_eq!(read(json), None);
        assert!(decode(json.as_bytes()).is_ok());
    }
}
