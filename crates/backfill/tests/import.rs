//! INV-BACKFILL: the log holds the content of a table once, despite any interruptions, and the
//! report lists the rows that no event can express.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod common;

use common::plan;
use receipts_analytics::export::{self, Dataset};
use receipts_analytics::{Folded, ProgressMonitor, Scratch, Span, UpTo, span};
use receipts_backfill::{Columns, Error, ImportReport, Input, Plan, Source, import};
use receipts_event::decode;
use receipts_fold::Limits;
use receipts_fold::view::{MemberFilter, ReadMark, Receipt};
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Inspect as _, Topic};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

const PARTITIONS: u32 = 2;
const SENT_AT_MS: u64 = 1_780_000_000_000;

/// Stops the run after that many calls.
struct StopAfter(Cell<u32>);

impl ProgressMonitor for StopAfter {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        self.0.set(self.0.get().saturating_sub(1));
        self.0.get() == 0
    }
}

fn log(dir: &Path) -> EmbeddedLog {
    EmbeddedLog::open(&dir.join("log"), NonZeroU32::new(PARTITIONS)).unwrap()
}

/// Three tables as another system may leave them: groups of all sizes, bots, a departure, unordered
/// reads.
fn tables(dir: &Path) -> Vec<Source> {
    let (mut members, mut messages, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for conversation in 0..12_u64 {
        let id = format!("c{conversation}");
        let size = 2 + conversation * conversation;
        let kind = if conversation == 0 { "direct" } else { "group" };
        let people: Vec<String> = (0..size).map(|person| format!("u{}", person * 7 % 190)).collect();
        for person in &people {
            members.push(json!({"conversation_id": id, "user_id": person, "kind": kind, "group_type": "team", "at_ms": SENT_AT_MS}));
        }
        members.push(json!({"conversation_id": id, "user_id": "bot", "role": "observer", "kind": kind, "group_type": "team", "at_ms": null}));
        for message in 0..20 {
            let (sent_at, sender) = (SENT_AT_MS + message * 1_000, &people[(message % size) as usize]);
            let message_id = format!("m{message}");
            messages.push((
                sent_at,
                json!({"conversation_id": id, "message_id": message_id, "sender_id": sender, "sent_at_ms": sent_at}),
            ));
            for (number, person) in people.iter().enumerate().filter(|(_, person)| *person != sender) {
                let at = sent_at + 60_000 * (number as u64 / 4) + message % 3;
                match (number as u64 + message) % 5 {
                    0 => reads.push(json!({"conversation_id": id, "message_id": message_id, "user_id": person, "read_at_ms": null})),
                    1 => reads.push(json!({"conversation_id": id, "message_id": message_id, "user_id": person, "read_at_ms": at, "hidden": true})),
                    _ => reads.push(json!({"conversation_id": id, "message_id": message_id, "user_id": person, "read_at_ms": at})),
                }
            }
        }
        members.push(
            json!({"conversation_id": id, "user_id": people[1], "role": "left", "kind": kind, "group_type": "team",
                            "at_ms": SENT_AT_MS + 10_500}),
        );
    }
    // As PostgreSQL sorts: those without a time are the last rows, though they joined first.
    members.sort_by_key(|row| row["at_ms"].as_u64().unwrap_or(u64::MAX));
    messages.sort_by_key(|(sent_at, _)| *sent_at);
    let messages = messages.into_iter().map(|(_, row)| row).collect();
    let rows = [(Input::Members, members), (Input::Messages, messages), (Input::Reads, reads)];
    rows.map(|(input, rows)| {
        let path = dir.join(format!("{input}.ndjson"));
        fs::write(&path, rows.iter().map(|row: &Value| format!("{row}\n")).collect::<String>()).unwrap();
        Source::new(input, &[path], None).unwrap()
    })
    .into()
}

/// Returns the values of a log, by partition.
fn events(log: &EmbeddedLog) -> Vec<Vec<Vec<u8>>> {
    let values = |partition| {
        let records = log.read(Topic::Events, partition, 0, usize::MAX).unwrap();
        records.into_iter().map(|record| record.value.unwrap().to_vec()).collect()
    };
    (0..PARTITIONS).map(values).collect()
}

fn spans(log: &EmbeddedLog) -> Vec<Span> {
    (0..PARTITIONS).map(|partition| span(log, partition, UpTo::End).unwrap()).collect()
}

fn scratch() -> Scratch {
    Scratch { limits: Limits::default(), memory_bytes: 8 << 20, snapshots: None }
}

/// Returns every receipt, list and read mark of a log, without the versions, which are offsets.
fn answers(log: &EmbeddedLog) -> Vec<String> {
    let mut answers = Vec::new();
    for span in spans(log) {
        let Folded { state, report, .. } = &scratch().fold(log, &span, &()).unwrap();
        assert!(report.dead_letters.is_empty(), "{report:?}");
        for number in 0..state.messages() {
            let receipt: Receipt = state.receipt_of(number).unwrap().unwrap();
            let receipt = Receipt { version: None, ..receipt };
            let lists = [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed].map(|filter| {
                let mut list = state.members_of(number, filter, 0, usize::MAX).unwrap().unwrap().members;
                list.sort_by(|a, b| a.user_id.cmp(&b.user_id));
                list
            });
            answers.push(serde_json::to_string(&(receipt, lists)).unwrap());
        }
        for number in 0..state.conversations() {
            let mut slot = Some(0);
            while let Some(from) = slot {
                let page = state.read_marks_page(number, from).unwrap();
                slot = page.next_slot;
                for mark in page.marks {
                    let mark = ReadMark { version: 0, ..mark };
                    answers.push(serde_json::to_string(&(state.conversation_name(number).unwrap(), mark)).unwrap());
                }
            }
        }
    }
    answers.sort();
    answers
}

/// INV-BACKFILL: an import that is stopped anywhere, any number of times, writes the events of an
/// import that was never stopped, in the same order and once.
#[test]
fn an_interrupted_import_writes_the_same_events() {
    let dir = tempfile::tempdir().unwrap();
    let sources = tables(dir.path());
    let whole = tempfile::tempdir().unwrap();
    let log_of_whole = log(whole.path());
    let done = import(&log_of_whole, &plan(whole.path(), sources.clone()), &()).unwrap();
    assert!(done.written > 3_000 && done.counts.rejected.is_empty() && done.counts.unread > 500, "{done:?}");
    let again = import(&log_of_whole, &plan(whole.path(), sources.clone()), &()).unwrap();
    assert_eq!((again.written, again.already_written, &again.counts), (0, 0, &done.counts), "it was done");
    let wanted = events(&log_of_whole);

    for first_stop in [1, 2, 100, 600, 700, 900, 5_000, 9_000] {
        let cut = tempfile::tempdir().unwrap();
        let log = log(cut.path());
        let mut stops = 0;
        let mut written = 0;
        let last: ImportReport = loop {
            // Later each time, because every run reads the events of the run before.
            let stop = StopAfter(Cell::new(first_stop * (stops + 1)));
            match import(&log, &plan(cut.path(), sources.clone()), &stop) {
                Ok(done) => break done,
                Err(Error::Stopped) => stops += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(stops < 20 || first_stop < 600, "it comes to something");
            if stops == 20 {
                break import(&log, &plan(cut.path(), sources.clone()), &()).unwrap();
            }
            written = events(&log).iter().map(Vec::len).sum();
        };
        assert_eq!(events(&log), wanted, "first stop {first_stop}");
        assert!(last.resumed && last.already_written as usize >= written, "{last:?}");
        assert_eq!(last.counts, done.counts);
    }
}

/// INV-BACKFILL: exported files, imported into a new log, give the same receipts, lists and read
/// marks, in all formats.
#[test]
fn an_imported_export_has_the_same_receipts() {
    let dir = tempfile::tempdir().unwrap();
    // An export names no hidden readers and has the last roster, so neither can be imported again.
    let mut sources = tables(dir.path());
    for source in &mut sources {
        let text = fs::read_to_string(&source.files[0].path).unwrap();
        let kept = text.lines().filter(|line| !line.contains("hidden") && !line.contains("left"));
        fs::write(&source.files[0].path, kept.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
    let marks = (1..12).map(|conversation| {
        let (id, up_to) = (format!("c{conversation}"), format!("m{}", 3 + conversation));
        json!({"conversation_id": id, "user_id": "u0", "up_to_message_id": up_to, "read_at_ms": SENT_AT_MS + 500_000})
    });
    let path = dir.path().join("marks.ndjson");
    fs::write(&path, marks.map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    sources.push(Source::new(Input::Marks, &[path], None).unwrap());
    let first = log(dir.path());
    import(&first, &plan(dir.path(), sources), &()).unwrap();
    let wanted = answers(&first);
    assert_eq!(wanted.len(), 240 + 11, "receipts and read marks");
    for (written, layout) in [
        (export::Format::Ndjson, export::Layout::V1),
        (export::Format::Ndjson, export::Layout::V2),
        (export::Format::Csv, export::Layout::V2),
        (export::Format::Parquet, export::Layout::V1),
        (export::Format::Parquet, export::Layout::V2),
    ] {
        let again = tempfile::tempdir().unwrap();
        let second = log(again.path());
        for partition in spans(&first) {
            let out = again.path().join(format!("export-{}", partition.partition));
            let mut datasets = vec![Dataset::Rosters, Dataset::Messages, Dataset::Reads, Dataset::ReadMarks];
            datasets.retain(|dataset| layout == export::Layout::V2 || dataset.is_in_v1());
            let what = export::Plan {
                out: export::Target::Directory(out.clone()),
                log: String::new(),
                position: String::new(),
                format: written,
                layout,
                file_bytes: 1,
                datasets,
            };
            export::export(&first, &[partition], &scratch(), &what, &()).unwrap();
            let table = |input, name: &str| Source::new(input, &[out.join(name)], None).unwrap();
            let mut sources = vec![
                table(Input::Members, "rosters"),
                table(Input::Messages, "messages"),
                table(Input::Reads, "reads"),
            ];
            if layout == export::Layout::V2 {
                sources.push(table(Input::Marks, "read_marks"));
            }
            let plan =
                Plan { progress: out.join("progress"), rejects: out.join("rejects"), ..plan(again.path(), sources) };
            let done = import(&second, &plan, &()).unwrap();
            assert!(done.counts.rejected.is_empty(), "{done:?} {:?}", fs::read_to_string(&plan.rejects));
        }
        let mut wanted = wanted.clone();
        wanted.retain(|answer| layout == export::Layout::V2 || !answer.contains("up_to_sent_at_ms"));
        assert_eq!(answers(&second), wanted, "{written:?} {layout:?}");
    }
}

/// INV-BACKFILL: the report has each bad row with its number and reason, and the log has the good
/// rows. A dry run gives the same report and writes no event.
#[test]
fn bad_rows_are_reported_and_good_rows_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen.csv");
    let rows = "chat,message_id,who,seen_at,hidden\n\
                c1,m1,bob,2026-05-28T20:26:40Z,false\n\
                c1,m1,,1780000000000,\n\
                c1,m1,carol,yesterday,\n\
                c1,m2,bob,1780000000000,\n\
                c1,m2,dave\n\
                c1,m3,bob,,\n\
                c1,m2,bob,1780000005000,\n";
    fs::write(&path, rows).unwrap();
    let mut columns = Columns::default();
    for assignment in ["conversation_id=chat", "user_id=who", "read_at_ms=seen_at"] {
        columns.set(assignment).unwrap();
    }
    let log = log(dir.path());
    let source = Source::new(Input::Reads, std::slice::from_ref(&path), None).unwrap();
    let plan = Plan { columns, ..plan(dir.path(), vec![source]) };
    let dry = import(&log, &Plan { dry_run: true, ..plan.clone() }, &()).unwrap();
    assert_eq!(events(&log).concat().len(), 0);
    assert!(!plan.progress.exists());
    let report_of_dry = fs::read_to_string(&plan.rejects).unwrap();
    let done = import(&log, &plan, &()).unwrap();
    assert_eq!((&done.counts, done.written), (&dry.counts, 1), "two ids at one time share an event");
    let report = fs::read_to_string(&plan.rejects).unwrap();
    assert_eq!(report, report_of_dry);
    let rejects: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reported: Vec<(u64, &str)> =
        rejects.iter().map(|reject| (reject["row"].as_u64().unwrap(), reject["reason"].as_str().unwrap())).collect();
    assert_eq!(reported.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2, 3, 5]);
    for ((_, reason), part) in reported.iter().zip(["user_id is missing", "read_at_ms", "has 3 fields"]) {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(rejects[1]["original"]["who"], "carol");
    assert_eq!((done.counts.unread, done.counts.repeated), (1, 1));
    let event = events(&log).concat();
    let event = decode(&event[0]).unwrap().to_json();
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!((&event["message_ids"], &event["read_at_ms"]), (&json!(["m1", "m2"]), &json!(SENT_AT_MS)));

    let other = Plan { tenant: "acme".to_owned(), ..plan.clone() };
    assert!(import(&log, &other, &()).unwrap_err().to_string().contains("another tenant"), "not the same import");
    fs::write(&path, format!("{rows}c1,m9,bob,1780000000000,\n")).unwrap();
    let sentence = import(&log, &plan, &()).unwrap_err().to_string();
    assert!(sentence.contains("changed since") && sentence.contains("--progress"), "{sentence}");
}
