//! INV-SNAPSHOT-WHOLE: any flipped bit and any cut of a snapshot is found before any of its pages
//! counts.

use crate::folding::{Folding, history, store_in, wanted};
use receipts_objects::Destination;
use receipts_snapshots::{Error, Snapshots};
use receipts_store::snapshot::Reader;
use receipts_testkit::property::number;
use receipts_testkit::random::Random;
use std::fs;

fn is_refused(bytes: &[u8]) -> bool {
    Reader::new(bytes).and_then(|reader| reader.read(|_, _| Ok(()))).is_err()
}

/// Returns the number of flipped bits; `RECEIPTS_TEST_FLIPS` overrides the default.
fn flips(default: u64) -> u64 {
    number("RECEIPTS_TEST_FLIPS", default)
}

#[test]
fn any_flipped_bit_of_a_snapshot_is_found() {
    let made = history(3, 6_000);
    let mut folding = Folding::new();
    folding.fold(&made, 0..made.len(), 1_000);
    let (bytes, _) = folding.snapshot();
    assert!(!is_refused(&bytes));
    let mut random = Random::new(17);
    // Flips each bit of the start and the end, and random bits of the blocks.
    let edges = (0..200 * 8).chain((bytes.len() - 100) * 8..bytes.len() * 8);
    let anywhere = (0..flips(1_000)).map(|_| random.below(bytes.len() as u64 * 8) as usize).collect::<Vec<_>>();
    for bit in edges.chain(anywhere) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(is_refused(&flipped), "bit {bit} of {}", bytes.len() * 8);
    }
}

#[test]
fn short_or_long_snapshot_is_refused() {
    let made = history(4, 400);
    let mut folding = Folding::new();
    folding.fold(&made, 0..made.len(), 1_000);
    let (mut bytes, _) = folding.snapshot();
    for length in 0..bytes.len() {
        assert!(is_refused(&bytes[..length]), "cut to {length} bytes");
    }
    bytes.push(0);
    assert!(is_refused(&bytes));
}

/// A destination with a damaged snapshot: the older one is restored, with the right digest.
#[test]
fn damaged_snapshot_is_skipped_for_an_older_one() {
    let made = history(5, 3_000);
    let at = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(Destination::directory(at.path()).unwrap(), crate::folding::LOG);
    let mut folding = Folding::new();
    folding.fold(&made, 0..2_000, 300);
    let older = folding.send(&snapshots);
    folding.fold(&made, 2_000..made.len(), 300);
    let newer = folding.send(&snapshots);
    let whole = fs::read(&newer.location).unwrap();
    let mut random = Random::new(23);
    for _ in 0..flips(500) / 10 {
        let bit = random.below(whole.len() as u64 * 8) as usize;
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&newer.location, &flipped).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = store_in(dir.path());
        let restored = snapshots.restore_newest(&store, &wanted(0..=u64::MAX), &()).unwrap().unwrap();
        assert_eq!(restored.header.next_offset, older.next_offset, "bit {bit}");
        let again = Folding::over(store, dir).snapshot().1;
        assert_eq!(receipts_store::snapshot::hex(&again.digest), older.digest, "bit {bit}");
    }
    // Without another snapshot, nothing is restored, and a partly restored partition refuses to
    // open.
    fs::remove_file(&older.location).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    assert!(snapshots.restore_newest(&store, &wanted(0..=u64::MAX), &()).unwrap().is_none());
    let mut cut = whole.clone();
    cut.truncate(whole.len() * 3 / 4);
    fs::write(&newer.location, &cut).unwrap();
    let found = snapshots.newest_of(0).unwrap().unwrap();
    let refused = snapshots.restore(&found, &store, &wanted(0..=u64::MAX), &());
    assert!(matches!(refused, Err(Error::Unusable { .. })));
    let opened = store.partition(0).err().unwrap();
    assert!(opened.is_corruption(), "{opened}");
    store.drop_partition(0).unwrap();
    assert!(store.partition(0).is_ok(), "empty again");
}
