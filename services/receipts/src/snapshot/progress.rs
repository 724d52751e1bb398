//! Shows the progress of a transfer, as a bar on a terminal and as log lines elsewhere, and stops
//! it on Ctrl-C. Counts bytes only.

use indicatif::{ProgressBar, ProgressStyle};
use receipts_snapshots::ProgressMonitor;
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const BAR_INTERVAL: Duration = Duration::from_millis(200);
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    stop: CancellationToken,
    state: Mutex<State>,
}

struct State {
    what: &'static str,
    begun: Instant,
    logged: Instant,
    bytes: u64,
    of: u64,
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new(stop: CancellationToken) -> Self {
        let now = Instant::now();
        let state = State { what: "", begun: now, logged: now, bytes: 0, of: 0, bar: ProgressBar::hidden() };
        Self { stop, state: Mutex::new(state) }
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Begins a transfer of `of` bytes; 0 if that is not known.
    pub(super) fn begin(&self, what: &'static str, of: u64) {
        self.change(|state| {
            let now = Instant::now();
            let mut bar = ProgressBar::hidden();
            if io::stderr().is_terminal() {
                let (template, length) = match of {
                    0 => ("{msg} {spinner} {bytes} {bytes_per_sec}", None),
                    _ => ("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left", Some(of)),
                };
                bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
                bar.set_style(ProgressStyle::with_template(template).expect("a template that indicatif knows"));
                bar.set_message(what);
                bar.enable_steady_tick(BAR_INTERVAL);
            }
            *state = State { what, begun: now, logged: now, bytes: 0, of, bar };
        });
    }

    /// Notes the number of bytes transferred so far.
    pub(super) fn reached(&self, bytes: u64) {
        let more = self.change(|state| bytes.saturating_sub(state.bytes));
        self.advanced(more);
    }

    /// Runs `print` with the bar hidden.
    pub(super) fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        let bar = self.change(|state| state.bar.clone());
        bar.suspend(print)
    }

    pub(super) fn end(&self) {
        self.change(|state| state.bar.finish_and_clear());
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl ProgressMonitor for Progress {
    fn advanced(&self, bytes: u64) {
        self.change(|state| {
            state.bytes += bytes;
            state.bar.inc(bytes);
            if state.bar.is_hidden() && state.logged.elapsed() >= LOG_INTERVAL {
                state.logged = Instant::now();
                let seconds = state.begun.elapsed().as_secs_f64();
                let bytes_per_s = (state.bytes as f64 / seconds) as u64;
                tracing::info!(bytes = state.bytes, of = state.of, bytes_per_s, "{}", state.what);
            }
        });
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}
