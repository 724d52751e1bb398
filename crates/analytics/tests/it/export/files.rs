//! INV-EXPORT: which files an export writes and removes, their order, and the manifest.

use super::{Files, at, exported, files, plan, rows, rows_of, spans};
use crate::common::{LoggedHistory, PARTITIONS, scratch};
use parquet::basic::Compression;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use receipts_analytics::export::{Dataset, Format, Layout, Target, export};
use receipts_analytics::{Scratch, Span, UpTo};
use receipts_store::snapshot::hex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FORMATS: [Format; 3] = [Format::Parquet, Format::Csv, Format::Ndjson];
const LAYOUTS: [Layout; 2] = [Layout::V1, Layout::V2];

/// INV-EXPORT: for any memory and any number of runs. Files that only an earlier export wrote, in
/// either layout, are removed.
#[test]
fn one_prefix_gives_the_same_files_and_no_others() {
    let history = LoggedHistory::new(5);
    let tight = Scratch { memory_bytes: 16 << 10, ..scratch() };
    let whole = spans(&history, UpTo::End);
    let middle = history.records[0][history.records[0].len() / 2].0.timestamp_ms;
    let half = spans(&history, UpTo::Time(middle));
    let (out, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(out.path().join("messages")).unwrap();
    fs::write(out.path().join("messages").join("README"), "not ours").unwrap();
    let without_ours = |mut files: Files| {
        assert!(files.remove(Path::new("messages/README")).is_some(), "a file of somebody else stays");
        files.remove(Path::new("_manifest.json"));
        files
    };
    for layout in LAYOUTS {
        for format in FORMATS {
            let (plan, other) = (at(out.path(), layout, format), at(again.path(), layout, format));
            export(&history.log, &whole, &scratch(), &plan, &()).unwrap();
            let first = without_ours(files(out.path()));
            assert_eq!(exported(&history, &whole, &tight, &other), first);
            export(&history.log, &whole, &scratch(), &plan, &()).unwrap();
            assert_eq!(without_ours(files(out.path())), first);
        }
        let fresh = tempfile::tempdir().unwrap();
        let wanted = exported(&history, &half, &scratch(), &at(fresh.path(), layout, Format::Ndjson));
        export(&history.log, &half, &scratch(), &at(out.path(), layout, Format::Ndjson), &()).unwrap();
        assert_eq!(without_ours(files(out.path())), wanted);
        // The old layout has no members and no read marks, and leaves those files alone.
        fs::remove_dir_all(again.path().join("members")).unwrap_or_default();
        fs::remove_dir_all(again.path().join("read_marks")).unwrap_or_default();
    }
}

/// Returns the order of two values of a sort column: nulls first, text by its bytes.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => a.is_null().cmp(&b.is_null()).reverse(),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (a, b) => a.as_i64().unwrap().cmp(&b.as_i64().unwrap()),
    }
}

fn assert_sorted(dataset: Dataset, rows: &[Value]) {
    for pair in rows.windows(2) {
        let orders = dataset.order().iter().map(|column| order(&pair[0][*column], &pair[1][*column]));
        let first = orders.into_iter().find(|order| *order != Ordering::Equal);
        assert_eq!(first, Some(Ordering::Less), "{}: {pair:?}", dataset.name());
    }
}

/// INV-EXPORT: the rows of all partitions are in one order without ties, and Parquet declares it.
#[test]
fn rows_are_sorted_over_all_partitions() {
    let history = LoggedHistory::new(7);
    for format in FORMATS {
        let out = tempfile::tempdir().unwrap();
        let files = exported(&history, &spans(&history, UpTo::End), &scratch(), &at(out.path(), Layout::V2, format));
        for dataset in Dataset::ALL {
            let rows = rows(dataset, &files);
            assert!(rows.len() > 5, "{} has {} rows", dataset.name(), rows.len());
            let partitions: BTreeSet<u64> = rows.iter().map(|row| row["partition"].as_u64().unwrap()).collect();
            assert_eq!(partitions.len(), PARTITIONS as usize, "{}", dataset.name());
            assert_sorted(dataset, &rows);
        }
        for (path, bytes) in files.iter().filter(|(path, _)| path.extension().unwrap() == "parquet") {
            let reader = SerializedFileReader::new(bytes::Bytes::from(bytes.clone())).unwrap();
            let group = reader.metadata().row_group(0);
            let dataset = Dataset::ALL.into_iter().find(|dataset| path.starts_with(dataset.name())).unwrap();
            let declared = group.sorting_columns().unwrap().iter().map(|sorted| {
                assert!(!sorted.descending && sorted.nulls_first);
                group.column(sorted.column_idx as usize).column_descr().name()
            });
            assert_eq!(declared.collect::<Vec<_>>(), dataset.order());
            assert!(group.columns().iter().all(|column| matches!(column.compression(), Compression::ZSTD(_))));
        }
    }
}

/// INV-EXPORT: a dataset is cut into files at the wanted size, and stays sorted across them.
#[test]
fn files_end_at_the_wanted_size() {
    let sends = 123_000;
    let history = LoggedHistory::of_sends(sends);
    for (format, group_rows, wanted_files) in [(Format::Parquet, 122_880, 2), (Format::Ndjson, 8_192, 16)] {
        let out = tempfile::tempdir().unwrap();
        let mut plan = at(out.path(), Layout::V2, format);
        plan.datasets = vec![Dataset::Messages];
        plan.file_bytes = 1;
        let files = exported(&history, &spans(&history, UpTo::End), &scratch(), &plan);
        assert_eq!(files.len(), wanted_files);
        let by_file: Vec<_> = files.iter().map(|(path, bytes)| rows_of(Dataset::Messages, path, bytes).len()).collect();
        assert!(by_file[..by_file.len() - 1].iter().all(|rows| *rows == group_rows), "{by_file:?}");
        let rows = rows(Dataset::Messages, &files);
        assert_eq!(rows.len(), sends);
        assert_sorted(Dataset::Messages, &rows);
    }
}

/// INV-EXPORT: no rows are one file without rows, for every dataset and format.
#[test]
fn no_rows_are_one_file_without_rows() {
    let history = LoggedHistory::new(0);
    let nothing: Vec<Span> = (0..PARTITIONS).map(|p| Span { partition: p, first_offset: 0, end_offset: 0 }).collect();
    for format in FORMATS {
        let out = tempfile::tempdir().unwrap();
        let files = exported(&history, &nothing, &scratch(), &at(out.path(), Layout::V2, format));
        for dataset in Dataset::ALL {
            let own: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(dataset.name())).collect();
            assert_eq!(own.len(), 1, "{}", dataset.name());
            assert!(rows_of(dataset, own[0].0, own[0].1).is_empty());
            if format == Format::Parquet {
                let reader = SerializedFileReader::new(bytes::Bytes::from(own[0].1.clone())).unwrap();
                let schema = reader.metadata().file_metadata().schema_descr_ptr();
                let names: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
                let wanted: Vec<&str> = dataset.columns().iter().map(|column| column.name).collect();
                assert_eq!(names, wanted);
            }
        }
    }
}

/// INV-EXPORT: tenants that readers take for numbers, flags, nulls or folders stay apart, and none
/// is in a name.
#[test]
fn tricky_tenants_stay_apart_in_every_format() {
    let tenants = [
        "0042",
        "42",
        "1e5",
        "100000",
        "true",
        "TRUE",
        "NULL",
        "null",
        "acme corp",
        "Acme",
        "acme",
        "ACME",
        "a=b",
        "org:7",
        "100%",
        "__HIVE_DEFAULT_PARTITION__",
        "2026-01-01",
        "say \"hi\"",
        "a,b",
        "grüße",
    ];
    let history = LoggedHistory::of_tenants(&tenants);
    for format in FORMATS {
        let out = tempfile::tempdir().unwrap();
        let files = exported(&history, &spans(&history, UpTo::End), &scratch(), &at(out.path(), Layout::V2, format));
        for dataset in Dataset::ALL {
            let held: Vec<Value> = rows(dataset, &files).into_iter().map(|row| row["tenant"].clone()).collect();
            let distinct: BTreeSet<&str> = held.iter().map(|tenant| tenant.as_str().unwrap()).collect();
            assert_eq!(distinct, tenants.into_iter().collect(), "{format:?} {}", dataset.name());
        }
        for path in files.keys() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("part-00000.") && path.components().count() == 2, "{path:?}");
        }
    }
}

/// INV-EXPORT: the manifest has the files of every complete dataset with their checksums, and no
/// dataset whose files another layout has replaced.
#[test]
fn the_manifest_has_every_file_with_its_checksum() {
    let history = LoggedHistory::new(3);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("_manifest.json");
    let manifest = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
    let mut plan = at(out.path(), Layout::V2, Format::Parquet);
    let files = exported(&history, &spans(&history, UpTo::End), &scratch(), &plan);
    let first = manifest();
    assert_eq!(first["format_version"], 2);
    let mut named = 0;
    for dataset in Dataset::ALL {
        let entry = &first["datasets"][dataset.name()];
        assert_eq!((&entry["position"], &entry["format"]), (&"a token".into(), &"parquet".into()));
        let of_files = entry["files"].as_array().unwrap();
        let sum = |field: &str| of_files.iter().map(|file| file[field].as_u64().unwrap()).sum::<u64>();
        assert_eq!(entry["rows"], sum("rows"));
        assert_eq!(sum("rows") as usize, rows(dataset, &files).len());
        for file in of_files {
            let bytes = &files[Path::new(file["name"].as_str().unwrap())];
            assert_eq!(file["bytes"], bytes.len());
            assert_eq!(file["sha256"], hex(&Sha256::digest(bytes)));
            named += 1;
        }
    }
    assert_eq!(named, files.len());

    plan.datasets = vec![Dataset::Reads];
    plan.position = "another token".into();
    export(&history.log, &spans(&history, UpTo::End), &scratch(), &plan, &()).unwrap();
    let second = manifest();
    assert_eq!(second["datasets"]["messages"], first["datasets"]["messages"], "another dataset's entry stays");
    assert_eq!(second["datasets"]["reads"]["position"], "another token");

    let mut old = at(out.path(), Layout::V1, Format::Parquet);
    old.datasets = vec![Dataset::Reads];
    export(&history.log, &spans(&history, UpTo::End), &scratch(), &old, &()).unwrap();
    assert!(manifest()["datasets"].get("reads").is_none());
    assert!(!out.path().join("reads/part-00000.parquet").exists());

    fs::write(&path, "{}").unwrap();
    let refused = export(&history.log, &spans(&history, UpTo::End), &scratch(), &plan, &()).unwrap_err().to_string();
    assert!(refused.contains("_manifest.json") && refused.contains("choose another directory"), "{refused}");
}

/// An export would remove the files of a live table, which have names like its own.
#[test]
fn an_export_onto_a_live_table_is_refused() {
    let history = LoggedHistory::new(3);
    let out = tempfile::tempdir().unwrap();
    fs::create_dir_all(out.path().join("reads/_delta_log")).unwrap();
    let live = out.path().join("reads/part-00000-000000000000-000000000001-0000000000000000-aa.parquet");
    fs::write(&live, "live").unwrap();
    let bucket = receipts_objects::Destination::memory().unwrap();
    bucket.put_bytes("reads/_delta_log/00000000000000000000.json", "{}").unwrap();
    for target in [Target::Directory(out.path().to_owned()), Target::Objects(bucket)] {
        for layout in LAYOUTS {
            let plan = plan(target.clone(), layout, Format::Parquet);
            let refused = export(&history.log, &spans(&history, UpTo::End), &scratch(), &plan, &()).unwrap_err();
            assert!(refused.to_string().contains("live table"), "{refused}");
        }
    }
    assert_eq!(fs::read_to_string(&live).unwrap(), "live");
}

/// INV-EXPORT: a bucket gets the same files as a directory, and files of another export are removed
/// there too.
#[test]
fn a_bucket_gets_the_files_of_a_directory() {
    let history = LoggedHistory::new(4);
    for layout in LAYOUTS {
        let fresh = tempfile::tempdir().unwrap();
        let all = spans(&history, UpTo::End);
        let wanted = exported(&history, &all, &scratch(), &at(fresh.path(), layout, Format::Parquet));
        let bucket = receipts_objects::Destination::memory().unwrap();
        for stale in [
            "messages/tenant=gone!20away/day=2020-01-01/part-00000-00000.parquet",
            "messages/part-77777.parquet",
            "messages/README",
        ] {
            bucket.put_bytes(stale, "stale").unwrap();
        }
        let plan = plan(Target::Objects(bucket.clone()), layout, Format::Parquet);
        for removed in [2, 0] {
            let (_, written) = export(&history.log, &all, &scratch(), &plan, &()).unwrap();
            assert_eq!(written.iter().map(|written| written.removed).sum::<u64>(), removed);
            let mut held = Files::new();
            for object in bucket.list("").unwrap() {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut bucket.read(&object.name).unwrap(), &mut bytes).unwrap();
                held.insert(PathBuf::from(object.name), bytes);
            }
            assert_eq!(held.remove(Path::new("messages/README")).unwrap(), b"stale", "another's file stays");
            assert_eq!(held.remove(Path::new("_manifest.json")).is_some(), layout == Layout::V2);
            assert_eq!(held, wanted);
        }
    }
}
