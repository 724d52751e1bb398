//! The second reader, for values that the one-pass reader did not accept. It finds all mistakes and
//! their pointers, or accepts the value. It is slow and thorough, and has its own rules, so that
//! tests can compare the two.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::field::{EventType, Field, Fields};
use crate::flat::{Flat, PolicyEntries, Source};
use crate::rejection::{Findings, Reason, Rejection};
use crate::text::{Text, kind_of};
use crate::{Event, ID_BYTES_MAX, Kind, POLICY_ENTRIES_MAX, TIME_MS_MAX};

/// The maximum length of an unknown `type` in a detail, bytes.
const UNKNOWN_TYPE_BYTES_MAX: usize = 64;

/// Decodes an event and explains every problem.
#[cold]
pub(crate) fn diagnose(json: &str) -> Result<Event<'_>, Rejection> {
    let Members(members) = serde_json::from_str(json).map_err(|error| {
        let detail = if error.is_data() { "is not a JSON object".to_owned() } else { format!("is not JSON: {error}") };
        Rejection::new(Reason::InvalidJson, "", detail)
    })?;
    let mut findings = Findings::default();
    let mut flat = Flat::default();
    // The type decides which fields count, so it is read first.
    read_members(&mut flat, &mut findings, &members, |field| field == Field::Type);
    let known = flat.event_type.map_or(Fields::COMMON, EventType::fields);
    read_members(&mut flat, &mut findings, &members, |field| field != Field::Type && known.contains(field));
    let event = flat.build(&mut findings);
    match (event, findings.into_rejection()) {
        (_, Some(rejection)) => Err(rejection),
        (Some(event), None) => Ok(event),
        (None, None) => Err(Rejection::new(Reason::InvalidField, "", "is not an event")),
    }
}

fn read_members<'a>(
    flat: &mut Flat<'a>,
    findings: &mut Findings,
    members: &[(Cow<'a, str>, &'a RawValue)],
    is_wanted: impl Fn(Field) -> bool,
) {
    for (name, raw) in members {
        let Some(field) = Field::of(name).filter(|field| is_wanted(*field)) else { continue };
        if !flat.seen.insert(field) {
            findings.add(Reason::InvalidField, field.pointer(), "must not appear twice in one object");
        } else if flat.read(field, Slow { pointer: field.pointer(), json: raw.get(), findings }).is_err() {
            flat.bad.insert(field);
        }
    }
}

/// The unread members of a JSON object in their order, repeated names included.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), raw)) = map.next_entry()? {
                    members.push((name, raw));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A mistake that is already in the findings.
struct Noted;

/// One JSON value that is not decoded yet, and its pointer.
struct Slow<'f, 'a> {
    pointer: String,
    json: &'a str,
    findings: &'f mut Findings,
}

impl<'a> Slow<'_, 'a> {
    fn note<T>(&mut self, reason: Reason, detail: impl Into<String>) -> Result<T, Noted> {
        self.findings.add(reason, self.pointer.as_str(), detail);
        Err(Noted)
    }

    fn ill_typed<T>(&mut self, wanted: &str) -> Result<T, Noted> {
        let found = match self.json.as_bytes().first() {
            Some(b'"') => "a string",
            Some(b'[') => "an array",
            Some(b'{') => "an object",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        };
        self.note(Reason::InvalidField, format!("must be {wanted}, not {found}"))
    }

    fn is_null(&self) -> bool {
        self.json == "null"
    }

    fn text(&mut self, wanted: &str) -> Result<Cow<'a, str>, Noted> {
        if !self.json.starts_with('"') {
            return self.ill_typed(wanted);
        }
        match serde_json::from_str::<Text<'a>>(self.json) {
            Ok(Text(text)) => Ok(text),
            Err(_) => self.note(Reason::InvalidJson, "is not a Unicode string: it escapes half a surrogate pair"),
        }
    }

    fn id_text(&mut self) -> Result<Cow<'a, str>, Noted> {
        let text = self.text("a string")?;
        if text.is_empty() {
            return self.note(Reason::InvalidField, "must not be empty");
        }
        if text.len() > ID_BYTES_MAX {
            return self
                .note(Reason::LimitExceeded, format!("has {} bytes, at most {ID_BYTES_MAX} are allowed", text.len()));
        }
        Ok(text)
    }

    fn integer(&mut self, wanted: &str, max: u64) -> Result<u64, Noted> {
        if !self.json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return self.ill_typed(wanted);
        }
        let integer = if self.json.bytes().all(|byte| byte.is_ascii_digit()) { self.json.parse().ok() } else { None };
        match integer {
            Some(integer) if integer <= max => Ok(integer),
            _ => self.note(Reason::InvalidField, format!("must be {wanted}, digits only, from 0 to {max}")),
        }
    }
}

impl<'a> Source<'a> for Slow<'_, 'a> {
    type Error = Noted;

    fn event_type(mut self) -> Result<Option<EventType>, Noted> {
        if self.is_null() {
            return Ok(None);
        }
        let name = self.text("a string")?;
        match EventType::of(&name) {
            Some(event_type) => Ok(Some(event_type)),
            None => {
                let start = &name[..name.floor_char_boundary(UNKNOWN_TYPE_BYTES_MAX)];
                let more = if start.len() < name.len() { "…" } else { "" };
                self.note(Reason::UnknownType, format!("is not a type of event: {start:?}{more}"))
            }
        }
    }

    fn id(mut self) -> Result<Option<Cow<'a, str>>, Noted> {
        if self.is_null() { Ok(None) } else { self.id_text().map(Some) }
    }

    fn ids(mut self, count_max: usize) -> Result<Option<Vec<Cow<'a, str>>>, Noted> {
        if self.is_null() {
            return Ok(None);
        }
        let Ok(items) = serde_json::from_str::<Vec<&'a RawValue>>(self.json) else {
            return self.ill_typed("an array of strings");
        };
        let mut is_good = true;
        if items.len() > count_max {
            is_good = false;
            let detail = format!("has {} ids, at most {count_max} are allowed", items.len());
            self.findings.add(Reason::LimitExceeded, self.pointer.as_str(), detail);
        }
        let mut ids = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let pointer = format!("{}/{index}", self.pointer);
            match (Slow { pointer, json: item.get(), findings: &mut *self.findings }).id_text() {
                Ok(id) => ids.push(id),
                Err(Noted) => is_good = false,
            }
        }
        if is_good { Ok(Some(ids)) } else { Err(Noted) }
    }

    fn kind(mut self) -> Result<Option<Kind>, Noted> {
        const WANTED: &str = r#""direct" or "group""#;
        if self.is_null() {
            return Ok(None);
        }
        let name = self.text(WANTED)?;
        match kind_of(&name) {
            Some(kind) => Ok(Some(kind)),
            None => self.note(Reason::InvalidField, format!("must be {WANTED}")),
        }
    }

    fn flag(mut self) -> Result<Option<bool>, Noted> {
        match self.json {
            "null" => Ok(None),
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => self.ill_typed("true or false"),
        }
    }

    fn time_ms(mut self) -> Result<Option<u64>, Noted> {
        if self.is_null() { Ok(None) } else { self.integer("integer Unix milliseconds", TIME_MS_MAX).map(Some) }
    }

    fn partition(mut self) -> Result<Option<u32>, Noted> {
        if self.is_null() {
            return Ok(None);
        }
        let number = self.integer("a partition number", u64::from(u32::MAX))?;
        u32::try_from(number).map(Some).map_err(|_| Noted)
    }

    fn policy(mut self) -> Result<Option<PolicyEntries<'a>>, Noted> {
        if self.is_null() {
            return Ok(None);
        }
        if !self.json.starts_with('{') {
            return self.ill_typed("an object of booleans");
        }
        let Ok(Members(members)) = serde_json::from_str(self.json) else {
            return self.note(Reason::InvalidJson, "has a name that escapes half a surrogate pair");
        };
        let mut is_good = true;
        if members.len() > POLICY_ENTRIES_MAX {
            is_good = false;
            let detail = format!("has {} group types, at most {POLICY_ENTRIES_MAX} are allowed", members.len());
            self.findings.add(Reason::LimitExceeded, self.pointer.as_str(), detail);
        }
        let mut met = HashSet::new();
        let mut entries = Vec::with_capacity(members.len());
        for (group_type, raw) in &members {
            // A name that is too long for a group type is too long for a pointer, so the pointer
            // names the object.
            let pointer = if group_type.len() > ID_BYTES_MAX {
                let detail =
                    format!("has a group type of {} bytes, at most {ID_BYTES_MAX} are allowed", group_type.len());
                self.findings.add(Reason::LimitExceeded, self.pointer.as_str(), detail);
                is_good = false;
                self.pointer.clone()
            } else {
                format!("{}/{}", self.pointer, group_type.replace('~', "~0").replace('/', "~1"))
            };
            let mut entry = Slow { pointer, json: raw.get(), findings: &mut *self.findings };
            if group_type.is_empty() {
                is_good = entry.note(Reason::InvalidField, "is an empty group type").unwrap_or(false);
            }
            if !met.insert(group_type.as_ref()) {
                is_good = entry.note(Reason::InvalidField, "must not appear twice in one object").unwrap_or(false);
            }
            match raw.get() {
                "true" => entries.push((group_type.clone(), true)),
                "false" => entries.push((group_type.clone(), false)),
                _ => is_good = entry.ill_typed("true or false").unwrap_or(false),
            }
        }
        if is_good { Ok(Some(entries)) } else { Err(Noted) }
    }
}
