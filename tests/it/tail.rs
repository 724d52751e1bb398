//! `receipts tail` on the embedded log. `tests/kafka` follows topics and shows records that are no
//! events.

use receipts_tests::eventually;
use receipts_tests::process::{Service, errors, run};
use serde_json::{Value, json};

const SENT_AT_MS: u64 = 1_780_000_000_000;

/// A conversation of a tenant, and another one whose message becomes a dead letter.
fn events() -> Value {
    let sent = |conversation: &str, message: &str| {
        json!({"type": "message.sent", "tenant": "acme", "conversation_id": conversation, "message_id": message,
               "sender_id": "alice", "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
    };
    json!([
        {"type": "members.changed", "tenant": "acme", "conversation_id": "g1", "joined": ["alice", "bob"]},
        sent("g1", "m1"),
        {"type": "message.read", "tenant": "acme", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]},
        sent("g2", "m2\u{1b}[2J"),
    ])
}

#[test]
fn newest_records_are_shown_by_filter() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let service = Service::serve(folder.path(), &[]);
    let of_tenant = [("Receipts-Tenant", "acme"), ("Content-Type", "application/json")];
    let answer = service.request("POST", "/v1/events", &of_tenant, &events().to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
    let _ = service.write(&json!([{"type": "members.changed", "conversation_id": "g1", "joined": ["carol"]}]));
    let is_told = |metrics: &Value| {
        metrics
            .as_str()
            .is_some_and(|metrics| metrics.contains("receipts_dead_letters_total{reason=\"no-roster\"} 1\n"))
    };
    eventually("a dead letter", || service.get("/metrics").body, is_told);
    let used = run("receipts", &["tail", "events", "--data-dir", data]);
    assert_eq!(used.status.code(), Some(1), "{}", errors(&used));
    assert_eq!(service.terminate(), Some(0));

    let text = |arguments: &[&str]| {
        let output = run("receipts", &[&["tail"], arguments, &["--data-dir", data]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let all = text(&["events"]);
    assert_eq!(all.lines().count(), 5, "{all}");
    assert!(all.contains("  message.read  acme/g1  bob read m1\n"), "{all}");
    assert!(all.contains(r"message.sent  acme/g2  m2\u{1b}[2J by alice"), "{all}");
    for (filter, count) in [
        (&["--conversation", "g1"][..], 4),
        (&["--conversation", "g1", "--tenant", "acme"], 3),
        (&["--message", "m1"], 2),
        (&["--user", "bob"], 2),
        (&["--type", "message.sent"], 2),
        (&["--user", "bob", "--lines", "1"], 1),
        (&["--user", "nobody"], 0),
        (&["--lines", "0"], 0),
    ] {
        let shown = text(&[&["events"], filter].concat());
        assert_eq!(shown.lines().count(), count, "{filter:?}: {shown}");
    }
    let last = text(&["events", "--conversation", "g1", "--tenant", "acme", "-n", "1", "--json"]);
    let last: Value = serde_json::from_str(&last).expect("one object");
    assert_eq!((&last["type"], &last["value"]["reader_id"]), (&json!("message.read"), &json!("bob")));
    assert_eq!((&last["key"], &last["reason"]), (&json!("acme/g1"), &Value::Null));

    let updates = text(&["updates", "--user", "bob"]);
    assert!(updates.contains("receipt.updated  acme/g1  m1 by alice: read by 1 of 1, newly by bob\n"), "{updates}");
    let letters = text(&["dead-letters"]);
    assert!(letters.contains("  no-roster  ") && letters.contains("message.sent  acme/g2  m2"), "{letters}");
}

#[test]
fn wrong_usage_of_tail_is_named() {
    for (arguments, part) in [
        (&["events", "--type", "message.rad"][..], "its types are conversation.configured"),
        (&["updates", "--type", "message.read"], "receipt.updated, read_mark.updated"),
        (&["events", "--follow"], "--kafka-bootstrap"),
        (&["event"], "dead-letters"),
        (&["events", "--tenant", "a/b"], "a tenant has no slash"),
    ] {
        let output = run("receipts", &[&["tail"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", errors(&output));
        assert!(errors(&output).contains(part), "{arguments:?}: {}", errors(&output));
    }
}
