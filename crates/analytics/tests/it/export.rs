//! INV-EXPORT: an export's rows equal the answers of the oracle, and one prefix gives the same
//! files.

use crate::common::{LoggedHistory, PARTITIONS, oracle_of, scratch};
use arrow_array::{Array as _, BooleanArray, Int64Array, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use receipts_analytics::export::{Dataset, Format, Plan, Target, Type, export};
use receipts_analytics::{Scratch, Span, UpTo, span};
use receipts_event::{Body, Event};
use receipts_fold::view::{MemberFilter, Status};
use receipts_testkit::Oracle;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rows as JSON, by the path of their file within the export.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn rows_of(dataset: Dataset, path: &Path, bytes: &[u8]) -> Vec<Value> {
    match path.extension().unwrap().to_str().unwrap() {
        "ndjson" => {
            bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
        }
        "csv" => csv::Reader::from_reader(bytes).records().map(|row| csv_row(dataset, &row.unwrap())).collect(),
        _ => parquet_rows(dataset, bytes),
    }
}

fn csv_row(dataset: Dataset, row: &csv::StringRecord) -> Value {
    let fields = dataset.columns().iter().zip(row).map(|(column, text)| {
        let value = match column.kind {
            _ if text.is_empty() => Value::Null,
            Type::Text => json!(text),
            Type::Integer => json!(text.parse::<i64>().unwrap()),
            Type::Flag => json!(text.parse::<bool>().unwrap()),
        };
        (column.name.to_owned(), value)
    });
    Value::Object(fields.collect())
}

fn parquet_rows(dataset: Dataset, bytes: &[u8]) -> Vec<Value> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes)).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(Result::unwrap) {
        for at in 0..batch.num_rows() {
            let fields = dataset.columns().iter().enumerate().map(|(number, column)| {
                let array = batch.column(number);
                assert_eq!(batch.schema().field(number).name(), column.name);
                let value = match column.kind {
                    _ if array.is_null(at) => Value::Null,
                    Type::Text => json!(array.as_any().downcast_ref::<StringArray>().unwrap().value(at)),
                    Type::Integer => json!(array.as_any().downcast_ref::<Int64Array>().unwrap().value(at)),
                    Type::Flag => json!(array.as_any().downcast_ref::<BooleanArray>().unwrap().value(at)),
                };
                assert!(column.nullable || !value.is_null(), "{} is null", column.name);
                (column.name.to_owned(), value)
            });
            rows.push(Value::Object(fields.collect::<Map<_, _>>()));
        }
    }
    rows
}

fn rows(dataset: Dataset, files: &Files) -> Vec<Value> {
    let own = files.iter().filter(|(path, _)| path.starts_with(dataset.name()));
    own.flat_map(|(path, bytes)| rows_of(dataset, path, bytes)).collect()
}

fn spans(history: &LoggedHistory, up_to: UpTo) -> Vec<Span> {
    (0..PARTITIONS).map(|partition| span(&history.log, partition, up_to).unwrap()).collect()
}

fn exported(history: &LoggedHistory, spans: &[Span], scratch: &Scratch, format: Format, out: &Path) -> Files {
    let plan = Plan {
        out: Target::Directory(out.to_owned()),
        log: "a log".to_owned(),
        format,
        datasets: Dataset::ALL.to_vec(),
    };
    let (_, written) = export(&history.log, spans, scratch, &plan, &()).unwrap();
    let files = files(out);
    assert_eq!(files.len() as u64, written.iter().map(|dataset| dataset.files).sum::<u64>());
    assert_eq!(files.values().map(|f| f.len() as u64).sum::<u64>(), written.iter().map(|d| d.bytes).sum::<u64>());
    files
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}

/// Returns the receipts of a partition as rows, without the columns that only the log knows.
fn receipts(history: &LoggedHistory, partition: u32, oracle: &Oracle) -> Vec<Value> {
    let questions = history.questions(partition);
    let receipts =
        questions.messages.iter().map(|(tenant, conversation, message)| oracle.receipt(tenant, conversation, message));
    let found = receipts.filter(|receipt| receipt.status != Status::NotFound);
    found.map(|receipt| serde_json::to_value(receipt).unwrap()).collect()
}

fn reads(history: &LoggedHistory, partition: u32, oracle: &Oracle) -> Vec<Value> {
    let mut rows = Vec::new();
    for (tenant, conversation, message) in &history.questions(partition).messages {
        let sent_at_ms = oracle.receipt(tenant, conversation, message).sent_at_ms;
        for reader in oracle.members(tenant, conversation, message, MemberFilter::Read).unwrap_or_default() {
            rows.push(json!({"tenant": tenant, "conversation_id": conversation, "message_id": message,
                             "reader_id": reader.user_id, "read_at_ms": reader.read_at_ms, "sent_at_ms": sent_at_ms,
                             "partition": partition}));
        }
    }
    rows
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
    for (seed, format) in [(0, Format::Parquet), (1, Format::Ndjson), (2, Format::Csv), (3, Format::Parquet)] {
        let history = LoggedHistory::new(seed);
        let out = tempfile::tempdir().unwrap();
        let files = exported(&history, &spans(&history, UpTo::End), &scratch(), format, out.path());
        let oracles: Vec<Oracle> = history.records.iter().map(|records| oracle_of(records)).collect();
        let each = |rows: fn(&LoggedHistory, u32, &Oracle) -> Vec<Value>| -> Vec<Value> {
            (0..PARTITIONS).flat_map(|p| rows(&history, p, &oracles[p as usize])).collect()
        };

        let mut messages = rows(Dataset::Messages, &files);
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
        assert_eq!(sorted(rows(Dataset::Reads, &files)), sorted(each(reads)), "seed {seed}");

        let events = || history.records.iter().flatten().filter_map(|(_, event)| event.as_ref());
        let (wanted, erased) = rosters(events());
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        let held = rows(Dataset::Rosters, &files);
        let held: BTreeSet<_> =
            held.iter().map(|row| ["tenant", "conversation_id", "user_id", "role"].map(|f| text(row, f))).collect();
        assert_eq!(held, wanted, "seed {seed}");

        let rows = rows(Dataset::Events, &files);
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

/// INV-EXPORT: for any memory and any number of runs. Files that only an earlier export wrote are
/// removed.
#[test]
fn one_prefix_gives_the_same_files_and_no_others() {
    let history = LoggedHistory::new(5);
    let (out, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tight = Scratch { memory_bytes: 16 << 10, ..scratch() };
    let whole = spans(&history, UpTo::End);
    for format in [Format::Parquet, Format::Csv, Format::Ndjson] {
        let first = exported(&history, &whole, &scratch(), format, out.path());
        assert_eq!(exported(&history, &whole, &tight, format, again.path()), first);
        assert_eq!(exported(&history, &whole, &scratch(), format, out.path()), first);
    }
    let middle = history.records[0][history.records[0].len() / 2].0.timestamp_ms;
    let half = spans(&history, UpTo::Time(middle));
    let fresh = tempfile::tempdir().unwrap();
    let wanted = exported(&history, &half, &scratch(), Format::Ndjson, fresh.path());
    fs::write(out.path().join("messages").join("README"), "not ours").unwrap();
    let plan = Plan {
        out: Target::Directory(out.path().to_owned()),
        log: "a log".to_owned(),
        format: Format::Ndjson,
        datasets: Dataset::ALL.to_vec(),
    };
    export(&history.log, &half, &scratch(), &plan, &()).unwrap();
    let mut held = files(out.path());
    assert!(held.remove(Path::new("messages/README")).is_some(), "what is not ours stays");
    assert_eq!(held, wanted);
}

/// INV-EXPORT: the schema describes each column in the section of its dataset, and no other name.
#[test]
fn the_schema_names_the_columns_in_their_order() {
    let schema = include_str!("../../../../schemas/export/v1.md");
    for dataset in Dataset::ALL {
        let (_, section) = schema.split_once(&format!("\n## {}\n", dataset.name())).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let first_cells: Vec<&str> = rows.map(|row| row.split(" | ").next().unwrap()).collect();
        let names: Vec<&str> =
            first_cells.iter().flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect();
        let columns: Vec<&str> = dataset.columns().iter().map(|column| column.name).collect();
        assert_eq!(names, columns, "{}", dataset.name());
    }
}

/// A stop takes effect while the log is read, and leaves no half-written file.
#[test]
fn a_stopped_export_leaves_no_half_written_file() {
    struct Impatient(std::cell::Cell<u64>);

    impl receipts_analytics::ProgressMonitor for Impatient {
        fn advanced(&self, offsets: u64) {
            self.0.set(self.0.get() + offsets);
        }

        fn is_stopped(&self) -> bool {
            self.0.get() >= 100
        }
    }

    let history = LoggedHistory::new(0);
    let out = tempfile::tempdir().unwrap();
    let plan = Plan {
        out: Target::Directory(out.path().to_owned()),
        log: "a log".to_owned(),
        format: Format::Parquet,
        datasets: Dataset::ALL.to_vec(),
    };
    let stopped = export(&history.log, &spans(&history, UpTo::End), &scratch(), &plan, &Impatient(0.into()));
    assert!(matches!(stopped, Err(receipts_analytics::Error::ExportStopped { .. })));
    assert!(files(out.path()).is_empty(), "the first partition was not even folded");
}

/// INV-EXPORT: written partitions are not folded again for the same prefix, and are for another
/// one.
#[test]
fn an_interrupted_export_resumes_after_written_partitions() {
    struct StopsAt(u64, std::cell::Cell<u64>);

    impl receipts_analytics::ProgressMonitor for StopsAt {
        fn advanced(&self, offsets: u64) {
            self.1.set(self.1.get() + offsets);
        }

        fn is_stopped(&self) -> bool {
            self.1.get() >= self.0
        }
    }

    let history = LoggedHistory::new(6);
    let whole = spans(&history, UpTo::End);
    let (out, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wanted = exported(&history, &whole, &scratch(), Format::Ndjson, fresh.path());
    let plan = Plan {
        out: Target::Directory(out.path().to_owned()),
        log: "a log".to_owned(),
        format: Format::Ndjson,
        datasets: Dataset::ALL.to_vec(),
    };
    let in_the_second = 2 * whole[0].offsets() + 1;
    let stopped = export(&history.log, &whole, &scratch(), &plan, &StopsAt(in_the_second, 0.into()));
    assert!(matches!(stopped, Err(receipts_analytics::Error::ExportStopped { .. })));
    let held = files(out.path());
    let first = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("part-00000-");
    let (path, _) = held.iter().find(|(path, _)| first(path)).unwrap();
    assert_eq!(held.keys().filter(first).count(), wanted.keys().filter(first).count(), "the first partition is whole");
    assert!(held.keys().all(|path| !path.to_string_lossy().ends_with(".tmp")));

    // A mark that another write would remove.
    fs::write(out.path().join(path), "kept").unwrap();
    let (reports, written) = export(&history.log, &whole, &scratch(), &plan, &()).unwrap();
    assert_eq!((reports.len(), written[0].rows > 0), (2, true), "both partitions are in the report");
    let mut again = files(out.path());
    assert_eq!(again.insert(path.clone(), wanted[path].clone()).unwrap(), b"kept");
    assert_eq!(again, wanted);

    // The export was complete, so there is nothing to resume.
    assert_eq!(exported(&history, &whole, &scratch(), Format::Ndjson, out.path()), wanted);
    let stopped = export(&history.log, &whole, &scratch(), &plan, &StopsAt(in_the_second, 0.into()));
    assert!(stopped.is_err());
    fs::write(out.path().join(path), "another prefix's").unwrap();
    let middle = history.records[1][history.records[1].len() - 3].0.timestamp_ms;
    let other = spans(&history, UpTo::Time(middle));
    let fresh = tempfile::tempdir().unwrap();
    let wanted = exported(&history, &other, &scratch(), Format::Ndjson, fresh.path());
    assert_eq!(exported(&history, &other, &scratch(), Format::Ndjson, out.path()), wanted);
}

/// INV-EXPORT: a bucket gets the same files as a directory, and files of another export are removed
/// there too.
#[test]
fn a_bucket_gets_the_files_of_a_directory() {
    let history = LoggedHistory::new(4);
    let fresh = tempfile::tempdir().unwrap();
    let wanted = exported(&history, &spans(&history, UpTo::End), &scratch(), Format::Parquet, fresh.path());
    let bucket = receipts_objects::Destination::memory().unwrap();
    for stale in ["messages/tenant=gone!20away/day=2020-01-01/part-00000-00000.parquet", "messages/README"] {
        bucket.put_bytes(stale, "stale").unwrap();
    }
    let plan = Plan {
        out: Target::Objects(bucket.clone()),
        log: "a log".to_owned(),
        format: Format::Parquet,
        datasets: Dataset::ALL.to_vec(),
    };
    for removed in [1, 0] {
        let (_, written) = export(&history.log, &spans(&history, UpTo::End), &scratch(), &plan, &()).unwrap();
        assert_eq!(written.iter().map(|written| written.removed).sum::<u64>(), removed);
        let mut held = Files::new();
        for object in bucket.list("").unwrap() {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut bucket.read(&object.name).unwrap(), &mut bytes).unwrap();
            held.insert(PathBuf::from(object.name), bytes);
        }
        assert_eq!(held.remove(Path::new("messages/README")).unwrap(), b"stale", "what is not ours stays");
        assert_eq!(held, wanted);
    }
}
