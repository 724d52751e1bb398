//! A record of the log into an event, or the reason why it is none.

use receipts_event::{Event, Reason, Rejection, decode, partition_of};
use receipts_log::Record;

/// Decodes a record and checks that it stands where its value says.
///
/// # Errors
/// The reason for the dead letter.
pub(crate) fn event_of<'a>(record: &Record<'a>, partition_count: u32) -> Result<Event<'a>, Rejection> {
    let value = record.value.ok_or_else(|| Rejection::new(Reason::NoValue, "", "the record has no value"))?;
    let event = decode(value)?;
    let key = record.key.unwrap_or_default();
    if !event.key_matches(key) {
        let detail = format!("asks for the key {:?}, and the record has another one", String::from_utf8_lossy(&event.key()));
        return Err(Rejection::new(Reason::WrongKey, "", detail));
    }
    if event.conversation_id().is_none() {
        // Control events stand in every partition under one key, each copy with the number of its own.
        return match event.partition() {
            Some(own) if own == record.partition => Ok(event),
            Some(other) => {
                let detail = format!("is {other}, and the record stands in partition {}", record.partition);
                Err(Rejection::new(Reason::WrongPolicyPartition, "/partition", detail))
            }
            None => Err(Rejection::new(Reason::MissingField, "/partition", "must be there: every partition has a copy of its own")),
        };
    }
    let right = partition_of(key, partition_count);
    if right != record.partition {
        let detail = format!("belongs into partition {right} of {partition_count} by its key (murmur2, as Java clients do)");
        return Err(Rejection::new(Reason::WrongPartition, "", detail));
    }
    Ok(event)
}
