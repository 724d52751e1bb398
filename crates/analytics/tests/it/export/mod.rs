//! INV-EXPORT: an export's rows equal the answers of the oracle, and one prefix gives the same
//! files, in both layouts.

mod files;
mod resume;
mod rows;

use crate::common::{LoggedHistory, PARTITIONS, scratch};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Date32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array as _, ArrayRef};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use receipts_analytics::export::{Dataset, Format, Layout, Plan, Target, Type, export};
use receipts_analytics::{Scratch, Span, UpTo, span};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const DAY_MS: u64 = 86_400_000;

/// Contents of files, by their paths within the export.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn plan(out: Target, layout: Layout, format: Format) -> Plan {
    let datasets = Dataset::ALL.into_iter().filter(|dataset| layout == Layout::V2 || dataset.is_in_v1()).collect();
    Plan { out, log: "a log".into(), position: "a token".into(), format, layout, file_bytes: 1 << 20, datasets }
}

/// Returns every file below a folder.
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

/// Returns the rows of a file as JSON: times as Unix milliseconds, days as days since 1970-01-01.
fn rows_of(dataset: Dataset, path: &Path, bytes: &[u8]) -> Vec<Value> {
    match path.extension().unwrap().to_str().unwrap() {
        "ndjson" => {
            let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| ndjson_row(dataset, serde_json::from_slice(line).unwrap())).collect()
        }
        "csv" => {
            let mut csv = csv::Reader::from_reader(bytes);
            let names = csv.headers().unwrap().clone();
            csv.records().map(|row| csv_row(dataset, &names, &row.unwrap())).collect()
        }
        _ => parquet_rows(bytes),
    }
}

/// Returns the type of a column of format 2; layout v1 has other names for times alone.
fn type_of(dataset: Dataset, name: &str) -> Type {
    dataset.columns().iter().find(|column| column.name == name).map_or(Type::Integer, |column| column.kind)
}

fn from_text(kind: Type, text: &str) -> Value {
    let days = |day: &str| {
        let day: chrono::NaiveDate = day.parse().unwrap();
        day.signed_duration_since(chrono::NaiveDate::default()).num_days()
    };
    match kind {
        Type::Text => json!(text),
        Type::Integer => json!(text.parse::<i64>().unwrap()),
        Type::Flag => json!(text.parse::<bool>().unwrap()),
        Type::Day => json!(days(text)),
        Type::Time => {
            assert!(text.len() == 24 && text.ends_with('Z'), "{text}");
            json!(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
        }
    }
}

fn ndjson_row(dataset: Dataset, row: Map<String, Value>) -> Value {
    let field = |(name, value): (String, Value)| {
        let value = match type_of(dataset, &name) {
            kind @ (Type::Time | Type::Day) if !value.is_null() => from_text(kind, value.as_str().unwrap()),
            _ => value,
        };
        (name, value)
    };
    Value::Object(row.into_iter().map(field).collect())
}

fn csv_row(dataset: Dataset, names: &csv::StringRecord, row: &csv::StringRecord) -> Value {
    let fields = names.iter().zip(row).map(|(name, text)| {
        let value = if text.is_empty() { Value::Null } else { from_text(type_of(dataset, name), text) };
        (name.to_owned(), value)
    });
    Value::Object(fields.collect())
}

fn parquet_rows(bytes: &[u8]) -> Vec<Value> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes)).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(Result::unwrap) {
        let schema = batch.schema();
        for at in 0..batch.num_rows() {
            let fields = schema.fields().iter().zip(batch.columns()).map(|(field, array)| {
                assert!(field.is_nullable() || !array.is_null(at), "{} is null", field.name());
                (field.name().clone(), parquet_value(array, at))
            });
            rows.push(Value::Object(fields.collect()));
        }
    }
    rows
}

fn parquet_value(array: &ArrayRef, at: usize) -> Value {
    match array.data_type() {
        _ if array.is_null(at) => Value::Null,
        DataType::Utf8 => json!(array.as_string::<i32>().value(at)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(at)),
        DataType::Boolean => json!(array.as_boolean().value(at)),
        DataType::Date32 => json!(array.as_primitive::<Date32Type>().value(at)),
        DataType::Timestamp(_, Some(zone)) => {
            assert_eq!(&**zone, "UTC");
            json!(array.as_primitive::<TimestampMillisecondType>().value(at))
        }
        other => panic!("no column is {other}"),
    }
}

/// Returns the rows of a dataset, file after file.
fn rows(dataset: Dataset, files: &Files) -> Vec<Value> {
    let own = files.iter().filter(|(path, _)| path.starts_with(dataset.name()));
    own.flat_map(|(path, bytes)| rows_of(dataset, path, bytes)).collect()
}

fn spans(history: &LoggedHistory, up_to: UpTo) -> Vec<Span> {
    (0..PARTITIONS).map(|partition| span(&history.log, partition, up_to).unwrap()).collect()
}

/// Exports everything, and returns the files beside the manifest.
fn exported(history: &LoggedHistory, spans: &[Span], scratch: &Scratch, plan: &Plan) -> Files {
    let Target::Directory(out) = &plan.out else { panic!("a directory") };
    let (_, written) = export(&history.log, spans, scratch, plan, &()).unwrap();
    let mut files = files(out);
    assert_eq!(files.remove(Path::new("_manifest.json")).is_some(), plan.layout == Layout::V2);
    assert_eq!(files.len() as u64, written.iter().map(|dataset| dataset.files).sum::<u64>());
    assert_eq!(files.values().map(|f| f.len() as u64).sum::<u64>(), written.iter().map(|d| d.bytes).sum::<u64>());
    files
}

fn at(out: &Path, layout: Layout, format: Format) -> Plan {
    plan(Target::Directory(out.to_owned()), layout, format)
}

/// INV-EXPORT: each schema describes each column in the section of its dataset, and no other name.
#[test]
fn the_schema_names_the_columns_in_their_order() {
    let history = LoggedHistory::new(0);
    for (layout, schema) in [
        (Layout::V1, include_str!("../../../../../schemas/export/v1.md")),
        (Layout::V2, include_str!("../../../../../schemas/export/v2.md")),
    ] {
        let out = tempfile::tempdir().unwrap();
        let plan = at(out.path(), layout, Format::Csv);
        let files = exported(&history, &spans(&history, UpTo::End), &scratch(), &plan);
        for dataset in plan.datasets {
            let (_, section) = schema.split_once(&format!("\n## {}\n", dataset.name())).unwrap();
            let section = section.split("\n## ").next().unwrap();
            let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
            let first_cells: Vec<&str> = rows.map(|row| row.split(" | ").next().unwrap()).collect();
            let names: Vec<&str> =
                first_cells.iter().flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect();
            let (_, file) = files.iter().find(|(path, _)| path.starts_with(dataset.name())).unwrap();
            let header = file.split(|byte| *byte == b'\n').next().unwrap();
            assert_eq!(names.join(","), String::from_utf8_lossy(header), "{layout:?} {}", dataset.name());
            if layout == Layout::V2 {
                let order: Vec<String> = dataset.order().iter().map(|name| format!("`{name}`")).collect();
                let order = order.join(", ");
                assert!(section.replace('\n', " ").contains(&format!("Sorted by {order}")), "{}", dataset.name());
            }
        }
    }
}
