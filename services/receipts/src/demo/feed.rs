//! Feeds the chat into the log, as any producer does, and waits until the projector has folded it.
//! Shows progress on standard error, as a bar on a terminal and as log lines elsewhere.

use super::chat::ChatEvent;
use crate::service::AllInOne;
use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use receipts_assembly::Service as _;
use receipts_log::{Entry, PendingAppend, Writer};
use receipts_query::{Answers, Positions};
use receipts_runtime::exit::Failure;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The most appends without an outcome.
const PENDING_MAX: usize = 32_768;
/// How long folding may take after the last event is written.
const FOLD_TIMEOUT: Duration = Duration::from_secs(300);
const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The result of feeding. Times count from the first append.
pub(crate) struct Fed {
    /// Number of records; a control event counts once per partition.
    pub(crate) events: u64,
    /// The positions after the last records.
    pub(crate) positions: Positions,
    /// The time until the log had acknowledged all records.
    pub(crate) written: Duration,
    /// The time until all records were folded.
    pub(crate) folded: Duration,
}

/// Feeds all events in order, and returns once they are folded.
///
/// # Errors
/// If the log does not accept an event, folding takes too long, or the service ends by itself.
pub(crate) async fn feed(service: &mut AllInOne, events: Vec<ChatEvent>) -> Result<Fed, Failure> {
    let record_count = events.iter().map(|event| event.values.len() as u64).sum();
    let partitions = service.partitions().clone();
    let before = folded_records(&partitions.positions());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = mpsc::channel(PENDING_MAX);
    let begun = Instant::now();
    let appender = {
        let writer = service.writer();
        // Appending blocks while the log's queue is full. It ends early once the receiver of
        // outcomes is dropped.
        std::thread::Builder::new().name("demo-feed".into()).spawn(move || append(&*writer, events, &sender))?
    };
    let work = async {
        let positions = outcomes(receiver, &acknowledged).await?;
        if appender.join().is_err() {
            return Err(anyhow!("feeding panicked; this is a bug: please report it with the log"));
        }
        let written = begun.elapsed();
        let folded = Answers::wait(&partitions, &positions, FOLD_TIMEOUT).await;
        folded.context("the events are written, but folding them takes too long")?;
        Ok(Fed { events: record_count, positions, written, folded: begun.elapsed() })
    };
    tokio::pin!(work);
    let mut progress = Progress::new(record_count);
    let mut tick = tokio::time::interval(BAR_INTERVAL);
    loop {
        tokio::select! {
            done = &mut work => {
                progress.end();
                return Ok(done?);
            }
            () = service.ended() => return Err(anyhow!("the service ended while the chat was fed").into()),
            _ = tick.tick() => {
                let folded = folded_records(&partitions.positions()).saturating_sub(before);
                progress.show(acknowledged.load(Ordering::Relaxed), folded);
            }
        }
    }
}

fn append(writer: &dyn Writer, events: Vec<ChatEvent>, sender: &mpsc::Sender<PendingAppend>) {
    for ChatEvent { key, values, is_control, .. } in events {
        for (partition, value) in (0..).zip(values) {
            let entry = Entry::event(key.clone(), value, is_control.then_some(partition));
            if sender.blocking_send(writer.append(entry)).is_err() {
                return;
            }
        }
    }
}

async fn outcomes(mut receiver: mpsc::Receiver<PendingAppend>, acknowledged: &AtomicU64) -> anyhow::Result<Positions> {
    let mut positions = Positions::new();
    while let Some(appended) = receiver.recv().await {
        let written =
            appended.await.context("the log dropped an event")?.context("the log does not accept the chat")?;
        positions.raise(written.partition, written.offset + 1);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(positions)
}

/// Returns the number of records folded since the log began, by offsets; for the progress display
/// only.
fn folded_records(positions: &Positions) -> u64 {
    positions.iter().map(|(_, next_offset)| next_offset).sum()
}

/// Progress on standard error.
enum Progress {
    Bar(ProgressBar),
    Lines { events: u64, logged: Instant },
}

impl Progress {
    fn new(events: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            tracing::info!(events, "feeding the chat");
            return Self::Lines { events, logged: Instant::now() };
        }
        let bar = ProgressBar::new(events);
        let style = ProgressStyle::with_template("{bar:28} {human_pos} of {human_len} events folded · {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    fn show(&mut self, written: u64, folded: u64) {
        match self {
            Self::Bar(bar) => {
                bar.set_position(folded);
            }
            Self::Lines { events, logged } if logged.elapsed() >= LOG_INTERVAL => {
                *logged = Instant::now();
                tracing::info!(events = *events, written, folded, "feeding the chat");
            }
            Self::Lines { .. } => {}
        }
    }

    fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
