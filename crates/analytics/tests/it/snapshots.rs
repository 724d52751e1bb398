//! INV-PREFIX, INV-VERIFY: a fold from a snapshot equals the fold of the whole prefix. A snapshot
//! that differs from the fold of the log is found without its store.

use crate::common::{LoggedHistory, assert_agree, folded, oracle_of, scratch, with_state};
use receipts_analytics::{ProgressMonitor, Scratch, Span, UpTo, digest, span, verify};
use receipts_fold::Limits;
use receipts_fold::pages::{ConversationPage, Table};
use receipts_objects::Destination;
use receipts_snapshots::Snapshots;
use receipts_store::snapshot::{PendingSnapshot, Provenance as About};
use std::cell::Cell;
use std::path::Path;

/// Counts the reported progress.
#[derive(Default)]
struct Counted {
    read: Cell<u64>,
    skipped: Cell<u64>,
}

impl ProgressMonitor for Counted {
    fn advanced(&self, offsets: u64) {
        self.read.set(self.read.get() + offsets);
    }

    fn skipped(&self, offsets: u64) {
        self.skipped.set(self.skipped.get() + offsets);
    }

    fn is_stopped(&self) -> bool {
        false
    }
}

const LOG: &str = "a log";

fn snapshots() -> Snapshots {
    Snapshots::new(Destination::memory().unwrap(), LOG)
}

/// Sends a snapshot of a store to a destination.
fn send(dir: &Path, snapshots: &Snapshots) -> u64 {
    let about = About {
        log: LOG.into(),
        partition: 0,
        partition_count: crate::common::PARTITIONS,
        limits: scratch().limits,
        taken_ms: 7,
        program: "a test".into(),
    };
    with_state(dir, |state| {
        state.pages().backend().wait().unwrap();
        let taking = PendingSnapshot::begin(&state.pages().backend().snapshot_source(), about).unwrap().unwrap();
        snapshots.take(taking, &dir.join("spool"), &()).unwrap().next_offset
    })
}

#[test]
fn a_fold_from_a_snapshot_equals_the_whole_fold() {
    for seed in 0..3 {
        let history = LoggedHistory::new(seed);
        let all = history.records[0].len();
        let (snapshots, mut at) = (snapshots(), Vec::new());
        for records in [all / 3, 2 * all / 3] {
            let dir = tempfile::tempdir().unwrap();
            folded(&history, records, dir.path());
            at.push(send(dir.path(), &snapshots));
        }
        let with = Scratch { snapshots: Some(snapshots), ..scratch() };
        let whole = span(&history.log, 0, UpTo::End).unwrap();
        for (end_offset, begun_at) in
            [(whole.end_offset, Some(at[1])), (at[1], Some(at[1])), (at[1] - 1, Some(at[0])), (at[0] - 1, None)]
        {
            let span = Span { end_offset, ..whole };
            let (from_there, from_the_beginning) =
                (with.fold(&history.log, &span, &()).unwrap(), scratch().fold(&history.log, &span, &()).unwrap());
            assert_eq!(from_there.report.snapshot_offset, begun_at, "seed {seed}, up to {end_offset}");
            assert_eq!(from_there.report.first_offset, begun_at.unwrap_or(0));
            assert_eq!(digest(&from_there.state, 0, &()).unwrap(), digest(&from_the_beginning.state, 0, &()).unwrap());
        }
        // A report from an offset on starts at the nearest snapshot below it, whose records count
        // as skipped.
        for (from_offset, begun_at) in [(at[1] + 1, at[1]), (at[1], at[1]), (at[1] - 1, at[0]), (at[0] - 1, 0)] {
            let counted = Counted::default();
            let rest = with.fold_from(&history.log, &whole, from_offset, &counted).unwrap();
            let without = scratch().fold_from(&history.log, &whole, from_offset, &()).unwrap();
            assert_eq!(digest(&rest.state, 0, &()).unwrap(), digest(&without.state, 0, &()).unwrap());
            let snapshot_offset = (begun_at > 0).then_some(begun_at);
            assert_eq!(
                rest.report,
                receipts_analytics::FoldReport { first_offset: begun_at, snapshot_offset, ..without.report }
            );
            assert_eq!((counted.skipped.get(), counted.read.get()), (begun_at, whole.end_offset - begun_at));
        }
        let folded = with.fold(&history.log, &whole, &()).unwrap();
        assert_agree(&history.questions(0), &folded.state, &oracle_of(&history.records[0]), "from a snapshot");
        let other = Limits { retention_ms: scratch().limits.retention_ms + 1, ..scratch().limits };
        let folded = Scratch { limits: other, ..with }.fold(&history.log, &whole, &()).unwrap();
        assert_eq!(folded.report.snapshot_offset, None, "a snapshot of other settings is none");
    }
}

#[test]
fn a_snapshot_is_verified_without_its_store() {
    let history = LoggedHistory::new(1);
    let verdict = |snapshots: Snapshots| {
        verify::snapshot(&history.log, 0, &Scratch { snapshots: Some(snapshots), ..scratch() }, &()).unwrap()
    };
    assert_eq!(verdict(snapshots()), None, "there is none");
    let dir = tempfile::tempdir().unwrap();
    folded(&history, history.records[0].len() - 5, dir.path());
    let good = snapshots();
    let at = send(dir.path(), &good);
    let found = verdict(good).unwrap();
    assert!(found.is_good() && found.report.next_offset == at, "{found:#?}");
    with_state(dir.path(), |state| {
        let key = Table::<ConversationPage>::keys(state.pages()).unwrap()[0];
        Table::<ConversationPage>::load_mut(state.pages_mut(), key).unwrap().unwrap().group_type = "planted".into();
    });
    let planted = snapshots();
    send(dir.path(), &planted);
    let found = verdict(planted).unwrap();
    assert!(found.first_difference.unwrap().location.contains("table Conversations"));
}
