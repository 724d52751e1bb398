//! Dead letters of real producers on a real Kafka: listed, shown and replayed beside a running
//! service, and a schema registry's frame.

use super::end_to_end::{SENT_AT_MS, read, receipt, sent};
use receipts_event::{key, partition_of};
use receipts_log::testing::{set_config, unique};
use receipts_log::{Entry, Log as _, Topic};
use receipts_tests::kafka::{Kafka, PARTITIONS, broker, produce};
use receipts_tests::process::{Service, errors, kill, run};
use receipts_tests::{TIMEOUT, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

fn joined(conversation: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": ["alice", "bob"]})
}

/// Runs `receipts dead-letters` and returns its JSON.
fn command(arguments: &[&str], flags: &[&str]) -> Value {
    let output = run("receipts", &[&["dead-letters"], arguments, &["--json"], flags].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
    serde_json::from_slice(&output.stdout).expect("one object")
}

/// The records of the topic of events that replays wrote: by the location that they came from.
fn replayed(kafka: &Kafka) -> BTreeMap<String, Vec<Value>> {
    let mut by_origin = BTreeMap::<String, Vec<Value>>::new();
    for record in kafka.consume(&kafka.events) {
        let headers = record["headers"].as_array().cloned().unwrap_or_default();
        let at = headers.iter().position(|name| name == "receipts-replayed-from");
        if let Some(at) = at {
            by_origin.entry(headers[at + 1].as_str().expect("a text").to_owned()).or_default().push(record);
        }
    }
    by_origin
}

/// INV-LETTER-REPLAY, INV-DEADLETTER: the letters of a producer with librdkafka's default
/// partitioner.
#[test]
fn misplaced_events_are_listed_and_replayed_once() {
    const GROUPS: u64 = 24;
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "letters");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &flags);
    let none = service.get("/metrics").body;
    for reason in receipts_event::Reason::ALL {
        let line = format!("receipts_dead_letters_total{{reason=\"{}\"}} 0\n", reason.code());
        assert!(none.as_str().is_some_and(|metrics| metrics.contains(&line)), "{line}");
    }

    let wrong = ["-K", "\t", "-X", "partitioner=consistent_random", "-H", "trace=abc"];
    let mut lines = String::new();
    for group in (0..GROUPS).map(|group| format!("g{group}")) {
        for event in [joined(&group), sent(&group, "m1", "alice"), read(&group, "m1", "bob")] {
            lines += &format!("default/{group}\t{event}\n");
        }
    }
    kafka.produce(&wrong, &lines);
    let list = |more: &[&str]| command(&[&["list"], more].concat(), &flags);
    let count = |list: &Value| list["count"].as_u64().unwrap_or(0);
    let dead = misplaced(GROUPS);
    eventually("all are dead letters", || count(&list(&[])), |count| *count == 3 * dead);
    let said = service.errors();
    assert!(said.contains("dead letters: ") && said.contains("set partitioner=murmur2_random"), "{said}");

    let listed = list(&["--limit", "2", "--reason", "wrong-partition"]);
    assert_eq!(listed["reasons"][0]["reason"], "wrong-partition");
    let rows = listed["letters"].as_array().expect("rows");
    assert_eq!((rows.len(), &rows[0]["origin"]["topic"]), (2, &json!(kafka.events)));
    assert!(rows[0]["detail"].as_str().is_some_and(|detail| detail.contains("murmur2_random")), "{listed}");
    assert_eq!(count(&list(&["--reason", "no-roster"])) + count(&list(&["--tenant", "acme"])), 0);
    let at = rows[1]["at_ms"].as_u64().expect("a time").to_string();
    assert_eq!(count(&list(&["--since", &at])) + count(&list(&["--until", &at])), 3 * dead);
    // Without the roster's own letter, a send or a read would be refused.
    let all = list(&["--reason", "wrong-partition"]);
    let roster = all["letters"].as_array().expect("rows").iter().find_map(|row| {
        let location = format!("{}:{}", row["partition"], row["offset"]);
        let shown = command(&["show", &location], &flags);
        (shown["value"]["type"] == "members.changed").then_some((location, shown))
    });
    let (location, shown) = roster.expect("a roster's letter");
    assert_eq!((&shown["replay"]["action"], &shown["headers"]), (&json!("write"), &json!([["trace", "abc"]])));
    assert!(shown["value"]["conversation_id"].is_string() && shown["record_timestamp_ms"].is_u64(), "{shown}");

    let replay = |more: &[&str]| command(&[&["replay"], more].concat(), &flags);
    let refused = run("receipts", &[&["dead-letters", "replay"], &flags[..]].concat());
    assert_eq!(refused.status.code(), Some(2), "{}", errors(&refused));
    let planned = replay(&["--dry-run"]);
    assert_eq!((&planned["right"], &planned["written"]), (&json!(3 * dead), &json!(0)), "{planned}");
    assert_eq!(planned["may_harm"], json!({}), "all of a conversation is here");
    assert!(replayed(&kafka).is_empty());
    let done = replay(&["--yes"]);
    assert_eq!((&done["written"], &done["refused"]), (&json!(3 * dead), &json!({})), "{done}");
    let again = replay(&["--yes"]);
    assert_eq!((&again["written"], &again["replayed_before"]), (&json!(0), &json!(3 * dead)), "{again}");
    for group in (0..GROUPS).map(|group| format!("g{group}")) {
        receipt(&service, &group, "m1", &json!({"read_count": 1, "audience_count": 1}));
    }
    let written = replayed(&kafka);
    assert_eq!(written.len() as u64, 3 * dead);
    let letters = kafka.consume(&kafka.dead_letters);
    for (origin, records) in &written {
        assert_eq!(records.len(), 1, "{origin}");
        let own = [&records[0]["headers"][0], &records[0]["headers"][1]];
        assert_eq!(own, [&json!("trace"), &json!("abc")]);
        let location: Vec<&str> = origin.rsplitn(3, ':').collect();
        let letter = letters.iter().find(|letter| {
            let headers = letter["headers"].as_array().expect("headers");
            let of = |name: &str| headers.iter().position(|own| own == name).map(|at| headers[at + 1].clone());
            of("dead-letter-offset") == Some(json!(location[0]))
                && of("dead-letter-partition") == Some(json!(location[1]))
        });
        let letter = letter.expect("its letter");
        assert_eq!((&records[0]["key"], &records[0]["payload"]), (&letter["key"], &letter["payload"]));
        let headers = letter["headers"].as_array().expect("headers");
        let at = headers.iter().position(|name| name == "dead-letter-timestamp").expect("a time");
        assert_eq!(headers[at + 1], json!(records[0]["ts"].to_string()), "the record keeps its time");
    }
    let shown = command(&["show", &location], &flags);
    assert_eq!(shown["replay"]["action"], "replayed");
    assert_eq!(service.terminate(), Some(0));
}

/// Counts the conversations that CRC-32 puts into a wrong partition.
fn misplaced(groups: u64) -> u64 {
    let keys = (0..groups).map(|group| key("default", &format!("g{group}")));
    let crc32 = receipts_event::Partitioner::Crc32;
    keys.filter(|key| crc32.partition_of(key, PARTITIONS) != partition_of(key, PARTITIONS)).count() as u64
}

/// INV-LETTER-REPLAY: a replay that is killed at any moment goes on without doubling a record, and
/// in the order of each key. The topic refuses old records, so these get the time of their append.
#[test]
fn a_killed_replay_goes_on_without_doubling() {
    const RECORDS: u64 = 6_000;
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "letters-kill");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = tempfile::tempdir().expect("a folder");
    // Makes the topics.
    assert_eq!(Service::serve(data.path(), &flags).terminate(), Some(0));
    set_config(&kafka.bootstrap, &kafka.events, &[("message.timestamp.before.max.ms", "3600000")]);
    let log = kafka.log();
    let writer = log.writer();
    for number in 0..RECORDS {
        let group = format!("g{}", number % 7);
        let event = json!({"type": "members.changed", "conversation_id": group, "joined": [format!("u{number}")]});
        let about = [
            ("dead-letter-reason", "wrong-partition".to_owned()),
            ("dead-letter-topic", kafka.events.clone()),
            ("dead-letter-partition", "9".to_owned()),
            ("dead-letter-offset", number.to_string()),
            ("dead-letter-timestamp", SENT_AT_MS.to_string()),
        ];
        drop(writer.append(Entry {
            topic: Topic::DeadLetters,
            partition: None,
            key: Some(key("default", &group).into()),
            value: Some(event.to_string().into()),
            headers: about.into_iter().map(|(name, value)| (name.to_owned(), Some(value.into()))).collect(),
            timestamp_ms: None,
        }));
    }
    writer.flush(TIMEOUT).expect("written");
    drop((writer, log));

    let arguments = [&["dead-letters", "replay", "--yes"], &flags[..]].concat();
    let mut kills = 0;
    for part in 1..=4 {
        kills += u32::from(kill("receipts", &arguments, || kafka.records(Topic::Events) >= part * RECORDS / 6));
    }
    let done = command(&["replay", "--yes"], &flags);
    assert_eq!((&done["selected"], &done["refused"]), (&json!(RECORDS), &json!({})), "{kills} kills: {done}");
    assert_eq!(done["written"], done["without_time"], "{done}");
    let again = command(&["replay", "--yes"], &flags);
    assert_eq!((&again["written"], &again["replayed_before"]), (&json!(0), &json!(RECORDS)));
    let mut last = BTreeMap::new();
    let mut seen = 0;
    for record in kafka.consume(&kafka.events) {
        let headers = record["headers"].as_array().expect("headers");
        let origin = headers[1].as_str().expect("a text");
        let offset: u64 = origin.rsplit(':').next().and_then(|offset| offset.parse().ok()).expect("an offset");
        let before = last.insert(record["key"].as_str().expect("a key").to_owned(), offset);
        assert!(before.is_none_or(|before| before < offset), "{before:?} before {offset}, {kills} kills");
        seen += 1;
    }
    assert_eq!(seen, RECORDS, "each once, {kills} kills");
}

/// A schema registry's frame around JSON is taken off where the setting says so, by every reader of
/// the topic; a store keeps its setting. INV-REFUSE
#[test]
fn framed_events_count_where_the_setting_says_so() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "frames");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let unwrap = [&flags[..], &["--projector-unwrap", "confluent"]].concat();
    let folder = tempfile::tempdir().expect("a folder");
    let (bare, framed) = (folder.path().join("bare"), folder.path().join("framed"));
    let service = Service::serve(&framed, &unwrap);
    let log = kafka.log();
    let writer = log.writer();
    for event in [joined("g1"), read("g1", "m1", "bob"), sent("g1", "m1", "alice")] {
        let value = [b"\0\0\0\0\x07", event.to_string().as_bytes()].concat();
        drop(writer.append(Entry::event(key("default", "g1"), value, None)));
    }
    drop(writer.append(Entry::event(key("default", "g1"), &b"\0\0\0\0\x07\x02\x0egeneral"[..], None)));
    writer.flush(TIMEOUT).expect("written");
    // The read was parked for its send, frame and all.
    receipt(&service, "g1", "m1", &json!({"read_count": 1}));
    let list = || command(&["list"], &flags);
    let is_one = |list: &Value| list["count"] == 1 && list["letters"][0]["reason"] == "invalid-json";
    let listed = eventually("Avro is a dead letter", list, is_one);
    assert!(listed["letters"][0]["detail"].as_str().is_some_and(|detail| detail.contains("Avro")), "{listed}");
    assert_eq!(service.terminate(), Some(0));

    let data = framed.to_str().expect("UTF-8");
    for (command, code) in [(&["stats", "--json"][..], 0), (&["verify", "--data-dir", data, "--json"], 0)] {
        let output = run("receipts", &[command, &unwrap[..]].concat());
        assert_eq!(output.status.code(), Some(code), "{}", errors(&output));
    }
    let sum = |flags: &[&str]| {
        let output = run("receipts", &[&["replay", "--json"], flags].concat());
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.map(|line| line["events"].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!((sum(&unwrap), sum(&flags)), (3, 0));
    let refused =
        run("receipts", &[&["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data], &flags[..]].concat());
    let said = errors(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("projector.unwrap was confluent and is none"), "{said}");

    let other = kafka.flags_of(&unique("bare"));
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    let service = Service::serve(&bare, &other);
    let is_named = |list: &Value| list.to_string().contains("set projector.unwrap=confluent here");
    eventually("the setting is named", list, is_named);
    assert_eq!(service.terminate(), Some(0));
    // Each of the two services wrote a letter of the value of Avro.
    let planned = command(&["replay", "--dry-run"], &unwrap);
    assert_eq!((&planned["right"], &planned["refused"]["invalid-json"]), (&json!(3), &json!(2)), "{planned}");
    produce(&kafka.bootstrap, &kafka.dead_letters, &["-K", "\t"], "default/g1\tby hand\n", Duration::ZERO);
    assert_eq!(command(&["replay", "--dry-run"], &unwrap)["refused"]["no-origin"], 1);
}
