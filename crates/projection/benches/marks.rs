//! Measures the longest wait of a reader, and of another task of its runtime, beside read marks
//! over a long conversation. Asserts nothing.
//!
//! ```text
//! cargo bench -p receipts-projection --bench marks -- [--messages N] [--marks N] [--memory-mb N]
//!     [--slice N]
//! ```
//!
//! `--slice` is the number of messages per slice; 0 applies each mark in one go, as before slices.
//! The reader asks for a message of another conversation in the same partition, on a runtime with
//! one thread, all the time. The other task of that runtime only yields.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use receipts_event::decode;
use receipts_fold::Limits;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Entry, Log as _};
use receipts_projection::{APPEND_RETRY_MAX, PRE_ENCODE_BYTES, Projector, SLICE_MESSAGES, Settings};
use receipts_query::{Answers as _, Conversation, Positions};
use receipts_testkit::bench::number;
use serde_json::{Value, json};
use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The services' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TIME_LIMIT: Duration = Duration::from_secs(600);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn post(log: &EmbeddedLog, events: impl Iterator<Item = Value>) -> Result<(), Box<dyn Error>> {
    let writer = log.writer();
    let mut appended = Vec::new();
    for event in events {
        let value = event.to_string();
        let key = decode(value.as_bytes())?.key();
        appended.push(writer.append(Entry::event(key, value, None)));
    }
    for outcome in appended {
        outcome.blocking_recv()??;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (messages, marks) = (number("messages", 400_000), number("marks", 10));
    let slice = match number("slice", SLICE_MESSAGES.into()) as u32 {
        0 => u32::MAX,
        slice => slice,
    };
    let dir = tempfile::tempdir()?;
    let log = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(1))?;
    let readers: Vec<String> = (0..=marks).map(|number| format!("u{number}")).collect();
    let sent = |conversation: &str, number: u64| {
        json!({"type": "message.sent", "conversation_id": conversation, "message_id": format!("{conversation}-{number}"),
            "sender_id": "u0", "sent_at_ms": number, "need_read_receipt": true})
    };
    let joined = |id: &str| json!({"type": "members.changed", "conversation_id": id, "joined": readers});
    post(&log, ["long", "other"].map(joined).into_iter().chain(std::iter::once(sent("other", 0))))?;
    post(&log, (0..messages).map(|number| sent("long", number)))?;
    let settings = Settings {
        dir: Some(dir.path().join("store")),
        group: "bench".into(),
        limits: Limits::default(),
        fold_threads: 1,
        memory_bytes: (number("memory-mb", 512) << 20) as usize,
        checkpoint_records: 2_000_000,
        pre_encode_bytes: PRE_ENCODE_BYTES,
        slice_messages: slice,
        checkpoint_interval: Duration::from_secs(30),
        sync: true,
        publish: true,
        publish_updates: true,
        update_window: Duration::from_millis(200),
        publish_timeout: Duration::from_secs(10),
        stop_timeout: Duration::from_secs(10),
        append_retry_max: APPEND_RETRY_MAX,
        answer_while_behind: true,
        stale_max: Duration::from_secs(3_600),
        now_ms,
        candidates_max: 100,
        snapshots: None,
    };
    let projector = Projector::start(&log, "receipts.events", settings, Duration::MAX)?;
    let partitions = projector.partitions().clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let folded = |end| runtime.block_on(partitions.wait(&Positions::applied(0, end), TIME_LIMIT));
    if !folded(messages + 3) {
        return Err("the messages are not folded in time".into());
    }

    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (partitions, stop) = (partitions.clone(), Arc::clone(&stop));
        runtime.spawn(async move {
            let (mut longest, mut count) = (Duration::ZERO, 0u64);
            let id = ["other-0".to_owned()];
            while !stop.load(Ordering::Relaxed) {
                let at = Instant::now();
                let conversation = Conversation::locate("default", "other", 1);
                partitions.receipts(conversation, None, &id).await.map_err(|e| format!("{e:?}"))?;
                longest = longest.max(at.elapsed());
                count += 1;
                tokio::task::yield_now().await;
            }
            Ok::<_, String>((longest, count))
        })
    };
    let other = {
        let stop = Arc::clone(&stop);
        runtime.spawn(async move {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let at = Instant::now();
                tokio::task::yield_now().await;
                longest = longest.max(at.elapsed());
            }
            longest
        })
    };
    let begun = Instant::now();
    let mark = |reader: &String| {
        json!({"type": "conversation.read", "conversation_id": "long", "reader_id": reader,
            "up_to_message_id": format!("long-{}", messages - 1)})
    };
    post(&log, readers[1..].iter().map(mark))?;
    if !folded(messages + 3 + marks) {
        return Err("the marks are not folded in time".into());
    }
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (longest, count) = runtime.block_on(reader)??;
    let other = runtime.block_on(other)?;
    println!(
        "{marks} marks over {messages} messages, slices of {slice}: {:.2} s; longest wait of a reader {:.1} ms ({count} \
         answers), of another task {:.1} ms",
        took.as_secs_f64(),
        longest.as_secs_f64() * 1e3,
        other.as_secs_f64() * 1e3,
    );
    projector.stop()?;
    Ok(())
}
