//! Compares the projector with its upper bounds, in one run on one Kafka: rdkafka alone, rdkafka
//! with decoding, then the whole projector (consume, decode, fold, checkpoint, publish), and the
//! projector without updates, which is a rebuild. Asserts only that both projectors give the same
//! answers.
//!
//! ```text
//! cargo bench -p receipts-projection --bench end_to_end -- [--messages N] [--cap N] [--ids N]
//!     [--receipts-per-message N] [--hot MEMBERS] [--partitions N] [--fold-threads N]
//!     [--memory-mb N] [--seed N] [--json FILE]
//! ```
//!
//! It starts its own broker with `tests/kafka/broker/kafka.sh` (Java 17, Maven). With
//! `--bootstrap HOST:PORT --topic NAME` it reads an existing topic instead. `--hot MEMBERS` is one
//! group with one message that all members read.
//!
//! A phase begins with its first record, so that joining the consumer group does not count. The
//! projector's phases end when everything is folded, checkpointed, in sled, and acknowledged. The
//! checksum is computed from answers: the messages that were read, the sum of their read counts,
//! and the sum of the squares.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use receipts_event::{Body, LISTED_IDS_MAX, decode, partition_of};
use receipts_fold::Limits;
use receipts_log::kafka::{CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, unique, write_events};
use receipts_log::{AppendError, Assignment, Inspect, Log, Peek, Polled, ReadError, Record, Topic};
use receipts_projection::{APPEND_RETRY_MAX, PRE_ENCODE_BYTES, Projector, SLICE_MESSAGES, Settings};
use receipts_query::Answers;
use receipts_testkit::bench::{disk_bytes, number, params, text};
use receipts_testkit::workload::{Params, Scratch, Workload};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The services' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const POLL_RECORDS: usize = 1_024;
const POLL_WAIT: Duration = Duration::from_millis(20);
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// One phase: its duration, and the CPU time of this process, without the broker.
struct Phase {
    name: &'static str,
    seconds: f64,
    cpu_seconds: f64,
    /// CPU seconds by thread name.
    threads: BTreeMap<String, f64>,
}

/// The time and the CPU time of the process at the start of a phase.
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

/// The topic to measure: a generated workload, or an existing topic.
struct Subject {
    log: KafkaLog,
    /// Stopped when it is dropped.
    _broker: Option<Broker>,
    /// Its description in the report.
    described: Value,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Subject { log, described, _broker } = subject()?;
    let partitions = log.partition_count();

    let mut bytes = 0;
    let alone = consume("rdkafka alone", &log, |record| bytes += record.value.map_or(0, <[u8]>::len))?;
    let (mut records, mut messages, mut receipts) = (0, 0, 0);
    let decoding = consume("rdkafka and decoding", &log, |record| {
        let event = record.value.map(decode).and_then(Result::ok).expect("an event");
        let key = record.key.expect("a key");
        assert!(
            event.key_matches(key) && partition_of(key, partitions) == record.partition,
            "the event is in its partition"
        );
        records += 1;
        match &event.body {
            Body::MessageSent(_) => messages += 1,
            Body::MessageRead(read) => receipts += read.message_ids.len(),
            _ => {}
        }
    })?;
    println!("{records} events, {messages} sends, {receipts} receipts in {partitions} partitions");
    let updates_before = count(&log, Topic::Updates)?;
    let (whole, folded) = project("projector, updates published", &log, true)?;
    let updates = count(&log, Topic::Updates)? - updates_before;
    let (rebuild, rebuilt) = project("projector, rebuild", &log, false)?;
    assert_eq!(folded.checksum, rebuilt.checksum, "the same log must give the same answers");
    let phases = [alone, decoding, whole, rebuild];

    let roofline = phases[1].seconds;
    println!("{:<30} {:>9} {:>12} {:>12} {:>21}", "", "seconds", "receipts/s", "of decoding", "CPU s per M receipts");
    for phase in &phases {
        println!(
            "{:<30} {:>9.2} {:>12.0} {:>11.0}% {:>21.2}",
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
        let named: Vec<_> = by_cpu.iter().take(5).map(|(thread, cpu)| format!("{thread} {cpu:.2}")).collect();
        println!("CPU s by thread, {name}: {}", named.join(", "));
    }
    let per_message = |bytes: u64| bytes as f64 / messages as f64;
    println!("{:.0} bytes per value; {updates} updates published", bytes as f64 / records as f64);
    println!(
        "bytes per message: {:.0} on disk, {:.0} of pages in memory",
        per_message(folded.disk_bytes),
        per_message(folded.page_bytes)
    );
    let [read, sum, squares] = folded.checksum;
    println!("checksum: {read} / {sum} / {squares}");
    if let Some(file) = text("json") {
        let phase = |p: &Phase| {
            json!({"phase": p.name, "seconds": p.seconds, "cpu_seconds": p.cpu_seconds,
                                   "threads": p.threads})
        };
        let phases: Vec<Value> = phases.iter().map(phase).collect();
        let report = json!({"workload": described, "messages": messages, "receipts": receipts, "events": records,
                            "partitions": partitions, "updates": updates, "phases": phases,
                            "disk_bytes": folded.disk_bytes, "page_bytes": folded.page_bytes, "checksum": folded.checksum});
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(())
}

fn subject() -> Result<Subject, Box<dyn Error>> {
    let partitions = number("partitions", 4) as u32;
    if let Some(topic) = text("topic") {
        let bootstrap = text("bootstrap").ok_or("--topic needs --bootstrap HOST:PORT")?;
        // Updates go to the partitions of their events, so they need topics of their own.
        let settings = KafkaSettings {
            bootstrap,
            updates: format!("{topic}.updates"),
            dead_letters: format!("{topic}.dead-letters"),
            events: topic.clone(),
            create_topics: Some(CreateTopics { partitions, replication: None }),
            ..KafkaSettings::default()
        };
        return Ok(Subject { log: KafkaLog::connect(settings)?, _broker: None, described: json!({"topic": topic}) });
    }
    let broker = Broker::start(1)?;
    let create_topics = Some(CreateTopics { partitions, replication: None });
    let log =
        KafkaLog::connect(KafkaSettings { bootstrap: broker.bootstrap(), create_topics, ..KafkaSettings::default() })?;
    let begun = Instant::now();
    let described = match number("hot", 0) {
        0 => {
            let params = params(500_000);
            let workload = Workload::generate(&params);
            let mut scratch = Scratch::default();
            write_events(&log, workload.len(), TIME_LIMIT, |i, key, value| {
                workload.key(i, key);
                workload.json_with(i, &mut scratch, value);
                workload.at(i).timestamp_ms
            })?;
            let Params { messages, size_max, receipts_per_message, ids_per_event, seed, .. } = params;
            json!({"messages": messages, "cap": size_max, "receipts_per_message": receipts_per_message,
                   "ids": ids_per_event, "seed": seed})
        }
        members => {
            write_hot(&log, members)?;
            json!({"hot": members})
        }
    };
    println!("workload generated and written in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(Subject { log, _broker: Some(broker), described })
}

/// Writes one group with one message that each member reads, a thousand members per second.
fn write_hot(log: &KafkaLog, members: u64) -> Result<(), AppendError> {
    const SENT_AT_MS: u64 = 1_780_000_000_000;
    const JOINS_PER_RECORD: usize = LISTED_IDS_MAX;
    let joins = (members as usize).div_ceil(JOINS_PER_RECORD);
    write_events(log, joins + members as usize, TIME_LIMIT, |i, key, value| {
        *key = receipts_event::key("default", "hot");
        let event = match i.checked_sub(joins) {
            None => {
                let joined: Vec<_> = (i * JOINS_PER_RECORD..members as usize)
                    .take(JOINS_PER_RECORD)
                    .map(|member| format!("u{member}"))
                    .collect();
                json!({"type": "members.changed", "conversation_id": "hot", "joined": joined})
            }
            Some(0) => json!({"type": "message.sent", "conversation_id": "hot", "message_id": "m", "sender_id": "u0",
                              "sent_at_ms": SENT_AT_MS, "need_read_receipt": true}),
            Some(member) => json!({"type": "message.read", "conversation_id": "hot", "reader_id": format!("u{member}"),
                                   "message_ids": ["m"]}),
        };
        *value = event.to_string().into_bytes();
        SENT_AT_MS + i.saturating_sub(joins) as u64
    })
}

/// Counts the records of a topic.
fn count(log: &KafkaLog, topic: Topic) -> Result<u64, ReadError> {
    let bounds = (0..log.partition_count()).map(|partition| log.bounds(topic, partition));
    bounds.map(|bounds| bounds.map(|b| b.end - b.start)).sum()
}

/// Consumes the log and passes each record to `each`.
fn consume(name: &'static str, log: &KafkaLog, mut each: impl FnMut(&Record<'_>)) -> Result<Phase, Box<dyn Error>> {
    let mut reader = log.reader(&unique("bench"), Arc::new(FromTheStart))?;
    let (mut clock, mut has_begun, mut at_end) = (Clock::start(), false, BTreeSet::new());
    while at_end.len() < log.partition_count() as usize {
        let polled = reader.poll(POLL_RECORDS, POLL_WAIT, &mut |polled| match polled {
            Polled::Records(slice) => {
                if !std::mem::replace(&mut has_begun, true) {
                    clock = Clock::start();
                }
                slice.iter().for_each(&mut each);
            }
            Polled::End { partition, .. } => _ = at_end.insert(partition),
        });
        match polled {
            Ok(_) | Err(ReadError::Retry(_)) => {}
            Err(stop) => return Err(stop.into()),
        }
    }
    Ok(clock.stop(name))
}

/// The result of a projector.
struct Folded {
    /// Messages that were read, the sum of their read counts, the sum of the squares.
    checksum: [u64; 3],
    /// The size of the closed store.
    disk_bytes: u64,
    /// The size of the pages in memory at the end.
    page_bytes: u64,
}

/// Folds the whole log into a new store.
fn project(name: &'static str, log: &KafkaLog, publish: bool) -> Result<(Phase, Folded), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let settings = Settings {
        dir: Some(dir.path().join("store")),
        group: unique("bench"),
        limits: Limits::default(),
        fold_threads: number("fold-threads", 2) as u32,
        memory_bytes: (number("memory-mb", 512) << 20) as usize,
        checkpoint_records: 2_000_000,
        pre_encode_bytes: PRE_ENCODE_BYTES,
        slice_messages: SLICE_MESSAGES,
        checkpoint_interval: Duration::from_secs(30),
        sync: true,
        publish,
        publish_updates: publish,
        update_window: Duration::from_millis(200),
        publish_timeout: Duration::from_secs(10),
        stop_timeout: Duration::from_secs(10),
        append_retry_max: APPEND_RETRY_MAX,
        answer_while_behind: true,
        candidates_max: 100,
        stale_max: Duration::from_secs(3_600),
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
    println!("{name}: everything folded after {:.2} s", clock.at.elapsed().as_secs_f64());
    let (threads, partitions) = (cpu_by_thread(), projector.partitions().clone());
    // The partitions are queried while the projector owns them. This time is subtracted below.
    let mut folded = Folded { checksum: [0; 3], disk_bytes: 0, page_bytes: 0 };
    let asking = Instant::now();
    for partition in 0..log.partition_count() {
        let asked = partitions.read(partition, |fold, _| -> Result<(), Box<dyn Error>> {
            folded.page_bytes += fold.pages().memory_bytes() as u64;
            for message in 0..fold.messages() {
                let counts = fold.receipt_of(message)?.and_then(|receipt| receipt.counts);
                let read = counts.map_or(0, |counts| u64::from(counts.read_count));
                let [messages, sum, squares] = &mut folded.checksum;
                (*messages, *sum, *squares) = (*messages + u64::from(read > 0), *sum + read, *squares + read * read);
            }
            Ok(())
        });
        asked.ok_or("a partition that is not owned")??;
    }
    let asking = asking.elapsed();
    projector.stop()?;
    let mut phase = clock.stop(name);
    // Threads that have ended count with the CPU time measured before.
    for (name, cpu) in threads {
        let used = cpu - clock.threads.get(&name).unwrap_or(&0.0);
        let known = phase.threads.entry(name).or_default();
        *known = known.max(used);
    }
    phase.threads.retain(|_, cpu| *cpu > 0.0);
    phase.seconds -= asking.as_secs_f64();
    phase.cpu_seconds -= asking.as_secs_f64();
    folded.disk_bytes = disk_bytes(dir.path());
    Ok((phase, folded))
}

/// Returns CPU seconds of the running threads by name, which several threads may share. The
/// system's resolution is 10 ms.
fn cpu_by_thread() -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        // A thread may end between the two reads.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let ticks: f64 = rest.split(' ').skip(12).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
        *all.entry(name.to_owned()).or_default() += ticks / 100.0;
    }
    all
}

/// Returns the CPU seconds of all threads of this process so far.
fn process_cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
