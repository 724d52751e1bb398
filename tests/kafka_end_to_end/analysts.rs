//! The analysts' commands on a real Kafka, beside a service that runs: they join no group, so it answers on.

use super::kcat::{Kafka, broker};
use super::{read, receipt, receipt_path, sent};
use receipts_tests::process::{Service, errors, run};
use serde_json::{Value, json};

/// INV-ASOF, INV-EXPORT, INV-VERIFY: replay and export beside a running service, and verify of its store after it.
#[test]
fn analysts_read_the_topic_beside_a_service_and_disturb_nobody() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "analysts");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &flags);
    let before = service.write(&json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]},
        sent("g1", "m1", "alice"), read("g1", "m1", "bob")
    ]));
    let then = service.get_after(&receipt_path("g1", "m1"), &before).body;
    let after = service.write(&json!([read("g1", "m1", "carol")]));
    let now = service.get_after(&receipt_path("g1", "m1"), &after).body;
    kafka.produce(&["-K", "\t"], "default/g1\tno event\n");

    let command = |arguments: &[&str]| -> Vec<Value> {
        let output = run("receipts", &[arguments, &["--json"], &flags].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    assert_eq!(command(&["replay", "receipt", "g1", "m1"]), [now]);
    assert_eq!(command(&["replay", "receipt", "g1", "m1", "--position", &before]), [then]);
    let out = data.path().join("export");
    let report = command(&["export", "--out", out.to_str().expect("UTF-8")]);
    let rows: Vec<&Value> = report[0]["datasets"].as_array().expect("a list").iter().map(|d| &d["rows"]).collect();
    assert_eq!(rows, [&json!(1), &json!(2), &json!(3), &json!(4)], "messages, reads, rosters, events");
    let dead: u64 = command(&["replay"]).iter().filter_map(|line| line["dead_letters"]["invalid-json"].as_u64()).sum();
    assert_eq!(dead, 1);

    // The service never lost its partitions, and folds on.
    let _ = service.write(&json!([sent("g1", "m2", "bob"), read("g1", "m2", "alice")]));
    receipt(&service, "g1", "m2", &json!({"read_count": 1}));
    assert_eq!(service.terminate(), Some(0));
    let verdicts = command(&["verify", "--data-dir", data.path().to_str().expect("UTF-8")]);
    assert!(verdicts.iter().all(|v| v["digest_of_store"] == v["digest_of_log"]), "{verdicts:#?}");
}
