//! INV-SNAPSHOT: a snapshot is the fold of exactly one prefix, also while the fold goes on, and the
//! same prefix gives the same digest.

use crate::folding::{Folding, Made, history, provenance};
use receipts_store::SnapshotSource;
use receipts_store::snapshot::{PendingSnapshot, Reader, hex};
use receipts_testkit::property::each_seed;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Returns the digest of a fold of all records below an offset, without checkpoints.
fn refolded(made: &Made, next_offset: u64) -> String {
    let records = made.iter().take_while(|(at, _)| at.offset < next_offset).count();
    let mut folding = Folding::new();
    folding.fold(made, 0..records, usize::MAX);
    hex(&folding.snapshot().1.digest)
}

/// Takes slow snapshots, one after the other, until `stop`. Returns for each the offset, the
/// digest, and the number of batches meanwhile.
fn take_slowly(source: &SnapshotSource, batches: &AtomicU64, stop: &AtomicBool) -> Vec<(u64, String, u64)> {
    let mut taken = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let Some(taking) = PendingSnapshot::begin(source, provenance()).unwrap() else { continue };
        let (next_offset, begun) = (taking.header().next_offset, batches.load(Ordering::Acquire));
        let mut pages = 0;
        let written = taking.write(Vec::new(), |_| {
            pages += 1;
            if pages % 16 == 0 {
                std::thread::sleep(Duration::from_micros(300));
            }
            Ok(())
        });
        let (bytes, summary, _) = written.unwrap();
        let during = batches.load(Ordering::Acquire) - begun;
        // The snapshot can be read.
        assert_eq!(Reader::new(&*bytes).unwrap().read(|_, _| Ok(())).unwrap(), summary);
        taken.push((next_offset, hex(&summary.digest), during));
    }
    taken
}

#[test]
fn concurrent_snapshot_is_the_fold_of_its_prefix() {
    each_seed(0..3, |seed| {
        let made = history(seed, 8_000);
        let mut folding = Folding::new();
        let source = folding.state.pages().backend().snapshot_source();
        let (stop, batches) = (AtomicBool::new(false), AtomicU64::new(0));
        let taken = std::thread::scope(|scope| {
            let taker = scope.spawn(|| take_slowly(&source, &batches, &stop));
            for from in (0..made.len()).step_by(23) {
                folding.fold(&made, from..made.len().min(from + 23), usize::MAX);
                batches.fetch_add(1, Ordering::AcqRel);
            }
            stop.store(true, Ordering::Release);
            taker.join().unwrap()
        });
        assert!(taken.iter().any(|(_, _, during)| *during > 1), "none was taken during batches: {taken:?}");
        // Checks some of them, because each check costs a fold.
        for (next_offset, digest, during) in taken.iter().step_by(taken.len().div_ceil(8)).chain(taken.last()) {
            assert_eq!(*digest, refolded(&made, *next_offset), "seed {seed}, offset {next_offset}, {during} batches");
        }
    });
}

#[test]
fn checkpoints_do_not_change_a_snapshot() {
    each_seed(10..16, |seed| {
        let made = history(seed, 1_500);
        let of = |every| {
            let mut folding = Folding::new();
            folding.fold(&made, 0..made.len(), every);
            hex(&folding.snapshot().1.digest)
        };
        let digest = of(usize::MAX);
        for every in [1, 7, 100] {
            assert_eq!(of(every), digest, "seed {seed}, a checkpoint every {every}");
        }
    });
}

#[test]
fn dropped_partition_fails_its_running_snapshot() {
    let made = history(1, 3_000);
    let mut folding = Folding::new();
    folding.fold(&made, 0..made.len(), 500);
    folding.state.pages().backend().wait().unwrap();
    let taking =
        PendingSnapshot::begin(&folding.state.pages().backend().snapshot_source(), provenance()).unwrap().unwrap();
    folding.store.drop_partition(0).unwrap();
    assert!(taking.write(Vec::new(), |_| Ok(())).is_err());
}

#[test]
fn second_snapshot_waits_until_the_first_is_dropped() {
    let made = history(2, 500);
    let mut folding = Folding::new();
    folding.fold(&made, 0..made.len(), 100);
    folding.state.pages().backend().wait().unwrap();
    let source = folding.state.pages().backend().snapshot_source();
    let first = PendingSnapshot::begin(&source, provenance()).unwrap().unwrap();
    assert!(PendingSnapshot::begin(&source, provenance()).is_err());
    drop(first);
    assert!(PendingSnapshot::begin(&source, provenance()).unwrap().is_some());
}
