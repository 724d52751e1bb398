//! A soak: hours of mixed load on a running service at half of its maximum, with questions, open
//! streams and snapshots. Prints a row per minute: rate, memory, disk, latency, errors. The verdict
//! says whether they stayed flat, and whether `receipts verify` finds that store and snapshots
//! equal the fold of the log. Repairs nothing and repeats no minute.
//!
//! `cargo build --profile dist --bin receipts && cargo bench --profile dist -p receipts-tests
//! --bench soak -- [--minutes N] [--rate EVENTS] …`
//!
//! Messages expire after some minutes, so that the state reaches its size soon. The embedded log
//! keeps everything and grows: there, the bytes per event must be flat.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that measures and prints")]

mod chat;
mod drive;
#[allow(dead_code, reason = "shared with other benches")]
#[path = "../load/mod.rs"]
mod load;
mod minutes;

use chat::Chat;
use drive::Load;
use load::Usage;
use minutes::{Minute, Sizes, verdicts};
use receipts_testkit::bench::{self, flag, number};
use receipts_tests::process::{self, Service};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The allocator of the services.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HELP: &str = "A soak: mixed load on a running service at half of what it takes.

  --minutes N         how long, after the burst (60)
  --rate N            events a second (half of what the burst shows)
  --rate-max N        at most this rate, where the log would not fit on the disk (no limit)
  --burst-s N         how long the most is measured (20)
  --connections N     connections that write (32)
  --body-events N     events a body in the mean (4)
  --queries N         questions a second (50)
  --large N           people of the largest group (100000)
  --retention-ms N    after what time messages are forgotten (300000)
  --memory-mb N       memory for pages, projector.memory_bytes (512)
  --snapshot-ms N     how often a snapshot is taken (120000)
  --dir DIR           where data and snapshots are (a temporary directory); stays, and must be empty or new
  --kafka-bootstrap HOST:PORT   a Kafka instead of the embedded log
  --json              prints JSON; the rows go to standard error

Ends with 1 where something is not flat, not clean, or was answered wrongly.
Example: cargo build --profile dist --bin receipts && cargo bench --profile dist -p receipts-tests --bench soak -- --minutes 60";
/// Questions per second of one task, which waits for each answer: few, so that its waiting is not
/// taken for the service's.
const QUESTIONS_OF_ONE: u64 = 10;
/// The share of the rate that must be written: a machine that cannot bear the load shows nothing
/// flat.
const RATE_KEPT: f64 = 0.95;
/// An update that takes longer counts as missing.
const UNHEARD: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if flag("help") || std::env::args().any(|argument| argument == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match tokio::runtime::Runtime::new().expect("a runtime").block_on(run()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Unix milliseconds.
fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the load is a client with a clock of its own")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn say(line: &str) {
    if flag("json") { eprintln!("{line}") } else { println!("{line}") }
}

async fn run() -> bool {
    let temporary = tempfile::tempdir().expect("a folder");
    let dir = bench::text("dir").map_or_else(|| temporary.path().to_owned(), Into::into);
    let (data, snapshots) = (dir.join("data"), dir.join("snapshots"));
    let minutes = number("minutes", 60);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut settings = vec!["--projector-retention-ms".to_owned(), number("retention-ms", 300_000).to_string()];
    settings.extend(["--snapshot-url".to_owned(), text(&snapshots)]);
    if let Some(bootstrap) = bench::text("kafka-bootstrap") {
        settings.extend(["--kafka-bootstrap".to_owned(), bootstrap]);
    }
    let of_service = [
        ("--snapshot-interval-ms", number("snapshot-ms", 120_000)),
        ("--projector-memory-bytes", number("memory-mb", 512) << 20),
    ];
    let of_service = of_service.map(|(flag, value)| [flag.to_owned(), value.to_string()]).concat();
    let of_service: Vec<&str> = settings.iter().chain(&of_service).map(String::as_str).collect();
    let service = Service::serve(&data, &of_service);

    let chat = Chat::new(number("seed", 1), number("large", 100_000));
    let token = service.write_all(&chat.beginning());
    let load = Load::new(&service.address, number("body-events", 4), chat, now_ms);
    drive::fold_up_to(&load, &token).await;
    let connections = number("connections", 32) as usize;
    let most = burst(&load, connections, Duration::from_secs(number("burst-s", 20))).await;
    let rate = number("rate", (most / 2.0) as u64).min(number("rate-max", u64::MAX));
    say(&format!("at most {most:.0} events/s were taken and folded; {rate} are written for {minutes} minutes\n"));

    drive::listen(&load);
    tokio::spawn(drive::probe(Arc::clone(&load)));
    let questions = number("queries", 50);
    let askers = questions.div_ceil(QUESTIONS_OF_ONE);
    for asker in 0..askers {
        let rate = questions as f64 / askers as f64;
        tokio::spawn(drive::query(Arc::clone(&load), asker + 100, rate));
    }
    _ = load.take();
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let writing = tokio::spawn({
        let load = Arc::clone(&load);
        async move { drive::write(&load, connections, Some(rate as f64), until).await }
    });
    let mut rows: Vec<Minute> = Vec::new();
    say(Minute::HEAD);
    let (mut sizes, mut cpu) = (Sizes::of(&data, &snapshots), Usage::of(service.id()).cpu);
    for minute in 1..=minutes {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut seen = load.take();
        let unheard = load.unheard(UNHEARD) as u64;
        let usage = Usage::of(service.id());
        let after = Sizes::of(&data, &snapshots);
        seen.errors += unheard;
        if unheard > 0 {
            seen.first_error.get_or_insert(format!("INV-STREAM: {unheard} probes have no update after {UNHEARD:?}"));
        }
        let row = Minute::new(minute, began.elapsed(), seen, usage, usage.cpu - cpu, &sizes, after.clone());
        say(&row.line());
        (sizes, cpu) = (after, usage.cpu);
        rows.push(row);
    }
    let (events, token) = writing.await.expect("no panic");
    drive::fold_up_to(&load, &token).await;
    load.stop();
    // The tasks that ask get their last answers before the service ends.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let exit = service.terminate();

    let flat = verdicts(&rows);
    let errors = rows.iter().map(|row| row.errors).sum::<u64>() + load.take().errors;
    let (store, kept) = (verify(&data, &settings, &[]), verify(&data, &settings, &["--snapshots"]));
    let is_clean = |(code, _): &(Option<i32>, Vec<Value>)| *code == Some(0);
    let is_flat = flat.iter().all(|verdict| verdict.is_flat);
    let written = events as f64 / (60 * minutes * rate) as f64;
    let is_good =
        is_flat && written > RATE_KEPT && errors == 0 && exit == Some(0) && is_clean(&store) && is_clean(&kept);
    if flag("json") {
        println!(
            "{}",
            json!({"most_events_per_s": most, "rate_events_per_s": rate, "events": events, "settings": of_service, "minutes": rows,
                   "flat": flat, "errors": errors, "exit_code": exit, "of_rate": written,
                   "verify": {"clean": is_clean(&store), "partitions": store.1},
                   "verify_snapshots": {"clean": is_clean(&kept), "partitions": kept.1}, "good": is_good})
        );
        return is_good;
    }
    println!();
    for verdict in &flat {
        println!("{}", verdict.sentence());
    }
    println!(
        "{events} events were acknowledged, {:.1} % of the rate; {errors} errors; exit code {exit:?}",
        100.0 * written
    );
    for (what, verified) in [("receipts verify", &store), ("receipts verify --snapshots", &kept)] {
        println!("{what}: {}", if is_clean(verified) { "clean" } else { "NOT CLEAN" });
        verified.1.iter().for_each(|line| println!("  {line}"));
    }
    println!("{}", if is_good { "flat and clean" } else { "NOT flat and clean" });
    is_good
}

/// Measures how many events per second the service acknowledges and folds at full load.
async fn burst(load: &Arc<Load>, connections: usize, time: Duration) -> f64 {
    say(&format!("a burst of {} s", time.as_secs()));
    let began = Instant::now();
    let (events, token) = drive::write(load, connections, None, began + time).await;
    drive::fold_up_to(load, &token).await;
    events as f64 / began.elapsed().as_secs_f64()
}

/// Runs `receipts verify`. Returns its exit code and its output, a line per partition; the last
/// line is the error.
fn verify(data: &Path, settings: &[String], more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut arguments = vec!["verify", "--json", "--data-dir", data.to_str().expect("UTF-8")];
    arguments.extend(more);
    arguments.extend(settings.iter().map(String::as_str));
    let output = process::run("receipts", &arguments);
    let mut lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into()))
        .collect();
    if !output.status.success() {
        lines.push(process::errors(&output).lines().last().unwrap_or_default().into());
    }
    (output.status.code(), lines)
}
