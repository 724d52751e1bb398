//! Tests Ctrl-C while the analysts' commands read a larger log. The import's own test is in
//! `analysts`.

use super::lines;
use bytes::Bytes;
use receipts_event::{key, partition_of};
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Log as _};
use receipts_tests::process::{Service, errors, interrupt, kill, run};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MESSAGES: usize = 2_000;
const READERS: usize = 600;
/// The message ids of one event.
const MESSAGES_READ: usize = 100;

/// Returns a data directory and its number of events. In every partition the log has a group whose
/// members have read every message.
fn large() -> (tempfile::TempDir, u64) {
    let data = tempfile::tempdir().expect("a folder");
    assert_eq!(Service::serve(data.path(), &["--log-partitions", "4"]).terminate(), Some(0), "it makes the log");
    let log = EmbeddedLog::open(&data.path().join("log"), None).expect("a log");
    let (writer, partitions) = (log.writer(), log.partition_count());
    let mut events = 0;
    let mut append = |conversation: &str, event: Value| {
        drop(writer.append(Entry::event(key("default", conversation), Bytes::from(event.to_string()), None)));
        events += 1;
    };
    let people: Vec<String> = (0..=READERS).map(|person| format!("u{person}")).collect();
    let messages: Vec<String> = (0..MESSAGES).map(|message| format!("m{message}")).collect();
    for partition in 0..partitions {
        let in_it = |id: &String| partition_of(&key("default", id), partitions) == partition;
        let id = (0..).map(|number| format!("g{number}")).find(in_it).expect("a name");
        append(&id, json!({"type": "members.changed", "conversation_id": id, "joined": people}));
        for message in &messages {
            append(
                &id,
                json!({"type": "message.sent", "conversation_id": id, "message_id": message, "sender_id": "u0",
                               "sent_at_ms": super::SENT_AT_MS, "need_read_receipt": true}),
            );
        }
        for some in messages.chunks(MESSAGES_READ) {
            for reader in &people[1..] {
                append(
                    &id,
                    json!({"type": "message.read", "conversation_id": id, "reader_id": reader, "message_ids": some}),
                );
            }
        }
    }
    writer.flush(Duration::from_secs(60)).expect("written");
    (data, events)
}

/// Returns every file below a folder, by name.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(
                files(&path)
                    .into_iter()
                    .map(|(name, bytes)| (Path::new(path.file_name().expect("a name")).join(name), bytes)),
            );
        } else {
            all.insert(path.file_name().expect("a name").into(), fs::read(&path).expect("a file"));
        }
    }
    all
}

/// Interrupts a command. It must fail with a sentence that says how much it read, which must not be
/// everything. Returns its message.
fn stopped(arguments: &[&str], data: &Path, is_due: impl FnMut() -> bool) -> String {
    let common = ["--data-dir", data.to_str().expect("UTF-8"), "--json"];
    let output = interrupt("receipts", &[arguments, &common].concat(), "reading the log", is_due);
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    let sentence = said.lines().last().expect("a sentence");
    assert!(sentence.starts_with("error: stopped as asked; ") && sentence.contains("same command"), "{said}");
    let read = sentence
        .split_once("It had read ")
        .and_then(|(_, rest)| rest.split_once(" offsets of the log"))
        .expect("it says");
    let (read, of) = read.0.split_once(" of ").expect("two numbers");
    assert!(read.parse::<u64>().expect("a number") < of.parse().expect("a number"), "in the middle: {said}");
    sentence.to_owned()
}

/// INV-EXPORT, INV-STATS, INV-VERIFY: an interrupted command leaves no half-written file, and the
/// same command then gives the whole. An export continues, with the bytes of an uninterrupted one.
#[test]
fn interrupted_commands_report_progress_and_complete_when_repeated() {
    let (data, events) = large();
    let (at, reads) = (data.path(), (4 * MESSAGES * READERS) as u64);
    let sum =
        |lines: &[Value], field: &str| lines.iter().map(|line| line[field].as_u64().expect("a count")).sum::<u64>();

    stopped(&["replay"], at, || true);
    stopped(&["replay", "--from", "0:5000"], at, || true);
    let replayed = lines(0, &["replay"], at);
    assert_eq!(sum(&replayed, "events"), events);

    let page = at.join("figures.html");
    let stats = ["stats", "--html", page.to_str().expect("UTF-8")];
    stopped(&stats, at, || true);
    let pages = || files(at).into_keys().filter(|name| name.to_string_lossy().contains("figures")).count();
    assert_eq!(pages(), 0, "no page, and no part of one");
    assert_eq!(lines(0, &stats, at)[0]["readers"]["read_count"], reads);
    assert_eq!(pages(), 1);

    let (out, fresh) = (at.join("out"), at.join("fresh"));
    let export = |to: &Path| {
        let to = to.to_str().expect("UTF-8").to_owned();
        ["export", "--out", &to, "--dataset", "messages", "--dataset", "rosters"].map(str::to_owned)
    };
    let arguments = export(&out);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let progress = out.join("_export-in-progress.json");
    let said = stopped(&arguments, at, || progress.exists());
    let held = files(&out);
    assert!(said.contains(" of 4 partitions are done and no file is half written"), "{said}");
    let whole = lines(0, &arguments, at);
    let arguments = export(&fresh);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(lines(0, &arguments, at)[0]["datasets"], whole[0]["datasets"]);
    assert_eq!(sum(whole[0]["partitions"].as_array().expect("a list"), "events"), events);
    let (resumed, wanted) = (files(&out), files(&fresh));
    assert!(resumed == wanted, "{:?} and {:?}", resumed.keys(), wanted.keys());
    let of_datasets = held.iter().filter(|(name, _)| !name.to_string_lossy().starts_with("_export-in-progress"));
    assert!(of_datasets.into_iter().all(|(name, bytes)| wanted[name] == *bytes));

    let data_dir = at.to_str().expect("UTF-8");
    let rebuilt = run("receipts", &["rebuild", "--even-if-different", "--data-dir", data_dir]);
    assert!(rebuilt.status.success(), "{}", errors(&rebuilt));
    stopped(&["verify"], at, || true);
    let verdicts = lines(0, &["verify"], at);
    for (verdict, replayed) in verdicts.iter().zip(&replayed) {
        assert_eq!(
            (&verdict["digest_of_store"], &verdict["end_offset"]),
            (&replayed["digest"], &replayed["next_offset"])
        );
    }
    assert_eq!(sum(&verdicts, "events"), events);
}

/// INV-EXPORT: an export that is killed again and again leaves no half-written file, and ends with
/// the bytes of one that was not.
#[test]
fn killed_exports_end_with_the_same_bytes() {
    let (data, _) = large();
    let data_dir = data.path().to_str().expect("UTF-8");
    let (out, fresh) = (data.path().join("out"), data.path().join("fresh"));
    let datasets = ["--dataset", "messages", "--dataset", "rosters", "--dataset", "events", "--file-mb", "1"];
    let export = |to: &Path| {
        let own = ["export", "--data-dir", data_dir, "--format", "ndjson", "--out"].map(str::to_owned).into_iter();
        own.chain([to.to_str().expect("UTF-8").to_owned()]).chain(datasets.map(str::to_owned)).collect::<Vec<_>>()
    };
    let all = |to: &Path| {
        let arguments = export(to);
        let output = run("receipts", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", errors(&output));
        files(to)
    };
    let wanted = all(&fresh);
    assert!(wanted.len() > 5, "several files: {:?}", wanted.keys());

    let arguments = export(&out);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let names = || if out.exists() { names_below(&out) } else { Vec::new() };
    let mut kills = 0;
    for round in 0..12 {
        // Each run does more than the one before it, so the last ones reach the end.
        let (mut before, mut left) = (names(), 1 + round);
        let is_due = || {
            let now = names();
            left -= i32::from(now != before);
            before = now;
            left <= 0
        };
        if !kill("receipts", &arguments, is_due) {
            break;
        }
        kills += 1;
        for (name, bytes) in files(&out) {
            let is_ours =
                name.to_string_lossy().starts_with("_export-in-progress") || name.starts_with("_manifest.json.tmp");
            assert!(is_ours || wanted[&name] == bytes, "after {kills} kills {name:?} is not as it should be");
        }
    }
    assert!(kills >= 3, "{kills} kills");
    let ended = all(&out);
    assert!(ended == wanted, "{:?} and {:?}", ended.keys(), wanted.keys());
}

/// Returns the names of the files below a folder, some of which may be gone meanwhile.
fn names_below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(names_below(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}
