//! How far live tables are behind their log, while messages of any age get reads: the worst case,
//! because it changes every file. Each round prints the time from its look at the log's end to its
//! last commit, and the bytes that it wrote.
//!
//! `cargo bench -p receipts-analytics --bench live -- [--messages N] [--rounds N] [--reads N]
//! [--sends N] [--partitions N] [--file-mb N] [--seed N] [--json FILE]`
//!
//! `--messages` is the size of the tables, `--reads` and `--sends` come between two rounds. The log
//! is embedded, in TMPDIR, so that the time is that of the tables alone. Conversations have ten
//! members and 200 messages; of these each reader has read 120.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use receipts_analytics::live::{Committed, DATASETS, Plan, follow};
use receipts_analytics::{ProgressMonitor, Scratch};
use receipts_event::key;
use receipts_fold::Limits;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Log as _, Writer};
use receipts_objects::Destination;
use receipts_testkit::bench::{number, text};
use receipts_testkit::random::Random;
use serde_json::{Value, json};
use std::error::Error;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The services' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MESSAGES: u64 = 200;
const READ: u64 = 120;
const PEOPLE: u64 = 10;
const BATCH: u64 = 40;
const WAIT: Duration = Duration::from_secs(600);

struct Stop(AtomicBool);

impl ProgressMonitor for Stop {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn append(writer: &dyn Writer, conversation: u64, event: &Value) {
    let key = key("default", &format!("c{conversation}"));
    drop(writer.append(Entry::event(key, event.to_string().into_bytes(), None)));
}

fn sent(writer: &dyn Writer, conversation: u64, message: u64) {
    append(
        writer,
        conversation,
        &json!({"type": "message.sent", "conversation_id": format!("c{conversation}"),
                "message_id": format!("m{conversation}-{message}"), "sender_id": "u0", "sent_at_ms": now_ms(),
                "need_read_receipt": true}),
    );
}

fn read(writer: &dyn Writer, conversation: u64, person: u64, messages: impl Iterator<Item = u64>) {
    let ids: Vec<String> = messages.map(|message| format!("m{conversation}-{message}")).collect();
    append(
        writer,
        conversation,
        &json!({"type": "message.read", "conversation_id": format!("c{conversation}"),
                "reader_id": format!("u{person}"), "message_ids": ids, "read_at_ms": now_ms()}),
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let messages = number("messages", 1_000_000);
    let (rounds, reads, sends) = (number("rounds", 5), number("reads", 20_000), number("sends", 2_000));
    let file_mb = number("file-mb", 256);
    let conversations = (messages / MESSAGES).max(1);
    let folder = tempfile::tempdir()?;
    let partitions = NonZeroU32::new(number("partitions", 4) as u32);
    let log = EmbeddedLog::open(&folder.path().join("log"), partitions)?;
    let writer = log.writer();
    let begun = Instant::now();
    for conversation in 0..conversations {
        let people: Vec<String> = (0..PEOPLE).map(|person| format!("u{person}")).collect();
        let id = format!("c{conversation}");
        append(&*writer, conversation, &json!({"type": "members.changed", "conversation_id": id, "joined": people}));
    }
    // Messages of many conversations lie beside one another, as in a log that grew.
    for message in 0..MESSAGES {
        (0..conversations).for_each(|conversation| sent(&*writer, conversation, message));
        writer.flush(WAIT)?;
    }
    for first in (0..READ).step_by(BATCH as usize) {
        for conversation in 0..conversations {
            (1..PEOPLE).for_each(|person| read(&*writer, conversation, person, first..first + BATCH));
        }
        writer.flush(WAIT)?;
    }
    println!(
        "{} messages, {} reads; written in {:.0} s",
        conversations * MESSAGES,
        conversations * READ * (PEOPLE - 1),
        begun.elapsed().as_secs_f64()
    );

    let token = |offsets: &[(u32, u64)]| format!("{offsets:?}");
    let plan = Plan {
        out: Destination::directory(&folder.path().join("tables"))?,
        log: "a log".to_owned(),
        datasets: DATASETS.to_vec(),
        every: Duration::ZERO,
        keep_versions_ms: 0,
        erase_within_ms: u64::MAX,
        file_bytes: file_mb << 20,
        once: false,
        token: &token,
        now_ms: &now_ms,
    };
    let scratch = Scratch { limits: Limits::default(), memory_bytes: 2 << 30, snapshots: None };
    let (stop, mut random) = (Stop(AtomicBool::new(false)), Random::new(number("seed", 1)));
    let (mut round, mut bytes, mut newest) = (0, [0, 0], MESSAGES);
    let mut told = Vec::new();
    println!("{:<18} {:>12} {:>12} {:>12}", "", "behind, s", "files added", "MiB in all");
    follow(&log, &scratch, &plan, &stop, &mut |committed: &Committed| {
        bytes[0] += committed.added;
        bytes[1] += committed.bytes;
        if committed.dataset != DATASETS[DATASETS.len() - 1] {
            return Ok(());
        }
        let name = if round == 0 { "the first version".to_owned() } else { format!("round {round}") };
        let behind_s = committed.behind_ms as f64 / 1_000.0;
        println!("{name:<18} {behind_s:>12.1} {:>12} {:>12}", bytes[0], bytes[1] >> 20);
        told.push(
            json!({"round": round, "behind_ms": committed.behind_ms, "files_added": bytes[0], "bytes": bytes[1]}),
        );
        (round, bytes) = (round + 1, [0, 0]);
        stop.0.store(round > rounds, Ordering::Relaxed);
        for _ in 0..reads {
            let (conversation, person) = (random.below(conversations), 1 + random.below(PEOPLE - 1));
            read(&*writer, conversation, person, std::iter::once(READ + random.below(MESSAGES - READ)));
        }
        (0..sends).for_each(|_| sent(&*writer, random.below(conversations), newest + random.below(1 << 40)));
        newest += 1 << 40;
        writer.flush(WAIT).map_err(|error| receipts_analytics::Error::Refused(error.to_string()))
    })?;
    if let Some(file) = text("json") {
        let report = json!({"messages": conversations * MESSAGES, "reads": reads, "sends": sends, "file_mb": file_mb,
                            "rounds": told});
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(())
}
