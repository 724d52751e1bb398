//! Decides which fields of an update a stream may show. It leaves out people who were erased after
//! the update was published (INV-STREAM).
//!
//! It must not ask the state for the erased people; the stream does.

use super::update::{Interest, Update};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashSet;

/// Returns the JSON of an update as a stream of `interest` may show it, on one line, or `None` if
/// it may show nothing. New readers are named only with `show_readers`.
///
/// If nothing is left out, the text is passed on byte for byte. All streams that hide only the
/// readers share one shorter text. An update that names an erased person is rare; its text is
/// parsed again for each stream.
pub(super) fn redact<'u>(
    update: &'u Update,
    interest: &Interest,
    show_readers: bool,
    erased: &HashSet<String>,
) -> Option<Cow<'u, [u8]>> {
    if is_erased(&update.reader_id, erased) || matches!(interest, Interest::Sender(id) if erased.contains(id)) {
        return None;
    }
    if !erased.is_empty() && update.people().any(|id| erased.contains(id)) {
        return rewrite(update, show_readers, erased).map(Cow::Owned);
    }
    if update.is_one_line && (show_readers || update.newly_read.is_empty()) {
        return Some(Cow::Borrowed(&update.json));
    }
    if show_readers {
        return rewrite(update, show_readers, erased).map(Cow::Owned);
    }
    let shorter = update.without_readers.get_or_init(|| rewrite(update, show_readers, erased).map(Bytes::from));
    shorter.as_deref().map(Cow::Borrowed)
}

fn is_erased(id: &Option<String>, erased: &HashSet<String>) -> bool {
    id.as_ref().is_some_and(|id| erased.contains(id))
}

/// Writes an update anew, without erased people and, unless `show_readers`, without new readers.
fn rewrite(update: &Update, show_readers: bool, erased: &HashSet<String>) -> Option<Vec<u8>> {
    let mut fields: Map<String, Value> = serde_json::from_slice(&update.json).ok()?;
    for (field, id, also) in [
        ("sender_id", &update.sender_id, None),
        // The read time of the other person of a direct conversation belongs to that person.
        ("user_id", &update.user_id, Some("read_at_ms")),
        ("peer_id", &update.peer_id, None),
    ] {
        if is_erased(id, erased) {
            fields.remove(field);
            also.map(|field| fields.remove(field));
        }
    }
    if let Some(Value::Array(readers)) = fields.get_mut("newly_read") {
        readers.retain(|reader| show_readers && reader["user_id"].as_str().is_some_and(|id| !erased.contains(id)));
    }
    if !show_readers {
        fields.remove("newly_read_truncated");
    }
    Some(Value::Object(fields).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::update::tests::{DIRECT, MARK};
    use super::*;
    use serde_json::json;

    fn shown_to(value: &str, interest: &Interest, show_readers: bool, erased: &[&str]) -> Option<Value> {
        let erased = erased.iter().map(|id| (*id).to_owned()).collect();
        let update = Update::of(value);
        redact(&update, interest, show_readers, &erased).map(|json| serde_json::from_slice(&json).unwrap())
    }

    /// INV-STREAM, INV-ERASED
    #[test]
    fn erased_people_are_left_out_and_counts_stay() {
        let conversation = Interest::Conversation("d1".to_owned());
        let whole: Value = serde_json::from_str(DIRECT).unwrap();
        assert_eq!(shown_to(DIRECT, &conversation, true, &["dave"]), Some(whole.clone()));
        let bob = shown_to(DIRECT, &conversation, true, &["bob"]).unwrap();
        assert!(!bob.to_string().contains("bob") && bob.get("read_at_ms").is_none(), "{bob}");
        assert_eq!(bob["newly_read"], json!([{"user_id": "carol", "read_at_ms": 8}]));
        assert_eq!(
            (&bob["read_count"], &bob["last_read_at_ms"], &bob["sender_id"]),
            (&json!(1), &json!(7), &json!("alice"))
        );
        let alice = shown_to(DIRECT, &conversation, true, &["alice"]).unwrap();
        assert!(!alice.to_string().contains("alice"), "{alice}");
        assert_eq!(shown_to(DIRECT, &Interest::Sender("alice".to_owned()), true, &["alice"]), None);
        assert_eq!(shown_to(MARK, &conversation, true, &["bob"]), None, "a mark without its reader says nothing");
        assert!(shown_to(MARK, &conversation, true, &["alice"]).unwrap().get("peer_id").is_none());
    }

    #[test]
    fn stream_without_the_read_list_shows_counts_only() {
        let interest = Interest::Sender("alice".to_owned());
        let shown = shown_to(DIRECT, &interest, false, &[]).unwrap();
        assert_eq!((&shown["newly_read"], &shown["newly_read_truncated"]), (&json!([]), &Value::Null));
        assert_eq!(shown["read_count"], 1);
        let update = Update::of(DIRECT);
        let mut texts = (0..2).map(|_| redact(&update, &interest, false, &HashSet::new()).unwrap());
        assert_eq!(texts.next().unwrap().as_ptr(), texts.next().unwrap().as_ptr(), "streams share one text");
    }

    #[test]
    fn unredacted_update_keeps_its_bytes_on_one_line() {
        let interest = Interest::Conversation("d1".to_owned());
        let update = Update::of(MARK);
        let whole = redact(&update, &interest, true, &HashSet::new()).unwrap();
        assert_eq!((update.r#type, &*whole), ("read_mark.updated", MARK.as_bytes()));
        let spread = Update::of(&MARK.replace(',', ",\n"));
        let joined = redact(&spread, &interest, true, &HashSet::new()).unwrap();
        assert!(!joined.contains(&b'\n'));
    }
}
