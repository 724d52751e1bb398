//! Appends that the log has not acknowledged yet. None is dropped without an acknowledgement: a
//! failed dead letter is sent again as it is; a failed update goes back to be rendered again,
//! because its bytes may be older than an update published since (INV-UPDATE-LAST). Renders nothing
//! itself.

use super::window::Change;
use receipts_log::{AppendError, Entry, PendingAppend, Writer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;

/// At this number of unacknowledged entries the worker waits, up to 100 ms, before it appends
/// another.
const IN_FLIGHT_MAX: usize = 20_000;
/// Attempts before a dead letter that is too large for the log is sent without its value.
const ATTEMPTS_WITH_VALUE: u32 = 5;
/// How long to wait before a refused append is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(10);
/// The pause between two checks for acknowledgements. Short compared with the time of an
/// acknowledgement.
const REAP_WAIT: Duration = Duration::from_micros(500);

/// Updates and dead letters on their way to the log.
pub(crate) struct Outbox {
    writer: Arc<dyn Writer>,
    in_flight: VecDeque<Sent>,
    /// Updates that failed, by partition.
    failed: Vec<(u32, Change)>,
}

struct Sent {
    on_failure: OnFailure,
    appended: PendingAppend,
}

/// The action after a failed append.
enum OnFailure {
    /// Send the dead letter again.
    Resend { entry: Entry, attempts: u32 },
    /// Render the update again.
    Render { partition: u32, change: Change },
    /// Nothing: the next owner of the partition folds and publishes from the last checkpoint.
    Ignore,
}

/// Whether a wait lets the log's writer hold entries back to fill a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Linger {
    /// Makes it send them at once, with the entries of other senders, in small batches.
    Cut,
    /// Lets it hold them until the batch is full or its time is over.
    Keep,
}

impl Outbox {
    pub(crate) fn new(writer: Arc<dyn Writer>) -> Self {
        Self { writer, in_flight: VecDeque::new(), failed: Vec::new() }
    }

    /// Appends a dead letter to the log.
    pub(crate) fn send_dead_letter(&mut self, entry: Entry) {
        self.make_room();
        self.attempt(entry, 1);
    }

    /// Appends the update of a change to the log.
    pub(crate) fn send_update(&mut self, entry: Entry, partition: u32, change: Change) {
        self.make_room();
        let appended = self.writer.append(entry);
        self.in_flight.push_back(Sent { on_failure: OnFailure::Render { partition, change }, appended });
    }

    /// Takes the changes whose updates failed, by partition. The caller publishes them again.
    pub(crate) fn take_failed(&mut self) -> Vec<(u32, Change)> {
        self.reap();
        std::mem::take(&mut self.failed)
    }

    /// Stops tracking the updates of a released partition. Those in flight may still be written.
    pub(crate) fn release(&mut self, partition: u32) {
        self.failed.retain(|(of, _)| *of != partition);
        for sent in &mut self.in_flight {
            if matches!(sent.on_failure, OnFailure::Render { partition: of, .. } if of == partition) {
                sent.on_failure = OnFailure::Ignore;
            }
        }
    }

    /// Waits for the log, at most this long and at most one second. Returns true if everything is
    /// acknowledged. Failed updates are left to [`Self::take_failed`].
    pub(crate) fn wait(&mut self, at_most: Duration) -> bool {
        self.wait_until(at_most.min(Duration::from_secs(1)), Linger::Cut, |outbox| outbox.in_flight.is_empty());
        self.is_empty()
    }

    /// Waits for acknowledgements until `is_enough`, an update has failed, or the time is over.
    fn wait_until(&mut self, at_most: Duration, linger: Linger, is_enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + at_most;
        let mut has_failed = self.reap();
        if is_enough(self) && !has_failed {
            return;
        }
        loop {
            if linger == Linger::Cut {
                // A longer flush would also wait for other senders, which append all the time.
                _ = self.writer.flush(Duration::ZERO);
            }
            has_failed |= self.reap();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = is_enough(self) || !self.failed.is_empty() || left.is_zero();
            if is_over && !has_failed {
                return;
            }
            std::thread::sleep(if std::mem::take(&mut has_failed) { RETRY_WAIT } else { REAP_WAIT }.min(left));
            if is_over {
                return;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.failed.is_empty()
    }

    fn make_room(&mut self) {
        self.reap();
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            let is_enough = |outbox: &Self| outbox.in_flight.len() < IN_FLIGHT_MAX;
            self.wait_until(Duration::from_millis(100), Linger::Keep, is_enough);
        }
    }

    fn attempt(&mut self, entry: Entry, attempts: u32) {
        let appended = self.writer.append(entry.clone());
        self.in_flight.push_back(Sent { on_failure: OnFailure::Resend { entry, attempts }, appended });
    }

    /// Removes acknowledged entries in order, and handles failed ones; returns true if any failed.
    fn reap(&mut self) -> bool {
        let (mut failures, mut last) = (0u64, None);
        for _ in 0..self.in_flight.len() {
            let Some(sent) = self.in_flight.front_mut() else { break };
            let why = match sent.appended.try_recv() {
                Err(TryRecvError::Empty) => break,
                Ok(Ok(_)) => None,
                Ok(Err(e)) => Some(e),
                Err(TryRecvError::Closed) => Some(AppendError::Unknown("the writer gave no answer".into())),
            };
            let Some(Sent { on_failure, .. }) = self.in_flight.pop_front() else { break };
            let Some(why) = why else { continue };
            match on_failure {
                OnFailure::Resend { entry, attempts } => self.resend(entry, attempts, &why),
                OnFailure::Render { partition, change } => self.failed.push((partition, change)),
                OnFailure::Ignore => continue,
            }
            failures += 1;
            last = Some(why);
        }
        if let Some(why) = last {
            tracing::warn!(failures, %why, "the log did not acknowledge updates or dead letters; they are sent again");
            metrics::counter!("receipts_outbox_repeated_total").increment(failures);
        }
        failures > 0
    }

    fn resend(&mut self, mut entry: Entry, attempts: u32, why: &AppendError) {
        // A dead letter is larger than its record, which may have had the maximum size. Its headers
        // say where the record is.
        let too_large = matches!(why, AppendError::TooLarge(_));
        if too_large && attempts == ATTEMPTS_WITH_VALUE && entry.value.take().is_some() {
            tracing::error!(%why, "a dead letter is too large for the log; it is sent without its value");
            entry
                .headers
                .push(("dead-letter-value".into(), Some("left out: the record is larger than the log takes".into())));
        }
        self.attempt(entry, attempts + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use receipts_log::{Location, Topic};

    /// Fails the first appends, and keeps later ones.
    struct Failing {
        left: Mutex<u32>,
        with: AppendError,
        taken: Mutex<Vec<Entry>>,
    }

    impl Writer for Failing {
        fn append(&self, entry: Entry) -> PendingAppend {
            let (outcome, appended) = tokio::sync::oneshot::channel();
            let mut left = self.left.lock();
            _ = outcome.send(if *left > 0 {
                *left -= 1;
                Err(self.with.clone())
            } else {
                self.taken.lock().push(entry);
                Ok(Location { partition: 0, offset: 0 })
            });
            appended
        }

        fn flush(&self, _timeout: Duration) -> Result<(), AppendError> {
            Ok(())
        }
    }

    /// Returns the dead letter that the log holds after 20 failures.
    fn after_failures(with: AppendError) -> Entry {
        let writer = Arc::new(Failing { left: Mutex::new(20), with, taken: Mutex::default() });
        let mut outbox = Outbox::new(writer.clone());
        outbox.send_dead_letter(Entry {
            topic: Topic::DeadLetters,
            partition: Some(0),
            key: Some("k".into()),
            value: Some("v".into()),
            headers: Vec::new(),
            timestamp_ms: None,
        });
        while !outbox.wait(Duration::from_millis(1)) {}
        let taken = writer.taken.lock();
        assert_eq!(taken.len(), 1);
        taken[0].clone()
    }

    /// INV-DEADLETTER: it is untouched, however long the log is full, absent or silent.
    #[test]
    fn only_a_too_large_dead_letter_loses_its_value() {
        for transient in [AppendError::NotWritten("full".into()), AppendError::Unknown("no answer".into())] {
            assert_eq!(after_failures(transient).value.as_deref(), Some(&b"v"[..]));
        }
        let too_large = after_failures(AppendError::TooLarge("5 MB".into()));
        assert_eq!((too_large.value, too_large.headers.len()), (None, 1));
    }

    /// Acknowledges after a moment, and always has entries of other senders in its queue.
    #[derive(Default)]
    struct Busy(Mutex<Vec<Duration>>);

    impl Writer for Busy {
        fn append(&self, _: Entry) -> PendingAppend {
            let (outcome, appended) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                outcome.send(Ok(Location { partition: 0, offset: 0 }))
            });
            appended
        }

        fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
            self.0.lock().push(timeout);
            Err(AppendError::Unknown("others append".into()))
        }
    }

    /// A checkpoint waits in [`Outbox::wait`], and the fold waits with it.
    #[test]
    fn the_outbox_waits_for_its_own_entries_only() {
        let writer = Arc::new(Busy::default());
        let mut outbox = Outbox::new(writer.clone());
        outbox.send_dead_letter(Entry::event("k", "v", None));
        assert!(outbox.wait(Duration::from_secs(60)));
        let flushes = writer.0.lock();
        assert!(flushes.iter().all(Duration::is_zero) && !flushes.is_empty(), "{flushes:?}");
    }
}
