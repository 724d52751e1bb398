//! The forms of single values: ids, lists of ids, times. They are read straight from a JSON parser,
//! and strings without escapes are borrowed. Reading stops at the first mistake; the diagnosis
//! explains it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::field::{EventType, Field};
use crate::{ID_BYTES_MAX, Kind, POLICY_ENTRIES_MAX, TIME_MS_MAX};

/// Returns true if a text may be an id.
pub(crate) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_BYTES_MAX
}

/// Any JSON string. (Serde's `Option<Cow<str>>` never borrows.)
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A string that may be an id: 1 to [`ID_BYTES_MAX`] bytes.
pub(crate) struct Id<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        if is_id(&text) { Ok(Self(text)) } else { Err(D::Error::custom("not an id")) }
    }
}

/// A list of at most `count_max` ids.
#[derive(Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) count_max: usize,
}

impl<'de> DeserializeSeed<'de> for Ids {
    type Value = Option<Vec<Cow<'de, str>>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Ids {
    type Value = Option<Vec<Cow<'de, str>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of ids")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut ids = Vec::new();
        while let Some(Id(id)) = items.next_element()? {
            if ids.len() == self.count_max {
                return Err(A::Error::custom("too many ids"));
            }
            ids.push(id);
        }
        Ok(Some(ids))
    }
}

/// Integer Unix milliseconds, 0 to [`TIME_MS_MAX`].
pub(crate) struct TimeMs(pub(crate) u64);

impl<'de> Deserialize<'de> for TimeMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ms = u64::deserialize(deserializer)?;
        if ms <= TIME_MS_MAX { Ok(Self(ms)) } else { Err(D::Error::custom("not a time")) }
    }
}

/// Returns the kind with that name.
pub(crate) fn kind_of(name: &str) -> Option<Kind> {
    match name {
        "direct" => Some(Kind::Direct),
        "group" => Some(Kind::Group),
        _ => None,
    }
}

/// A [`Kind`] that accepts strings only; its derived deserializer would also accept
/// `{"direct":null}`.
pub(crate) struct KindName(pub(crate) Kind);

impl<'de> Deserialize<'de> for KindName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(name) = Text::deserialize(deserializer)?;
        kind_of(&name).map(Self).ok_or_else(|| D::Error::custom("not a kind"))
    }
}

/// The value of `type`.
pub(crate) struct TypeName(pub(crate) EventType);

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(name) = Text::deserialize(deserializer)?;
        EventType::of(&name).map(Self).ok_or_else(|| D::Error::custom("not a type of event"))
    }
}

/// The name of a field of an event object; `None` if no event type has it.
pub(crate) struct FieldName(pub(crate) Option<Field>);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = FieldName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<FieldName, E> {
                Ok(FieldName(Field::of(name)))
            }
        }
        deserializer.deserialize_identifier(NameVisitor)
    }
}

/// The entries of `read_receipts`: at most [`POLICY_ENTRIES_MAX`], no group type twice.
pub(crate) struct Policy<'a>(pub(crate) Vec<(Cow<'a, str>, bool)>);

impl<'de: 'a, 'a> Deserialize<'de> for Policy<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PolicyVisitor;
        impl<'de> Visitor<'de> for PolicyVisitor {
            type Value = Policy<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of booleans")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Policy<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((Id(group_type), is_on)) = map.next_entry()? {
                    if entries.len() == POLICY_ENTRIES_MAX {
                        return Err(A::Error::custom("too many group types"));
                    }
                    entries.push((group_type, is_on));
                }
                if has_twins(&entries) {
                    return Err(A::Error::custom("a group type appears twice"));
                }
                Ok(Policy(entries))
            }
        }
        deserializer.deserialize_map(PolicyVisitor)
    }
}

fn has_twins(entries: &[(Cow<'_, str>, bool)]) -> bool {
    let mut met = HashSet::with_capacity(entries.len());
    entries.iter().any(|(group_type, _)| !met.insert(group_type.as_ref()))
}
