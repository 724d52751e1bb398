//! Tests a service of 1,000 partitions: no token is long, a wait sees what its token stands for,
//! and a stream resumes without a gap (INV-TOKEN). `crates/event` tests the tokens of any offsets.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use receipts_event::token::{Content, TOKEN_CHARS_MAX};
use receipts_query::{Remainders, Since, StreamId, Token};
use receipts_tests::process::{Answer, Service, Stream};
use receipts_tests::{receipt_path, rounded};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CONVERSATIONS: usize = 400;

fn conversation(number: usize) -> String {
    format!("g{number}")
}

fn events(of: impl Fn(String) -> Value) -> Value {
    (0..CONVERSATIONS).map(|number| of(conversation(number))).collect()
}

fn joined() -> Value {
    events(|id| json!({"type": "members.changed", "conversation_id": id, "joined": ["alice", "bob", "carol"]}))
}

fn sent() -> Value {
    events(|id| {
        json!({"type": "message.sent", "conversation_id": id, "message_id": "m", "sender_id": "alice",
               "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true})
    })
}

fn read(reader: &str) -> Value {
    events(|id| json!({"type": "message.read", "conversation_id": id, "reader_id": reader, "message_ids": ["m"]}))
}

/// Sends a request whose answer must have short headers.
fn exchange(service: &Service, method: &str, path: &str, token: &str, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Receipts-Min-Position", token)];
    let headers = if token.is_empty() { &headers[..1] } else { &headers };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (head, answer) = service.exchange(method, path, headers, &body);
    let longest = head.lines().map(str::len).max().unwrap_or_default();
    assert!(longest <= TOKEN_CHARS_MAX + "receipts-position: ".len(), "{longest} characters in a header");
    answer
}

fn write(service: &Service, events: &Value) -> String {
    let answer = exchange(service, "POST", "/v1/events", "", events);
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["position"].as_str().expect("a token").to_owned()
}

/// Returns the id as it is where offsets are too large for an exact one.
fn remainders(id: &str) -> String {
    let token: Token = id.parse().expect("an id");
    let Since::Stream(StreamId(positions)) = &token.since else { panic!("it is exact: {token:?}") };
    Token { since: Since::Remainders(Remainders::of(positions)), ..token }.to_string()
}

/// Hears of every conversation's message with this many reads. Returns the last id. A stream that
/// ends because its reader was slow is resumed.
fn hear_all(mut stream: Stream, resume: impl Fn(&str) -> Stream, read_count: u64) -> String {
    let (mut heard, mut ends) = (BTreeSet::new(), 0);
    while heard.len() < CONVERSATIONS {
        let Some(next) = stream.next_update() else {
            ends += 1;
            assert!(ends < 20, "the stream ends again and again; heard of {}", heard.len());
            stream = resume(&stream.last_id);
            continue;
        };
        assert!(stream.last_id.len() <= TOKEN_CHARS_MAX, "{} characters of an id", stream.last_id.len());
        if next.update["read_count"] == read_count {
            heard.insert(next.update["conversation_id"].as_str().expect("an id").to_owned());
        }
    }
    stream.last_id.clone()
}

/// INV-TOKEN, INV-POSITION, INV-STREAM
#[test]
fn service_of_1000_partitions_has_short_and_right_tokens() {
    let data = tempfile::tempdir().expect("a folder");
    let flags = ["--log-partitions", "1000", "--projector-update-window-ms", "20"];
    let service = Service::serve(data.path(), &flags);
    _ = write(&service, &joined());
    let position = write(&service, &sent());
    let read_count = |number: usize, token: &str| {
        let answer = exchange(&service, "GET", &receipt_path(&conversation(number), "m"), token, &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["read_count"].as_u64().expect("a count")
    };
    assert!((0..CONVERSATIONS).all(|number| read_count(number, &position) == 0));

    // A rounded token waits for the end of each partition, and not for what never comes.
    for number in 0..20 {
        let id = conversation(number);
        let by_bob = json!({"type": "message.read", "conversation_id": id, "reader_id": "bob", "message_ids": ["m"]});
        let token = write(&service, &by_bob);
        assert!(token.len() < 30, "one partition: {token}");
        assert_eq!(read_count(number, &rounded(&token, 1_000, 12)), 1);
    }
    let body = json!({"message_ids": ["m"]});
    let found = exchange(&service, "POST", "/v1/receipts/query", &rounded(&position, 1_000, 40), &body);
    assert_eq!((found.status, &found.body["receipts"][0]["status"]), (200, &json!("ambiguous")));

    // A stream resumes from an exact id, from one with remainders, and from a rounded position.
    let alice =
        |since: &str| service.listen("sender_id=alice", &[("Receipts-Caller", "alice"), ("Last-Event-ID", since)]);
    let stream = alice(&rounded(&position, 1_000, 3));
    let position = write(&service, &read("bob"));
    let id = hear_all(stream, alice, 1);
    _ = write(&service, &read("carol"));
    for since in [id.clone(), remainders(&id), rounded(&position, 1_000, 2), position] {
        hear_all(alice(&since), alice, 2);
    }

    let foreign =
        exchange(&service, "GET", &receipt_path("g1", "m"), &rounded(&foreign_token(), 1_000, 4), &Value::Null);
    assert_eq!((foreign.status, &foreign.body["type"]), (400, &json!("urn:receipts:problem:bad-position")));
    assert_eq!(service.terminate(), Some(0));
}

/// Returns a token of another log.
fn foreign_token() -> String {
    let content = Content { log: Some(1), offsets: vec![(1, 1)], ..Content::default() };
    URL_SAFE_NO_PAD.encode(content.bytes())
}
