//! Measures fold and store on one thread, on the workload of the design notes; `--query` adds a
//! concurrent reader.
//!
//! `cargo bench -p receipts-store --bench fold -- [--messages N] [--cap N] [--memory-mb N]
//! [--ids N] [--receipts-per-message N] [--checkpoint EVENTS] [--query] [--seed N]`
//!
//! Pin the process to one core (`taskset -c 0`) to measure one core with all work: fold, encoding,
//! journal, sled, and sled's own threads. Decoding is left out: events are made before the clock
//! starts.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use parking_lot::RwLock;
use receipts_event::Event;
use receipts_fold::effects::Effects;
use receipts_fold::{Limits, PREFETCH_EVENTS, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Paged, SledBackend, SledSettings, SledStore, trim};
use receipts_testkit::bench::{disk_bytes, flag, number, params, reset_peak, status_bytes};
use receipts_testkit::workload::{Scratch, Workload};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The services' allocator. glibc's would spend a third of the time here.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Fold = State<Paged<SledBackend>>;

/// The events per chunk: few enough to be in the processor's cache during the fold, like decoded
/// records.
const CHUNK: usize = 1_000;
const IDS_PER_QUERY: usize = 30;

fn main() {
    let query = flag("query");
    let memory_bytes = (number("memory-mb", 256) << 20) as usize;
    let workload = Workload::generate(&params(3_000_000));
    println!("workload: {} events, {} messages, {} receipts", workload.len(), workload.messages(), workload.receipts());
    let workload_bytes = status_bytes("VmRSS");
    reset_peak().expect("Linux");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = SledStore::open(dir.path(), SledSettings { cache_bytes: memory_bytes as u64 / 4, sync: false })
        .expect("a store");
    let backend = store.partition(0).expect("a partition");
    let state = State::open(Paged::new(backend, 0, memory_bytes / 4 * 3), Limits::default()).expect("an empty state");
    let fold = RwLock::new(state);
    let done = AtomicBool::new(false);
    let recent = RwLock::new(VecDeque::new());

    let (folding, cpu, tenths, latencies) = std::thread::scope(|scope| {
        let reader = query.then(|| scope.spawn(|| ask(&fold, &recent, &done)));
        let (folding, cpu, tenths) = run(&workload, &fold, &recent);
        done.store(true, Ordering::Release);
        (folding, cpu, tenths, reader.map(|r| r.join().expect("the reader")))
    });

    let receipts = workload.receipts() as f64;
    for (what, seconds) in [("wall", folding.as_secs_f64()), ("CPU, all threads", cpu)] {
        println!(
            "folded in {seconds:.2} s {what}: {:.2} M events/s, {:.2} M receipts/s",
            workload.len() as f64 / seconds / 1e6,
            receipts / seconds / 1e6
        );
    }
    for (what, rates) in [("wall", &tenths.wall), ("the folding thread's CPU", &tenths.cpu)] {
        let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.2}")).collect();
        println!("M events/s per tenth, {what}: {}", rates.join(" "));
    }
    let disk = disk_bytes(dir.path());
    let mut fold = fold.into_inner();
    println!(
        "memory: pages {} MB, ids and filters {} MB, peak of the process {} MB beside {} MB of the workload",
        fold.pages().memory_bytes() >> 20,
        fold.memory_bytes() >> 20,
        (status_bytes("VmHWM") - workload_bytes) >> 20,
        workload_bytes >> 20
    );
    let payload = fold.pages_mut().stored_bytes().expect("the store can be read");
    println!(
        "disk: {} MB; pages as encoded {} MB; ratio {:.2}; {:.0} B per message",
        disk >> 20,
        payload >> 20,
        disk as f64 / payload as f64,
        disk as f64 / workload.messages() as f64
    );
    if let Some(mut latencies) = latencies {
        latencies.sort_unstable();
        let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
        println!(
            "{} queries of {IDS_PER_QUERY} ids while folding: p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
            latencies.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
    let started = Instant::now();
    drop(fold);
    drop(store);
    println!("closed in {:.2} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    SledStore::write_sled_snapshot(dir.path()).expect("the store");
    println!(
        "wrote the sled snapshot in {:.2} s; an open after a kill takes that much longer",
        started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let store = SledStore::open(dir.path(), SledSettings { cache_bytes: memory_bytes as u64 / 4, sync: false })
        .expect("the store again");
    let sled = started.elapsed();
    let state =
        State::open(Paged::new(store.partition(0).expect("a partition"), 0, memory_bytes / 4 * 3), Limits::default())
            .expect("the state again");
    println!(
        "opened again in {:.2} s, {:.2} s of it sled, at offset {}",
        started.elapsed().as_secs_f64(),
        sled.as_secs_f64(),
        state.next_offset()
    );
}

/// Millions of events per second in each tenth of the run, with checkpoints.
#[derive(Default)]
struct Tenths {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

/// Folds all events with checkpoints in between and at the end; returns wall time, CPU time, and
/// the rate of each tenth.
fn run(
    workload: &Workload,
    fold: &RwLock<Fold>,
    recent: &RwLock<VecDeque<(String, String)>>,
) -> (Duration, f64, Tenths) {
    let mut scratch = Scratch::default();
    let mut effects = Effects::default();
    let (mut total, mut total_cpu, mut since, mut checkpoints) = (Duration::ZERO, 0.0, 0, 0.0);
    let (mut tenths, mut tenth) = (Tenths::default(), (Duration::ZERO, 0.0));
    let checkpoint_events = number("checkpoint", 2_000_000) as usize;
    let tenth_events = (workload.len() / 10).max(1);
    let mut in_tenth = 0;
    for from in (0..workload.len()).step_by(CHUNK) {
        let to = (from + CHUNK).min(workload.len());
        let events: Vec<(Vec<u8>, u64, Event<'static>)> = (from..to)
            .map(|i| {
                let event = workload.event(i, &mut scratch).into_owned();
                (event.key(), workload.at(i).timestamp_ms, event)
            })
            .collect();
        for (_, _, event) in events.iter().step_by(16) {
            if let receipts_event::Body::MessageSent(m) = &event.body {
                let mut recent = recent.write();
                recent.push_back((m.conversation_id.to_string(), m.message_id.to_string()));
                if recent.len() > 20_000 {
                    recent.pop_front();
                }
            }
        }
        let (started, cpu) = (Instant::now(), thread_cpu());
        let mut offset = from as u64;
        for group in events.chunks(PREFETCH_EVENTS) {
            let mut fold = fold.write();
            fold.prefetch(group.iter().map(|(_, _, event)| event));
            for (key, timestamp_ms, event) in group {
                let raw = RawRecord { key: Some(key), value: b"", headers: &Vec::new };
                let at = RecordMetadata { partition: 0, offset, timestamp_ms: *timestamp_ms };
                fold.apply(at, event, raw, &mut effects).expect("the fold goes on");
                offset += 1;
            }
        }
        effects.clear();
        trim(&mut fold.write());
        let applied = thread_cpu();
        since += to - from;
        if since >= checkpoint_events || to == workload.len() || fold.read().pages().needs_checkpoint() {
            since = 0;
            checkpoint(fold);
        }
        if to == workload.len() {
            fold.read().pages().backend().wait().expect("the store keeps up");
        }
        checkpoints += (thread_cpu() - applied).as_secs_f64();
        let (took, cpu) = (started.elapsed(), (thread_cpu() - cpu).as_secs_f64());
        (total, total_cpu, in_tenth) = (total + took, total_cpu + cpu, in_tenth + to - from);
        tenth = (tenth.0 + took, tenth.1 + cpu);
        if in_tenth >= tenth_events || to == workload.len() {
            let millions = in_tenth as f64 / 1e6;
            tenths.wall.push(millions / tenth.0.as_secs_f64());
            tenths.cpu.push(millions / tenth.1);
            (tenth, in_tenth) = ((Duration::ZERO, 0.0), 0);
        }
    }
    let store = store_cpu();
    println!(
        "CPU: {:.2} s applying, {checkpoints:.2} s in checkpoints, {store:.2} s in the store's threads",
        total_cpu - checkpoints
    );
    (total, total_cpu + store, tenths)
}

/// Returns the CPU time of the calling thread so far.
fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Returns the CPU seconds of the store's own threads so far.
fn store_cpu() -> f64 {
    let own = std::process::id().to_string();
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten().filter(|t| *t.file_name() != *own);
    let nanos = tasks.filter_map(|t| {
        std::fs::read_to_string(t.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() as f64 / 1e9
}

/// Makes a checkpoint like the projector for a partition that is behind: without pre-encoding.
fn checkpoint(fold: &RwLock<Fold>) {
    fold.write().write_meta();
    let guard = fold.read();
    let batch = guard.pages().batch(guard.next_offset());
    let number = guard.pages().backend().commit(batch).expect("a checkpoint");
    drop(guard);
    let mut fold = fold.write();
    fold.pages_mut().mark_saved(number);
    trim(&mut fold);
}

/// Asks for 30 recent messages at a time, like a client that opens a chat, until the fold is done.
fn ask(fold: &RwLock<Fold>, recent: &RwLock<VecDeque<(String, String)>>, done: &AtomicBool) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut at = 0;
    while !done.load(Ordering::Acquire) {
        let ids: Vec<(String, String)> = {
            let recent = recent.read();
            if recent.len() < IDS_PER_QUERY {
                continue;
            }
            (0..IDS_PER_QUERY).map(|i| recent[(at + i * 7) % recent.len()].clone()).collect()
        };
        at += 977;
        let started = Instant::now();
        let guard = fold.read();
        for (conversation, message) in &ids {
            std::hint::black_box(guard.receipt("default", conversation, message).expect("an answer"));
        }
        drop(guard);
        latencies.push(started.elapsed());
        std::thread::sleep(Duration::from_micros(500));
    }
    latencies
}
