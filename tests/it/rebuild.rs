//! Tests `receipts rebuild` as a process between two runs of `receipts serve` on the embedded log:
//! the switch to the new store, its refusal, and the way back.

use receipts_tests::process::{Service, errors, run};
use serde_json::{Value, json};
use std::path::Path;

const RECEIPT: &str = "/v1/conversations/g1/messages/m1/receipt";
const ONE: [&str; 2] = ["--log-partitions", "1"];

fn told(data: &Path) -> (String, Value) {
    let service = Service::serve(data, &ONE);
    let position = service.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]},
        {"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
        {"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]},
    ]));
    let answer = service.get_after(RECEIPT, &position).body;
    let data_dir = data.to_str().expect("UTF-8");
    let refused = run("receipts", &["rebuild", "--data-dir", data_dir]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("in use by process"), "{}", errors(&refused));
    assert_eq!(service.terminate(), Some(0));
    (position, answer)
}

fn rebuild(code: i32, more: &[&str], data: &Path) -> (Vec<Value>, String) {
    let data = data.to_str().expect("UTF-8");
    let output = run("receipts", &[&["rebuild", "--data-dir", data, "--json"], more].concat());
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{more:?}: {said}");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    (shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), said)
}

fn answered(data: &Path, position: &str) -> Value {
    let service = Service::serve(data, &ONE);
    let answer = service.get_after(RECEIPT, position).body;
    assert_eq!(service.terminate(), Some(0));
    answer
}

/// INV-PREFIX
#[test]
fn equal_rebuilt_store_takes_over_until_confirmed() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (position, answer) = told(&data);
    let (rebuilt, _) = rebuild(0, &[], &data);
    let compared = &rebuilt[0]["compared"];
    assert_eq!((&compared["next_offset"], &compared["old"]), (&json!(3), &compared["new"]));
    assert!(data.join("store-before-1").is_dir() && !data.join("rebuild").exists());
    assert_eq!(answered(&data, &position), answer);
    rebuild(0, &["--undo"], &data);
    assert!(!data.join("store-before-1").exists());
    assert_eq!(answered(&data, &position), answer);
    let (_, said) = rebuild(1, &["--undo"], &data);
    assert!(said.contains("no rebuilt store has replaced"), "{said}");
    rebuild(0, &[], &data);
    rebuild(0, &["--confirm"], &data);
    assert!(!data.join("store-before-1").exists());
    assert_eq!(answered(&data, &position), answer);
}

#[test]
fn different_rebuilt_store_takes_over_only_if_ordered() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (position, answer) = told(&data);
    // Without read times the state differs.
    let other = ["--projector-read-times=false"];
    let (_, said) = rebuild(1, &other, &data);
    assert!(said.contains("[0] differ") && said.contains("nothing is switched"), "{said}");
    assert!(data.join("rebuild").is_dir() && !data.join("store-before-1").exists());
    assert_eq!(answered(&data, &position), answer);
    let (_, said) = rebuild(0, &[&other[..], &["--even-if-different"]].concat(), &data);
    assert!(said.contains("switched"), "{said}");
    assert!(data.join("store-before-1").is_dir());
}
