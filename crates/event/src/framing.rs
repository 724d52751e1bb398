//! The serializers' wrappings of a record: takes a schema registry's frame off where the settings
//! say so, and names all others, so that a dead letter says what to set in the producer. Repeats no
//! id.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The byte that opens a schema registry's frame; four bytes of schema id follow.
const REGISTRY_MAGIC: u8 = 0;
/// The length of a schema registry's frame, bytes.
const REGISTRY_BYTES: usize = 5;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How a file of Avro objects begins.
const AVRO_FILE: &[u8] = b"Obj\x01";

/// The wrapping that is taken off a record's value before its event is decoded. It decides answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unwrap {
    /// None: a value is the JSON of its event.
    #[default]
    None,
    /// The frame of Confluent's `JSONSerializer`, and of others that work with its registry: a zero
    /// byte and the four bytes of a schema id, then the JSON. A value without it is taken as it is.
    /// Avro and Protobuf stay dead letters.
    Confluent,
}

impl Unwrap {
    /// Returns the name in the setting `projector.unwrap`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Confluent => "confluent",
        }
    }

    /// Returns the part of a value that holds the event. JSON never begins with a zero byte, so no
    /// value can be read both ways.
    #[inline]
    pub fn event_of(self, value: &[u8]) -> &[u8] {
        match (self, value) {
            (Self::Confluent, [REGISTRY_MAGIC, _, _, _, _, json @ ..]) if first_visible(json) == Some(b'{') => json,
            _ => value,
        }
    }
}

/// The members that tell envelopes from events.
#[derive(Deserialize)]
struct Envelope {
    schema: Option<IgnoredAny>,
    payload: Option<IgnoredAny>,
    specversion: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
}

/// Returns a sentence about a value that no event begins like, for the event as its subject.
#[cold]
pub(crate) fn of_value(value: &[u8]) -> Option<&'static str> {
    if value.starts_with(BYTE_ORDER_MARK) {
        return Some("begins with a byte order mark: write UTF-8 without one");
    }
    if value.starts_with(AVRO_FILE) {
        return Some("is an Avro file: write one JSON object");
    }
    if value.first() == Some(&REGISTRY_MAGIC) && value.len() > REGISTRY_BYTES {
        return Some(if first_visible(&value[REGISTRY_BYTES..]) == Some(b'{') {
            "is JSON behind a schema registry's 5 bytes: use a serializer of plain JSON, or one that puts the schema id into a header, or set projector.unwrap=confluent here"
        } else {
            "begins with a schema registry's 5 bytes, as Avro and Protobuf serializers write them: use a serializer of plain JSON"
        });
    }
    match first_visible(value)? {
        b'"' => {
            let inner: String = serde_json::from_slice(value).ok()?;
            (first_visible(inner.as_bytes()) == Some(b'{')).then_some(
                "is JSON within a JSON string, so it was serialized twice: give the JSON serializer an object, or the text to a serializer of strings",
            )
        }
        b'[' => Some("is an array: write one record per event"),
        b'{' => match serde_json::from_slice(value).ok()? {
            Envelope { schema: Some(_), payload: Some(_), .. } => {
                Some("is in Kafka Connect's envelope of schema and payload: set value.converter.schemas.enable=false")
            }
            Envelope { specversion: Some(_), data: Some(_), .. } => {
                Some("is in the data of a CloudEvent: send the data alone, as in CloudEvents' binary mode")
            }
            _ => None,
        },
        _ => None,
    }
}

/// Returns how a record's wrong key was made, as the end of a sentence.
#[cold]
pub(crate) fn of_key(key: Option<&[u8]>) -> &'static str {
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return "the record has no key: write that text as its key";
    };
    if key[0] == REGISTRY_MAGIC && key.len() > REGISTRY_BYTES {
        return "the record's key begins with a schema registry's 5 bytes: use a serializer of strings for keys";
    }
    match first_visible(key) {
        Some(b'"') => "the record's key is a JSON string: write the text without quotes, by a serializer of strings",
        Some(b'{') => {
            "the record's key is a JSON object: write the text, by a serializer of strings (in Kafka Connect key.converter=org.apache.kafka.connect.storage.StringConverter)"
        }
        _ => "the record has another key",
    }
}

fn first_visible(bytes: &[u8]) -> Option<u8> {
    bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real producers wrote each of these forms.
    #[test]
    fn every_wrapping_is_named() {
        let cases: [(&[u8], &str); 9] = [
            (b"\0\0\0\0\x01{\"type\":\"message.read\"}", "JSON behind a schema registry"),
            (b"\0\0\0\0\x07\x02\x0egeneral", "Avro and Protobuf"),
            (br#""{\"type\":\"message.read\"}""#, "serialized twice"),
            (br#"{"schema":{"type":"struct"},"payload":{"type":"message.read"}}"#, "schemas.enable=false"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (br#"{"specversion":"1.0","type":"x","data":{"type":"message.read"}}"#, "CloudEvent"),
            (b"Obj\x01\x04", "Avro file"),
            (br#" [{"type":"message.read"}]"#, "one record per event"),
            (b"\0\0\0\0\x01 {}", "JSON behind a schema registry"),
        ];
        for (value, words) in cases {
            let sentence = of_value(value).unwrap_or_default();
            assert!(sentence.contains(words), "{:?}: {sentence}", String::from_utf8_lossy(value));
        }
        for other in [&b""[..], b"\0", b"{", b"7", b"\"text\"", br#"{"type":"message.read","data":1}"#] {
            assert_eq!(of_value(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_frame_is_taken_off_json_alone() {
        let confluent = Unwrap::Confluent;
        assert_eq!(confluent.event_of(b"\0\0\0\0\x07{}"), b"{}");
        assert_eq!(confluent.event_of(b"\0\xff\xff\xff\xff \n{"), b" \n{");
        for other in [
            &b""[..],
            b"\0",
            b"\0\0\0\0\x07",
            b"\0\0\0\0\x07\x02\x0egeneral",
            b"\0\0\0\0\x07\0\0\0\0\x07{}",
            b"\0\0\0\0\x07[{}]",
            b"\x01\0\0\0\x07{}",
            b"{}",
        ] {
            assert_eq!(confluent.event_of(other), other, "{other:?}");
        }
        assert_eq!(Unwrap::None.event_of(b"\0\0\0\0\x07{}"), b"\0\0\0\0\x07{}");
    }

    #[test]
    fn every_wrong_key_is_named() {
        for (key, words) in [
            (None, "no key"),
            (Some(&b""[..]), "no key"),
            (Some(b"\"default/g1\""), "without quotes"),
            (Some(br#"{"schema":null,"payload":"default/g1"}"#), "StringConverter"),
            (Some(b"\0\0\0\0\x01default/g1"), "schema registry"),
            (Some(b"g1"), "another key"),
        ] {
            assert!(of_key(key).contains(words), "{key:?}");
        }
    }
}
