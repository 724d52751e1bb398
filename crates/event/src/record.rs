//! Decodes a record of the log into an event, or explains why it is not an event.
//!
//! Keeps INV-KEY.

use crate::framing::{self, Unwrap};
use crate::partitioner::Partitioner;
use crate::{Event, Reason, Rejection, decode, partition_of};

/// Decodes the records of a log. The same log gives other events under other decoders.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// The number of partitions of the log.
    pub partition_count: u32,
    /// The wrapping of values.
    pub unwrap: Unwrap,
}

impl Decoder {
    /// Decodes a record and checks its key and its partition against its value.
    ///
    /// # Errors
    /// The reason why the record is a dead letter.
    #[inline]
    pub fn decode<'a>(
        self,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&'a [u8]>,
    ) -> Result<Event<'a>, Rejection> {
        let event = self.decode_with_key(key, value)?;
        let right = self.partition_of(&event, key.unwrap_or_default())?;
        if right == partition {
            return Ok(event);
        }
        Err(if event.conversation_id().is_none() {
            let detail = format!("is {right}, but the record is in partition {partition}");
            Rejection::new(Reason::WrongPolicyPartition, "/partition", detail)
        } else {
            let detail = misplaced(key.unwrap_or_default(), partition, right, self.partition_count);
            Rejection::new(Reason::WrongPartition, "", detail)
        })
    }

    /// Decodes a record that may be in a wrong partition; returns the partition that it belongs to,
    /// too.
    ///
    /// # Errors
    /// The reason why the record would be a dead letter in any partition.
    pub fn decode_anywhere<'a>(
        self,
        key: Option<&[u8]>,
        value: Option<&'a [u8]>,
    ) -> Result<(Event<'a>, u32), Rejection> {
        let event = self.decode_with_key(key, value)?;
        let partition = self.partition_of(&event, key.unwrap_or_default())?;
        Ok((event, partition))
    }

    fn decode_with_key<'a>(self, key: Option<&[u8]>, value: Option<&'a [u8]>) -> Result<Event<'a>, Rejection> {
        let value = value.ok_or_else(|| Rejection::new(Reason::NoValue, "", "is missing: the record has no value"))?;
        let event = decode(self.unwrap.event_of(value)).map_err(|rejection| match framing::of_value(value) {
            Some(detail) => Rejection::new(rejection.reason, "", detail),
            None => rejection,
        })?;
        if !event.key_matches(key.unwrap_or_default()) {
            // The detail names no ids, because details end up in headers and logs.
            let form = if event.conversation_id().is_some() { "{tenant}/{conversation_id}" } else { "{tenant}/" };
            let detail = format!("belongs under the key {form} of its own fields, but {}", framing::of_key(key));
            return Err(Rejection::new(Reason::WrongKey, "", detail));
        }
        Ok(event)
    }

    /// Returns the partition that an event under its own key belongs to.
    #[inline]
    fn partition_of(self, event: &Event<'_>, key: &[u8]) -> Result<u32, Rejection> {
        if event.conversation_id().is_some() {
            return Ok(partition_of(key, self.partition_count));
        }
        // Every partition has a copy of a control event with its own number, all under one key.
        event.partition().ok_or_else(|| {
            Rejection::new(Reason::MissingField, "/partition", "is missing: every partition has its own copy")
        })
    }
}

/// Returns the detail for a record in a wrong partition, with the partitioners that may have put it
/// there. It is a guess, because two partitioners agree on some keys.
#[cold]
fn misplaced(key: &[u8], partition: u32, right: u32, partition_count: u32) -> String {
    let mut detail =
        format!("belongs to partition {right} of {partition_count} by its key (murmur2, as in Java clients)");
    for (number, candidate) in Partitioner::candidates(key, partition, partition_count).enumerate() {
        detail.push_str(if number == 0 { "; perhaps the producer uses " } else { ", or " });
        detail.push_str(candidate.name());
        detail.push_str(": ");
        detail.push_str(candidate.remedy());
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;

    const PARTITIONS: u32 = 4;
    const DECODER: Decoder = Decoder { partition_count: PARTITIONS, unwrap: Unwrap::None };

    /// Returns the code and the sentence of a rejection.
    fn refused(partition: u32, key: &[u8], value: Option<&str>) -> (&'static str, String) {
        let rejection = DECODER.decode(partition, Some(key), value.map(str::as_bytes)).unwrap_err();
        (rejection.reason.code(), rejection.to_string())
    }

    const CONFIGURED: &str = r#"{"type":"conversation.configured","conversation_id":"secret","kind":"group"}"#;
    const ERASED: &str = r#"{"type":"user.erased","user_id":"secret","partition":1}"#;

    #[test]
    fn a_rejection_for_the_key_names_no_ids() {
        let (code, detail) = refused(0, b"default/other", Some(CONFIGURED));
        assert_eq!(code, "wrong-key");
        let expected = "the event belongs under the key {tenant}/{conversation_id} of its own fields, but the record has another key";
        assert_eq!(detail, expected);
        let (code, detail) = refused(1, b"other/", Some(ERASED));
        assert_eq!(code, "wrong-key");
        assert!(detail.starts_with("the event belongs under the key {tenant}/ of"), "{detail}");
    }

    #[test]
    fn a_wrapped_value_is_named_by_its_wrapping() {
        let twice = serde_json::to_string(CONFIGURED).unwrap();
        let (code, detail) = refused(0, b"default/secret", Some(&twice));
        assert_eq!(code, "invalid-json");
        assert!(detail.contains("serialized twice") && !detail.contains("secret"), "{detail}");
        let (code, detail) =
            refused(0, b"default/secret", Some(r#"{"schema":{},"payload":{"conversation_id":"secret"}}"#));
        assert_eq!(code, "missing-field");
        assert!(detail.contains("value.converter.schemas.enable=false") && !detail.contains("secret"), "{detail}");
    }

    #[test]
    fn a_framed_event_counts_where_the_setting_says_so() {
        let framed = [b"\0\0\0\0\x07", CONFIGURED.as_bytes()].concat();
        let (key, decoder) = (key("default", "secret"), Decoder { unwrap: Unwrap::Confluent, ..DECODER });
        let right = partition_of(&key, PARTITIONS);
        for value in [&framed, CONFIGURED.as_bytes()] {
            assert!(decoder.decode(right, Some(&key), Some(value)).is_ok());
            let elsewhere = decoder.decode(right ^ 1, Some(&key), Some(value)).unwrap_err();
            assert_eq!(elsewhere.reason, Reason::WrongPartition);
            assert_eq!(decoder.decode_anywhere(Some(&key), Some(value)).unwrap().1, right);
        }
        let rejection = DECODER.decode(right, Some(&key), Some(&framed)).unwrap_err();
        assert_eq!(rejection.reason, Reason::InvalidJson);
        assert!(rejection.to_string().contains("projector.unwrap=confluent"), "{rejection}");
        let avro = decoder.decode(right, Some(&key), Some(b"\0\0\0\0\x07\x02\x0egeneral")).unwrap_err();
        assert!(avro.to_string().contains("Avro"), "{avro}");
    }

    #[test]
    fn a_record_without_a_value_is_refused() {
        let expected = ("no-value", "the event is missing: the record has no value".to_owned());
        assert_eq!(refused(0, b"default/g", None), expected);
    }

    #[test]
    fn a_record_in_a_wrong_partition_is_refused() {
        let key = key("default", "secret");
        let right = partition_of(&key, PARTITIONS);
        let (code, detail) = refused((right + 1) % PARTITIONS, &key, Some(CONFIGURED));
        assert_eq!(code, "wrong-partition");
        assert!(detail.starts_with(&format!("the event belongs to partition {right} of 4")), "{detail}");
        let (code, detail) = refused(Partitioner::Crc32.partition_of(&key, PARTITIONS), &key, Some(CONFIGURED));
        assert_eq!(code, "wrong-partition");
        assert!(detail.contains("CRC-32") && detail.contains("set partitioner=murmur2_random"), "{detail}");
        let (code, detail) = refused(2, b"default/", Some(ERASED));
        assert_eq!(code, "wrong-policy-partition");
        assert_eq!(detail, "/partition is 1, but the record is in partition 2");
    }
}
