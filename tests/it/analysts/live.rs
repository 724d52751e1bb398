//! INV-LIVE: kills `receipts export --follow --once` (SIGKILL) again and again, and compares the
//! rows of its tables with a plain export. `RECEIPTS_TEST_SEEDS=FROM..TO` chooses the kills. Must
//! not look at older versions: `crates/analytics` does.

use super::{SENT_AT_MS, lines};
use bytes::Bytes;
use receipts_event::key;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Log as _};
use receipts_testkit::property::{Replay, scaled, seeds};
use receipts_testkit::random::Random;
use receipts_tests::process::{Service, errors, kill, kill_in, run_in};
use receipts_tests::tables::{DATASETS, exported, rows, versions};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

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
                let newest = versions(&out.join(dataset)).pop().expect("a version");
                let (held, wanted) = (rows(&newest.files), rows(&exported(&plain.join(dataset))));
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

/// A kill leaves rows in TMPDIR. The next process removes them, and leaves those of others alone.
#[test]
fn temporary_files_of_killed_processes_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out, temporary) =
        (folder.path().join("data"), folder.path().join("tables"), folder.path().join("temporary"));
    fs::create_dir(&temporary).expect("made");
    fs::write(temporary.join("of-another-program"), "").expect("written");
    assert_eq!(Service::serve(&data, &[]).terminate(), Some(0), "it makes the log");
    append(&data, &mut Random::new(1), &mut vec![0; usize::try_from(CONVERSATIONS).expect("small")]);
    let environment = [("TMPDIR", temporary.to_str().expect("UTF-8"))];
    let paths = [out.to_str().expect("UTF-8"), data.to_str().expect("UTF-8")];
    let follow = ["export", "--follow", "--once", "--out", paths[0], "--data-dir", paths[1]];
    let left = || -> Vec<_> {
        let entries = fs::read_dir(&temporary).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.join("content").read_dir().is_ok_and(|mut files| files.next().is_some())).collect()
    };
    assert!(kill_in(&environment, "receipts", &follow, || !left().is_empty()), "it was killed");
    assert!(!left().is_empty(), "the kill left files");
    let done = run_in(&environment, "receipts", &follow);
    assert_eq!(done.status.code(), Some(0), "{}", errors(&done));
    assert!(errors(&done).contains("temporary files of a killed process"), "{}", errors(&done));
    let names: Vec<_> =
        fs::read_dir(&temporary).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(names, ["of-another-program"]);
}
