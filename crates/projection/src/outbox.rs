//! What was handed to the log and is not acknowledged yet. Nothing leaves it unacknowledged: what failed is sent again.

use receipts_log::{AppendError, Appended, Entry, Writer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;

/// Entries on their way before the loop waits for the log.
const UNDER_WAY_MAX: usize = 20_000;
/// Attempts before an entry that the log refuses goes without its value.
const ATTEMPTS_WITH_VALUE: u32 = 5;

/// The way out for updates and dead letters.
pub(crate) struct Outbox {
    writer: Arc<dyn Writer>,
    under_way: VecDeque<Sent>,
}

struct Sent {
    entry: Entry,
    attempts: u32,
    appended: Appended,
}

impl Outbox {
    pub(crate) fn new(writer: Arc<dyn Writer>) -> Self {
        Self { writer, under_way: VecDeque::new() }
    }

    /// Hands an entry to the log.
    pub(crate) fn send(&mut self, entry: Entry) {
        self.settle();
        if self.under_way.len() >= UNDER_WAY_MAX {
            _ = self.writer.flush(Duration::from_millis(100));
            self.settle();
        }
        self.attempt(entry, 1);
    }

    fn attempt(&mut self, entry: Entry, attempts: u32) {
        let appended = self.writer.append(entry.clone());
        self.under_way.push_back(Sent { entry, attempts, appended });
    }

    /// Forgets what is acknowledged, in order, and sends again what failed.
    fn settle(&mut self) {
        for _ in 0..self.under_way.len() {
            let Some(sent) = self.under_way.front_mut() else { return };
            let why = match sent.appended.try_recv() {
                Err(TryRecvError::Empty) => return,
                Ok(Ok(_)) => None,
                Ok(Err(e)) => Some(e),
                Err(TryRecvError::Closed) => Some(AppendError::Unknown("the writer gave no answer".into())),
            };
            let Some(sent) = self.under_way.pop_front() else { return };
            if let Some(why) = why {
                self.again(sent, &why);
            }
        }
    }

    fn again(&mut self, Sent { mut entry, attempts, .. }: Sent, why: &AppendError) {
        tracing::warn!(topic = ?entry.topic, attempts, %why, "an update or dead letter was not acknowledged; sending it again");
        metrics::counter!("receipts_outbox_repeated_total").increment(1);
        // A dead letter is a little larger than its record, which may have been as large as the log takes. Its headers
        // say where the record stands.
        if matches!(why, AppendError::NotWritten(_)) && attempts == ATTEMPTS_WITH_VALUE && entry.value.take().is_some() {
            tracing::error!(topic = ?entry.topic, %why, "sending it without its value");
            entry.headers.push(("dead-letter-value".into(), Some("left out: the log refused the record".into())));
        }
        self.attempt(entry, attempts + 1);
    }

    /// Waits until all is acknowledged; false where the time is over first.
    pub(crate) fn drain(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            self.settle();
            if self.under_way.is_empty() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if self.writer.flush(left.min(Duration::from_secs(1))).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
