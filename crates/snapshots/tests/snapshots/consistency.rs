//! INV-SNAPSHOT: a snapshot is the fold of exactly one prefix, whatever was folded while it was taken, and the same prefix
//! gives the same digest.

use crate::folding::{Folding, Made, history, told};
use receipts_store::ImageSource;
use receipts_store::snapshot::{Reader, Taking, hex};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Digest of the fold of all records below an offset, made in one go.
fn refolded(made: &Made, next_offset: u64) -> String {
    let records = made.iter().take_while(|(at, _)| at.offset < next_offset).count();
    let mut folding = Folding::new();
    folding.fold(made, 0..records, usize::MAX);
    hex(&folding.snapshot().1.digest)
}

/// Takes snapshots one after the other, each slowly, until told to stop: the offset and digest of each, and during how many
/// batches it was taken.
fn take_slowly(source: &ImageSource, batches: &AtomicU64, stop: &AtomicBool) -> Vec<(u64, String, u64)> {
    let mut taken = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let Some(taking) = Taking::begin(source, told()).unwrap() else { continue };
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
        // What was written can be read, whatever happened meanwhile.
        assert_eq!(Reader::new(&*bytes).unwrap().read(|_, _| Ok(())).unwrap(), summary);
        taken.push((next_offset, hex(&summary.digest), during));
    }
    taken
}

#[test]
fn a_snapshot_taken_while_the_fold_goes_on_is_the_fold_of_its_prefix() {
    for seed in 0..3 {
        let made = history(seed, 8_000);
        let mut folding = Folding::new();
        let source = folding.state.pages().backend().image_source();
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
        // Some of them, for each costs a fold of its own.
        for (next_offset, digest, during) in taken.iter().step_by(taken.len().div_ceil(8)).chain(taken.last()) {
            assert_eq!(*digest, refolded(&made, *next_offset), "seed {seed}, offset {next_offset}, {during} batches");
        }
    }
}

#[test]
fn the_same_prefix_gives_the_same_snapshot_however_often_it_was_checkpointed() {
    for seed in 10..16 {
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
    }
}

#[test]
fn a_partition_that_was_dropped_while_its_snapshot_was_taken_gives_none() {
    let made = history(1, 3_000);
    let mut folding = Folding::new();
    folding.fold(&made, 0..made.len(), 500);
    folding.state.pages().backend().wait().unwrap();
    let taking = Taking::begin(&folding.state.pages().backend().image_source(), told()).unwrap().unwrap();
    folding.store.drop_partition(0).unwrap();
    assert!(taking.write(Vec::new(), |_| Ok(())).is_err());
}

#[test]
fn two_snapshots_of_a_partition_are_not_taken_at_once_and_the_second_is_once_the_first_is_given_up() {
    let made = history(2, 500);
    let mut folding = Folding::new();
    folding.fold(&made, 0..made.len(), 100);
    folding.state.pages().backend().wait().unwrap();
    let source = folding.state.pages().backend().image_source();
    let first = Taking::begin(&source, told()).unwrap().unwrap();
    assert!(Taking::begin(&source, told()).is_err());
    drop(first);
    assert!(Taking::begin(&source, told()).unwrap().is_some());
}
