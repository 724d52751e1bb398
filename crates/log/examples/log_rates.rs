//! Measures append and read rates of the embedded log or of Kafka: `log_rates [HOST:PORT]`, without
//! an argument the embedded one in a temporary folder.
//!
//! It asserts nothing about time; figures are for reading. `RECORDS` sets how many records
//! (1,000,000).

use bytes::Bytes;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::kafka::{KafkaLog, KafkaSettings};
use receipts_log::{Assignment, Entry, Log, Peek, Polled, ReadError, Topic};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The size of a typical receipt event, about 150 bytes.
const VALUE_BYTES: usize = 150;
const TIME_LIMIT: Duration = Duration::from_secs(300);

struct FromTheStart;

impl Assignment for FromTheStart {
    fn assigned(&self, _: u32, first: u64, _: u64, _: &dyn Peek) -> Result<u64, Box<dyn Error + Send + Sync>> {
        Ok(first)
    }

    fn revoked(&self, _: &[u32]) {}
}

#[allow(clippy::print_stdout, reason = "figures are its result")]
fn main() -> Result<(), Box<dyn Error>> {
    let records: u64 = std::env::var("RECORDS").map_or(Ok(1_000_000), |count| count.parse())?;
    let dir = tempfile::tempdir()?;
    let log: Box<dyn Log> = match std::env::args().nth(1) {
        Some(bootstrap) => {
            let events = format!("rates-{}", std::process::id());
            Box::new(KafkaLog::connect(KafkaSettings { bootstrap, events, ..KafkaSettings::default() })?)
        }
        None => Box::new(EmbeddedLog::open(dir.path(), None)?),
    };
    let value: Bytes = (0..VALUE_BYTES).map(|at| b'a' + (at * 7 % 26) as u8).collect();
    let entry = |number: u64| Entry {
        topic: Topic::Events,
        partition: None,
        key: Some(format!("default/conversation-{}", number % 5000).into()),
        value: Some(value.clone()),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    let writer = log.writer();

    let begun = Instant::now();
    for number in 0..200 {
        writer.append(entry(number)).blocking_recv()??;
    }
    println!("one at a time: {:.2} ms an append", begun.elapsed().as_secs_f64() * 1000.0 / 200.0);

    let begun = Instant::now();
    for number in 200..records {
        drop(writer.append(entry(number)));
    }
    writer.flush(TIME_LIMIT)?;
    println!("in flight: {:.0} appends/s", (records - 200) as f64 / begun.elapsed().as_secs_f64());

    let mut reader = log.reader(&format!("rates-{}", std::process::id()), Arc::new(FromTheStart))?;
    let (mut begun, mut read, mut bytes) = (Instant::now(), 0u64, 0u64);
    while read < records {
        let polled = reader.poll(4096, Duration::from_millis(100), &mut |polled| {
            if let Polled::Records(records) = polled {
                bytes += records.iter().map(|record| record.value.map_or(0, <[u8]>::len) as u64).sum::<u64>();
            }
        });
        match polled {
            // The time to join a group does not count.
            Ok(count) if read == 0 && count > 0 => (begun, read) = (Instant::now(), count as u64),
            Ok(count) => read += count as u64,
            Err(ReadError::Retry(_)) => {}
            Err(stop) => return Err(stop.into()),
        }
    }
    println!("read: {:.0} records/s, {} MB of values", read as f64 / begun.elapsed().as_secs_f64(), bytes / 1_000_000);
    if let Ok(file) = std::fs::metadata(dir.path().join("log.redb")) {
        println!("file: {:.0} bytes a record", file.len() as f64 / records as f64);
    }
    Ok(())
}
