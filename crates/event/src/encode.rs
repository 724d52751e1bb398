//! Encodes an event as a record's value, in one canonical JSON form. It checks nothing, and also
//! writes events that [`decode`](crate::decode) would reject.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::{Body, Event, TENANT_DEFAULT, UpTo};

impl Event<'_> {
    /// Returns the event as JSON, in the contract's order of fields, without absent, empty and
    /// default fields.
    ///
    /// Decoding the result gives an equal event if the event obeys the format's rules.
    ///
    /// ```
    /// # use std::borrow::Cow;
    /// use receipts_event::{Body, Event, TENANT_DEFAULT, UserErased, decode};
    ///
    /// let body = Body::UserErased(UserErased { user_id: Cow::Borrowed("bob"), partition: Some(3) });
    /// let event = Event { tenant: Cow::Borrowed(TENANT_DEFAULT), event_id: None, body };
    /// let json = event.to_json();
    /// assert_eq!(json, br#"{"type":"user.erased","user_id":"bob","partition":3}"#);
    /// assert_eq!(decode(&json), Ok(event));
    /// ```
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event has string keys only, and writing to memory does not fail")
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.type_name())?;
        if self.tenant != TENANT_DEFAULT {
            map.serialize_entry("tenant", &self.tenant)?;
        }
        optional(&mut map, "event_id", &self.event_id)?;
        optional(&mut map, "conversation_id", &self.conversation_id())?;
        match &self.body {
            Body::ConversationConfigured(body) => {
                map.serialize_entry("kind", &body.kind)?;
                optional(&mut map, "group_type", &body.group_type)?;
            }
            Body::MembersChanged(body) => {
                list(&mut map, "joined", &body.joined)?;
                list(&mut map, "left", &body.left)?;
                list(&mut map, "observers", &body.observers)?;
            }
            Body::MessageSent(body) => {
                map.serialize_entry("message_id", &body.message_id)?;
                map.serialize_entry("sender_id", &body.sender_id)?;
                map.serialize_entry("sent_at_ms", &body.sent_at_ms)?;
                flag(&mut map, "need_read_receipt", body.need_read_receipt)?;
                optional(&mut map, "recipients", &body.recipients)?;
            }
            Body::MessageRead(body) => {
                map.serialize_entry("reader_id", &body.reader_id)?;
                map.serialize_entry("message_ids", &body.message_ids)?;
                optional(&mut map, "read_at_ms", &body.read_at_ms)?;
                flag(&mut map, "hidden", body.hidden)?;
            }
            Body::ConversationRead(body) => {
                map.serialize_entry("reader_id", &body.reader_id)?;
                match &body.up_to {
                    UpTo::Message(message_id) => map.serialize_entry("up_to_message_id", message_id)?,
                    UpTo::SentAt(sent_at_ms) => map.serialize_entry("up_to_sent_at_ms", sent_at_ms)?,
                }
                optional(&mut map, "read_at_ms", &body.read_at_ms)?;
                flag(&mut map, "hidden", body.hidden)?;
            }
            Body::MessageRecalled(body) => map.serialize_entry("message_id", &body.message_id)?,
            Body::PolicyChanged(body) => {
                map.serialize_entry("read_receipts", &Entries(&body.read_receipts))?;
                optional(&mut map, "partition", &body.partition)?;
            }
            Body::UserErased(body) => {
                map.serialize_entry("user_id", &body.user_id)?;
                optional(&mut map, "partition", &body.partition)?;
            }
        }
        map.end()
    }
}

fn optional<M: SerializeMap, T: Serialize>(map: &mut M, name: &str, value: &Option<T>) -> Result<(), M::Error> {
    value.as_ref().map_or(Ok(()), |value| map.serialize_entry(name, value))
}

fn list<M: SerializeMap>(map: &mut M, name: &str, ids: &[Cow<'_, str>]) -> Result<(), M::Error> {
    if ids.is_empty() { Ok(()) } else { map.serialize_entry(name, ids) }
}

fn flag<M: SerializeMap>(map: &mut M, name: &str, is_on: bool) -> Result<(), M::Error> {
    if is_on { map.serialize_entry(name, &true) } else { Ok(()) }
}

/// Pairs that become a JSON object, in their order.
struct Entries<'a>(&'a [(Cow<'a, str>, bool)]);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(group_type, is_on)| (group_type, is_on)))
    }
}

#[cfg(test)]
mod tests {
    use crate::decode;

    #[test]
    fn the_canonical_form_omits_defaults_and_keeps_the_order() {
        let json = br#"{"hidden":false,"read_at_ms":2,"message_ids":["m"],"reader_id":"r","conversation_id":"c",
            "event_id":"e","tenant":"acme","type":"message.read","more":[]}"#;
        assert_eq!(
            decode(json).unwrap().to_json(),
            br#"{"type":"message.read","tenant":"acme","event_id":"e","conversation_id":"c","reader_id":"r","message_ids":["m"],"read_at_ms":2}"#
        );
    }

    #[test]
    fn absent_recipients_and_an_empty_list_stay_distinct() {
        for tail in ["", r#","need_read_receipt":true,"recipients":[]"#] {
            let json = format!(
                r#"{{"type":"message.sent","conversation_id":"c","message_id":"m","sender_id":"s","sent_at_ms":1{tail}}}"#
            );
            assert_eq!(decode(json.as_bytes()).unwrap().to_json(), json.as_bytes());
        }
    }
}
