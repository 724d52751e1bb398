//! The projector beside what it cannot be faster than, in one run on one Kafka: rdkafka alone, rdkafka and decoding, then
//! the projector whole (consume, decode, fold, checkpoint, publish), and the same without updates, which is a rebuild.
//!
//! `cargo bench -p receipts-projection --bench end_to_end -- [--messages N] [--cap N] [--ids N] [--partitions N] [--memory-mb N] [--seed N] [--json FILE]`
//! Starts a broker of its own by `tests/kafka/kafka.sh` (Java 17, Maven). A phase begins with its first record: joining
//! the group is no work. The projector's phases end with everything folded, checkpointed, in sled, and acknowledged.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use bytes::Bytes;
use receipts_event::{decode, partition_of};
use receipts_fold::Limits;
use receipts_log::kafka::{CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, unique};
use receipts_log::{Assignment, Entry, Inspect, Log, Polled, ReadError, Record, Topic};
use receipts_projection::{Projector, Settings};
use receipts_query::Answers;
use receipts_testkit::workload::{Params, Scratch, Workload};
use serde_json::{Value, json};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
}

struct FromTheStart;

impl Assignment for FromTheStart {
    fn assigned(&self, _: u32, first: u64, _: u64) -> Result<u64, Box<dyn Error + Send + Sync>> {
        Ok(first)
    }

    fn revoked(&self, _: &[u32]) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let partitions = number("partitions", 4) as u32;
    let params = Params {
        messages: number("messages", 500_000) as usize,
        size_max: number("cap", 5_000) as u32,
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
    println!("{:.0} bytes a value; {updates} updates published", bytes as f64 / records as f64);
    if let Some(file) = arg("json") {
        let phase = |p: &Phase| json!({"phase": p.name, "seconds": p.seconds, "cpu_seconds": p.cpu_seconds});
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
    let (mut begun, mut cpu, mut read) = (Instant::now(), process_cpu(), 0);
    while read < records {
        let polled = reader.poll(POLL_RECORDS, POLL_WAIT, &mut |polled| {
            if let Polled::Records(slice) = polled {
                slice.iter().for_each(&mut each);
            }
        });
        match polled {
            Ok(handed) if read == 0 => (begun, cpu, read) = (Instant::now(), process_cpu(), handed),
            Ok(handed) => read += handed,
            Err(ReadError::Retry(_)) => {}
            Err(stop) => return Err(stop.into()),
        }
    }
    Ok(Phase { name, seconds: begun.elapsed().as_secs_f64(), cpu_seconds: process_cpu() - cpu })
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
        now_ms: || 0,
        snapshots: None,
    };
    let projector = Projector::start(log, "receipts.events", settings, Duration::MAX)?;
    while projector.partitions().positions().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (begun, cpu) = (Instant::now(), process_cpu());
    while !projector.partitions().ready().caught_up {
        std::thread::sleep(Duration::from_millis(1));
    }
    projector.stop()?;
    Ok(Phase { name, seconds: begun.elapsed().as_secs_f64(), cpu_seconds: process_cpu() - cpu })
}

/// CPU seconds of this process so far, all threads.
fn process_cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
