//! Measures snapshots of a state larger than its memory: during a fold, and restored into an empty
//! store.
//!
//! `cargo bench -p receipts-snapshots --bench snapshot -- [--messages N] [--memory-mb N]
//! [--seed N]`
//!
//! Prints the rate of the fold without and with a running snapshot, the time of the snapshot, the
//! upload and the restore, and the memory of each step. The digests of both sides must agree.

#![allow(clippy::print_stdout, reason = "a program that measures and prints")]

use receipts_fold::effects::Effects;
use receipts_fold::{Limits, PREFETCH_EVENTS, RawRecord, RecordMetadata, State};
use receipts_objects::Destination;
use receipts_snapshots::{Requirements, SnapshotReport, Snapshots};
use receipts_store::snapshot::{PendingSnapshot, Provenance, hex};
use receipts_store::{Backend as _, Paged, SledBackend, SledSettings, SledStore, trim};
use receipts_testkit::bench::{number, reset_peak, status_bytes};
use receipts_testkit::workload::{Params, Scratch, Workload};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The services' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CHECKPOINT_EVENTS: usize = 500_000;
const CHUNK: usize = 1_000;

struct Fold {
    state: State<Paged<SledBackend>>,
    since: usize,
}

impl Fold {
    /// Folds a range of events; returns their number and millions of events per second.
    fn fold(&mut self, workload: &Workload, events: Range<usize>, stop: Option<&AtomicBool>) -> (usize, f64) {
        let (started, mut scratch, mut effects) = (Instant::now(), Scratch::default(), Effects::default());
        let mut folded = 0;
        for from in events.clone().step_by(CHUNK) {
            if stop.is_some_and(|stop| stop.load(Ordering::Acquire)) {
                break;
            }
            let to = events.end.min(from + CHUNK);
            let made: Vec<_> = (from..to).map(|i| (workload.event(i, &mut scratch).into_owned(), i)).collect();
            for group in made.chunks(PREFETCH_EVENTS) {
                self.state.prefetch(group.iter().map(|(event, _)| event));
                for (event, i) in group {
                    let key = event.key();
                    let at =
                        RecordMetadata { partition: 0, offset: *i as u64, timestamp_ms: workload.at(*i).timestamp_ms };
                    let raw = RawRecord { key: Some(&key), value: b"", headers: &Vec::new };
                    self.state.apply(at, event, raw, &mut effects).expect("the fold goes on");
                }
                effects.clear();
            }
            trim(&mut self.state);
            folded += to - from;
            self.since += to - from;
            if self.since >= CHECKPOINT_EVENTS || self.state.pages().needs_checkpoint() {
                self.checkpoint();
            }
        }
        (folded, folded as f64 / started.elapsed().as_secs_f64() / 1e6)
    }

    fn checkpoint(&mut self) {
        self.since = 0;
        self.state.write_meta();
        let batch = self.state.pages().batch(self.state.next_offset());
        let saved = self.state.pages().backend().commit(batch).expect("a checkpoint");
        self.state.pages_mut().mark_saved(saved);
        trim(&mut self.state);
    }
}

fn provenance() -> Provenance {
    let (limits, program) = (Limits::default(), "a bench".into());
    Provenance { log: "bench".into(), partition: 0, partition_count: 1, limits, taken_ms: 0, program }
}

fn show(what: &str, taken: &SnapshotReport) {
    let (image, sent) = (taken.took.0.as_secs_f64(), taken.took.1.as_secs_f64());
    let (plain, bytes) = (taken.plain_bytes as f64 / 1e6, taken.bytes as f64 / 1e6);
    println!(
        "{what}: {plain:.0} MB of pages as {bytes:.0} MB; image {image:.2} s ({:.0} MB/s), sending {sent:.2} s ({:.0} MB/s)",
        plain / image,
        bytes / sent
    );
}

fn main() {
    let memory_bytes = (number("memory-mb", 64) << 20) as usize;
    let messages = number("messages", 2_000_000) as usize;
    let workload = Workload::generate(&Params { messages, seed: number("seed", 1), ..Params::default() });
    println!("workload: {} events; memory {} MB", workload.len(), memory_bytes >> 20);
    let dir = tempfile::tempdir().expect("a directory");
    let sled = SledSettings { cache_bytes: memory_bytes as u64 / 4, sync: true };
    let store = SledStore::open(&dir.path().join("store"), sled).expect("a store");
    let pages = Paged::new(store.partition(0).expect("a partition"), 0, memory_bytes / 4 * 3);
    let mut fold = Fold { state: State::open(pages, Limits::default()).expect("empty"), since: 0 };
    let snapshots = Snapshots::new(Destination::directory(&dir.path().join("there")).expect("a directory"), "bench");

    let half = workload.len() / 4 * 3;
    let (_, alone) = fold.fold(&workload, 0..half, None);
    fold.checkpoint();
    fold.state.pages().backend().wait().expect("applied");
    let disk = store.disk_bytes() as f64 / 1e6;
    println!("folded {half} events: {alone:.2} M/s; {disk:.0} MB on disk; peak {} MB", peak_mb());

    // During the fold.
    _ = reset_peak();
    let before = resident_mb();
    let (source, done) = (fold.state.pages().backend().snapshot_source(), AtomicBool::new(false));
    let (taken, (folded, beside)) = std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let taking = PendingSnapshot::begin(&source, provenance()).expect("an image").expect("a state");
            let taken = snapshots.take(taking, &dir.path().join("spool"), &()).expect("taken");
            done.store(true, Ordering::Release);
            taken
        });
        let folding = fold.fold(&workload, half..workload.len(), Some(&done));
        (taker.join().expect("the taker"), folding)
    });
    show("snapshot beside the fold", &taken);
    println!("  meanwhile folded {folded} events: {beside:.2} M/s; memory {before} MB before, peak {} MB", peak_mb());

    // Without a fold, of the whole state.
    fold.checkpoint();
    fold.state.pages().backend().wait().expect("applied");
    _ = reset_peak();
    let before = resident_mb();
    let taking = PendingSnapshot::begin(&source, provenance()).expect("an image").expect("a state");
    let taken = snapshots.take(taking, &dir.path().join("spool"), &()).expect("taken");
    show("snapshot alone", &taken);
    println!("  memory {before} MB before, peak {} MB", peak_mb());
    drop(fold);
    drop(source);
    drop(store);

    _ = reset_peak();
    let before = resident_mb();
    let wanted = Requirements {
        partition: 0,
        partition_count: Some(1),
        limits: Some(Limits::default()),
        next_offset: 0..=u64::MAX,
    };
    let store = SledStore::open(&dir.path().join("again"), sled).expect("a store");
    let restored = snapshots.restore_newest(&store, &wanted, &()).expect("restored").expect("one");
    let (seconds, plain) = (restored.took.as_secs_f64(), restored.summary.plain_bytes as f64 / 1e6);
    assert_eq!(hex(&restored.summary.digest), taken.digest);
    println!(
        "restored in {seconds:.2} s: {:.0} MB/s of pages, {:.0} MB on disk; memory {before} MB before, peak {} MB",
        plain / seconds,
        store.disk_bytes() as f64 / 1e6,
        peak_mb()
    );
    let written = write_alone(dir.path(), restored.summary.plain_bytes);
    println!("for scale: the same bytes into a plain file, synced: {:.0} MB/s", plain / written);
}

/// Returns the seconds that it takes to write and sync a file of this size.
fn write_alone(dir: &Path, bytes: u64) -> f64 {
    use std::io::Write as _;
    let (started, block) = (Instant::now(), vec![7; 1 << 20]);
    let mut file = std::fs::File::create(dir.join("plain")).expect("a file");
    for _ in 0..bytes.div_ceil(block.len() as u64) {
        file.write_all(&block).expect("written");
    }
    file.sync_all().expect("synced");
    started.elapsed().as_secs_f64()
}

fn peak_mb() -> u64 {
    status_bytes("VmHWM") >> 20
}

fn resident_mb() -> u64 {
    status_bytes("VmRSS") >> 20
}
