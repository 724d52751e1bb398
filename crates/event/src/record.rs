//! Decodes a record of the log into an event, or explains why it is not an event.
//!
//! Keeps INV-KEY.

use crate::partitioner::Partitioner;
use crate::{Event, Reason, Rejection, decode, framing, partition_of};

/// Decodes a record and checks its key and its partition against its value.
///
/// # Errors
/// The reason why the record is a dead letter.
pub fn decode_record<'a>(
    partition: u32,
    key: Option<&[u8]>,
    value: Option<&'a [u8]>,
    partition_count: u32,
) -> Result<Event<'a>, Rejection> {
    let value = value.ok_or_else(|| Rejection::new(Reason::NoValue, "", "is missing: the record has no value"))?;
    let event = decode(value).map_err(|rejection| match framing::of_value(value) {
        Some(detail) => Rejection::new(rejection.reason, "", detail),
        None => rejection,
    })?;
    if !event.key_matches(key.unwrap_or_default()) {
        // The detail names no ids, because details end up in headers and logs.
        let form = if event.conversation_id().is_some() { "{tenant}/{conversation_id}" } else { "{tenant}/" };
        let detail = format!("belongs under the key {form} of its own fields, but {}", framing::of_key(key));
        return Err(Rejection::new(Reason::WrongKey, "", detail));
    }
    if event.conversation_id().is_none() {
        // Every partition has a copy of a control event with its own number, all under one key.
        return match event.partition() {
            Some(own) if own == partition => Ok(event),
            Some(other) => {
                let detail = format!("is {other}, but the record is in partition {}", partition);
                Err(Rejection::new(Reason::WrongPolicyPartition, "/partition", detail))
            }
            None => {
                Err(Rejection::new(Reason::MissingField, "/partition", "is missing: every partition has its own copy"))
            }
        };
    }
    let key = key.unwrap_or_default();
    let right = partition_of(key, partition_count);
    if right != partition {
        return Err(Rejection::new(Reason::WrongPartition, "", misplaced(key, partition, right, partition_count)));
    }
    Ok(event)
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

    /// Returns the code and the sentence of a rejection.
    fn refused(partition: u32, key: &[u8], value: Option<&str>) -> (&'static str, String) {
        let rejection = decode_record(partition, Some(key), value.map(str::as_bytes), PARTITIONS).unwrap_err();
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
