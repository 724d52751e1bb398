//! What an update says, to whom it goes, and what of it may be shown now: people who were erased since are left out
//! (INV-STREAM).
//!
//! Must not look anybody up: who is erased is told by the caller.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashSet;

/// What a stream is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Updates of one conversation.
    Conversation(String),
    /// Updates of the messages that one person sent, and read marks of those who read them in direct conversations.
    Sender(String),
}

impl Interest {
    /// The name by which updates find their streams. A tenant has no slash, so no two pairs give the same.
    pub(crate) fn addressee(&self, tenant: &str) -> String {
        match self {
            Self::Conversation(id) => format!("c{tenant}/{id}"),
            Self::Sender(id) => format!("s{tenant}/{id}"),
        }
    }
}

/// The fields of an update that decide where it goes and whom it names.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    conversation_id: Cow<'a, str>,
    #[serde(borrow, default)]
    sender_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reader_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    peer_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    newly_read: Vec<Reader<'a>>,
}

#[derive(Deserialize)]
struct Reader<'a> {
    #[serde(borrow)]
    user_id: Cow<'a, str>,
}

/// The types that are passed on. Of a type of a later version nobody here knows whom it names.
const TYPES: [&str; 2] = ["receipt.updated", "read_mark.updated"];

fn read(value: &[u8]) -> Option<Named<'_>> {
    serde_json::from_slice(value).ok().filter(|named: &Named<'_>| TYPES.contains(&&*named.r#type))
}

/// Whose streams an update goes to; `None` where it is no update that this version knows.
pub(crate) fn addressees(value: &[u8]) -> Option<impl Iterator<Item = String>> {
    let named = read(value)?;
    let conversation = Interest::Conversation(named.conversation_id.into_owned()).addressee(&named.tenant);
    let person = named.sender_id.or(named.peer_id).map(|id| Interest::Sender(id.into_owned()).addressee(&named.tenant));
    Some([conversation].into_iter().chain(person))
}

/// Everybody whom an update names.
pub(crate) fn people(value: &[u8]) -> impl Iterator<Item = String> {
    read(value).into_iter().flat_map(|named| {
        let single = [named.sender_id, named.user_id, named.reader_id, named.peer_id].into_iter().flatten();
        single.chain(named.newly_read.into_iter().map(|reader| reader.user_id)).map(Cow::into_owned)
    })
}

/// An update as it may be shown: its type, and one line of JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown<'a> {
    pub(crate) r#type: &'static str,
    pub(crate) json: Cow<'a, [u8]>,
}

/// What of an update may be shown to a stream of `interest`, with the names of readers only where `names`. `None` where
/// nothing may be.
pub(crate) fn shown<'a>(
    value: &'a [u8],
    interest: &Interest,
    names: bool,
    erased: &HashSet<String>,
) -> Option<Shown<'a>> {
    let named = read(value)?;
    let r#type = TYPES.into_iter().find(|r#type| *r#type == named.r#type)?;
    let is_erased = |id: &Option<Cow<'_, str>>| id.as_deref().is_some_and(|id| erased.contains(id));
    if is_erased(&named.reader_id) || matches!(interest, Interest::Sender(id) if erased.contains(id)) {
        return None;
    }
    let hides = !erased.is_empty() && people(value).any(|id| erased.contains(&id));
    let is_one_line = !value.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
    if !hides && is_one_line && (names || named.newly_read.is_empty()) {
        return Some(Shown { r#type, json: Cow::Borrowed(value) });
    }
    let mut update: Map<String, Value> = serde_json::from_slice(value).ok()?;
    for (field, id, beside) in [
        ("sender_id", &named.sender_id, None),
        // When the other party of a direct chat read is that party's own time.
        ("user_id", &named.user_id, Some("read_at_ms")),
        ("peer_id", &named.peer_id, None),
    ] {
        if is_erased(id) {
            update.remove(field);
            beside.map(|field| update.remove(field));
        }
    }
    if let Some(Value::Array(readers)) = update.get_mut("newly_read") {
        readers.retain(|reader| names && reader["user_id"].as_str().is_some_and(|id| !erased.contains(id)));
    }
    if !names {
        update.remove("newly_read_truncated");
    }
    Some(Shown { r#type, json: Cow::Owned(Value::Object(update).to_string().into_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MARK: &str = r#"{"type":"read_mark.updated","tenant":"t","conversation_id":"d1","peer_id":"alice","reader_id":"bob","up_to_sent_at_ms":1,"read_at_ms":2,"version":3}"#;
    const DIRECT: &str = r#"{"type":"receipt.updated","tenant":"t","conversation_id":"d1","message_id":"m1","status":"ok","sender_id":"alice","read_count":1,"last_read_at_ms":7,"user_id":"bob","read_at_ms":7,"version":3,"newly_read":[{"user_id":"bob","read_at_ms":7},{"user_id":"carol","read_at_ms":8}],"newly_read_truncated":true}"#;

    fn shown_to(value: &str, interest: &Interest, names: bool, erased: &[&str]) -> Option<Value> {
        let erased = erased.iter().map(|id| (*id).to_owned()).collect();
        shown(value.as_bytes(), interest, names, &erased).map(|shown| serde_json::from_slice(&shown.json).unwrap())
    }

    /// INV-STREAM, INV-ERASED
    #[test]
    fn who_was_erased_since_is_left_out_with_their_times_and_the_counts_stay() {
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
    fn who_may_not_have_the_list_of_readers_gets_counts_without_names() {
        let shown = shown_to(DIRECT, &Interest::Sender("alice".to_owned()), false, &[]).unwrap();
        assert_eq!((&shown["newly_read"], &shown["newly_read_truncated"]), (&json!([]), &Value::Null));
        assert_eq!(shown["read_count"], 1);
    }

    #[test]
    fn an_update_is_passed_on_byte_for_byte_where_nothing_is_left_out_and_always_in_one_line() {
        let interest = Interest::Conversation("d1".to_owned());
        let whole = shown(MARK.as_bytes(), &interest, true, &HashSet::new()).unwrap();
        assert_eq!((whole.r#type, &*whole.json), ("read_mark.updated", MARK.as_bytes()));
        let spread = MARK.replace(',', ",\n");
        let joined = shown(spread.as_bytes(), &interest, true, &HashSet::new()).unwrap();
        assert!(!joined.json.contains(&b'\n'));
    }

    #[test]
    fn a_mark_goes_to_the_other_one_of_the_two_and_a_receipt_to_its_sender() {
        let to = |value: &str| addressees(value.as_bytes()).map(Iterator::collect::<Vec<_>>);
        assert_eq!(to(MARK), Some(vec!["ct/d1".to_owned(), "st/alice".to_owned()]));
        assert_eq!(to(DIRECT), Some(vec!["ct/d1".to_owned(), "st/alice".to_owned()]));
        assert_eq!(to(r#"{"type":"typing.updated","tenant":"t","conversation_id":"d1"}"#), None);
        assert_eq!(to("[]"), None);
    }
}
