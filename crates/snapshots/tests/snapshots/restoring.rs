//! INV-RESTORE: a restored state equals the original and folds on like it; only a fitting snapshot
//! is restored. INV-KEEP: pruning removes old snapshots, and nothing else.

use crate::folding::{Folding, LIMITS, LOG, history, store_in, wanted};
use receipts_fold::Limits;
use receipts_objects::Destination;
use receipts_snapshots::{Audit, Keep, Requirements, Snapshots, audit};
use receipts_store::snapshot::hex;
use receipts_testkit::property::each_seed;

fn somewhere() -> (tempfile::TempDir, Snapshots) {
    let at = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(Destination::directory(at.path()).unwrap(), LOG);
    (at, snapshots)
}

#[test]
fn restored_state_folds_on_like_the_original() {
    each_seed(20..24, |seed| {
        let made = history(seed, 3_000);
        let (_at, snapshots) = somewhere();
        let mut first = Folding::new();
        first.fold(&made, 0..2_000, 150);
        let taken = first.send(&snapshots);
        first.fold(&made, 2_000..made.len(), 150);

        let dir = tempfile::tempdir().unwrap();
        let store = store_in(dir.path());
        let restored = snapshots.restore_newest(&store, &wanted(0..=u64::MAX), &()).unwrap().unwrap();
        assert_eq!((restored.header.next_offset, hex(&restored.summary.digest)), (taken.next_offset, taken.digest));
        let mut second = Folding::over(store, dir);
        assert_eq!(second.state.next_offset(), taken.next_offset);
        second.fold(&made, 2_000..made.len(), 400);
        assert_eq!(second.snapshot().1.digest, first.snapshot().1.digest, "seed {seed}");
    });
}

#[test]
fn unfit_snapshot_leaves_the_store_unchanged() {
    let made = history(6, 800);
    let (_at, snapshots) = somewhere();
    let mut folding = Folding::new();
    folding.fold(&made, 0..400, 100);
    let taken = folding.send(&snapshots);
    folding.fold(&made, 400..made.len(), 100);
    let digest = folding.snapshot().1.digest;
    let at = taken.next_offset;
    let other = Limits { read_times: false, ..LIMITS };
    for (why, wanted) in [
        ("the log ends before it", wanted(0..=at - 1)),
        ("the log begins behind it", wanted(at + 1..=u64::MAX)),
        ("other settings", Requirements { limits: Some(other), ..wanted(0..=u64::MAX) }),
        ("another partition count", Requirements { partition_count: Some(2), ..wanted(0..=u64::MAX) }),
        ("another partition", Requirements { partition: 1, ..wanted(0..=u64::MAX) }),
    ] {
        assert!(snapshots.restore_newest(&folding.store, &wanted, &()).unwrap().is_none(), "{why}");
    }
    let another = Snapshots::new(Destination::open(&snapshots.location()).unwrap(), "another log");
    assert!(another.restore_newest(&folding.store, &wanted(0..=u64::MAX), &()).unwrap().is_none());
    assert_eq!(folding.snapshot().1.digest, digest);
    let found = snapshots.newest_of(0).unwrap().unwrap();
    let refused = snapshots.restore(&found, &folding.store, &wanted(0..=at - 1), &()).unwrap_err().to_string();
    assert!(refused.contains("can be read on from") && refused.contains(&found.name), "{refused}");
}

#[test]
fn snapshot_is_described_and_audited() {
    let made = history(7, 2_000);
    let (at, snapshots) = somewhere();
    let mut folding = Folding::new();
    folding.fold(&made, 0..made.len(), 300);
    let taken = folding.send(&snapshots);
    let found = snapshots.newest_of(0).unwrap().unwrap();
    let (header, summary) = snapshots.describe(&found).unwrap();
    assert_eq!((header.next_offset, header.log.as_str(), header.limits), (taken.next_offset, LOG, LIMITS));
    assert_eq!((hex(&summary.digest), summary.pages), (taken.digest, taken.pages));
    let aside = tempfile::tempdir().unwrap();
    let Audit { messages, contradictions, .. } = audit(&snapshots, &found, aside.path(), &()).unwrap();
    assert!(messages > 50 && contradictions == 0, "{messages}, {contradictions}");
    assert_eq!(Snapshots::logs_at(&Destination::directory(at.path()).unwrap()).unwrap(), [LOG]);
}

#[test]
fn prune_removes_only_old_snapshots_of_its_partition() {
    let (at, snapshots) = somewhere();
    let made = history(8, 600);
    let mut folding = Folding::new();
    for from in (0..made.len()).step_by(100) {
        folding.fold(&made, from..made.len().min(from + 100), 50);
        folding.send(&snapshots);
    }
    let all = snapshots.list().unwrap();
    assert!(all.len() >= 6 && all.is_sorted_by_key(|found| found.next_offset), "{all:?}");
    let another = Snapshots::new(Destination::directory(at.path()).unwrap(), "another log");
    folding.send(&another);
    let folder = at.path().join(&all[0].name);
    let folder = folder.parent().unwrap();
    let beside: Vec<_> =
        ["notes.txt", "1.snapshot", "00000000000000000001.snapshot.bak"].map(|n| folder.join(n)).into();
    beside.iter().for_each(|path| std::fs::write(path, "theirs").unwrap());
    let other_partition = folder.parent().unwrap().join("p00001/00000000000000000001.snapshot");
    std::fs::create_dir_all(other_partition.parent().unwrap()).unwrap();
    std::fs::write(&other_partition, "another partition's").unwrap();

    assert!(
        snapshots.prune(0, Keep { count: 2, age_ms: u64::MAX }, u64::MAX / 2).unwrap().is_empty(),
        "all are recent"
    );
    let removed = snapshots.prune(0, Keep { count: 2, age_ms: 0 }, u64::MAX / 2).unwrap();
    assert_eq!(removed, all[..all.len() - 2]);
    assert_eq!(snapshots.list_of(0).unwrap(), all[all.len() - 2..]);
    assert_eq!(another.list().unwrap().len(), 1);
    assert!(beside.iter().chain([&other_partition]).all(|path| path.exists()));
}
