//! Writes receipts, member lists and updates as JSON, in a fraction of the time of serde. JSON
//! takes most of the time of a query of 30 ids.
//!
//! The bytes must equal those of serde; the tests compare them.

use receipts_event::Kind;
use receipts_fold::view::{Counts, Member, ReadMark, Receipt, Status};

/// The most bytes of a receipt without its ids, and of a row of a list.
const RECEIPT_BYTES: usize = 400;
const MEMBER_BYTES: usize = 80;

/// Writes the answer to a batch: `{"receipts":[…],"position":"…"}`.
pub fn receipts(receipts: &[Receipt], position: &str) -> Vec<u8> {
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

/// Writes one receipt.
pub fn receipt(receipt: &Receipt) -> Vec<u8> {
    let mut to = Vec::with_capacity(2 * RECEIPT_BYTES);
    write_receipt(&mut to, receipt);
    to
}

/// Writes a page of a list: `{"members":[…],"next_cursor":…,"is_finished":…,"receipt":{…}}`.
pub fn page(members: &[Member], next_cursor: Option<&str>, receipt: &Receipt) -> Vec<u8> {
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

/// Writes a read mark, with serde: it is small and rarely asked for.
pub fn read_mark(mark: &ReadMark) -> Vec<u8> {
    serde_json::to_vec(mark).expect("a read mark has string keys only, and memory does not fail to be written")
}

/// Writes the answer to a query of read marks: `{"read_marks":[…],"position":"…"}`.
pub fn read_marks(marks: &[Option<ReadMark>], position: &str) -> Vec<u8> {
    let mut to = b"{\"read_marks\":[".to_vec();
    for (at, mark) in marks.iter().enumerate() {
        if at > 0 {
            to.push(b',');
        }
        match mark {
            Some(mark) => to.extend(read_mark(mark)),
            None => to.extend_from_slice(b"null"),
        }
    }
    to.push(b']');
    string(&mut to, ",\"position\":", position);
    to.push(b'}');
    to
}

/// Writes a `receipt.updated`: the receipt, then the new readers.
pub struct ReceiptUpdate {
    json: Vec<u8>,
    readers: usize,
}

impl ReceiptUpdate {
    /// Begins an update. `readers` is about how many readers will follow.
    pub fn new(receipt: &Receipt, readers: usize) -> Self {
        let mut json = Vec::with_capacity(RECEIPT_BYTES + MEMBER_BYTES * (readers + 2));
        json.extend_from_slice(b"{\"type\":\"receipt.updated\",");
        write_fields(&mut json, receipt);
        json.extend_from_slice(b",\"newly_read\":[");
        Self { json, readers: 0 }
    }

    /// Adds a reader and the read time, Unix milliseconds.
    pub fn reader(&mut self, user_id: &str, read_at_ms: u64) {
        string(&mut self.json, if self.readers > 0 { ",{\"user_id\":" } else { "{\"user_id\":" }, user_id);
        number(&mut self.json, ",\"read_at_ms\":", read_at_ms);
        self.json.push(b'}');
        self.readers += 1;
    }

    /// Returns the text. `is_truncated` says that more members have read than were added.
    pub fn finish(mut self, is_truncated: bool) -> Vec<u8> {
        self.json.extend_from_slice(if is_truncated { b"],\"newly_read_truncated\":true}" } else { b"]}" });
        self.json
    }
}

fn write_receipt(to: &mut Vec<u8>, receipt: &Receipt) {
    to.push(b'{');
    write_fields(to, receipt);
    to.push(b'}');
}

fn write_fields(to: &mut Vec<u8>, receipt: &Receipt) {
    // The pattern names all fields, so that a new one cannot be forgotten.
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
    string(to, "\"tenant\":", tenant);
    optional_string(to, ",\"conversation_id\":", conversation_id.as_deref());
    string(to, ",\"message_id\":", message_id);
    to.extend_from_slice(match status {
        Status::Ok => b",\"status\":\"ok\"".as_slice(),
        Status::NotFound => b",\"status\":\"not_found\"",
        Status::NotRequested => b",\"status\":\"not_requested\"",
        Status::Unsupported => b",\"status\":\"unsupported\"",
        Status::Recalled => b",\"status\":\"recalled\"",
        Status::Ambiguous => b",\"status\":\"ambiguous\"",
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
}

/// Writes the text before a value, and a string.
fn string(to: &mut Vec<u8>, before: &str, text: &str) {
    to.extend_from_slice(before.as_bytes());
    // A loop without an early exit handles many bytes at once.
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
            Just(Status::Ambiguous),
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

    #[derive(Serialize)]
    struct Updated<'a> {
        r#type: &'static str,
        #[serde(flatten)]
        receipt: &'a Receipt,
        newly_read: Vec<NewlyRead<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        newly_read_truncated: bool,
    }

    #[derive(Serialize)]
    struct NewlyRead<'a> {
        user_id: &'a str,
        read_at_ms: u64,
    }

    proptest! {
        #[test]
        fn update_equals_the_text_of_serde(
            receipt in receipts_of_all_kinds(),
            readers in prop::collection::vec((any::<String>(), any::<u64>()), 0..4),
            newly_read_truncated: bool,
        ) {
            let mut written = ReceiptUpdate::new(&receipt, readers.len());
            readers.iter().for_each(|(user_id, read_at_ms)| written.reader(user_id, *read_at_ms));
            let written = String::from_utf8(written.finish(newly_read_truncated)).unwrap();
            let newly_read =
                readers.iter().map(|(user_id, read_at_ms)| NewlyRead { user_id, read_at_ms: *read_at_ms }).collect();
            let whole = Updated { r#type: "receipt.updated", receipt: &receipt, newly_read, newly_read_truncated };
            prop_assert_eq!(written, text(&whole));
        }

        #[test]
        fn answers_equal_the_text_of_serde(
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
