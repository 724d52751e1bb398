//! Measures the memory and CPU of idle streams of updates: opens many and keeps them open. The
//! service publishes nothing meanwhile but heartbeats.
//!
//! `cargo build --profile dist --bin receipts && cargo bench --profile dist -p receipts-tests
//! --bench streams -- [--streams N] [--seconds N] [--heartbeat-ms N] [--by-conversation] [--json]`
//!
//! Memory is the resident memory of the service's process, without the kernel's buffers of
//! connections. Needs a limit of open files (`ulimit -Hn`) of three times the number of streams.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that measures and prints")]

#[allow(dead_code, reason = "shared with another bench")]
mod load;

use load::Usage;
use receipts_testkit::bench::{flag, number};
use receipts_tests::process::Service;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HELP: &str = "What idle streams of updates cost a running service.

  --streams N         streams (5000)
  --seconds N         how long they stay (60)
  --heartbeat-ms N    how often each gets a heartbeat (4000)
  --by-conversation   streams of one conversation each instead of one sender each
  --json              prints JSON

Example: cargo build --profile dist --bin receipts && cargo bench --profile dist -p receipts-tests --bench streams -- --streams 10000";
/// Connections in progress at once.
const OPENING: usize = 64;
/// Streams opened and closed first, so that one-time costs are not counted.
const WARM_UP: usize = 200;

fn main() {
    if flag("help") || std::env::args().any(|argument| argument == "-h") {
        println!("{HELP}");
    } else {
        tokio::runtime::Runtime::new().expect("a runtime").block_on(run());
    }
}

/// Opens a stream, waits for its first line, then reads and counts to its end.
async fn open(address: Arc<str>, query: String, heard: Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
    let mut stream = TcpStream::connect(&*address).await.expect("it listens");
    let request = format!("GET /v1/updates?{query} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut head = Vec::with_capacity(1_024);
    while !head.windows(8).any(|bytes| bytes == b"data: {}") {
        assert!(stream.read_buf(&mut head).await.expect("it answers") > 0, "{}", String::from_utf8_lossy(&head));
    }
    tokio::spawn(async move {
        let mut some = [0; 512];
        while stream.read(&mut some).await.is_ok_and(|bytes| bytes > 0) {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    })
}

async fn open_many(
    address: &Arc<str>,
    count: usize,
    query: impl Fn(usize) -> String,
    heard: &Arc<AtomicU64>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut open_ones = Vec::with_capacity(count);
    for first in (0..count).step_by(OPENING) {
        let some = (first..count.min(first + OPENING))
            .map(|n| tokio::spawn(open(Arc::clone(address), query(n), Arc::clone(heard))));
        for opening in some.collect::<Vec<_>>() {
            open_ones.push(opening.await.expect("no panic"));
        }
    }
    open_ones
}

async fn run() {
    let (streams, seconds) = (number("streams", 5_000) as usize, number("seconds", 60));
    let heartbeat_ms = number("heartbeat-ms", 4_000);
    let kind = if flag("by-conversation") { "conversation_id" } else { "sender_id" };
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(
        data.path(),
        &[
            ("--http-streams-max", streams + WARM_UP),
            ("--http-streams-per-tenant", streams + WARM_UP),
            // At most half of the connections are streams.
            ("--http-connections-max", 2 * (streams + WARM_UP)),
            ("--http-heartbeat-ms", heartbeat_ms as usize),
        ]
        .map(|(flag, value)| format!("{flag}={value}"))
        .each_ref()
        .map(String::as_str),
    );
    let address: Arc<str> = service.address.as_str().into();
    let heard = Arc::new(AtomicU64::new(0));
    let query = |n: usize| format!("{kind}=user-{n:08}");
    for stream in open_many(&address, WARM_UP, query, &heard).await {
        stream.abort();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = Usage::of(service.id());
    eprintln!("opening {streams} streams");
    let open_ones = open_many(&address, streams, query, &heard).await;
    let opened = Usage::of(service.id());
    eprintln!("they stay for {seconds} s");
    let heard_before = heard.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = Usage::of(service.id());
    let signs = heard.load(Ordering::Relaxed) - heard_before;
    assert!(open_ones.iter().all(|stream| !stream.is_finished()), "a stream has ended");

    let bytes = after.resident_bytes.saturating_sub(before.resident_bytes) as f64 / streams as f64;
    let opening_us = (opened.cpu - before.cpu).as_secs_f64() * 1e6 / streams as f64;
    let cpu = (after.cpu - opened.cpu).as_secs_f64();
    if flag("json") {
        println!(
            "{}",
            json!({"streams": streams, "of": kind, "bytes_per_stream": bytes, "resident_before_bytes": before.resident_bytes,
                   "resident_after_bytes": after.resident_bytes, "cpu_us_to_open": opening_us, "seconds": seconds,
                   "heartbeat_ms": heartbeat_ms, "heartbeats": signs, "cpu_s": cpu})
        );
    } else {
        println!("{streams} idle streams, a {kind} each, a heartbeat each {heartbeat_ms} ms");
        println!(
            "memory: {:.1} kB a stream ({:.1} MB without, {:.1} MB with)",
            bytes / 1e3,
            before.resident_bytes as f64 / 1e6,
            after.resident_bytes as f64 / 1e6
        );
        println!("opening: {opening_us:.0} µs of processor time each");
        println!(
            "staying: {:.2} % of one processor, {signs} heartbeats in {seconds} s, {:.0} µs for each",
            100.0 * cpu / seconds as f64,
            cpu * 1e6 / signs.max(1) as f64
        );
    }
}
