//! Generates near-events: JSON texts that are an event or almost one. The crate's unit tests and
//! its tests of the public API share it, so it depends on neither.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A near-event, and a property that a JSON parser with one value per name would hide.
#[derive(Debug, Clone)]
pub(crate) struct NearEvent {
    pub(crate) json: String,
    /// True if an object has two members with the same name.
    pub(crate) has_twins: bool,
}

const TWINS: &str = r#"{"team":true,"team":false}"#;

const BASES: [&[(&str, &str)]; 9] = [
    &[("type", r#""conversation.configured""#), ("conversation_id", r#""c""#), ("kind", r#""group""#)],
    &[
        ("type", r#""conversation.configured""#),
        ("conversation_id", r#""c""#),
        ("kind", r#""direct""#),
        ("group_type", r#""t""#),
    ],
    &[
        ("type", r#""members.changed""#),
        ("conversation_id", r#""c""#),
        ("joined", r#"["a","b"]"#),
        ("left", "[]"),
        ("observers", "null"),
    ],
    &[
        ("type", r#""message.sent""#),
        ("conversation_id", r#""c""#),
        ("message_id", r#""m""#),
        ("sender_id", r#""s""#),
        ("sent_at_ms", "17"),
        ("need_read_receipt", "true"),
        ("recipients", r#"["a"]"#),
    ],
    &[
        ("type", r#""message.read""#),
        ("conversation_id", r#""c""#),
        ("reader_id", r#""r""#),
        ("message_ids", r#"["m","n"]"#),
        ("read_at_ms", "18"),
        ("hidden", "false"),
    ],
    &[
        ("type", r#""conversation.read""#),
        ("conversation_id", r#""c""#),
        ("reader_id", r#""r""#),
        ("up_to_message_id", r#""m""#),
        ("read_at_ms", "18"),
    ],
    &[
        ("type", r#""message.recalled""#),
        ("tenant", r#""acme""#),
        ("event_id", r#""e""#),
        ("conversation_id", r#""c""#),
        ("message_id", r#""m""#),
    ],
    &[("type", r#""policy.changed""#), ("read_receipts", r#"{"team":true,"*":false}"#), ("partition", "3")],
    &[("type", r#""user.erased""#), ("user_id", r#""u""#), ("partition", "0")],
];

const NAMES: [&str; 26] = [
    "type",
    "tenant",
    "event_id",
    "conversation_id",
    "kind",
    "group_type",
    "joined",
    "left",
    "observers",
    "message_id",
    "sender_id",
    "sent_at_ms",
    "need_read_receipt",
    "recipients",
    "reader_id",
    "message_ids",
    "read_at_ms",
    "hidden",
    "up_to_message_id",
    "up_to_sent_at_ms",
    "read_receipts",
    "partition",
    "user_id",
    "text",
    "Type",
    "",
];

fn fragment() -> impl Strategy<Value = String> {
    let text = |unit: &str, count: usize| format!("\"{}\"", unit.repeat(count));
    let fixed = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "-0",
        "1.0",
        "1e3",
        "1.78e12",
        "0.5",
        "9007199254740992",
        "9007199254740993",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1e999",
        "[]",
        "{}",
        "[null]",
        "[[]]",
        r#"["a","a"]"#,
        r#"["a",1]"#,
        r#"["a",""]"#,
        r#"["\ud800"]"#,
        r#"{"team":true}"#,
        r#"{"team":null}"#,
        r#"{"":true}"#,
        r#"{"*":1,"a/b~":"on"}"#,
        r#"{"direct":null}"#,
        TWINS,
        r#""""#,
        r#""a""#,
        r#""a/b""#,
        r#""\u0061\n""#,
        r#""\ud83d\ude42""#,
        r#""\ud800""#,
        r#""\u0000""#,
        r#""group""#,
        r#""direct""#,
        r#""message.edited""#,
        r#""message.sent""#,
        r#""message.recalled""#,
        r#""user.erased""#,
    ];
    let mut pool: Vec<String> = fixed.into_iter().map(str::to_owned).collect();
    pool.extend([text("a", 128), text("a", 129), text("é", 64), text("é", 65), text("🙂", 33), text("é", 129)]);
    pool.push(format!("[{}]", vec![r#""m""#; 100].join(",")));
    pool.push(format!("[{}]", vec![r#""m""#; 101].join(",")));
    pool.push(format!(r#"{{{}:true}}"#, text("é", 65)));
    select(pool)
}

#[derive(Debug, Clone)]
enum Change {
    Drop(Index),
    Replace(Index, String),
    Repeat(Index),
    Add(&'static str, String),
    Swap(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => any::<Index>().prop_map(Change::Drop),
        3 => (any::<Index>(), fragment()).prop_map(|(at, json)| Change::Replace(at, json)),
        1 => any::<Index>().prop_map(Change::Repeat),
        4 => (select(&NAMES[..]), fragment()).prop_map(|(name, json)| Change::Add(name, json)),
        4 => (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

/// Generates an event of any type with up to five changes, most of them harmful.
pub(crate) fn near_event() -> impl Strategy<Value = NearEvent> {
    (select(&BASES[..]), proptest::collection::vec(change(), 0..6)).prop_map(|(base, changes)| {
        let mut members: Vec<(&str, String)> = base.iter().map(|(name, json)| (*name, (*json).to_owned())).collect();
        for change in changes {
            let count = members.len();
            match change {
                Change::Add(name, json) => members.push((name, json)),
                _ if count == 0 => {}
                Change::Drop(at) => drop(members.remove(at.index(count))),
                Change::Replace(at, json) => members[at.index(count)].1 = json,
                Change::Repeat(at) => members.push(members[at.index(count)].clone()),
                Change::Swap(one, other) => members.swap(one.index(count), other.index(count)),
            }
        }
        let has_twins = members.iter().any(|(_, json)| json == TWINS)
            || members.iter().enumerate().any(|(at, (name, _))| members[..at].iter().any(|(other, _)| other == name));
        let members: Vec<String> = members.into_iter().map(|(name, json)| format!("\"{name}\": {json}")).collect();
        NearEvent { json: format!("{{{}}}", members.join(", ")), has_twins }
    })
}
