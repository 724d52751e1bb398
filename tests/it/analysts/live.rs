//! INV-LIVE: kills `receipts export --follow --once` (SIGKILL) again and again, and compares the
//! rows of its tables with a plain export. `RECEIPTS_TEST_SEEDS=FROM..TO` chooses the kills. Must
//! not look at older versions: `crates/analytics` does.

use super::{SENT_AT_MS, lines};
use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use receipts_event::key;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Log as _};
use receipts_testkit::property::{Replay, scaled, seeds};
use receipts_testkit::random::Random;
use receipts_tests::process::{Service, kill};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DATASETS: [&str; 5] = ["messages", "reads", "members", "rosters", "read_marks"];
const CONVERSATIONS: u64 = 6;
const PEOPLE: u64 = 12;

/// Appends random events to the log; `sent` counts the messages of each conversation.
fn append(data: &Path, random: &mut Random, sent: &mut [u64]) {
    let log = EmbeddedLog::open(&data.join("log"), None).expect("a log");
    let writer = log.writer();
    for _ in 0..200 + random.below(400) {
        let of = random.below(CONVERSATIONS);
        let (id, count) = (format!("g{of}"), &mut sent[usize::try_from(of).expect("small")]);
        let person = format!("u{}", random.below(PEOPLE));
        let message = format!("m{}", random.below((*count).max(1)));
        let event = match random.below(10) {
            0 => json!({"type": "members.changed", "conversation_id": id, "joined": [person]}),
            1 => {
                json!({"type": "conversation.read", "conversation_id": id, "reader_id": person, "up_to_message_id": message})
            }
            2..=4 => {
                *count += 1;
                json!({"type": "message.sent", "conversation_id": id, "message_id": format!("m{}", *count - 1),
                       "sender_id": person, "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
            }
            _ => json!({"type": "message.read", "conversation_id": id, "reader_id": person, "message_ids": [message]}),
        };
        drop(writer.append(Entry::event(key("default", &id), Bytes::from(event.to_string()), None)));
    }
    writer.flush(Duration::from_secs(60)).expect("written");
}

/// Returns the files of a table's newest version. Adds and removes of one commit have no order.
fn active(table: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(table.join("_delta_log")).expect("a table");
    let mut commits: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    commits.retain(|path| path.extension().is_some_and(|end| end == "json"));
    commits.sort();
    let mut active = BTreeSet::new();
    for commit in commits {
        let text = fs::read_to_string(commit).expect("a commit");
        let actions: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        for path in actions.iter().filter_map(|action| action["remove"]["path"].as_str()) {
            assert!(active.remove(path), "{path} was not there");
        }
        for path in actions.iter().filter_map(|action| action["add"]["path"].as_str()) {
            assert!(active.insert(path.to_owned()), "{path} was there before");
        }
    }
    active.into_iter().map(|name| table.join(name)).collect()
}

/// Returns the rows of files in an order of their own, without the unit of their times.
fn rows(files: &[PathBuf]) -> Vec<String> {
    let mut rows = Vec::new();
    for path in files {
        let reader = SerializedFileReader::new(File::open(path).expect("a file")).expect("Parquet");
        for row in reader.get_row_iter(None).expect("rows") {
            let row = row.expect("a row");
            let shown = row.get_column_iter().map(|(name, field)| match field {
                Field::TimestampMicros(us) => format!("{name}={}", us / 1_000),
                Field::TimestampMillis(ms) => format!("{name}={ms}"),
                other => format!("{name}={other:?}"),
            });
            rows.push(shown.collect::<Vec<_>>().join(" "));
        }
    }
    rows.sort();
    rows
}

#[test]
fn killed_live_tables_go_on_as_exported() {
    let mut killed = 0;
    for seed in seeds(0..scaled(1, 20)) {
        let _replay = Replay::with(&format!("RECEIPTS_TEST_SEEDS={seed}..{}", seed + 1));
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let (data, out) = (folder.path().join("data"), folder.path().join("tables"));
        assert_eq!(Service::serve(&data, &[]).terminate(), Some(0), "it makes the log");
        let data_dir = data.to_str().expect("UTF-8");
        let follow = ["export", "--follow", "--once", "--out", out.to_str().expect("UTF-8")];
        let mut sent = vec![0; usize::try_from(CONVERSATIONS).expect("small")];
        // The first run has no kill, and says how long a run takes.
        append(&data, &mut random, &mut sent);
        let began = Instant::now();
        lines(0, &follow, &data);
        let mut long = u64::try_from(began.elapsed().as_millis()).expect("small");
        for number in 0..10 {
            append(&data, &mut random, &mut sent);
            let (began, moment) = (Instant::now(), Duration::from_millis(random.below(long + 1)));
            killed += u64::from(kill("receipts", &[&follow[..], &["--data-dir", data_dir]].concat(), || {
                began.elapsed() >= moment
            }));
            let began = Instant::now();
            lines(0, &follow, &data);
            long = u64::try_from(began.elapsed().as_millis()).expect("small");
            let plain = folder.path().join(format!("plain-{number}"));
            lines(0, &["export", "--out", plain.to_str().expect("UTF-8")], &data);
            for dataset in DATASETS {
                let entries = fs::read_dir(plain.join(dataset)).expect("a folder");
                let exported: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
                let (held, wanted) = (rows(&active(&out.join(dataset))), rows(&exported));
                assert!(
                    held == wanted,
                    "kill {number} after {moment:?}: {dataset} has {} rows, and the export {}",
                    held.len(),
                    wanted.len()
                );
                assert!(!wanted.is_empty(), "{dataset} has rows");
            }
            fs::remove_dir_all(&plain).expect("removed");
        }
    }
    assert!(killed > 0, "a run was killed");
}
