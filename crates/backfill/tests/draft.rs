//! The judgement before an import: it counts reads that reach nobody as the import's own fold does,
//! behind what the log already holds, and writes nothing into the log.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod common;

use receipts_analytics::Scratch;
use receipts_backfill::{Draft, Input, Judgement, Plan, Reached, Source, Unreached, import, rejected_members};
use receipts_fold::Limits;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Inspect as _, Topic};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

const SENT: u64 = 1_795_176_000_000;
const PARTITIONS: u32 = 2;

fn plan(dir: &Path, name: &str, tables: &[(Input, &[Value])]) -> Plan {
    let sources = tables.iter().map(|(input, rows)| {
        let path = dir.join(format!("{name}-{input}.ndjson"));
        fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        Source::new(*input, &[path], None).unwrap()
    });
    Plan {
        progress: dir.join(format!("{name}-progress.json")),
        rejects: dir.join(format!("{name}-rejects.ndjson")),
        run: name.to_owned(),
        ..common::plan(dir, sources.collect())
    }
}

fn judge(log: &EmbeddedLog, plan: &Plan) -> (Draft, Judgement) {
    let ends =
        |log: &EmbeddedLog| (0..PARTITIONS).map(|p| log.bounds(Topic::Events, p).unwrap().end).collect::<Vec<_>>();
    let before = ends(log);
    let scratch = Scratch { limits: Limits::default(), memory_bytes: 8 << 20, snapshots: None };
    let draft = Draft::of(log, plan, &()).unwrap();
    let judgement = draft.judge(log, &scratch, &()).unwrap();
    assert_eq!(ends(log), before, "the log was only read");
    assert!(!plan.progress.exists());
    (draft, judgement)
}

fn unreached(reached: &Reached) -> BTreeMap<Unreached, u64> {
    reached.unreached.iter().map(|(reason, held)| (*reason, held.count)).collect()
}

fn read(conversation: &str, message: &str, user: &str) -> Value {
    json!({"conversation_id": conversation, "message_id": message, "user_id": user, "read_at_ms": SENT + 1_000})
}

#[test]
fn reads_that_reach_nobody_are_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(PARTITIONS)).unwrap();
    let member = |conversation: &str, user: &str| json!({"conversation_id": conversation, "user_id": user});
    let mut members = Vec::new();
    let mut messages = Vec::new();
    for conversation in ["a", "b", "c", "d"] {
        members.extend(["ann", "bob", "cid"].map(|user| member(conversation, user)));
        messages.extend((0..3_u64).map(|n| {
            json!({"conversation_id": conversation, "message_id": format!("m{n}"), "sender_id": "ann", "sent_at_ms": SENT + n})
        }));
    }
    let first = plan(dir.path(), "first", &[(Input::Members, &members), (Input::Messages, &messages)]);
    let (draft, judged) = judge(&log, &first);
    assert_eq!((judged.sent_ms, rejected_members(&draft.counts)), (Some((SENT, SENT + 2)), 0));
    assert_eq!(judged.receipts[0].counts.unwrap().audience_count, 2);
    import(&log, &first, &()).unwrap();

    // The messages are in the log, and the reads come alone.
    let reads: Vec<Value> = ["a", "b", "c", "d"]
        .into_iter()
        .flat_map(|c| {
            let again = json!({"conversation_id": c, "message_id": "m0", "user_id": "bob", "read_at_ms": SENT + 2_000});
            [
                read(c, "m0", "bob"),
                read(c, "m1", "bob"),
                read(c, "m0", "eve"),
                read(c, "m0", "ann"),
                read(c, "lost", "bob"),
                again,
            ]
        })
        .collect();
    let mark = |user: &str, more: Value| {
        let mut row = json!({"conversation_id": "a", "user_id": user});
        row.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        row
    };
    let marks = [
        mark("cid", json!({"up_to_sent_at_ms": SENT + 1})),
        mark("bob", json!({"up_to_message_id": "m1", "read_at_ms": SENT + 9})),
        mark("bob", json!({"up_to_message_id": "gone", "read_at_ms": SENT + 9})),
        mark("eve", json!({"up_to_sent_at_ms": SENT + 1})),
        mark("dan", json!({"up_to_message_id": "m1"})),
    ];
    let second = plan(dir.path(), "second", &[(Input::Reads, &reads), (Input::Marks, &marks)]);
    let (draft, judged) = judge(&log, &second);
    assert_eq!(judged.reads.read, 8);
    let wanted = [(Unreached::NotInAudience, 8), (Unreached::UnknownMessage, 4), (Unreached::Repeated, 4)];
    assert_eq!(unreached(&judged.reads), BTreeMap::from(wanted));
    assert!(judged.reads.unreached[&Unreached::NotInAudience].examples.len() == 3);
    assert_eq!(judged.reads.times_ms, Some((SENT + 1_000, SENT + 1_000)));
    assert_eq!(judged.marks.read, 2, "cid reads m0 and m1");
    let wanted = [(Unreached::NotInAudience, 1), (Unreached::UnknownMessage, 1), (Unreached::Repeated, 1)];
    assert_eq!(unreached(&judged.marks), BTreeMap::from(wanted));
    assert_eq!(draft.counts.rejected, BTreeMap::from([(Input::Marks, 1)]));
    let most = judged.receipts.last().unwrap();
    assert_eq!((most.conversation_id.as_deref(), most.counts.unwrap().read_count), (Some("a"), 2));

    import(&log, &second, &()).unwrap();
    let again = plan(dir.path(), "third", &[(Input::Reads, &reads)]);
    let (_, judged) = judge(&log, &again);
    assert_eq!(judged.reads.read, 0, "they are in the log");
    assert_eq!(unreached(&judged.reads)[&Unreached::Repeated], 12);
}

#[test]
fn rejected_rows_are_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(PARTITIONS)).unwrap();
    let bad = |user: &str, at: &str| json!({"conversation_id": "a", "user_id": user, "at_ms": at});
    let rows: Vec<Value> = (0..5).map(|n| bad("u", &format!("soon{n}"))).chain([bad("", "1795176000000")]).collect();
    let plan = plan(dir.path(), "bad", &[(Input::Members, &rows)]);
    let (draft, _) = judge(&log, &plan);
    assert_eq!(rejected_members(&draft.counts), 6);
    let reasons = &draft.counts.reasons[&Input::Members];
    assert_eq!(reasons.values().map(|held| held.count).collect::<Vec<_>>().iter().sum::<u64>(), 6, "{reasons:?}");
    let times = reasons.iter().find(|(reason, _)| reason.starts_with("at_ms")).unwrap().1;
    assert_eq!((times.count, times.examples.len(), times.examples[2].row), (5, 3, 3), "{reasons:?}");
}
