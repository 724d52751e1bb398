//! Posts and reads of two builds, or of one build with two settings, on one real Kafka: each side
//! has an ingest, three projectors, a standby, two edges, and topics of its own.
//!
//! `cargo test --workspace --all-features --bench latency -- --a DIR --b DIR [--help]`
//!
//! Both sides are asked in turns, one request at a time, so that other work on the machine slows
//! both. Read the ratios. `--connections` measures posts under load instead, with the CPU time of
//! ingest and broker.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that measures and prints")]

#[allow(dead_code, reason = "shared with another bench")]
mod load;

use bytes::Bytes;
use load::{Ask, Sender, Usage, connect, send};
use receipts_log::testing::Broker;
use receipts_testkit::bench::{flag, number, text};
use receipts_tests::kafka::Kafka;
use receipts_tests::process::Service;
use receipts_tests::{receipt_path, root};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const HELP: &str = "Posts and reads of two builds in turns, on one real Kafka.

  --a DIR, --b DIR       where each side's receipts-ingest, receipts-projector and receipts-query lie
  --flags-a, --flags-b   more flags of ingest and projectors, such as '--kafka-properties linger.ms=5'
  --tries N              posts and reads of each side (500)
  --partitions N         of the event topics (12)
  --connections N,...    measures posts under load instead, at each number of connections
  --events N,...         events per body under load (1)
  --rounds N             turns of both sides under load (6)
  --slice-ms N           how long each side is asked at a time (2000)
  --json                 prints JSON

Example: cargo test --workspace --all-features --bench latency -- --a old/release --b target/release";

/// Tries of each side that are not counted.
const WARM_UP: usize = 30;
const SENT_AT_MS: u64 = 1_780_000_000_000;

/// One side of the comparison: a service of its own.
struct Side {
    ingest: Service,
    edges: Vec<Service>,
    _projectors: Vec<Service>,
    _data: tempfile::TempDir,
}

impl Side {
    /// Starts a side; without projectors and edges if only posts are measured.
    fn start(broker: &Broker, name: &str, posts_only: bool) -> Self {
        let folder = PathBuf::from(text(name).unwrap_or_else(|| panic!("--{name} DIR is missing; --help says more")));
        let kafka = Kafka::named(broker, name);
        let mut flags = kafka.flags();
        flags.extend(["--log-partitions".to_owned(), number("partitions", 12).to_string()]);
        let more = text(&format!("flags-{name}")).unwrap_or_default();
        flags.extend(more.split_whitespace().map(str::to_owned));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let data = tempfile::tempdir().expect("a folder");
        let start = |name: &str, own: &[&str]| Service::start_from(&folder, name, own);
        let ingest = start("receipts-ingest", &[&["--http-listen", "127.0.0.1:0"], &flags[..]].concat());
        let (mut projectors, mut edges) = (Vec::new(), Vec::new());
        for number in (0..4).filter(|_| !posts_only) {
            let dir = data.path().join(number.to_string());
            let own = ["--listen", "127.0.0.1:0", "--data-dir", dir.to_str().expect("UTF-8")];
            let standby: &[&str] = if number == 3 { &["--standby"] } else { &[] };
            projectors.push(start("receipts-projector", &[&own, standby, &flags].concat()));
        }
        let addresses: Vec<&str> = projectors.iter().map(|projector| projector.address.as_str()).collect();
        for _ in (0..2).filter(|_| !posts_only) {
            edges
                .push(start("receipts-query", &["--http-listen", "127.0.0.1:0", "--projectors", &addresses.join(",")]));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while edges.iter().any(|edge| edge.get("/readyz").status != 200) {
            assert!(Instant::now() < deadline, "the edges of {name} are not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { ingest, edges, _projectors: projectors, _data: data }
    }
}

fn main() {
    if flag("help") || std::env::args().any(|argument| argument == "-h") {
        println!("{HELP}");
        return;
    }
    let broker = Broker::start(1).expect("a broker");
    let numbers = |name: &str, default: &str| -> Vec<usize> {
        let text = text(name).unwrap_or_else(|| default.to_owned());
        text.split(',').map(|number| number.parse().expect("a number")).collect()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if text("connections").is_some() {
        let sides = ["a", "b"].map(|name| Side::start(&broker, name, true));
        let broker = broker_process(&broker);
        let rows = numbers("events", "1").into_iter().flat_map(|events| {
            numbers("connections", "1").into_iter().map(move |connections| (events, connections)).collect::<Vec<_>>()
        });
        let rows = rows.map(|(events, connections)| {
            let row = runtime.block_on(post_under_load(&sides, broker, events, connections));
            eprintln!("{events} events a body, {connections} connections: done");
            row
        });
        report_load(&rows.collect::<Vec<_>>());
    } else {
        let sides = ["a", "b"].map(|name| Side::start(&broker, name, false));
        let tries = number("tries", 500) as usize;
        report(&runtime.block_on(post_and_read(&sides, tries)));
    }
}

/// The durations of one kind of request.
#[derive(Default)]
struct Durations(Vec<Duration>);

impl Durations {
    fn ms(&mut self, quantile: f64) -> f64 {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e3
    }
}

const KINDS: [&str; 4] = ["post", "read with position", "both", "read without"];

/// The durations of each side, by kind.
type Measured = [[Durations; KINDS.len()]; 2];

/// The kept-alive connections to one side.
struct Connections {
    ingest: Sender,
    edges: Vec<Sender>,
}

/// Posts a message with its first read, reads the receipt with the token of the post and then
/// without, at each side by turns.
async fn post_and_read(sides: &[Side; 2], tries: usize) -> Measured {
    let mut connections = Vec::new();
    for side in sides {
        let mut edges = Vec::new();
        for edge in &side.edges {
            edges.push(connect(&edge.address).await);
        }
        connections.push(Connections { ingest: connect(&side.ingest.address).await, edges });
    }
    let mut measured = Measured::default();
    for number in 0..WARM_UP + tries {
        // Which side goes first alternates, too.
        for at in [number % 2, 1 - number % 2] {
            let took = try_once(&sides[at], &mut connections[at], number).await;
            if number >= WARM_UP {
                measured[at].iter_mut().zip(took).for_each(|(durations, took)| durations.0.push(took));
            }
        }
    }
    measured
}

async fn try_once(side: &Side, connections: &mut Connections, number: usize) -> [Duration; KINDS.len()] {
    let (conversation, message) = (format!("g{}", number % 100), format!("m{number}"));
    let body = json!([
        {"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": "alice",
         "sent_at_ms": SENT_AT_MS, "need_read_receipt": true, "recipients": ["bob", "carol"]},
        {"type": "message.read", "conversation_id": conversation, "reader_id": "bob", "message_ids": [message]},
    ]);
    let post = Ask { address: side.ingest.address.clone(), path: "/v1/events".into(), body: body.to_string().into() };
    let began = Instant::now();
    let (status, answer) = send(&mut connections.ingest, &post, &[]).await.expect("an answer");
    let posted = began.elapsed();
    assert_eq!(status, 202, "{answer:?}");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let token = answer["position"].as_str().expect("a token");
    let at = number % side.edges.len();
    let path = receipt_path(&conversation, &message);
    let get = Ask { address: side.edges[at].address.clone(), path, body: Default::default() };
    let began = Instant::now();
    let (status, answer) =
        send(&mut connections.edges[at], &get, &[("Receipts-Min-Position", token)]).await.expect("an answer");
    let read = began.elapsed();
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!((status, &answer["read_count"]), (200, &json!(1)), "{answer}");
    let began = Instant::now();
    let (status, _) = send(&mut connections.edges[at], &get, &[]).await.expect("an answer");
    let plain = began.elapsed();
    assert_eq!(status, 200);
    [posted, read, posted + read, plain]
}

fn report(measured: &Measured) {
    let mut rows = Vec::new();
    for (at, kind) in KINDS.iter().enumerate() {
        let row = |quantile: f64| [0, 1].map(|side: usize| Durations(measured[side][at].0.clone()).ms(quantile));
        rows.push((kind, row(0.5), row(0.99)));
    }
    if flag("json") {
        let row = |(kind, p50, p99): &(&&str, [f64; 2], [f64; 2])| json!({"request": kind, "p50_ms": p50, "p99_ms": p99, "p50_ratio": p50[1] / p50[0], "p99_ratio": p99[1] / p99[0]});
        println!("{}", json!(rows.iter().map(row).collect::<Vec<_>>()));
        return;
    }
    println!("{} tries a side in turns, ms\n", measured[0][0].0.len());
    println!("| request | a p50 | b p50 | b of a | a p99 | b p99 | b of a |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (kind, [a50, b50], [a99, b99]) in rows {
        println!("| {kind} | {a50:.2} | {b50:.2} | **{:.2}** | {a99:.2} | {b99:.2} | {:.2} |", b50 / a50, b99 / a99);
    }
}

/// What one side did under one load.
#[derive(Default)]
struct Loaded {
    took: Durations,
    ingest_cpu: Duration,
    broker_cpu: Duration,
}

struct LoadRow {
    events: usize,
    connections: usize,
    sides: [Loaded; 2],
}

/// Posts bodies over some connections, at each side by turns. Each connection has conversations of
/// its own, which lie in all partitions.
async fn post_under_load(sides: &[Side; 2], broker: u32, events: usize, connections: usize) -> LoadRow {
    let slice = Duration::from_millis(number("slice-ms", 2_000));
    let mut row = LoadRow { events, connections, sides: Default::default() };
    let bodies: Vec<_> = (0..connections).map(|number| bodies(number, events)).collect();
    for round in 0..=number("rounds", 6) as usize {
        for at in [round % 2, 1 - round % 2] {
            let side = &sides[at];
            let address = &side.ingest.address;
            let mut posting = Vec::new();
            for bodies in &bodies {
                posting.push((connect(address).await, address.clone(), bodies.clone()));
            }
            let before = [side.ingest.id(), broker].map(|process| Usage::of(process).cpu);
            let end = Instant::now() + slice;
            let posting = posting.into_iter();
            let posting =
                posting.map(|(sender, address, bodies)| tokio::spawn(post_until(sender, address, bodies, end)));
            let mut took = Vec::new();
            for posted in posting.collect::<Vec<_>>() {
                took.extend(posted.await.expect("no panic"));
            }
            // The first round warms up.
            if round > 0 {
                let loaded = &mut row.sides[at];
                loaded.took.0.extend(took);
                loaded.ingest_cpu += Usage::of(side.ingest.id()).cpu - before[0];
                loaded.broker_cpu += Usage::of(broker).cpu - before[1];
            }
        }
    }
    row
}

/// The bodies that one connection posts, in turn.
fn bodies(number: usize, events: usize) -> Vec<Bytes> {
    let body = |post: usize| {
        let event = |at: usize| {
            json!({"type": "message.read", "conversation_id": format!("c{number}-{}", (post + at) % 64),
                   "reader_id": format!("user-{at}"), "message_ids": [format!("message-{post:08}")]})
        };
        let body: Value = if events == 1 { event(0) } else { (0..events).map(event).collect() };
        body.to_string().into()
    };
    (0..16).map(body).collect()
}

async fn post_until(mut sender: Sender, address: String, bodies: Vec<Bytes>, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    for body in bodies.into_iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        let ask = Ask { address: address.clone(), path: "/v1/events".into(), body };
        let began = Instant::now();
        let (status, answer) = send(&mut sender, &ask, &[]).await.expect("an answer");
        assert_eq!(status, 202, "{answer:?}");
        took.push(began.elapsed());
    }
    took
}

fn report_load(rows: &[LoadRow]) {
    let seconds = number("slice-ms", 2_000) as f64 / 1e3 * number("rounds", 6) as f64;
    let (mut table, mut values) = (Vec::new(), Vec::new());
    for LoadRow { events, connections, sides } in rows {
        let figures = sides.each_ref().map(|Loaded { took, ingest_cpu, broker_cpu }| {
            let total = (took.0.len() * events) as f64;
            let cpu_us = |cpu: &Duration| cpu.as_secs_f64() * 1e6 / total;
            let mut took = Durations(took.0.clone());
            [total / seconds, took.ms(0.5), took.ms(0.99), cpu_us(ingest_cpu), cpu_us(broker_cpu)]
        });
        let [a, b] = figures;
        values.push(json!({"events": events, "connections": connections, "a": a, "b": b}));
        let cells = (0..a.len()).map(|at| format!("{:.1} | {:.1} | {:.2}", a[at], b[at], b[at] / a[at]));
        table.push(format!("| {events} | {connections} | {} |", cells.collect::<Vec<_>>().join(" | ")));
    }
    if flag("json") {
        println!("{}", json!(values));
        return;
    }
    println!("{seconds:.0} s a side in turns; each figure as a, b, and b of a\n");
    println!(
        "| events a body | connections | events/s |||  p50 ms ||| p99 ms ||| ingest CPU µs an event ||| broker CPU µs an event |||"
    );
    table.iter().for_each(|row| println!("{row}"));
}

/// The process of the broker's only node.
fn broker_process(broker: &Broker) -> u32 {
    let bootstrap = broker.bootstrap();
    let port = bootstrap.rsplit(':').next().expect("a port");
    let folder = std::env::var_os("KAFKA_DIR").map_or_else(|| root().join(".kafka"), PathBuf::from);
    let pid = std::fs::read_to_string(folder.join(port).join("pid")).expect("the node runs");
    pid.trim().parse().expect("a number")
}
