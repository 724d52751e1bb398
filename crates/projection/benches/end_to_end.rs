//! The projector beside what it cannot be faster than, in one run on one Kafka: rdkafka alone, rdkafka and decoding, then
//! the projector whole (consume, decode, fold, checkpoint, publish), and the same without updates, which is a rebuild.
//!
//! `cargo bench -p receipts-projection --bench end_to_end -- [--messages N] [--cap N] [--ids N] [--receipts-per-message N] [--partitions N] [--memory-mb N] [--seed N] [--json FILE]`
//! Starts a broker of its own by `tests/kafka/kafka.sh` (Java 17, Maven). A phase begins with its first record: joining
//! the group is no work. The projector's phases end with everything folded, checkpointed, in sled, and acknowledged.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use bytes::Bytes;
use receipts_event::{decode, partition_of};
use receipts_fold::Limits;
use receipts_log::kafka::{CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, unique};
use receipts_log::{Assignment, Entry, Inspect, Log, Peek, Polled, ReadError, Record, Topic};
use receipts_projection::{Projector, Settings};
use receipts_query::Answers;
use receipts_testkit::workload::{Params, Scratch, Workload};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The services' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const POLL_RECORDS: usize = 1_024;
const POLL_WAIT: Duration = Duration::from_millis(20);
const TIME_LIMIT: Duration = Duration::from_secs(600);

fn arg(name: &str) -> Option<String> {
    std::env::args().skip_while(|a| a.strip_prefix("--") != Some(name)).nth(1)
}

fn number(name: &str, default: u64) -> u64 {
    arg(name).map_or(default, |a| a.parse().unwrap_or_else(|_| panic!("--{name}: not a number: {a}")))
}

/// One phase: how long it took, and how much of both processors, the broker's share not counted.
struct Phase {
    name: &'static str,
    seconds: f64,
    cpu_seconds: f64,
    /// The same by the names of threads.
    threads: BTreeMap<String, f64>,
}

/// What the process has used so far.
struct Clock {
    at: Instant,
    cpu_seconds: f64,
    threads: BTreeMap<String, f64>,
}

impl Clock {
    fn start() -> Self {
        Self { at: Instant::now(), cpu_seconds: process_cpu(), threads: cpu_by_thread() }
    }

    fn stop(&self, name: &'static str) -> Phase {
        let (seconds, cpu_seconds) = (self.at.elapsed().as_secs_f64(), process_cpu() - self.cpu_seconds);
        let mut threads = cpu_by_thread();
        threads.iter_mut().for_each(|(name, cpu)| *cpu -= self.threads.get(name).unwrap_or(&0.0));
        threads.retain(|_, cpu| *cpu > 0.0);
        Phase { name, seconds, cpu_seconds, threads }
    }
}

struct FromTheStart;

impl Assignment for FromTheStart {
    fn assigned(&self, _: u32, first: u64, _: u64, _: &dyn Peek) -> Result<u64, Box<dyn Error + Send + Sync>> {
        Ok(first)
    }

    fn revoked(&self, _: &[u32]) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let partitions = number("partitions", 4) as u32;
    let params = Params {
        messages: number("messages", 500_000) as usize,
        size_max: number("cap", 5_000) as u32,
        receipts_per_message: number("receipts-per-message", 5) as f64,
        ids_per_event: number("ids", 1) as usize,
        seed: number("seed", 1),
        ..Params::default()
    };
    let workload = Workload::generate(&params);
    let broker = Broker::start(1)?;
    let log = KafkaLog::connect(KafkaSettings {
        bootstrap: broker.bootstrap(),
        create_topics: Some(CreateTopics { partitions, replication: None }),
        ..KafkaSettings::default()
    })?;
    let written = write(&workload, &log)?;
    let (receipts, records) = (workload.receipts(), workload.len());
    println!(
        "{records} events, {} messages, {receipts} receipts in {partitions} partitions; written in {written:.1} s",
        workload.messages()
    );
    drop(workload);

    let mut bytes = 0;
    let alone = consume("rdkafka alone", &log, records, |record| bytes += record.value.map_or(0, <[u8]>::len))?;
    let mut events = 0;
    let decoding = consume("rdkafka and decoding", &log, records, |record| {
        let event = record.value.map(decode).and_then(Result::ok).expect("an event");
        let key = record.key.expect("a key");
        events += usize::from(event.key_matches(key) && partition_of(key, partitions) == record.partition);
    })?;
    assert_eq!(events, records, "every record is an event in its place");
    let whole = project("projector, updates published", &log, true)?;
    let bounds = (0..partitions).map(|partition| log.bounds(Topic::Updates, partition));
    let updates = bounds.map(|bounds| bounds.map(|b| b.end - b.start)).sum::<Result<u64, _>>()?;
    let phases = [alone, decoding, whole, project("projector, rebuild", &log, false)?];

    let roofline = phases[1].seconds;
    println!("{:<30} {:>9} {:>12} {:>12} {:>19}", "", "seconds", "receipts/s", "of decoding", "CPU s a M receipts");
    for phase in &phases {
        println!(
            "{:<30} {:>9.2} {:>12.0} {:>11.0}% {:>19.2}",
            phase.name,
            phase.seconds,
            receipts as f64 / phase.seconds,
            100.0 * roofline / phase.seconds,
            phase.cpu_seconds / receipts as f64 * 1e6
        );
    }
    for Phase { name, threads, .. } in &phases {
        let mut by_cpu: Vec<_> = threads.iter().collect();
        by_cpu.sort_by(|a, b| b.1.total_cmp(a.1));
        let named: Vec<_> = by_cpu.iter().map(|(thread, cpu)| format!("{thread} {cpu:.2}")).collect();
        println!("CPU s by thread, {name}: {}", named.join(", "));
    }
    println!("{:.0} bytes a value; {updates} updates published", bytes as f64 / records as f64);
    if let Some(file) = arg("json") {
        let phase = |p: &Phase| json!({"phase": p.name, "seconds": p.seconds, "cpu_seconds": p.cpu_seconds, "threads": p.threads});
        let phases: Vec<Value> = phases.iter().map(phase).collect();
        let report = json!({"messages": params.messages, "receipts": receipts, "events": records, "ids": params.ids_per_event,
                            "partitions": partitions, "seed": params.seed, "updates": updates, "phases": phases});
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(())
}

/// Writes the workload into the event topic; returns the seconds that took.
fn write(workload: &Workload, log: &KafkaLog) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    let writer = log.writer();
    let (mut scratch, mut key, mut value) = (Scratch::default(), Vec::new(), Vec::new());
    for i in 0..workload.len() {
        workload.key(i, &mut key);
        workload.json_with(i, &mut scratch, &mut value);
        drop(writer.append(Entry {
            topic: Topic::Events,
            partition: None,
            key: Some(Bytes::copy_from_slice(&key)),
            value: Some(Bytes::copy_from_slice(&value)),
            headers: Vec::new(),
            timestamp_ms: Some(workload.at(i).timestamp_ms),
        }));
    }
    writer.flush(TIME_LIMIT)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn consume(
    name: &'static str,
    log: &KafkaLog,
    records: usize,
    mut each: impl FnMut(&Record<'_>),
) -> Result<Phase, Box<dyn Error>> {
    let mut reader = log.reader(&unique("bench"), Arc::new(FromTheStart))?;
    let (mut clock, mut read) = (Clock::start(), 0);
    while read < records {
        let polled = reader.poll(POLL_RECORDS, POLL_WAIT, &mut |polled| {
            if let Polled::Records(slice) = polled {
                slice.iter().for_each(&mut each);
            }
        });
        match polled {
            Ok(handed) if read == 0 => (clock, read) = (Clock::start(), handed),
            Ok(handed) => read += handed,
            Err(ReadError::Retry(_)) => {}
            Err(stop) => return Err(stop.into()),
        }
    }
    Ok(clock.stop(name))
}

/// Folds the whole log into a new store.
fn project(name: &'static str, log: &KafkaLog, publish: bool) -> Result<Phase, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let settings = Settings {
        dir: dir.path().join("store"),
        group: unique("bench"),
        limits: Limits::default(),
        memory_bytes: (number("memory-mb", 512) << 20) as usize,
        checkpoint_records: 2_000_000,
        checkpoint_interval: Duration::from_secs(30),
        sync: true,
        publish,
        publish_updates: publish,
        update_window: Duration::from_millis(200),
        publish_timeout: Duration::from_secs(10),
        answer_while_behind: true,
        now_ms: || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        snapshots: None,
    };
    let projector = Projector::start(log, "receipts.events", settings, Duration::MAX)?;
    while projector.partitions().positions().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let clock = Clock::start();
    while !projector.partitions().ready().caught_up {
        std::thread::sleep(Duration::from_millis(1));
    }
    let threads = cpu_by_thread();
    projector.stop()?;
    let mut phase = clock.stop(name);
    // Those that ended by now are counted to what they had used before.
    for (name, cpu) in threads {
        let used = cpu - clock.threads.get(&name).unwrap_or(&0.0);
        let known = phase.threads.entry(name).or_default();
        *known = known.max(used);
    }
    phase.threads.retain(|_, cpu| *cpu > 0.0);
    Ok(phase)
}

/// CPU seconds of the threads that run, by their names, which several may share; the system's resolution is 10 ms.
fn cpu_by_thread() -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        // A thread may end between the two looks.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let ticks: f64 = rest.split(' ').skip(12).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
        *all.entry(name.to_owned()).or_default() += ticks / 100.0;
    }
    all
}

/// CPU seconds of this process so far, all threads.
fn process_cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
