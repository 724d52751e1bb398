//! INV-EXPORT: the rows of every dataset, layout and format are those that the oracle answers.

use super::{DAY_MS, Files, at, exported, rows, spans};
use crate::common::{LoggedHistory, PARTITIONS, oracle_of, scratch};
use receipts_analytics::UpTo;
use receipts_analytics::export::{Dataset, Format, Layout};
use receipts_event::{Body, Event};
use receipts_fold::view::{MemberFilter, Status};
use receipts_testkit::Oracle;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}

/// Returns the rows of a dataset with the names of layout v1 and without days, which must be those
/// of the time beside them.
fn old_rows(dataset: Dataset, files: &Files) -> Vec<Value> {
    let renamed = |row: Value| {
        let Value::Object(mut fields) = row else { panic!("a row") };
        if let Some(day) = fields.remove("day") {
            let time = if dataset == Dataset::Events { "recorded_at" } else { "sent_at" };
            assert_eq!(day, json!(fields[time].as_u64().unwrap() / DAY_MS));
        }
        let rename = |(name, value): (String, Value)| match name.as_str() {
            "recorded_at" => ("timestamp_ms".to_owned(), value),
            "sent_at" | "read_at" | "last_read_at" | "up_to_sent_at" => (format!("{name}_ms"), value),
            _ => (name, value),
        };
        Value::Object(fields.into_iter().map(rename).collect())
    };
    rows(dataset, files).into_iter().map(renamed).collect()
}

/// Returns the receipts of a partition as rows, without the columns that only the log knows.
fn receipts(history: &LoggedHistory, partition: u32, oracle: &Oracle) -> Vec<Value> {
    let questions = history.questions(partition);
    let receipts =
        questions.messages.iter().map(|(tenant, conversation, message)| oracle.receipt(tenant, conversation, message));
    let found = receipts.filter(|receipt| receipt.status != Status::NotFound);
    found.map(|receipt| serde_json::to_value(receipt).unwrap()).collect()
}

/// Returns the members of a list of each message of a partition as rows, with the person's name in
/// the column `person`.
fn members(history: &LoggedHistory, partition: u32, oracle: &Oracle, filter: MemberFilter, person: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    for (tenant, conversation, message) in &history.questions(partition).messages {
        let sent_at_ms = oracle.receipt(tenant, conversation, message).sent_at_ms;
        for member in oracle.members(tenant, conversation, message, filter).unwrap_or_default() {
            rows.push(json!({"tenant": tenant, "conversation_id": conversation, "message_id": message,
                             person: member.user_id, "read_at_ms": member.read_at_ms, "sent_at_ms": sent_at_ms,
                             "partition": partition}));
        }
    }
    rows
}

fn reads(history: &LoggedHistory, partition: u32, oracle: &Oracle) -> Vec<Value> {
    members(history, partition, oracle, MemberFilter::Read, "reader_id")
}

fn lists(history: &LoggedHistory, partition: u32, oracle: &Oracle) -> Vec<Value> {
    let lists = [(MemberFilter::Read, "read"), (MemberFilter::Unread, "unread"), (MemberFilter::Departed, "departed")];
    let with_list = |(filter, name): (MemberFilter, &'static str)| {
        members(history, partition, oracle, filter, "user_id").into_iter().map(move |mut row| {
            row["list"] = json!(name);
            row
        })
    };
    lists.into_iter().flat_map(with_list).collect()
}

fn read_marks(history: &LoggedHistory, partition: u32, oracle: &Oracle) -> Vec<Value> {
    let questions = history.questions(partition);
    let marks = questions.people.iter().filter_map(|(tenant, conversation, user)| {
        let mark = oracle.read_mark(tenant, conversation, user)?;
        Some(json!({"tenant": tenant, "conversation_id": conversation, "reader_id": mark.reader_id,
                    "up_to_message_id": mark.up_to_message_id, "up_to_sent_at_ms": mark.up_to_sent_at_ms,
                    "read_at_ms": mark.read_at_ms, "version": mark.version, "partition": partition}))
    });
    marks.collect()
}

/// Returns rosters computed from the events alone: present members by name, and erased people by
/// tenant.
fn rosters<'a>(
    events: impl Iterator<Item = &'a Event<'static>>,
) -> (BTreeSet<[String; 4]>, BTreeSet<(String, String)>) {
    let (mut rosters, mut erased) = (BTreeMap::new(), BTreeSet::new());
    for event in events {
        let tenant = event.tenant.to_string();
        match &event.body {
            Body::MembersChanged(e) => {
                let of = |user: &str| (tenant.clone(), e.conversation_id.to_string(), user.to_owned());
                e.left.iter().for_each(|user| _ = rosters.remove(&of(user)));
                e.joined.iter().for_each(|user| _ = rosters.insert(of(user), "member"));
                e.observers.iter().for_each(|user| _ = rosters.insert(of(user), "observer"));
            }
            Body::UserErased(e) => _ = erased.insert((tenant, e.user_id.to_string())),
            _ => {}
        }
    }
    let named = rosters.into_iter().filter(|((tenant, _, user), _)| !erased.contains(&(tenant.clone(), user.clone())));
    (named.map(|((tenant, conversation, user), role)| [tenant, conversation, user, role.to_owned()]).collect(), erased)
}

/// INV-EXPORT, INV-HIDDEN, INV-ERASED: every format has exactly the rows that the oracle answers.
#[test]
fn every_row_is_what_the_oracle_answers() {
    for (seed, layout, format) in [
        (0, Layout::V2, Format::Parquet),
        (1, Layout::V2, Format::Ndjson),
        (2, Layout::V2, Format::Csv),
        (3, Layout::V2, Format::Parquet),
        (0, Layout::V1, Format::Parquet),
        (1, Layout::V1, Format::Ndjson),
        (2, Layout::V1, Format::Csv),
    ] {
        let history = LoggedHistory::new(seed);
        let out = tempfile::tempdir().unwrap();
        let plan = at(out.path(), layout, format);
        let files = exported(&history, &spans(&history, UpTo::End), &scratch(), &plan);
        let oracles: Vec<Oracle> = history.records.iter().map(|records| oracle_of(records)).collect();
        let each = |rows: fn(&LoggedHistory, u32, &Oracle) -> Vec<Value>| -> Vec<Value> {
            (0..PARTITIONS).flat_map(|p| rows(&history, p, &oracles[p as usize])).collect()
        };

        let mut messages = old_rows(Dataset::Messages, &files);
        assert!(messages.len() > 30, "seed {seed}: {}", messages.len());
        for row in &mut messages {
            let fields = row.as_object_mut().unwrap();
            let records = &history.records[fields["partition"].as_u64().unwrap() as usize];
            let (at, event) = records.iter().find(|(at, _)| fields["offset"] == json!(at.offset)).unwrap();
            assert_eq!(fields["timestamp_ms"], json!(at.timestamp_ms));
            assert!(
                matches!(&event.as_ref().unwrap().body, Body::MessageSent(e) if fields["message_id"] == *e.message_id)
            );
            for field in ["group_type", "partition", "offset", "timestamp_ms"] {
                assert!(!fields.remove(field).unwrap().is_null());
            }
            fields.retain(|_, value| !value.is_null());
        }
        assert_eq!(sorted(messages), sorted(each(receipts)), "seed {seed}");
        assert_eq!(sorted(old_rows(Dataset::Reads, &files)), sorted(each(reads)), "seed {seed}");
        if layout == Layout::V2 {
            assert_eq!(sorted(old_rows(Dataset::Members, &files)), sorted(each(lists)), "seed {seed}");
            let (held, wanted) = (old_rows(Dataset::ReadMarks, &files), each(read_marks));
            assert!(!wanted.is_empty(), "seed {seed} has read marks");
            assert_eq!(sorted(held), sorted(wanted), "seed {seed}");
        }

        let events = || history.records.iter().flatten().filter_map(|(_, event)| event.as_ref());
        let (wanted, erased) = rosters(events());
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        let held = old_rows(Dataset::Rosters, &files);
        let held: BTreeSet<_> =
            held.iter().map(|row| ["tenant", "conversation_id", "user_id", "role"].map(|f| text(row, f))).collect();
        assert_eq!(held, wanted, "seed {seed}");

        let rows = old_rows(Dataset::Events, &files);
        assert_eq!(rows.len(), events().count(), "seed {seed}");
        for row in rows {
            let partition = row["partition"].as_u64().unwrap() as usize;
            let (at, event) =
                history.records[partition].iter().find(|(at, _)| row["offset"] == json!(at.offset)).unwrap();
            assert_eq!(row["timestamp_ms"], json!(at.timestamp_ms));
            let (event, shown) = (event.as_ref().unwrap(), text(&row, "event"));
            let named =
                |(tenant, user): &(String, String)| *tenant == event.tenant && shown.contains(&format!("\"{user}\""));
            assert!(!erased.iter().any(named), "{shown}");
            let json: Value = serde_json::from_str(&shown).unwrap();
            let whole: Value = serde_json::from_slice(&event.to_json()).unwrap();
            if whole["hidden"] == json!(true) {
                assert_eq!(json.get("reader_id"), None, "{shown}");
            } else if erased.is_empty() {
                assert_eq!(json, whole);
            }
        }
    }
}
