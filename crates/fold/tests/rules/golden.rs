//! INV-CODES: `schemas/store/golden-v2.txt` holds a partition with a page of every kind in version
//! 2 of the store's format. It is read, answers questions, and is written again byte for byte.
//!
//! The bytes of a published version never change. Until then a change raises the draft's number,
//! and writes this file anew (ADR 0034). `RECEIPTS_TEST_WRITE_SCHEMAS=1` writes the file.

#![allow(clippy::disallowed_methods, reason = "a test that reads and writes its golden file")]

use receipts_event::decode;
use receipts_fold::effects::Effects;
use receipts_fold::index::{BloomFilter, IndexPage};
use receipts_fold::pages::codec::{Reader, Writer};
use receipts_fold::pages::{
    Chunk, ConversationPage, Departures, Erasure, Messages, Meta, Page, Parked, People, PeopleIndex, Policy, ReadMarks,
};
use receipts_fold::view::{MemberFilter, Status};
use receipts_fold::{LastRecord, Limits, Origin, RawRecord, RecordMetadata, State};
use receipts_store::snapshot::hex;
use receipts_store::{Backend, Batch, MemoryBackend, Paged};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Fold = State<Paged<MemoryBackend>>;
type Values = BTreeMap<Vec<u8>, Vec<u8>>;

const NOW_MS: u64 = 1_780_000_000_000;
const DAY_MS: u64 = 86_400_000;
/// The messages per segment. With 65,536 the file would be large, and its form is the same.
const SEGMENT: u64 = 64;
/// Table codes of `schemas/store/v2.md`.
const NAMES: u8 = 2;
const INDEX: u8 = 10;
/// The header before the bytes of a page in its first part, bytes.
const HEADER_BYTES: usize = 16;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/store/golden-v2.txt")
}

fn open(backend: &MemoryBackend, read_times: bool) -> Fold {
    let limits = Limits { read_times, retention_ms: 90 * DAY_MS, ..Limits::default() };
    State::open_with_segments(Paged::new(backend.clone(), 0, 1 << 20), limits, SEGMENT).unwrap()
}

fn apply(fold: &mut Fold, event: &Value) {
    let value = serde_json::to_vec(event).unwrap();
    let event = decode(&value).unwrap();
    let offset = fold.next_offset() + 1;
    let at = RecordMetadata { partition: 0, offset, timestamp_ms: NOW_MS + 1_000 * offset };
    let key = event.key();
    let headers = || vec![("trace".into(), Some(Box::from(&b"t1"[..]))), ("empty".into(), None)];
    fold.apply(at, &event, RawRecord { key: Some(&key), value: &value, headers: &headers }, &mut Effects::default())
        .unwrap();
}

fn checkpoint(mut fold: Fold) {
    fold.note_last_record(LastRecord { offset: fold.next_offset() - 1, fingerprint: 0x0123_4567_89ab_cdef });
    fold.write_meta();
    fold.pages().backend().commit(fold.pages().batch(fold.next_offset())).unwrap();
}

fn sent(conversation_id: &str, message_id: &str, sender_id: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation_id, "message_id": message_id, "sender_id": sender_id,
        "sent_at_ms": NOW_MS, "need_read_receipt": true})
}

fn read(conversation_id: &str, message_id: &str, reader_id: &str, hidden: bool) -> Value {
    json!({"type": "message.read", "conversation_id": conversation_id, "reader_id": reader_id,
        "message_ids": [message_id], "hidden": hidden})
}

/// Returns a partition with a page of every kind, and with their rare forms.
fn written() -> Values {
    let backend = MemoryBackend::default();
    let crowd: Vec<String> = (0..70).map(|n| format!("w{n}")).collect();
    // While read times are not kept.
    let mut fold = open(&backend, false);
    apply(
        &mut fold,
        &json!({"type": "members.changed", "conversation_id": "g", "joined": ["ann", "bob", "cid", "dan"]}),
    );
    apply(&mut fold, &sent("g", "1519203421110272001", "ann"));
    apply(&mut fold, &read("g", "1519203421110272001", "bob", false));
    checkpoint(fold);

    let mut fold = open(&backend, true);
    for event in [
        json!({"type": "conversation.configured", "conversation_id": "g", "kind": "group", "group_type": "team"}),
        json!({"type": "conversation.configured", "conversation_id": "d", "kind": "direct"}),
        json!({"type": "members.changed", "conversation_id": "d", "joined": ["ann", "bob"]}),
        json!({"type": "members.changed", "conversation_id": "crowd", "joined": crowd, "observers": ["bot"]}),
        read("g", "1519203421110272001", "cid", false),
        sent("g", "1519203421114466306", "ann"),
        read("g", "1519203421114466306", "cid", true),
        // A read time beyond 49 days, and a send out of order.
        json!({"type": "message.sent", "conversation_id": "g", "message_id": "old", "sender_id": "ann",
            "sent_at_ms": NOW_MS - 60 * DAY_MS, "need_read_receipt": true}),
        read("g", "old", "bob", false),
        json!({"type": "message.sent", "conversation_id": "g", "message_id": "named", "sender_id": "ann",
            "sent_at_ms": NOW_MS, "need_read_receipt": true, "recipients": ["bob", "guest"]}),
        json!({"type": "message.sent", "conversation_id": "g", "message_id": "plain", "sender_id": "bob", "sent_at_ms": NOW_MS}),
        sent("g", "gone", "ann"),
        json!({"type": "message.recalled", "conversation_id": "g", "message_id": "gone"}),
        sent("d", "to-bob", "ann"),
        json!({"type": "message.sent", "conversation_id": "crowd", "message_id": "some", "sender_id": "w0",
            "sent_at_ms": NOW_MS, "need_read_receipt": true, "recipients": ["w1", "w69"]}),
        sent("crowd", "all", "w0"),
        read("crowd", "all", "w69", false),
        read("crowd", "all", "w3", true),
        json!({"type": "conversation.read", "conversation_id": "g", "reader_id": "bob", "up_to_message_id": "named"}),
        json!({"type": "conversation.read", "conversation_id": "g", "reader_id": "cid", "up_to_sent_at_ms": NOW_MS + 5}),
        json!({"type": "conversation.read", "conversation_id": "d", "reader_id": "bob", "up_to_sent_at_ms": 5, "hidden": true}),
        json!({"type": "members.changed", "conversation_id": "g", "left": ["dan"], "observers": ["cid"]}),
        json!({"type": "members.changed", "conversation_id": "g", "joined": ["dan", "cid"]}),
        json!({"type": "policy.changed", "read_receipts": {"team": false, "*": true}, "partition": 0}),
        sent("g", "unsupported", "ann"),
        json!({"type": "user.erased", "user_id": "w5", "partition": 0}),
        json!({"type": "user.erased", "user_id": "nobody here", "partition": 0}),
        json!({"type": "user.erased", "user_id": "w5", "partition": 0}),
        json!({"type": "policy.changed", "tenant": "acme", "read_receipts": {"channel": false}, "partition": 0}),
        read("g", "still to come", "bob", false),
    ] {
        apply(&mut fold, &event);
    }
    // Three segments, the first of which is sealed.
    for n in 0..3 * SEGMENT {
        apply(
            &mut fold,
            &sent("long", &format!("m{n}"), "ann")
                .as_object()
                .map(|o| {
                    let mut o = o.clone();
                    o.insert("recipients".into(), json!(["bob"]));
                    Value::Object(o)
                })
                .unwrap(),
        );
    }
    checkpoint(fold);
    values(&backend)
}

/// Returns all values but about two hundred equal empty pages of the index.
fn values(backend: &MemoryBackend) -> Values {
    let all =
        backend.keys(&[]).unwrap().into_iter().map(|key| (key.clone(), backend.get(&key).unwrap().unwrap().to_vec()));
    all.filter(|(key, value)| key[0] != INDEX || value[HEADER_BYTES..] != [0]).collect()
}

fn as_text(values: &Values) -> String {
    let lines = values.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value)));
    let about = "# A partition with a page of every kind, as version 2 of the store's format writes it: keys and values in hex.\n\
        # Made and read by crates/fold/tests/rules/golden.rs. It stays as it is for as long as its draft is read.\n";
    std::iter::once(about.to_owned()).chain(lines).collect()
}

fn from_text(text: &str) -> Values {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(' ').unwrap());
    lines.map(|(key, value)| (bytes(key), bytes(value))).collect()
}

fn committed() -> Values {
    from_text(&std::fs::read_to_string(path()).expect("schemas/store/golden-v2.txt"))
}

#[test]
fn format_writes_unchanged_bytes() {
    let written = as_text(&written());
    if std::env::var_os("RECEIPTS_TEST_WRITE_SCHEMAS").is_some() {
        std::fs::write(path(), &written).unwrap();
    }
    let committed = std::fs::read_to_string(path()).expect("schemas/store/golden-v2.txt");
    for (line, (is, was)) in written.lines().zip(committed.lines()).enumerate() {
        assert_eq!(
            is,
            was,
            "line {} of schemas/store/golden-v2.txt: a changed format needs a new draft number",
            line + 1
        );
    }
    assert_eq!(written.lines().count(), committed.lines().count(), "lines of schemas/store/golden-v2.txt");
}

/// Decodes a page and encodes it again.
fn again<P: Page>(payload: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(payload);
    let page = P::decode(&mut reader).expect("a page of the format");
    reader.end().expect("no bytes after the page");
    let mut writer = Writer::default();
    page.encode(&mut writer);
    writer.bytes
}

#[test]
fn every_page_kind_round_trips_byte_for_byte() {
    let mut pages: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (key, value) in committed() {
        let (page, part) = key.split_at(key.len() - 2);
        let payload = if part == [0, 0] { &value[HEADER_BYTES..] } else { &value };
        pages.entry(page.to_vec()).or_default().extend_from_slice(payload);
    }
    let mut kinds = BTreeSet::new();
    for (key, payload) in &pages {
        kinds.insert(key[0]);
        let again = match key[0] {
            1 => again::<Meta>(payload),
            NAMES => {
                let mut writer = Writer::default();
                writer.number(Reader::new(payload).number().unwrap());
                writer.bytes
            }
            3 => again::<ConversationPage>(payload),
            4 => again::<People>(payload),
            5 => again::<PeopleIndex>(payload),
            6 => again::<ReadMarks>(payload),
            7 => again::<Departures>(payload),
            8 => again::<Messages>(payload),
            9 => again::<Chunk>(payload),
            INDEX => again::<IndexPage>(payload),
            11 => again::<BloomFilter>(payload),
            12 => again::<Parked>(payload),
            13 => again::<Erasure>(payload),
            14 => again::<Origin>(payload),
            15 => again::<Policy>(payload),
            code => panic!("no table has the code {code}"),
        };
        assert_eq!(hex(&again), hex(payload), "page {}", hex(key));
    }
    assert_eq!(kinds, (1..=15).collect(), "a page of every kind");
}

#[test]
fn golden_partition_answers_and_folds_on() {
    let backend = MemoryBackend::default();
    let mut batch = Batch::new(0, 0, 0);
    committed().iter().for_each(|(key, value)| batch.write(key, value));
    batch.seal();
    backend.commit(batch).unwrap();
    let mut fold = open(&backend, true);
    let status =
        |fold: &Fold, conversation: &str, message: &str| fold.receipt("default", conversation, message).unwrap().status;
    for (conversation, message, wanted) in [
        ("g", "1519203421110272001", Status::Ok),
        ("g", "plain", Status::NotRequested),
        ("g", "gone", Status::Recalled),
        ("g", "unsupported", Status::Unsupported),
        ("long", "m0", Status::Ok),
        ("long", "m191", Status::Ok),
        ("g", "still to come", Status::NotFound),
    ] {
        assert_eq!(status(&fold, conversation, message), wanted, "{message}");
    }
    let list = |fold: &Fold, conversation: &str, message: &str, filter| {
        let members = fold.members("default", conversation, message, filter, 0, 100).unwrap().members;
        members.into_iter().map(|member| (member.user_id, member.read_at_ms)).collect::<Vec<_>>()
    };
    let first = list(&fold, "g", "1519203421110272001", MemberFilter::Read);
    assert_eq!(
        first,
        [("bob".into(), None), ("cid".into(), Some(NOW_MS + 15_000))],
        "one read time that was not kept, and one that was"
    );
    assert_eq!(list(&fold, "g", "old", MemberFilter::Read)[0], ("bob".into(), Some(NOW_MS + 23_000)));
    assert_eq!(list(&fold, "crowd", "all", MemberFilter::Read), [("w69".into(), Some(NOW_MS + 39_000))]);
    assert_eq!(list(&fold, "crowd", "some", MemberFilter::Unread).len(), 2);
    assert_eq!(
        list(&fold, "crowd", "all", MemberFilter::Unread).len(),
        66,
        "69 without a reader, a hidden reader and an erased member"
    );
    let mark = fold.read_mark("default", "g", "bob").unwrap().unwrap();
    assert_eq!((mark.up_to_message_id.as_deref(), mark.up_to_sent_at_ms), (Some("named"), NOW_MS));
    assert!(fold.is_erased("default", "w5") && fold.is_member("default", "g", "dan").unwrap());
    // The parked receipt is applied.
    apply(&mut fold, &sent("g", "still to come", "ann"));
    assert_eq!(fold.parked(), 0);
}
