//! `receipts bench`: a bounded load of events and reads against one's own service, over HTTP like
//! any client, with a report. Measures one run; compares no builds (`tests/benches` does).

use crate::consent::{can_ask, consents};
use anyhow::anyhow;
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use receipts_client::{Client, Error, event};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use receipts_runtime::{clock, shutdown, telemetry};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts bench --url http://127.0.0.1:8080
  receipts bench --url http://127.0.0.1:8080 --events-per-second 2000 --seconds 30 --connections 16 --yes
  receipts bench --url https://receipts.example.com --token-file token --group-size 200 --yes --json";

/// Events of one post: a message, and the read of one of its recipients.
const EVENTS_PER_POST: u64 = 2;
/// A request is given up after this time, and a read waits for its position as long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that is told apart, microseconds.
const TIME_US_MAX: u64 = 60_000_000;
/// Significant digits of the quantiles.
const DIGITS: u8 = 3;
/// About the size of an event in the log, bytes; each member of a group adds some to the roster.
const EVENT_BYTES: u64 = 200;
/// Members of one roster event.
const ROSTER_MEMBERS: usize = 1_000;
/// How long a run may wait to be asked about by a person, or to report progress.
const TICK: Duration = Duration::from_millis(200);

/// Arguments of `receipts bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Base URL of the running service, of the process that takes events.
    #[arg(long, value_name = "URL")]
    url: String,
    /// Base URL to read from, if another process answers queries.
    #[arg(long, value_name = "URL")]
    query_url: Option<String>,
    /// Events per second, over all connections.
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    events_per_second: u32,
    /// How long the load lasts.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Members of each conversation.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    group_size: u32,
    /// Connections; each has a conversation of its own, and one request under way at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// File that holds a bearer token with the scopes receipts:write and receipts:members. It
    /// decides the tenant.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Tenant of the load, for a service without tokens; one of its own if not given.
    #[arg(long, value_name = "TENANT", conflicts_with = "token_file")]
    tenant: Option<String>,
    /// Asks for no confirmation; without a terminal the command never asks.
    #[arg(short, long)]
    yes: bool,
}

/// The result as JSON. Times are in milliseconds.
#[derive(Serialize)]
struct Report {
    url: String,
    /// Absent if a token decides it.
    tenant: Option<String>,
    group_size: u32,
    connections: u32,
    seconds: f64,
    interrupted: bool,
    /// Events that the service has acknowledged, and that stay in its log.
    events: u64,
    events_per_second_wanted: u32,
    events_per_second: f64,
    /// From the time at which a post was due: a post that had to wait for the one before counts
    /// with its wait.
    post: Quantiles,
    /// A read of the receipt that waits for the position of the post before.
    read: Quantiles,
    /// Failed requests by reason.
    errors: BTreeMap<String, u64>,
    /// Receipts that did not count the read.
    wrong_receipts: u64,
}

/// The times of one kind of request, in milliseconds.
#[derive(Serialize)]
struct Quantiles {
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Quantiles {
    fn of(times: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        let at = |quantile| ms(times.value_at_quantile(quantile));
        Self { count: times.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: ms(times.max()) }
    }
}

/// The measurements of one connection, or of all.
struct Measured {
    post: Histogram<u64>,
    read: Histogram<u64>,
    events: u64,
    errors: BTreeMap<String, u64>,
    wrong_receipts: u64,
}

impl Measured {
    fn new() -> Self {
        let times = || Histogram::new_with_max(TIME_US_MAX, DIGITS).expect("bounds that the histogram takes");
        Self { post: times(), read: times(), events: 0, errors: BTreeMap::new(), wrong_receipts: 0 }
    }

    fn add(&mut self, other: &Self) {
        self.post.add(&other.post).expect("histograms of the same bounds");
        self.read.add(&other.read).expect("histograms of the same bounds");
        self.events += other.events;
        self.wrong_receipts += other.wrong_receipts;
        for (reason, count) in &other.errors {
            *self.errors.entry(reason.clone()).or_default() += count;
        }
    }

    fn failed(&mut self, what: &str, error: &Error) {
        let reason = error.problem().map_or_else(|| error.to_string(), |problem| problem.title.clone());
        *self.errors.entry(format!("{what}: {reason}")).or_default() += 1;
    }
}

/// One connection: its clients, and the conversation that it writes into.
struct Connection {
    number: u32,
    writer: Client,
    reader: Client,
    conversation: String,
    members: Vec<String>,
    /// The time between two posts, and the time until the first one.
    interval: Duration,
    offset: Duration,
    posts: u64,
}

/// Runs the load.
///
/// # Errors
/// Wrong usage, no consent, a service that takes no events, failed requests, or wrong receipts.
pub(crate) fn run(settings: &Settings, asked: &Bench, json: bool) -> Result<(), Failure> {
    telemetry::init(&settings.telemetry)?;
    let token = asked.token_file.as_ref().map(|path| {
        let token = std::fs::read_to_string(path);
        token.map_err(|error| Failure::usage(format!("--token-file {}: cannot be read: {error}", path.display())))
    });
    let token = token.transpose()?;
    let tenant = match (&token, &asked.tenant) {
        (Some(_), _) => None,
        (None, Some(tenant)) => Some(tenant.clone()),
        (None, None) => Some(format!("bench-{:x}", clock::unix_ms())),
    };
    let connections = connections(asked, token.as_deref().map(str::trim), tenant.as_deref())?;
    let notice = notice(asked, tenant.as_deref());
    if !asked.yes && can_ask() {
        if !consents(&notice)? {
            return Err(anyhow!("not confirmed, so nothing was written").into());
        }
    } else {
        tracing::info!("{notice}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (measured, took, interrupted) = runtime.block_on(load(asked, connections))?;
    let report = Report {
        url: asked.url.clone(),
        tenant,
        group_size: asked.group_size,
        connections: asked.connections,
        seconds: took.as_secs_f64(),
        interrupted,
        events: measured.events,
        events_per_second_wanted: asked.events_per_second,
        events_per_second: measured.post.len() as f64 * EVENTS_PER_POST as f64 / took.as_secs_f64(),
        post: Quantiles::of(&measured.post),
        read: Quantiles::of(&measured.read),
        errors: measured.errors,
        wrong_receipts: measured.wrong_receipts,
    };
    Output::stdout(json).write(&report, |to| write_report(to, &report))?;
    let failed = report.errors.values().sum::<u64>();
    match (failed + report.wrong_receipts, interrupted) {
        (0, false) => Ok(()),
        (0, true) => Err(anyhow!("interrupted: the report is of a shorter run").into()),
        _ => Err(anyhow!("{failed} requests failed, and {} receipts were wrong", report.wrong_receipts).into()),
    }
}

/// Says what a run writes, before it does.
fn notice(asked: &Bench, tenant: Option<&str>) -> String {
    let rosters = u64::from(asked.connections) * (asked.group_size as usize).div_ceil(ROSTER_MEMBERS) as u64;
    let events = u64::from(asked.events_per_second) * u64::from(asked.seconds) + rosters;
    let bytes = events * EVENT_BYTES + u64::from(asked.connections) * u64::from(asked.group_size) * 16;
    let tenant = tenant.map_or_else(|| "the token's tenant".to_owned(), |tenant| format!("the tenant {tenant:?}"));
    format!(
        "This writes up to {events} events, about {} kB, into {tenant} of {}. They stay in its log as long as other events do.",
        bytes.div_ceil(1_000),
        asked.url
    )
}

fn connections(asked: &Bench, token: Option<&str>, tenant: Option<&str>) -> Result<Vec<Connection>, Failure> {
    let client = |flag: &str, url: &str| {
        let builder = Client::builder(url).timeout(TIMEOUT).wait(TIMEOUT).retries(0);
        let builder = match (token, tenant) {
            (Some(token), _) => builder.token(token),
            (None, Some(tenant)) => builder.tenant(tenant),
            (None, None) => builder,
        };
        builder.build().map_err(|error| Failure::usage(format!("{flag}: {error}")))
    };
    let posts_per_second = f64::from(asked.events_per_second) / EVENTS_PER_POST as f64;
    let interval = Duration::from_secs_f64(f64::from(asked.connections) / posts_per_second);
    let run = clock::unix_ms();
    (0..asked.connections)
        .map(|number| {
            let offset = interval.mul_f64(f64::from(number) / f64::from(asked.connections));
            let lasts = Duration::from_secs(asked.seconds.into()).saturating_sub(offset);
            let query_url = asked.query_url.as_deref();
            Ok(Connection {
                number,
                writer: client("--url", &asked.url)?,
                reader: client("--query-url", query_url.unwrap_or(&asked.url))?,
                conversation: format!("bench-{run:x}-{number}"),
                members: (0..asked.group_size).map(|member| format!("bench-user-{member}")).collect(),
                interval,
                offset,
                posts: (lasts.as_secs_f64() / interval.as_secs_f64()).ceil() as u64,
            })
        })
        .collect()
}

/// Runs all connections until their posts are done, or a signal comes. Returns the measurements,
/// the time from the first post to the last answer, and whether a signal came.
async fn load(asked: &Bench, connections: Vec<Connection>) -> Result<(Measured, Duration, bool), Failure> {
    let stop = shutdown::on_signal()?;
    let mut all = Measured::new();
    for connection in &connections {
        if stop.is_cancelled() {
            return Err(anyhow!("interrupted before the load began").into());
        }
        all.events += connection.make_conversation().await.map_err(|error| {
            let error = anyhow::Error::from(error);
            error.context(format!("{} took no events, so no load was made", asked.url))
        })?;
    }
    let bar = progress(asked);
    let begun = Instant::now();
    let mut running: JoinSet<Measured> =
        connections.into_iter().map(|connection| connection.run(begun, stop.clone())).collect();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(measured) => all.add(&measured.map_err(|error| anyhow!("a connection of the load panicked: {error}"))?),
                None => break,
            },
            _ = tick.tick() => bar.set_position(begun.elapsed().as_secs().min(asked.seconds.into())),
        }
    }
    bar.finish_and_clear();
    Ok((all, begun.elapsed(), stop.is_cancelled()))
}

fn progress(asked: &Bench) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(asked.seconds.into());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} s");
    bar.set_style(style.expect("a template that indicatif knows"));
    bar.set_message(format!("{} events a second", asked.events_per_second));
    bar
}

impl Connection {
    /// Writes the roster of the conversation. Returns the number of events.
    async fn make_conversation(&self) -> Result<u64, Error> {
        let mut events = 0;
        for members in self.members.chunks(ROSTER_MEMBERS) {
            let roster = event::members_changed(&self.conversation).joined(members.iter().map(String::as_str));
            self.writer.post_events(&[roster.build()]).await?;
            events += 1;
        }
        Ok(events)
    }

    async fn run(self, begun: Instant, stop: CancellationToken) -> Measured {
        let mut measured = Measured::new();
        for number in 0..self.posts {
            let due = begun + self.offset + self.interval.mul_f64(number as f64);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => break,
            }
            self.post_and_read(number, due, &mut measured).await;
        }
        measured
    }

    /// Posts a message with the first read of it, and reads its receipt.
    async fn post_and_read(&self, number: u64, due: Instant, measured: &mut Measured) {
        let message = format!("m{}-{number}", self.number);
        let sender = (number % self.members.len() as u64) as usize;
        let reader = &self.members[(sender + 1) % self.members.len()];
        let sent = event::message_sent(&self.conversation, &message, &self.members[sender], clock::unix_ms());
        let read = event::message_read(&self.conversation, reader, [message.as_str()]);
        match self.writer.post_events(&[sent.need_read_receipt().build(), read.build()]).await {
            Ok(accepted) => {
                measured.post.saturating_record(micros(due.elapsed()));
                measured.events += EVENTS_PER_POST;
                self.reader.observe_position(&accepted.position);
            }
            Err(error) => return measured.failed("post", &error),
        }
        let asked = Instant::now();
        match self.reader.receipt(&self.conversation, &message).await {
            Ok(receipt) => {
                measured.read.saturating_record(micros(asked.elapsed()));
                let is_right = receipt.counts.is_some_and(|counts| counts.read_count == 1);
                measured.wrong_receipts += u64::from(!is_right);
            }
            Err(error) => measured.failed("read", &error),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Report { events_per_second, events_per_second_wanted, events, seconds, .. } = report;
    writeln!(
        to,
        "{events} events in {seconds:.1} s: {events_per_second:.0} a second of {events_per_second_wanted} wanted"
    )?;
    writeln!(to, "{} connections, groups of {}", report.connections, report.group_size)?;
    writeln!(to)?;
    writeln!(to, "{:<22} {:>9} {:>10} {:>10} {:>10}", "ms", "count", "p50", "p99", "max")?;
    for (name, times) in [("post", &report.post), ("read with position", &report.read)] {
        let Quantiles { count, p50_ms, p99_ms, max_ms } = times;
        writeln!(to, "{name:<22} {count:>9} {p50_ms:>10.2} {p99_ms:>10.2} {max_ms:>10.2}")?;
    }
    writeln!(to)?;
    for (reason, count) in &report.errors {
        writeln!(to, "{count} failed: {}", printable(reason))?;
    }
    let failed = report.errors.values().sum::<u64>();
    writeln!(to, "{failed} failed requests, {} wrong receipts", report.wrong_receipts)?;
    if let Some(tenant) = &report.tenant {
        writeln!(to, "The events stay in the log, in the tenant {}.", printable(tenant))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn parsed(more: &[&str]) -> Result<Bench, clap::Error> {
        let line = [&["bench", "--url", "http://127.0.0.1:1"], more].concat();
        Line::try_parse_from(line).map(|line| line.bench)
    }

    #[test]
    fn posts_add_up_to_the_wanted_events() {
        for (rate, seconds, connections) in [(200, 10, 8), (2, 1, 8), (1_001, 3, 7), (100_000, 600, 9)] {
            let flags = [("--events-per-second", rate), ("--seconds", seconds), ("--connections", connections)];
            let flags: Vec<String> = flags.iter().flat_map(|(flag, n)| [(*flag).to_owned(), n.to_string()]).collect();
            let asked = parsed(&flags.iter().map(String::as_str).collect::<Vec<_>>()).expect("parsed");
            let posts: u64 = connections_of(&asked).iter().map(|connection| connection.posts).sum();
            let wanted = u64::from(asked.events_per_second) * u64::from(asked.seconds) / EVENTS_PER_POST;
            assert!(posts.abs_diff(wanted) <= u64::from(asked.connections), "{posts} of {wanted}");
        }
    }

    fn connections_of(asked: &Bench) -> Vec<Connection> {
        connections(asked, None, Some("t")).unwrap_or_else(|_| panic!("a URL"))
    }

    #[test]
    fn unbounded_loads_are_refused() {
        for (flag, value) in [
            ("--seconds", "0"),
            ("--seconds", "601"),
            ("--events-per-second", "100001"),
            ("--group-size", "1"),
            ("--connections", "1001"),
        ] {
            assert!(parsed(&[flag, value]).is_err(), "{flag} {value}");
        }
    }
}
