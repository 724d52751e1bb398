//! Feeds the chat into the log as any producer does, and watches until the projector has folded it. Shows progress on
//! standard error: a bar for people, a line now and then for others.

use super::chat::Happening;
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

/// Appends that are on their way at once.
const PENDING_MAX: usize = 32_768;
/// How long folding may take after the last event is written.
const FOLD_TIMEOUT: Duration = Duration::from_secs(300);
const SHOW_EVERY: Duration = Duration::from_millis(100);
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What was fed, and how long it took since the first append.
pub(crate) struct Fed {
    /// Records; a control event counts once for each partition.
    pub(crate) events: u64,
    /// Where the last of them stand.
    pub(crate) positions: Positions,
    /// Until the log had acknowledged all of them.
    pub(crate) written: Duration,
    /// Until all of them were folded.
    pub(crate) folded: Duration,
}

/// Feeds everything in order, and returns once it is folded.
///
/// # Errors
/// Where the log does not take an event, folding takes for ever, or the service ends by itself.
pub(crate) async fn feed(service: &mut AllInOne, happenings: Vec<Happening>) -> Result<Fed, Failure> {
    let events = happenings.iter().map(|happening| happening.values.len() as u64).sum();
    let partitions = service.partitions().clone();
    let before = folded_records(&partitions.positions());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = mpsc::channel(PENDING_MAX);
    let begun = Instant::now();
    let appender = {
        let writer = service.writer();
        // Appending blocks where the log's queue is full. It ends early once nobody waits for outcomes any more.
        std::thread::Builder::new().name("demo-feed".into()).spawn(move || append(&*writer, happenings, &sender))?
    };
    let work = async {
        let positions = outcomes(receiver, &acknowledged).await?;
        if appender.join().is_err() {
            return Err(anyhow!("feeding panicked; this is a bug: please report it with the log"));
        }
        let written = begun.elapsed();
        let folded = Answers::wait(&partitions, &positions, FOLD_TIMEOUT).await;
        folded.context("the events are written, but folding them takes too long")?;
        Ok(Fed { events, positions, written, folded: begun.elapsed() })
    };
    tokio::pin!(work);
    let mut progress = Progress::new(events);
    let mut tick = tokio::time::interval(SHOW_EVERY);
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

fn append(writer: &dyn Writer, happenings: Vec<Happening>, sender: &mpsc::Sender<PendingAppend>) {
    for Happening { key, values, is_control, .. } in happenings {
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
        let written = appended.await.context("the log dropped an event")?.context("the log does not take the chat")?;
        positions.raise(written.partition, written.offset + 1);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(positions)
}

/// Records folded since the log began, by offsets: for progress only.
fn folded_records(positions: &Positions) -> u64 {
    positions.iter().map(|(_, next_offset)| next_offset).sum()
}

/// Progress on standard error.
enum Progress {
    Bar(ProgressBar),
    Lines { events: u64, said: Instant },
}

impl Progress {
    fn new(events: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            tracing::info!(events, "feeding the chat");
            return Self::Lines { events, said: Instant::now() };
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
            Self::Lines { events, said } if said.elapsed() >= SAY_EVERY => {
                *said = Instant::now();
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
