//! Receipts and member lists as JSON text: byte for byte what serde writes of them, at a fraction of the time (a query of 30 ids
//! is little else). Must not say anything that serde would not: the tests compare.

use receipts_event::Kind;
use receipts_fold::view::{Counts, Member, ReadMark, Receipt, Status};

/// Bytes of a receipt beside its ids, at most, and of a row of a list.
const RECEIPT_BYTES: usize = 400;
const MEMBER_BYTES: usize = 80;

/// The answer to a batch.
pub(crate) fn receipts(receipts: &[Receipt], position: &str) -> Vec<u8> {
    let mut to = Vec::with_capacity(RECEIPT_BYTES * receipts.len() + position.len() + 64);
    to.extend_from_slice(b"{\"receipts\":[");
    for (at, receipt) in receipts.iter().enumerate() {
        if at > 0 {
            to.push(b',');
        }
        write_receipt(&mut to, receipt);
    }
    to.push(b']');
    string(&mut to, ",\"position\":", position);
    to.push(b'}');
    to
}

/// One receipt.
pub(crate) fn receipt(receipt: &Receipt) -> Vec<u8> {
    let mut to = Vec::with_capacity(2 * RECEIPT_BYTES);
    write_receipt(&mut to, receipt);
    to
}

/// A page of a list.
pub(crate) fn page(members: &[Member], next_cursor: Option<&str>, receipt: &Receipt) -> Vec<u8> {
    let mut to = Vec::with_capacity(MEMBER_BYTES * members.len() + 2 * RECEIPT_BYTES);
    to.extend_from_slice(b"{\"members\":[");
    for (at, member) in members.iter().enumerate() {
        string(&mut to, if at > 0 { ",{\"user_id\":" } else { "{\"user_id\":" }, &member.user_id);
        optional_number(&mut to, ",\"read_at_ms\":", member.read_at_ms);
        if member.left {
            to.extend_from_slice(b",\"left\":true");
        }
        to.push(b'}');
    }
    to.push(b']');
    match next_cursor {
        Some(cursor) => string(&mut to, ",\"next_cursor\":", cursor),
        None => to.extend_from_slice(b",\"next_cursor\":null"),
    }
    boolean(&mut to, ",\"is_finished\":", next_cursor.is_none());
    to.extend_from_slice(b",\"receipt\":");
    write_receipt(&mut to, receipt);
    to.push(b'}');
    to
}

/// A read mark: small and seldom asked for.
pub(crate) fn read_mark(mark: &ReadMark) -> Vec<u8> {
    serde_json::to_vec(mark).expect("a read mark has string keys only, and memory does not fail to be written")
}

fn write_receipt(to: &mut Vec<u8>, receipt: &Receipt) {
    // All fields are named, so that none is forgotten.
    let Receipt {
        tenant,
        conversation_id,
        message_id,
        status,
        kind,
        sender_id,
        sent_at_ms,
        counts,
        last_read_at_ms,
        user_id,
        read_at_ms,
        version,
    } = receipt;
    string(to, "{\"tenant\":", tenant);
    optional_string(to, ",\"conversation_id\":", conversation_id.as_deref());
    string(to, ",\"message_id\":", message_id);
    to.extend_from_slice(match status {
        Status::Ok => b",\"status\":\"ok\"".as_slice(),
        Status::NotFound => b",\"status\":\"not_found\"",
        Status::NotRequested => b",\"status\":\"not_requested\"",
        Status::Unsupported => b",\"status\":\"unsupported\"",
        Status::Recalled => b",\"status\":\"recalled\"",
        Status::Forbidden => b",\"status\":\"forbidden\"",
    });
    to.extend_from_slice(match kind {
        Some(Kind::Direct) => b",\"kind\":\"direct\"".as_slice(),
        Some(Kind::Group) => b",\"kind\":\"group\"",
        None => b"",
    });
    optional_string(to, ",\"sender_id\":", sender_id.as_deref());
    optional_number(to, ",\"sent_at_ms\":", *sent_at_ms);
    if let Some(Counts { audience_count, read_count, unread_count, hidden_count, departed_count, all_read }) = counts {
        number(to, ",\"audience_count\":", u64::from(*audience_count));
        number(to, ",\"read_count\":", u64::from(*read_count));
        number(to, ",\"unread_count\":", u64::from(*unread_count));
        number(to, ",\"hidden_count\":", u64::from(*hidden_count));
        number(to, ",\"departed_count\":", u64::from(*departed_count));
        boolean(to, ",\"all_read\":", *all_read);
    }
    optional_number(to, ",\"last_read_at_ms\":", *last_read_at_ms);
    optional_string(to, ",\"user_id\":", user_id.as_deref());
    optional_number(to, ",\"read_at_ms\":", *read_at_ms);
    optional_number(to, ",\"version\":", *version);
    to.push(b'}');
}

/// What stands before a value, and a text.
fn string(to: &mut Vec<u8>, before: &str, text: &str) {
    to.extend_from_slice(before.as_bytes());
    // Without a way out of the loop it is done for many bytes at once.
    let is_plain = text.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\'));
    if is_plain {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        serde_json::to_writer(to, text).expect("a text is JSON, and memory does not fail to be written");
    }
}

fn optional_string(to: &mut Vec<u8>, before: &str, text: Option<&str>) {
    if let Some(text) = text {
        string(to, before, text);
    }
}

fn number(to: &mut Vec<u8>, before: &str, number: u64) {
    to.extend_from_slice(before.as_bytes());
    to.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn optional_number(to: &mut Vec<u8>, before: &str, of: Option<u64>) {
    if let Some(of) = of {
        number(to, before, of);
    }
}

fn boolean(to: &mut Vec<u8>, before: &str, is: bool) {
    to.extend_from_slice(before.as_bytes());
    to.extend_from_slice(if is { b"true" } else { b"false" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;
    use serde::Serialize;

    fn receipts_of_all_kinds() -> impl Strategy<Value = Receipt> {
        let status = prop_oneof![
            Just(Status::Ok),
            Just(Status::NotFound),
            Just(Status::NotRequested),
            Just(Status::Unsupported),
            Just(Status::Recalled),
            Just(Status::Forbidden)
        ];
        let counts = (any::<[u32; 5]>(), any::<bool>()).prop_map(|([a, r, u, h, d], all_read)| Counts {
            audience_count: a,
            read_count: r,
            unread_count: u,
            hidden_count: h,
            departed_count: d,
            all_read,
        });
        let ids = (any::<String>(), of(any::<String>()), any::<String>(), of(any::<String>()), of(".*"));
        let kind = of(prop_oneof![Just(Kind::Direct), Just(Kind::Group)]);
        let numbers = any::<[Option<u64>; 4]>();
        (ids, status, kind, of(counts), numbers).prop_map(|(ids, status, kind, counts, numbers)| Receipt {
            tenant: ids.0,
            conversation_id: ids.1,
            message_id: ids.2,
            status,
            kind,
            sender_id: ids.3,
            sent_at_ms: numbers[0],
            counts,
            last_read_at_ms: numbers[1],
            user_id: ids.4,
            read_at_ms: numbers[2],
            version: numbers[3],
        })
    }

    fn text(of: &impl Serialize) -> String {
        serde_json::to_string(of).unwrap()
    }

    #[derive(Serialize)]
    struct Batch<'a> {
        receipts: &'a [Receipt],
        position: &'a str,
    }

    #[derive(Serialize)]
    struct Page<'a> {
        members: &'a [Member],
        next_cursor: Option<&'a str>,
        is_finished: bool,
        receipt: &'a Receipt,
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_serde_writes(
            all in prop::collection::vec(receipts_of_all_kinds(), 1..4),
            people in prop::collection::vec((any::<String>(), any::<Option<u64>>(), any::<bool>()), 0..4),
            cursor in of(any::<String>()),
            position in "\\PC*",
        ) {
            prop_assert_eq!(String::from_utf8(receipt(&all[0])).unwrap(), text(&all[0]));
            let batch = Batch { receipts: &all, position: &position };
            prop_assert_eq!(String::from_utf8(receipts(&all, &position)).unwrap(), text(&batch));
            let members: Vec<Member> =
                people.into_iter().map(|(user_id, read_at_ms, left)| Member { user_id, read_at_ms, left }).collect();
            let (next_cursor, is_finished) = (cursor.as_deref(), cursor.is_none());
            let whole = Page { members: &members, next_cursor, is_finished, receipt: &all[0] };
            prop_assert_eq!(String::from_utf8(page(&members, next_cursor, &all[0])).unwrap(), text(&whole));
        }
    }
}
