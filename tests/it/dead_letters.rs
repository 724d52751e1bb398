//! `receipts dead-letters` on the embedded log, between two runs of `receipts serve`.
//! `tests/kafka` replays the letters of real producers.

use receipts_tests::process::{Service, errors, run};
use receipts_tests::{eventually, receipt_path};
use serde_json::{Value, json};

const SENT_AT_MS: u64 = 1_780_000_000_000;

/// INV-LETTER-REPLAY: a letter is refused as long as it would be wrong again, and replayed once.
#[test]
fn letters_of_the_embedded_log_are_replayed_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let command = |arguments: &[&str]| -> Value {
        let output = run("receipts", &[&["dead-letters"], arguments, &["--data-dir", data, "--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
        serde_json::from_slice(&output.stdout).expect("one object")
    };
    let service = Service::serve(folder.path(), &[]);
    let sent = json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
                      "sent_at_ms": SENT_AT_MS, "need_read_receipt": true});
    let _ = service.write(&json!([sent]));
    let counted = |service: &Service| {
        let metrics = service.get("/metrics").body;
        metrics
            .as_str()
            .is_some_and(|metrics| metrics.contains("receipts_dead_letters_total{reason=\"no-roster\"} 1\n"))
    };
    eventually("a dead letter", || counted(&service), |counted| *counted);
    let refused = run("receipts", &["dead-letters", "list", "--data-dir", data]);
    assert!(errors(&refused).contains("in use by"), "{}", errors(&refused));
    assert_eq!((refused.status.code(), service.terminate()), (Some(1), Some(0)));

    let listed = command(&["list"]);
    assert_eq!((&listed["count"], &listed["letters"][0]["key"]), (&json!(1), &json!("default/g1")), "{listed}");
    let letter = &listed["letters"][0];
    let location = format!("{}:{}", letter["partition"], letter["offset"]);
    let shown = command(&["show", &location]);
    assert_eq!((&shown["replay"]["action"], &shown["replay"]["reason"]), (&json!("refuse"), &json!("no-roster")));
    assert_eq!(shown["value"]["message_id"], "m1");
    let text = run("receipts", &["dead-letters", "list", "--data-dir", data]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("1 dead letters in receipts.dead-letters") && text.contains("key default/g1"), "{text}");
    let missing = run("receipts", &["dead-letters", "show", "0:99", "--data-dir", data]);
    assert_eq!(missing.status.code(), Some(1), "{}", errors(&missing));
    assert_eq!(command(&["replay", "--yes"])["refused"], json!({"no-roster": 1}));

    let service = Service::serve(folder.path(), &[]);
    let _ = service.write(&json!([{"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]}]));
    assert_eq!(service.terminate(), Some(0));
    let planned = command(&["replay", "--dry-run"]);
    assert_eq!((&planned["right"], &planned["may_harm"]), (&json!(1), &json!({"late-send": 1})), "{planned}");
    let careful = command(&["replay", "--only-harmless", "--yes"]);
    assert_eq!((&careful["written"], &careful["refused"]["late-send"]), (&json!(0), &json!(1)));
    let done = command(&["replay", "--yes"]);
    assert_eq!(done["written"], 1, "{done}");
    let again = command(&["replay", "--yes"]);
    assert_eq!((&again["written"], &again["replayed_before"]), (&json!(0), &json!(1)), "{again}");
    let service = Service::serve(folder.path(), &[]);
    let position = done["position"].as_str().expect("a token");
    assert_eq!(service.get_after(&receipt_path("g1", "m1"), position).body["audience_count"], 1);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn wrong_arguments_are_named() {
    for (arguments, part) in [
        (&["list", "--reason", "no-such"][..], "the reasons are invalid-json"),
        (&["show", "7"], "PARTITION:OFFSET"),
        (&["replay"], "give --yes"),
    ] {
        let output = run("receipts", &[&["dead-letters"], arguments].concat());
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
    }
}
