//! INV-EXPORT: an interrupted export leaves no half-written file, and resumes by the folder, not by
//! its own note.

use super::{Files, at, exported, files, plan, spans};
use crate::common::{LoggedHistory, scratch};
use receipts_analytics::export::{Format, Layout, Plan, Target, export};
use receipts_analytics::{Error, ProgressMonitor, Span, UpTo};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

/// Stops after a number of offsets, and counts those that were gone over and skipped.
#[derive(Default)]
struct Stops {
    at: u64,
    advanced: Cell<u64>,
    skipped: Cell<u64>,
}

impl Stops {
    fn after(at: u64) -> Self {
        Self { at, ..Self::default() }
    }
}

impl ProgressMonitor for Stops {
    fn advanced(&self, offsets: u64) {
        self.advanced.set(self.advanced.get() + offsets);
    }

    fn skipped(&self, offsets: u64) {
        self.skipped.set(self.skipped.get() + offsets);
    }

    fn is_stopped(&self) -> bool {
        self.advanced.get() >= self.at
    }
}

fn stop_after(offsets: u64, history: &LoggedHistory, spans: &[Span], plan: &Plan) -> usize {
    match export(&history.log, spans, &scratch(), plan, &Stops::after(offsets)) {
        Err(Error::ExportStopped { done, .. }) => done,
        other => panic!("{:?}", other.map(|(_, written)| written)),
    }
}

/// Returns the files of datasets, without those beside their folders.
fn of_datasets(mut files: Files) -> Files {
    files.retain(|path, _| !path.starts_with("_export-in-progress") && path.components().count() > 1);
    files
}

/// A stop takes effect while the log is read.
#[test]
fn a_stopped_export_leaves_no_half_written_file() {
    let history = LoggedHistory::new(0);
    for layout in [Layout::V1, Layout::V2] {
        let out = tempfile::tempdir().unwrap();
        let plan = at(out.path(), layout, Format::Parquet);
        assert_eq!(stop_after(100, &history, &spans(&history, UpTo::End), &plan), 0);
        assert!(of_datasets(files(out.path())).is_empty(), "the first partition was not even folded");
    }
}

/// INV-EXPORT: layout v1 does not fold written partitions again for the same prefix, and does for
/// another one.
#[test]
fn an_interrupted_export_resumes_after_written_partitions() {
    let history = LoggedHistory::new(6);
    let whole = spans(&history, UpTo::End);
    let (out, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wanted = exported(&history, &whole, &scratch(), &at(fresh.path(), Layout::V1, Format::Ndjson));
    let plan = at(out.path(), Layout::V1, Format::Ndjson);
    let in_the_second = 2 * whole[0].offsets() + 1;
    stop_after(in_the_second, &history, &whole, &plan);
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
    assert_eq!(exported(&history, &whole, &scratch(), &plan), wanted);
    stop_after(in_the_second, &history, &whole, &plan);
    fs::write(out.path().join(path), "another prefix's").unwrap();
    let middle = history.records[1][history.records[1].len() - 3].0.timestamp_ms;
    let other = spans(&history, UpTo::Time(middle));
    let fresh = tempfile::tempdir().unwrap();
    let wanted = exported(&history, &other, &scratch(), &at(fresh.path(), Layout::V1, Format::Ndjson));
    assert_eq!(exported(&history, &other, &scratch(), &plan), wanted);
}

/// A name, and what it does to a file of an interrupted export.
type Damage = (&'static str, fn(&Path));

/// INV-EXPORT: sorted partitions are not folded again, unless their runs are not as the note says.
#[test]
fn a_resumed_export_folds_no_sorted_partition_again() {
    let history = LoggedHistory::new(6);
    let whole = spans(&history, UpTo::End);
    let first = 2 * whole[0].offsets();
    let fresh = tempfile::tempdir().unwrap();
    let wanted = exported(&history, &whole, &scratch(), &at(fresh.path(), Layout::V2, Format::Parquet));
    let damages: [Damage; 4] = [
        ("nothing", |_| ()),
        ("a run is gone", |run| fs::remove_file(run).unwrap()),
        ("a run is cut", |run| fs::write(run, &fs::read(run).unwrap()[1..]).unwrap()),
        ("all is gone", |run| fs::remove_dir_all(run.parent().unwrap()).unwrap()),
    ];
    for (damage, harm) in damages {
        let out = tempfile::tempdir().unwrap();
        let plan = at(out.path(), Layout::V2, Format::Parquet);
        assert_eq!(stop_after(first + 1, &history, &whole, &plan), 1);
        assert!(of_datasets(files(out.path())).is_empty());
        harm(&out.path().join("_export-in-progress/reads-00000-00000.run"));
        let monitor = Stops::after(u64::MAX);
        let (reports, _) = export(&history.log, &whole, &scratch(), &plan, &monitor).unwrap();
        assert_eq!(reports.len(), 2, "both partitions are in the report");
        assert_eq!(monitor.skipped.get(), if damage == "nothing" { first } else { 0 }, "{damage}");
        let mut held = files(out.path());
        held.remove(Path::new("_manifest.json")).unwrap();
        assert_eq!(held, wanted, "{damage}");
    }
}

/// INV-EXPORT: files that a note names are written again where they are missing, cut or changed.
#[test]
fn a_resumed_export_believes_the_folder() {
    let history = LoggedHistory::new(6);
    let whole = spans(&history, UpTo::End);
    let all: u64 = whole.iter().map(Span::offsets).sum();
    let fresh = tempfile::tempdir().unwrap();
    let wanted = exported(&history, &whole, &scratch(), &at(fresh.path(), Layout::V2, Format::Ndjson));
    let damages: [Damage; 4] = [
        ("nothing", |_| ()),
        ("it is gone", |file| fs::remove_file(file).unwrap()),
        ("it is cut", |file| fs::write(file, &fs::read(file).unwrap()[1..]).unwrap()),
        ("it is changed", |file| fs::write(file, fs::read(file).unwrap().to_ascii_uppercase()).unwrap()),
    ];
    for (damage, harm) in damages {
        let out = tempfile::tempdir().unwrap();
        let plan = at(out.path(), Layout::V2, Format::Ndjson);
        stop_after(2 * all + all / 2, &history, &whole, &plan);
        let held = of_datasets(files(out.path()));
        assert!(held.len() > 1 && held.len() < wanted.len(), "in the middle: {:?}", held.keys());
        assert!(held.iter().all(|(path, bytes)| wanted[path] == *bytes), "{damage}");
        assert!(!out.path().join("_manifest.json").exists(), "it is written last");
        harm(&out.path().join("messages/part-00000.ndjson"));
        let monitor = Stops::after(u64::MAX);
        export(&history.log, &whole, &scratch(), &plan, &monitor).unwrap();
        assert_eq!(monitor.skipped.get(), if damage == "nothing" { 2 * all } else { 0 }, "{damage}");
        let mut again = files(out.path());
        again.remove(Path::new("_manifest.json")).unwrap();
        assert_eq!(again, wanted, "{damage}");
    }
}

/// INV-EXPORT: a bucket has no runs, so its export folds again, and keeps files that are complete.
#[test]
fn an_interrupted_export_to_a_bucket_ends_the_same() {
    let history = LoggedHistory::new(6);
    let whole = spans(&history, UpTo::End);
    let all: u64 = whole.iter().map(Span::offsets).sum();
    let fresh = tempfile::tempdir().unwrap();
    let wanted = exported(&history, &whole, &scratch(), &at(fresh.path(), Layout::V2, Format::Ndjson));
    let bucket = receipts_objects::Destination::memory().unwrap();
    let plan = plan(Target::Objects(bucket.clone()), Layout::V2, Format::Ndjson);
    assert_eq!(stop_after(2 * all + all / 2, &history, &whole, &plan), 0);
    bucket.put_bytes("messages/part-00000.ndjson", "damaged").unwrap();
    export(&history.log, &whole, &scratch(), &plan, &()).unwrap();
    let mut held = Files::new();
    for object in bucket.list("").unwrap() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut bucket.read(&object.name).unwrap(), &mut bytes).unwrap();
        held.insert(PathBuf::from(object.name), bytes);
    }
    held.remove(Path::new("_manifest.json")).unwrap();
    assert_eq!(held, wanted);
}
