//! Tests the analysts' commands on a real Kafka beside a running service: they join no group, so
//! the service continues to answer.

use super::end_to_end::{SENT_AT_MS, read, receipt, sent};
use receipts_event::{key, partition_of};
use receipts_log::embedded::EmbeddedLog;
use receipts_log::testing::trim;
use receipts_log::{Entry, Inspect as _, Log as _, Topic};
use receipts_testkit::history::{History, Shape};
use receipts_tests::kafka::{Kafka, PARTITIONS, broker, produce_history};
use receipts_tests::process::{Service, errors, interrupt, run};
use receipts_tests::receipt_path;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Runs a command that ends with `code`, and returns its lines of JSON and its log.
fn command(code: i32, arguments: &[&str], flags: &[&str]) -> (Vec<Value>, String) {
    let output = run("receipts", &[arguments, &["--json"], flags].concat());
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    (shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), said)
}

fn sum(lines: &[Value], field: &str) -> u64 {
    lines.iter().map(|line| line[field].as_u64().expect("a count")).sum()
}

/// INV-ASOF, INV-EXPORT, INV-VERIFY: replay and export beside a running service, and verify of its
/// store afterwards.
#[test]
fn analysts_read_the_topic_without_disturbing_the_service() {
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

    let command = |arguments: &[&str]| command(0, arguments, &flags).0;
    assert_eq!(command(&["replay", "receipt", "g1", "m1"]), [now]);
    assert_eq!(command(&["replay", "receipt", "g1", "m1", "--position", &before]), [then]);
    let out = data.path().join("export");
    let report = command(&["export", "--out", out.to_str().expect("UTF-8")]);
    let rows: Vec<&Value> = report[0]["datasets"].as_array().expect("a list").iter().map(|d| &d["rows"]).collect();
    let wanted = [1, 2, 2, 3, 0, 4].map(|rows| json!(rows));
    assert_eq!(rows, wanted.each_ref(), "messages, reads, members, rosters, read_marks, events");
    let dead: u64 = command(&["replay"]).iter().filter_map(|line| line["dead_letters"]["invalid-json"].as_u64()).sum();
    assert_eq!(dead, 1);

    // The service never lost its partitions, and continues to fold.
    let _ = service.write(&json!([sent("g1", "m2", "bob"), read("g1", "m2", "alice")]));
    receipt(&service, "g1", "m2", &json!({"read_count": 1}));
    assert_eq!(service.terminate(), Some(0));
    let verdicts = command(&["verify", "--data-dir", data.path().to_str().expect("UTF-8")]);
    assert!(verdicts.iter().all(|v| v["digest_of_store"] == v["digest_of_log"]), "{verdicts:#?}");
}

/// INV-STATS, INV-PREFIX: figures and replays of a history written by kcat, whole and in part,
/// equal those of the same records in an embedded log. `crates/analytics` compares that log with
/// the oracle.
#[test]
fn topic_and_embedded_log_give_equal_figures_and_replays() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "figures");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let (beside, data) = (folder.path().join("beside"), folder.path().join("data"));
    let data_dir = data.to_str().expect("UTF-8");
    let service = Service::serve(&beside, &flags);
    produce_history(&kafka, &History::generate(11, &Shape { events: 900, p_jump: 0.0, ..Shape::wild() }));
    kafka.produce(&["-K", "\t"], "default/g1\tno event\n");

    assert_eq!(Service::serve(&data, &["--log-partitions", &PARTITIONS.to_string()]).terminate(), Some(0));
    {
        let (from, to) = (kafka.log(), EmbeddedLog::open(&data.join("log"), None).expect("a log"));
        let writer = to.writer();
        for record in
            (0..PARTITIONS).flat_map(|partition| from.read(Topic::Events, partition, 0, usize::MAX).expect("records"))
        {
            drop(writer.append(Entry {
                topic: Topic::Events,
                partition: Some(record.partition),
                key: record.key,
                value: record.value,
                headers: Vec::new(),
                timestamp_ms: Some(record.timestamp_ms),
            }));
        }
        writer.flush(receipts_tests::TIMEOUT).expect("written");
    }
    let both = |arguments: &[&str]| {
        let mut answers = [flags.as_slice(), &["--data-dir", data_dir]].map(|log| command(0, arguments, log).0);
        for line in answers.iter_mut().flatten() {
            // The log's name and the speed of reading are no figures.
            let line = line.as_object_mut().expect("an object");
            line.retain(|field, _| field != "log" && field != "offsets_per_s");
        }
        let [of_topic, embedded] = answers;
        assert_eq!(of_topic, embedded, "{arguments:?}");
        of_topic
    };
    let stats = both(&["stats", "--top", "50"]);
    let readers = &stats[0]["readers"];
    assert!(readers["read_count"].as_u64() > Some(100) && readers["hidden_count"].as_u64() > Some(0), "{readers}");
    let whole = both(&["replay"]);
    assert_eq!(whole.iter().filter_map(|line| line["dead_letters"]["invalid-json"].as_u64()).sum::<u64>(), 1);

    let half = |line: &Value| format!("{}:{}", line["partition"], line["next_offset"].as_u64().expect("an offset") / 2);
    let half = whole.iter().map(half).collect::<Vec<_>>().join(",");
    let (before, after) = (both(&["replay", "--position", &half]), both(&["replay", "--from", &half]));
    assert_eq!(sum(&before, "events") + sum(&after, "events"), sum(&whole, "events"));
    let digests = |lines: &[Value]| lines.iter().map(|line| line["digest"].clone()).collect::<Vec<_>>();
    assert_eq!(digests(&after), digests(&whole), "of the whole, wherever it is told from");
    let since = after.iter().filter_map(|line| line["first_timestamp_ms"].as_u64()).min().expect("a time").to_string();
    let until = both(&["stats", "--as-of", &since]);
    let late = both(&["stats", "--since", &since]);
    assert!(until[0]["messages"]["total"].as_u64() > Some(0) && late[0]["messages"]["total"].as_u64() > Some(0));
    _ = both(&["replay", "--from", &since]);
    assert_eq!(service.terminate(), Some(0), "it served on");
}

/// INV-BACKFILL, INV-STATS, INV-EXPORT: an interrupted import into a topic continues beside a
/// running service. The log has every row once, and answers, figures and exported rows equal the
/// tables.
#[test]
fn tables_imported_into_a_topic_are_answered_and_exported() {
    const MESSAGES: usize = 400;
    const READERS: usize = 100;
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "backfill");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let table = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let service = Service::serve(&folder.path().join("data"), &flags);
    let mut members = "conversation_id,user_id,group_type\n".to_owned();
    let mut messages = "conversation_id,message_id,sender_id,sent_at_ms\n".to_owned();
    let mut reads = "conversation_id,message_id,user_id,read_at_ms,hidden\n".to_owned();
    let (mut rows, mut hidden) = (BTreeMap::new(), 0);
    for group in 0..4 {
        (0..=READERS).for_each(|person| members += &format!("g{group},u{person},team\n"));
    }
    for message in 0..MESSAGES {
        let (group, sent_at_ms) = (message % 4, SENT_AT_MS + message as u64 * 1_000);
        messages += &format!("g{group},m{message},u0,{sent_at_ms}\n");
        // All but every seventh member have read it, one of them hidden.
        for person in (1..=READERS).filter(|person| (person + message) % 7 > 0) {
            let (read_at_ms, is_hidden) = (sent_at_ms + person as u64 * 60_000, person == message % READERS + 1);
            reads += &format!("g{group},m{message},u{person},{read_at_ms},{is_hidden}\n");
            if is_hidden {
                hidden += 1;
            } else {
                rows.insert((format!("m{message}"), format!("u{person}")), read_at_ms);
            }
        }
    }
    let tables = [table("members.csv", &members), table("messages.csv", &messages), table("reads.csv", &reads)];
    let arguments = ["backfill", "--members", &tables[0], "--messages", &tables[1], "--reads", &tables[2]];

    let output = interrupt("receipts", &[&arguments, &flags[..]].concat(), "reading tables", || {
        Path::new(&format!("{}.backfill.json", tables[0])).exists()
    });
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stopped as asked") && said.contains("same command"), "{said}");
    let done = command(0, &arguments, &flags).0.remove(0);
    assert_eq!((&done["resumed"], &done["rows"]["reads"]), (&json!(true), &json!(rows.len() + hidden)));
    assert_eq!(command(0, &arguments, &flags).0[0]["written"], 0, "it is done");
    let told: u64 = done["events"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    assert_eq!(sum(&command(0, &["replay"], &flags).0, "events"), told, "each event once");

    let position = done["position"].as_str().expect("a token");
    for message in [0, 1, MESSAGES - 1] {
        let of = format!("m{message}");
        let path = receipt_path(&format!("g{}", message % 4), &of);
        let receipt = service.get_after(&path, position).body;
        let times: Vec<&u64> = rows.iter().filter(|((id, _), _)| *id == of).map(|(_, at)| at).collect();
        assert_eq!((&receipt["read_count"], &receipt["audience_count"]), (&json!(times.len()), &json!(READERS)));
        assert_eq!(receipt["last_read_at_ms"], json!(times.into_iter().max()));
    }
    let stats = command(0, &["stats"], &flags).0.remove(0);
    let audience = MESSAGES * READERS;
    let readers = &stats["readers"];
    assert_eq!(
        ["audience_count", "read_count", "hidden_count", "unread_count"].map(|count| readers[count].clone()),
        [audience, rows.len(), hidden, audience - rows.len() - hidden].map(|count| json!(count))
    );
    assert_eq!((&stats["messages"]["ok"], &stats["after_24_hours"]["messages"]), (&json!(MESSAGES), &json!(MESSAGES)));
    let hours: u64 = stats["by_hour"].as_array().expect("hours").iter().filter_map(|hour| hour["reads"].as_u64()).sum();
    assert_eq!(hours, rows.len() as u64);

    let out = folder.path().join("export");
    let out = out.to_str().expect("UTF-8");
    _ = command(0, &["export", "--out", out, "--layout", "v1", "--format", "ndjson", "--dataset", "reads"], &flags);
    let mut exported = BTreeMap::new();
    for day in fs::read_dir(format!("{out}/reads/tenant=default")).expect("days") {
        for part in fs::read_dir(day.expect("a day").path()).expect("files") {
            for line in fs::read_to_string(part.expect("a file").path()).expect("rows").lines() {
                let row: Value = serde_json::from_str(line).expect("JSON");
                let text = |field: &str| row[field].as_str().expect("a text").to_owned();
                let twice = exported
                    .insert((text("message_id"), text("reader_id")), row["read_at_ms"].as_u64().expect("a time"));
                assert_eq!(twice, None, "{row}");
            }
        }
    }
    assert!(exported == rows, "{} rows exported, {} imported", exported.len(), rows.len());
    assert_eq!(service.terminate(), Some(0));
}

/// INV-VERIFY, INV-PREFIX: a running service's snapshots equal the fold of its topic. Snapshots of
/// other settings are not compared. Once the topic has lost its first records nothing is verified,
/// but a snapshot still answers.
#[test]
fn snapshots_of_a_running_service_match_its_topic() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "verify-snapshots");
    let folder = tempfile::tempdir().expect("a folder");
    let (data, at) = (folder.path().join("data"), folder.path().join("snapshots"));
    let (data_dir, url) = (data.to_str().expect("UTF-8"), at.to_str().expect("UTF-8"));
    let bare = kafka.flags();
    let bare: Vec<&str> = bare.iter().map(String::as_str).collect();
    let flags = [&bare[..], &["--snapshot-url", url]].concat();
    let own = ["--snapshot-interval-ms", "86400000", "--projector-checkpoint-interval-ms", "10"];
    let service = Service::serve(&data, &[&flags[..], &own].concat());
    // Waits for a snapshot of everything in every partition: the policy is written into each.
    let (_, said) = command(1, &["verify", "--snapshots"], &flags);
    assert!(said.contains("4 of 4 partitions have no snapshot"), "{said}");
    let written = service.write(&json!([
        {"type": "policy.changed", "read_receipts": {"*": true}},
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]},
        sent("g1", "m1", "alice"), read("g1", "m1", "bob")
    ]));
    let now = service.get_after(&receipt_path("g1", "m1"), &written).body;
    let partition = partition_of(&key("default", "g1"), PARTITIONS);
    let deadline = std::time::Instant::now() + receipts_tests::TIMEOUT;
    loop {
        let (taken, _) = command(0, &["snapshot", "take", "--data-dir", data_dir], &flags);
        let next = |line: &Value| line["newest"]["next_offset"].as_u64().unwrap_or(0);
        if taken.iter().all(|line| next(line) >= if line["partition"] == partition { 4 } else { 1 }) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no checkpoint holds everything: {taken:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (verdicts, _) = command(0, &["verify", "--snapshots"], &flags);
    assert_eq!((verdicts.len(), sum(&verdicts, "events"), sum(&verdicts, "contradictions")), (4, 7, 0));
    assert!(verdicts.iter().all(|v| v["digest_of_store"] == v["digest_of_log"] && v["digest_of_log"].is_string()));
    let (replayed, _) = command(0, &["replay"], &flags);
    assert_eq!(replayed[partition as usize]["snapshot_offset"], 4);
    assert!(replayed.iter().zip(&verdicts).all(|(replayed, verdict)| replayed["digest"] == verdict["digest_of_log"]));
    let (_, said) = command(1, &["verify", "--snapshots", "--projector-parked-count", "7"], &flags);
    assert!(said.contains("4 of 4 partitions have no snapshot"), "{said}");

    trim(&kafka.bootstrap, &kafka.events, partition, 3);
    let (_, said) = command(1, &["verify", "--snapshots"], &flags);
    assert!(said.contains("begins at offset 3"), "{said}");
    let (answer, said) = command(0, &["replay", "receipt", "g1", "m1"], &flags);
    assert_eq!((answer, said.contains("lost its first records")), (vec![now.clone()], false), "{said}");
    let (answer, said) = command(0, &["replay", "receipt", "g1", "m1"], &bare);
    assert_eq!((&answer[0]["status"], said.contains("lost its first records")), (&json!("not_found"), true), "{said}");
    assert_eq!(service.get(&receipt_path("g1", "m1")).body, now, "it serves on");
    assert_eq!(service.terminate(), Some(0));
}
