//! Compares a replay with its lower bounds, in one run on one Kafka: reading alone, reading and
//! decoding, then the fold of `receipts replay`. Each phase prints its rate and its peak memory.
//!
//! `cargo bench -p receipts-analytics --bench replay -- [--messages N] [--cap N] [--ids N]
//! [--receipts-per-message N] [--partitions N] [--memory-mb N] [--seed N] [--json FILE]`
//!
//! It starts its own broker by `tests/kafka/broker/kafka.sh` (Java 17, Maven) with the log in
//! KAFKA_DIR (`.kafka`). States that exceed their memory go to TMPDIR. A separate process writes
//! the workload, which takes 16 bytes per event, so that its memory does not count. 100 million
//! receipts: `--messages 20000000`.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use receipts_analytics::{Scratch, Span, UpTo, read, span};
use receipts_event::{Decoder, Unwrap};
use receipts_fold::Limits;
use receipts_log::kafka::{CreateTopics, KafkaLog, KafkaSettings};
use receipts_log::testing::{Broker, write_events};
use receipts_log::{Log, Record};
use receipts_testkit::bench::{number, params, reset_peak, status_bytes, text};
use receipts_testkit::workload::{Scratch as Spelling, Workload};
use serde_json::{Value, json};
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

/// The services' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TIME_LIMIT: Duration = Duration::from_secs(3_600);

struct Phase {
    name: &'static str,
    seconds: f64,
    peak_mb: u64,
}

fn connect(bootstrap: &str) -> Result<KafkaLog, Box<dyn Error>> {
    let partitions = number("partitions", 4) as u32;
    Ok(KafkaLog::connect(KafkaSettings {
        bootstrap: bootstrap.to_owned(),
        create_topics: Some(CreateTopics { partitions, replication: None }),
        ..KafkaSettings::default()
    })?)
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(bootstrap) = text("write-into") {
        return write(&connect(&bootstrap)?);
    }
    let broker = Broker::start(1)?;
    let begun = Instant::now();
    let writer = Command::new(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .args(["--write-into", &broker.bootstrap()])
        .output()?;
    if !writer.status.success() {
        return Err(String::from_utf8_lossy(&writer.stderr).into());
    }
    let written: Value = serde_json::from_slice(&writer.stdout)?;
    let count = |name: &str| written[name].as_u64().unwrap_or(0);
    let (events, receipts) = (count("events"), count("receipts"));
    println!(
        "{events} events, {} messages, {receipts} receipts in {} partitions; made and written in {:.0} s",
        count("messages"),
        number("partitions", 4),
        begun.elapsed().as_secs_f64()
    );

    let log = connect(&broker.bootstrap())?;
    let spans: Vec<Span> =
        (0..log.partition_count()).map(|partition| span(&log, partition, UpTo::End)).collect::<Result<_, _>>()?;
    let mut bytes = 0;
    let alone =
        phase("reading alone", || scan(&log, &spans, |record| bytes += record.value.map_or(0, <[u8]>::len) as u64))?;
    let mut decoded = 0;
    let decoder = Decoder { partition_count: log.partition_count(), unwrap: Unwrap::None };
    let decoding = phase("reading and decoding", || {
        scan(&log, &spans, |record| {
            decoded += u64::from(decoder.decode(record.partition, record.key, record.value).is_ok())
        })
    })?;
    assert_eq!(decoded, events, "every record is an event in its place");
    let memory_bytes = (number("memory-mb", 512) << 20) as usize;
    let scratch = Scratch { limits: Limits::default(), memory_bytes, snapshots: None };
    let mut messages = 0;
    let replay = phase("replay", || {
        for span in &spans {
            let folded = scratch.fold(&log, span, &())?;
            messages += folded.report.messages;
        }
        Ok(())
    })?;
    assert_eq!(messages, count("messages"), "every message is there");

    let phases = [alone, decoding, replay];
    println!(
        "{:<22} {:>9} {:>12} {:>12} {:>12} {:>9}",
        "", "seconds", "events/s", "receipts/s", "of reading", "peak MiB"
    );
    for Phase { name, seconds, peak_mb } in &phases {
        let (of_events, of_receipts) = (events as f64 / seconds, receipts as f64 / seconds);
        let share = 100.0 * phases[0].seconds / seconds;
        println!("{name:<22} {seconds:>9.2} {of_events:>12.0} {of_receipts:>12.0} {share:>11.0}% {peak_mb:>9}");
    }
    println!(
        "{:.0} bytes a value; pages may take {} MiB a partition",
        bytes as f64 / events as f64,
        memory_bytes >> 20
    );
    if let Some(file) = text("json") {
        let phase = |p: &Phase| {
            let per_s = |count: u64| (count as f64 / p.seconds).round();
            json!({"phase": p.name, "seconds": p.seconds, "events_per_s": per_s(events), "receipts_per_s": per_s(receipts),
                   "of_reading": phases[0].seconds / p.seconds, "peak_mb": p.peak_mb})
        };
        let phases: Vec<Value> = phases.iter().map(phase).collect();
        let report =
            json!({"written": written, "partitions": spans.len(), "memory_mb": memory_bytes >> 20, "phases": phases});
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(())
}

/// Writes the workload to the event topic and prints its size.
fn write(log: &KafkaLog) -> Result<(), Box<dyn Error>> {
    let workload = Workload::generate(&params(200_000));
    let mut spelling = Spelling::default();
    write_events(log, workload.len(), TIME_LIMIT, |i, key, value| {
        workload.key(i, key);
        workload.json_with(i, &mut spelling, value);
        workload.at(i).timestamp_ms
    })?;
    let (events, messages, receipts) = (workload.len(), workload.messages(), workload.receipts());
    println!("{}", json!({"events": events, "messages": messages, "receipts": receipts}));
    Ok(())
}

fn scan(log: &KafkaLog, spans: &[Span], mut each: impl FnMut(&Record<'_>)) -> Result<(), receipts_analytics::Error> {
    for span in spans {
        read(log, span, &(), &mut |records| {
            records.iter().for_each(&mut each);
            Ok(())
        })?;
    }
    Ok(())
}

fn phase(
    name: &'static str,
    work: impl FnOnce() -> Result<(), receipts_analytics::Error>,
) -> Result<Phase, Box<dyn Error>> {
    reset_peak()?;
    let begun = Instant::now();
    work()?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Phase { name, seconds, peak_mb: status_bytes("VmHWM") >> 20 })
}
