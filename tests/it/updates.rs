//! Tests streams of updates of a running service over the embedded log: a client receives, loses
//! and resumes updates (INV-STREAM). `crates/http` tests the parts, `tests/kafka` the same on
//! Kafka.

use receipts_tests::TIMEOUT;
use receipts_tests::process::{Service, Stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SENT_AT_MS: u64 = 1_780_000_000_000;

fn sent(conversation: &str, message: &str, sender: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": sender,
           "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
}

fn read(conversation: &str, message: &str, reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": conversation, "reader_id": reader, "message_ids": [message]})
}

fn joined(conversation: &str, people: &[&str]) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": people})
}

fn serve(data_dir: &Path, more: &[&str]) -> Service {
    Service::serve(data_dir, &[&["--projector-update-window-ms", "20"], more].concat())
}

/// Receives updates until one matches, and returns it.
fn hear(stream: &mut Stream, mut is: impl FnMut(&Value) -> bool) -> Value {
    loop {
        let event = stream.next_update().expect("the update before the end");
        assert_eq!(event.update["type"], event.name.as_str());
        if is(&event.update) {
            return event.update;
        }
    }
}

/// INV-STREAM
#[test]
fn stream_carries_reads_and_marks_until_the_service_ends() {
    let data = tempfile::tempdir().expect("a folder");
    let service = serve(data.path(), &["--http-heartbeat-ms", "100"]);
    let mut group = service.listen("conversation_id=g1", &[]);
    let mut alice = service.listen("sender_id=alice", &[("Receipts-Caller", "alice")]);
    _ = service.write(&json!([joined("g1", &["alice", "bob", "carol"]), sent("g1", "m1", "alice")]));
    _ = service.write(&read("g1", "m1", "bob"));
    for stream in [&mut group, &mut alice] {
        let update = hear(stream, |update| update["read_count"] == 1);
        assert_eq!((&update["message_id"], &update["newly_read"][0]["user_id"]), (&json!("m1"), &json!("bob")));
    }
    // A read in a direct chat goes to the sender, not back to the reader.
    let mut bob = service.listen("sender_id=bob", &[("Receipts-Caller", "bob")]);
    let direct = json!({"type": "conversation.configured", "conversation_id": "d1", "kind": "direct"});
    let mark =
        json!({"type": "conversation.read", "conversation_id": "d1", "reader_id": "bob", "up_to_message_id": "d"});
    _ = service.write(&json!([direct, joined("d1", &["alice", "bob"]), sent("d1", "d", "alice"), mark]));
    let mark = hear(&mut alice, |update| update["type"] == "read_mark.updated");
    assert_eq!(
        (&mark["reader_id"], &mark["up_to_message_id"], &mark["peer_id"]),
        (&json!("bob"), &json!("d"), &json!("alice"))
    );
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    assert_eq!(service.terminate(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "open streams do not hold up the end");
    assert_eq!(bob.next_update(), None);
    assert!(bob.positions >= 2, "heartbeats");
}

/// INV-UPDATE-LAST
#[test]
fn changes_within_a_window_are_one_update() {
    const READERS: usize = 60;
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &["--projector-update-window-ms", "2000"]);
    let mut stream = service.listen("conversation_id=g1", &[]);
    let people: Vec<String> = (0..READERS).map(|n| format!("u{n}")).collect();
    let mut names: Vec<&str> = people.iter().map(String::as_str).collect();
    names.push("alice");
    let mut events = vec![joined("g1", &names), sent("g1", "m1", "alice")];
    events.extend(people.iter().map(|reader| read("g1", "m1", reader)));
    let token = service.write(&json!(events));
    let (mut updates, mut named) = (0, Vec::new());
    let last = hear(&mut stream, |update| {
        updates += 1;
        let newly = update["newly_read"].as_array().expect("a list").iter();
        named.extend(newly.map(|reader| reader["user_id"].as_str().expect("an id").to_owned()));
        update["read_count"] == READERS
    });
    // One update, unless this process or the service slept through a whole window.
    assert!(updates < 5, "{updates} updates of {READERS} reads in one request");
    named.sort();
    named.dedup();
    assert_eq!(named.len(), READERS);
    let receipt = service.get_after("/v1/conversations/g1/messages/m1/receipt", &token).body;
    for (field, value) in receipt.as_object().expect("a receipt") {
        assert_eq!(last.get(field), Some(value), "{field}");
    }
}

/// INV-STRANGER, INV-STREAM
#[test]
fn impossible_streams_are_refused_before_they_begin() {
    let data = tempfile::tempdir().expect("a folder");
    let service = serve(data.path(), &[]);
    let bob = [("Receipts-Caller", "bob")];
    let ask = |query: &str, headers: &[(&str, &str)]| {
        let answer = service.request("GET", &format!("/v1/updates{query}"), headers, "");
        (answer.status, answer.body["type"].as_str().expect("a problem").to_owned())
    };
    assert_eq!(ask("", &[]), (400, "urn:receipts:problem:invalid".to_owned()));
    assert_eq!(ask("?conversation_id=g1", &bob), (403, "urn:receipts:problem:forbidden".to_owned()));
    assert_eq!(ask("?sender_id=alice", &bob), (403, "urn:receipts:problem:forbidden".to_owned()));
    assert_eq!(ask("?sender_id=bob&since=x", &bob), (400, "urn:receipts:problem:bad-position".to_owned()));
    // The id and the position belong to another log, so this log cannot continue them.
    let mut stream = service.listen("conversation_id=g1", &[]);
    let position = service.write(&json!([joined("g1", &["alice", "bob"]), sent("g1", "m1", "alice")]));
    hear(&mut stream, |update| update["message_id"] == "m1");
    let id = stream.last_id.clone();
    assert_eq!(service.terminate(), Some(0));
    let other = tempfile::tempdir().expect("a folder");
    let service = serve(other.path(), &[]);
    for since in [id, position] {
        let gone = service.request("GET", &format!("/v1/updates?conversation_id=g1&since={since}"), &[], "");
        assert_eq!((gone.status, &gone.body["type"]), (410, &json!("urn:receipts:problem:updates-gone")));
    }
}

/// The state of a client that keeps the newest update of each message.
#[derive(Default)]
struct Held(BTreeMap<(String, String), Value>);

impl Held {
    fn hear(&mut self, stream: &mut Stream) {
        let update = stream.next_update().expect("an update").update;
        let name = |field: &str| update[field].as_str().expect("an id").to_owned();
        let held = self.0.entry((name("conversation_id"), name("message_id"))).or_default();
        if held["version"].as_u64() <= update["version"].as_u64() {
            *held = update;
        }
    }

    fn is_behind(&self, receipt: &Value) -> bool {
        let name = |field: &str| receipt[field].as_str().expect("an id").to_owned();
        let held = self.0.get(&(name("conversation_id"), name("message_id")));
        held.is_none_or(|update| update["version"].as_u64() < receipt["version"].as_u64())
    }
}

/// INV-STREAM
#[test]
fn resuming_client_ends_with_the_service_answers() {
    const MESSAGES: usize = 60;
    const READERS: usize = 20;
    const CONVERSATIONS: [&str; 3] = ["g1", "g2", "g3"];
    let data = tempfile::tempdir().expect("a folder");
    let service = serve(data.path(), &[]);
    let people: Vec<String> = (0..READERS).map(|n| format!("u{n}")).collect();
    let mut names: Vec<&str> = people.iter().map(String::as_str).collect();
    names.push("alice");
    // Resumes first from a position of the event log, then from ids.
    let mut since = service.write(&json!(CONVERSATIONS.map(|conversation| joined(conversation, &names))));
    let (done, mut held, mut resumes, mut random) = (AtomicBool::new(false), Held::default(), 0, 7_u64);
    let write = || {
        let mut token = String::new();
        for number in 0..MESSAGES {
            for conversation in CONVERSATIONS {
                let message = format!("m{number}");
                let mut events = vec![sent(conversation, &message, "alice")];
                events.extend(people[number % 5..].iter().map(|reader| read(conversation, &message, reader)));
                token = service.write(&json!(events));
            }
        }
        done.store(true, Ordering::Release);
        token
    };
    let token = std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        while !done.load(Ordering::Acquire) {
            let mut stream = service.listen("sender_id=alice", &[("Last-Event-ID", &since)]);
            stream.wait_for_id();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            for _ in 0..random >> 60 {
                held.hear(&mut stream);
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
            since.clone_from(&stream.last_id);
            resumes += 1;
        }
        writer.join().expect("written")
    });
    assert!(resumes > 10, "only {resumes} resumes");
    let mut receipts = Vec::new();
    for conversation in CONVERSATIONS {
        for number in 0..MESSAGES {
            let path = format!("/v1/conversations/{conversation}/messages/m{number}/receipt");
            receipts.push(service.get_after(&path, &token).body);
        }
    }
    let mut stream = service.listen("sender_id=alice", &[("Last-Event-ID", &since)]);
    while receipts.iter().any(|receipt| held.is_behind(receipt)) {
        held.hear(&mut stream);
    }
    for receipt in receipts {
        let name = |field: &str| receipt[field].as_str().expect("an id").to_owned();
        let update = &held.0[&(name("conversation_id"), name("message_id"))];
        for (field, value) in receipt.as_object().expect("a receipt") {
            assert_eq!(update.get(field), Some(value), "{field} of {receipt}");
        }
    }
}

/// INV-STREAM
#[test]
fn slow_client_is_cut_off_and_resumes_there() {
    const MESSAGES: usize = 1_500;
    const READERS: usize = 100;
    let data = tempfile::tempdir().expect("a folder");
    let service = serve(data.path(), &[]);
    // Long names make long updates: 16 KB each, together more than a socket's buffers.
    let people: Vec<String> = (0..READERS).map(|n| format!("{n:0120}")).collect();
    let mut names: Vec<&str> = people.iter().map(String::as_str).collect();
    names.push("alice");
    let messages: Vec<Value> = (0..MESSAGES).map(|n| sent("g1", &format!("m{n}"), "alice")).collect();
    _ = service.write(&joined("g1", &names));
    for some in messages.chunks(500) {
        _ = service.write(&json!(some));
    }
    let mut slow = service.listen("conversation_id=g1", &[]);
    slow.wait_for_id();
    let last = format!("m{}", MESSAGES - 1);
    let marks: Vec<Value> = people
        .iter()
        .map(|reader| json!({"type": "conversation.read", "conversation_id": "g1", "reader_id": reader, "up_to_message_id": last}))
        .collect();
    _ = service.write(&json!(marks));
    let is_cut = || {
        let metrics = service.get("/metrics").body;
        metrics
            .as_str()
            .expect("text")
            .lines()
            .any(|line| line.starts_with("receipts_streams_cut_total") && !line.ends_with(" 0"))
    };
    let deadline = Instant::now() + TIMEOUT;
    while !is_cut() {
        assert!(Instant::now() < deadline, "it is not cut off");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut heard = BTreeMap::new();
    let mut resumes = 0;
    loop {
        while let Some(event) = slow.next_update() {
            let message = event.update["message_id"].as_str().expect("an id").to_owned();
            let count = event.update["read_count"].as_u64().expect("a count");
            heard.insert(message, count);
            if heard.len() == MESSAGES && heard.values().all(|count| *count == READERS as u64) {
                assert!(resumes > 0, "it was cut off");
                return;
            }
        }
        resumes += 1;
        assert!(resumes < 100, "it gets nowhere");
        slow = service.listen("conversation_id=g1", &[("Last-Event-ID", &slow.last_id.clone())]);
    }
}

/// INV-STREAM, INV-ERASED: also for updates published before the erasure.
#[test]
fn a_person_who_was_erased_is_in_no_replay() {
    let data = tempfile::tempdir().expect("a folder");
    let service = serve(data.path(), &[]);
    let mut live = service.listen("conversation_id=d1", &[]);
    live.wait_for_id();
    let start = live.last_id.clone();
    let direct = json!({"type": "conversation.configured", "conversation_id": "d1", "kind": "direct"});
    let mark =
        json!({"type": "conversation.read", "conversation_id": "d1", "reader_id": "bob", "up_to_message_id": "m1"});
    _ = service.write(&json!([direct, joined("d1", &["alice", "bob"]), sent("d1", "m1", "alice"), mark]));
    let update = hear(&mut live, |update| update["read_count"] == 1);
    assert!(update.to_string().contains("bob"), "{update}");
    let erased = service.write(&json!({"type": "user.erased", "user_id": "bob"}));
    _ = service.get_after("/v1/conversations/d1/messages/m1/receipt", &erased);
    _ = service.write(&json!([joined("d1", &["carol"]), sent("d1", "m2", "alice")]));
    let mut replay = service.listen("conversation_id=d1", &[("Last-Event-ID", &start)]);
    let mut read = false;
    loop {
        let update = replay.next_update().expect("an update").update;
        assert!(!update.to_string().contains("bob"), "{update}");
        read |= update["message_id"] == "m1" && update["read_count"] == 1 && update["last_read_at_ms"].is_u64();
        if update["message_id"] == "m2" {
            break;
        }
    }
    assert!(read, "the count stays");
}
