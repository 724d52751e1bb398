//! `receipts tail` on a real Kafka: shows records that are no events, follows a topic, and ends on
//! Ctrl-C.

use receipts_tests::kafka::{Kafka, broker};
use receipts_tests::process::{Service, errors, follow, run};
use serde_json::{Value, json};

fn read(conversation: &str, reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": conversation, "reader_id": reader, "message_ids": ["m1"]})
}

#[test]
fn tail_shows_every_record_and_follows() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "tail");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = tempfile::tempdir().expect("a folder");
    // Makes the topics.
    assert_eq!(Service::serve(data.path(), &flags).terminate(), Some(0));
    let lines: String = (0..40)
        .map(|number| format!("g{}", number % 9))
        .map(|group| format!("default/{group}\t{}\n", read(&group, "bob")))
        .collect();
    kafka.produce(&["-K", "\t"], &lines);
    kafka.produce(&["-K", "\t"], "default/g1\tno event\n");
    kafka.produce(&["-K", "\t"], &format!("default/other\t{}\n", read("g1", "carol")));

    let tail = |arguments: &[&str]| {
        let output = run("receipts", &[&["tail", "events"], arguments, &flags].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
        (String::from_utf8_lossy(&output.stdout).into_owned(), errors(&output))
    };
    let (all, _) = tail(&["--lines", "1000"]);
    assert_eq!(all.lines().count(), 42, "{all}");
    let (two, _) = tail(&["--lines", "2"]);
    assert!(two.contains("(invalid-json)  key default/g1, value no event: "), "{two}");
    assert!(two.contains("(wrong-key)  message.read  default/g1  carol read m1: "), "{two}");
    let (of_carol, said) = tail(&["--user", "carol"]);
    assert_eq!(of_carol.lines().count(), 1, "{of_carol}");
    assert!(said.contains("records that cannot be read are not shown") && said.contains("count=1"), "{said}");

    let arguments = [&["tail", "events", "--follow", "--user", "dora", "--json"], &flags[..]].concat();
    let mut following = follow("receipts", &arguments);
    following.wait_for_error("following the topic");
    kafka.event("default/g1", &read("g1", "erin"));
    kafka.event("default/g2", &read("g2", "dora"));
    let line: Value = serde_json::from_str(&following.next_line()).expect("JSON");
    assert_eq!((&line["key"], &line["value"]["reader_id"]), (&json!("default/g2"), &json!("dora")), "{line}");
    assert_eq!(following.interrupt(), Some(0));
}
