//! Queries of a running service beside axum handlers that return constant bodies of the same size.
//! One run measures both in alternation, with the same load over kept-alive connections on
//! loopback, so that other work on the machine slows both.
//!
//! `cargo build --profile dist --bin receipts && cargo bench --profile dist -p receipts-tests
//! --bench query -- [--connections N] [--rounds N] [--slice-ms N] [--members N] [--case TEXT]
//! [--json]`
//!
//! A row's *of constant* compares requests per second, in which the load's own CPU time is
//! included; *by CPU* compares the CPU time per request of the answering process.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that measures and prints")]

#[allow(dead_code, reason = "shared with another bench")]
mod load;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::any;
use bytes::Bytes;
use load::{Ask, Usage};
use receipts_testkit::bench::{flag, number, text};
use receipts_tests::process::Service;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The allocator of the services, for the constant handlers too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SENT_AT_MS: u64 = 1_780_000_000_000;
/// Messages that the questions name in turn, and the members of their conversation.
const MESSAGES: usize = 3_000;
const PEOPLE: usize = 50;
const IDS: usize = 30;
const HELP: &str = "Queries of a running service beside constant handlers, in one run.

  --connections N   kept-alive connections (32)
  --rounds N        turns of all cases (5)
  --slice-ms N      how long each case is asked per round (1000)
  --members N       people of the large group (100000)
  --case TEXT       only the cases whose name holds it, such as '30 ids, one'
  --json            prints JSON

Example: cargo build --profile dist --bin receipts && cargo bench --profile dist -p receipts-tests --bench query -- --rounds 10";

/// A question, and the constant handler to compare it with.
struct Case {
    name: &'static str,
    /// The process that answers.
    process: u32,
    ask: Ask,
    took: Vec<Duration>,
    cpu: Duration,
}

impl Case {
    fn new(name: &'static str, process: u32, ask: Ask) -> Self {
        Self { name, process, ask, took: Vec::new(), cpu: Duration::ZERO }
    }

    fn per_second(&self, time: Duration) -> f64 {
        self.took.len() as f64 / time.as_secs_f64()
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.took.len() as f64
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        let at = ((self.took.len() - 1) as f64 * quantile) as usize;
        self.took[at].as_secs_f64() * 1e6
    }
}

fn main() {
    if flag("help") || std::env::args().any(|argument| argument == "-h") {
        println!("{HELP}");
    } else if flag("constant") {
        runtime().block_on(serve_constants());
    } else {
        runtime().block_on(run());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

/// Answers `/{bytes}` with a body of that size, and prints its address.
async fn serve_constants() {
    async fn constant(
        State(bodies): State<BTreeMap<usize, Bytes>>,
        Path(bytes): Path<usize>,
        _asked: Bytes,
    ) -> impl IntoResponse {
        ([(header::CONTENT_TYPE, "application/json")], bodies[&bytes].clone())
    }
    let sizes = text("constant").expect("sizes");
    let sizes = sizes.split(',').map(|bytes| bytes.parse::<usize>().expect("a size"));
    let bodies: BTreeMap<usize, Bytes> = sizes.map(|bytes| (bytes, vec![b'x'; bytes].into())).collect();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    // As in the service.
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true));
    let router = Router::new().route("/{bytes}", any(constant)).with_state(bodies);
    axum::serve(listener, router).await.expect("it serves");
}

/// Runs the constant handlers in a process of their own, like the service.
struct Constants {
    child: Child,
    address: String,
}

impl Constants {
    fn start(sizes: &[usize]) -> Self {
        let sizes = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let program = std::env::current_exe().expect("a running program has a path");
        let mut command = Command::new(program);
        let mut child = command.args(["--constant", &sizes]).stdout(Stdio::piped()).spawn().expect("this program runs");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut address).expect("an address");
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Constants {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn sent(conversation: &str, message: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": "user-0",
           "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
}

/// Writes the chats and returns a token that covers them.
fn write(service: &Service, members: usize) -> String {
    let people = |from: usize, to: usize| (from..to).map(|n| format!("user-{n}")).collect::<Vec<_>>();
    let joined = |conversation: &str, people: &[String]| json!({"type": "members.changed", "conversation_id": conversation, "joined": people});
    let ids: Vec<String> = (0..MESSAGES).map(|n| format!("message-{n:08}")).collect();
    let mut events = vec![joined("group", &people(0, PEOPLE))];
    events.extend(ids.iter().map(|id| sent("group", id)));
    for (reader, reads) in (1..PEOPLE).flat_map(|reader| ids.chunks(100).map(move |reads| (reader, reads))) {
        let reads: Vec<_> = reads.iter().skip(reader % 7).collect();
        events.push(json!({"type": "message.read", "conversation_id": "group", "reader_id": format!("user-{reader}"), "message_ids": reads}));
    }
    for first in (0..members).step_by(5_000) {
        events.push(joined("large", &people(first, members.min(first + 5_000))));
    }
    events.push(sent("large", "all-hands"));
    // Every second member has read it.
    let read = |n: usize| json!({"type": "message.read", "conversation_id": "large", "reader_id": format!("user-{n}"), "message_ids": ["all-hands"]});
    events.extend((1..members).step_by(2).map(read));
    service.write_all(&events)
}

/// The cursor of the last page.
fn last_cursor(service: &Service, path: &str) -> String {
    let mut cursor = String::new();
    loop {
        let answer = service.get(&format!("{path}{}{cursor}", if cursor.is_empty() { "" } else { "&cursor=" }));
        match answer.body["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return cursor,
        }
    }
}

async fn run() {
    let connections = number("connections", 32) as usize;
    let (rounds, slice) = (number("rounds", 5) as u32, Duration::from_millis(number("slice-ms", 1_000)));
    let members = number("members", 100_000) as usize;
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &[]);
    eprintln!("writing {MESSAGES} messages to {PEOPLE} people, and one to {members}");
    let token = write(&service, members);
    _ = service.get_after("/v1/conversations/large/messages/all-hands/receipt", &token);

    let get = |path: String| Ask { address: service.address.clone(), path, body: Bytes::new() };
    let query = |conversation: Option<&str>| {
        // Neighbours in time, as on a screen.
        let ids: Vec<String> = (0..IDS).map(|n| format!("message-{:08}", MESSAGES - 100 + n)).collect();
        let mut body = json!({"message_ids": ids});
        if let Some(conversation) = conversation {
            body["conversation_id"] = conversation.into();
        }
        Ask { address: service.address.clone(), path: "/v1/receipts/query".into(), body: body.to_string().into() }
    };
    let list = "/v1/conversations/large/messages/all-hands/members?filter=unread&limit=100".to_owned();
    let last = format!("{list}&cursor={}", last_cursor(&service, &list));
    let asks = [
        ("query of 30 ids, one conversation", query(Some("group"))),
        ("query of 30 ids, any conversation", query(None)),
        ("single receipt", get(format!("/v1/conversations/group/messages/message-{:08}/receipt", MESSAGES - 100))),
        ("list of 100, first page", get(list)),
        ("list, last page", get(last)),
    ];
    let wanted = text("case").unwrap_or_default();
    let asks: Vec<_> = asks.into_iter().filter(|(name, _)| name.contains(&wanted)).collect();
    let mut sizes = Vec::new();
    for (_, ask) in &asks {
        sizes.push(ask.answer_bytes().await);
    }
    let constants = Constants::start(&sizes);
    let mut pairs: Vec<(Case, Case)> = Vec::new();
    for ((name, ask), bytes) in asks.into_iter().zip(&sizes) {
        let constant = Ask { address: constants.address.clone(), path: format!("/{bytes}"), ..ask.clone() };
        pairs.push((Case::new(name, service.id(), ask), Case::new("constant", constants.child.id(), constant)));
    }
    for round in 0..=rounds {
        for case in pairs.iter_mut().flat_map(|(ours, constant)| [constant, ours]) {
            let before = Usage::of(case.process).cpu;
            let took = case.ask.load(connections, slice).await;
            // The first round warms up.
            if round > 0 {
                case.took.extend(took);
                case.cpu += Usage::of(case.process).cpu - before;
            }
        }
        eprintln!("round {round} of {rounds}");
    }
    let time = slice * rounds;
    for case in pairs.iter_mut().flat_map(|(ours, constant)| [constant, ours]) {
        case.took.sort_unstable();
    }
    report(&pairs, &sizes, time, connections);
    drop(service);
}

fn report(pairs: &[(Case, Case)], sizes: &[usize], time: Duration, connections: usize) {
    let row = |case: &Case| {
        json!({"requests_per_s": case.per_second(time), "p50_us": case.quantile_us(0.5), "p99_us": case.quantile_us(0.99),
               "cpu_us_per_request": case.cpu_us()})
    };
    if flag("json") {
        let rows: Vec<Value> = pairs
            .iter()
            .zip(sizes)
            .map(|((ours, constant), bytes)| {
                json!({"case": ours.name, "answer_bytes": bytes, "connections": connections, "service": row(ours), "constant": row(constant),
                       "of_constant": ours.per_second(time) / constant.per_second(time),
                       "of_constant_by_cpu": constant.cpu_us() / ours.cpu_us()})
            })
            .collect();
        println!("{}", json!(rows));
        return;
    }
    println!("{connections} connections, {:.0} s a row in turns\n", time.as_secs_f64());
    println!("| case | bytes | requests/s | of constant | by CPU | p50 | p99 | CPU a request |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for ((ours, constant), bytes) in pairs.iter().zip(sizes) {
        for case in [constant, ours] {
            let is_ours = std::ptr::eq(case, ours);
            let share = |ratio: f64| if is_ours { format!("{:.0} %", 100.0 * ratio) } else { String::new() };
            println!(
                "| {} | {bytes} | {:.0} | {} | {} | {:.2} ms | {:.2} ms | {:.0} µs |",
                case.name,
                case.per_second(time),
                share(ours.per_second(time) / constant.per_second(time)),
                share(constant.cpu_us() / ours.cpu_us()),
                case.quantile_us(0.5) / 1e3,
                case.quantile_us(0.99) / 1e3,
                case.cpu_us(),
            );
        }
    }
}
