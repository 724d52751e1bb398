//! A record of the log into an event, or the reason why it is none.

use crate::{Event, Reason, Rejection, decode, partition_of};

/// Decodes a record and checks that it stands where its value says.
///
/// # Errors
/// The reason for the dead letter.
pub fn decode_record<'a>(
    partition: u32,
    key: Option<&[u8]>,
    value: Option<&'a [u8]>,
    partition_count: u32,
) -> Result<Event<'a>, Rejection> {
    let value = value.ok_or_else(|| Rejection::new(Reason::NoValue, "", "is missing: the record has no value"))?;
    let event = decode(value)?;
    let key = key.unwrap_or_default();
    if !event.key_matches(key) {
        // Names no id, not even the right one: details end up in headers and logs.
        let form = if event.conversation_id().is_some() { "{tenant}/{conversation_id}" } else { "{tenant}/" };
        let detail = format!("belongs under the key {form} of its own fields, and the record has another one");
        return Err(Rejection::new(Reason::WrongKey, "", detail));
    }
    if event.conversation_id().is_none() {
        // Control events stand in every partition under one key, each copy with the number of its own.
        return match event.partition() {
            Some(own) if own == partition => Ok(event),
            Some(other) => {
                let detail = format!("is {other}, and the record stands in partition {}", partition);
                Err(Rejection::new(Reason::WrongPolicyPartition, "/partition", detail))
            }
            None => Err(Rejection::new(
                Reason::MissingField,
                "/partition",
                "must be there: every partition has a copy of its own",
            )),
        };
    }
    let right = partition_of(key, partition_count);
    if right != partition {
        let detail =
            format!("belongs into partition {right} of {partition_count} by its key (murmur2, as Java clients do)");
        return Err(Rejection::new(Reason::WrongPartition, "", detail));
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;

    const PARTITIONS: u32 = 4;

    /// Why a record is none of ours: the code, and the sentence of its detail.
    fn refused(partition: u32, key: &[u8], value: Option<&str>) -> (&'static str, String) {
        let rejection = decode_record(partition, Some(key), value.map(str::as_bytes), PARTITIONS).unwrap_err();
        (rejection.reason.code(), rejection.to_string())
    }

    const CONFIGURED: &str = r#"{"type":"conversation.configured","conversation_id":"secret","kind":"group"}"#;
    const ERASED: &str = r#"{"type":"user.erased","user_id":"secret","partition":1}"#;

    #[test]
    fn a_record_under_another_key_is_refused_without_a_word_of_its_ids() {
        let (code, detail) = refused(0, b"default/other", Some(CONFIGURED));
        assert_eq!(code, "wrong-key");
        let expected = "the event belongs under the key {tenant}/{conversation_id} of its own fields, and the record has another one";
        assert_eq!(detail, expected);
        let (code, detail) = refused(1, b"other/", Some(ERASED));
        assert_eq!(code, "wrong-key");
        assert!(detail.starts_with("the event belongs under the key {tenant}/ of"), "{detail}");
    }

    #[test]
    fn a_record_without_a_value_is_refused_in_a_sentence() {
        let expected = ("no-value", "the event is missing: the record has no value".to_owned());
        assert_eq!(refused(0, b"default/g", None), expected);
    }

    #[test]
    fn a_record_in_the_partition_of_another_is_refused() {
        let key = key("default", "secret");
        let right = partition_of(&key, PARTITIONS);
        let (code, detail) = refused((right + 1) % PARTITIONS, &key, Some(CONFIGURED));
        assert_eq!(code, "wrong-partition");
        assert!(detail.starts_with(&format!("the event belongs into partition {right} of 4")), "{detail}");
        let (code, detail) = refused(2, b"default/", Some(ERASED));
        assert_eq!(code, "wrong-policy-partition");
        assert_eq!(detail, "/partition is 1, and the record stands in partition 2");
    }
}
