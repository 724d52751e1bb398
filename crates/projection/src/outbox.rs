//! What was handed to the log and is not acknowledged yet. Nothing leaves it unacknowledged: a dead letter that failed is
//! sent again as it is; an update that failed goes back to be rendered anew, for its bytes may be older by now than what
//! was published since (INV-UPDATE-LAST).

use crate::updates::Change;
use receipts_log::{AppendError, Entry, PendingAppend, Writer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;

/// Entries on their way before the loop waits for the log.
const UNDER_WAY_MAX: usize = 20_000;
/// Attempts before a dead letter that is too large for the log goes without its value.
const ATTEMPTS_WITH_VALUE: u32 = 5;
/// How long to wait before what the log refused is tried again.
const PAUSE: Duration = Duration::from_millis(10);
/// How long to wait between two looks at whether the log has answered: little beside what its answer takes.
const LOOK: Duration = Duration::from_micros(500);

/// The way out for updates and dead letters.
pub(crate) struct Outbox {
    writer: Arc<dyn Writer>,
    under_way: VecDeque<Sent>,
    /// Updates that failed, by partition.
    failed: Vec<(u32, Change)>,
}

struct Sent {
    what: What,
    appended: PendingAppend,
}

/// What is to be done where an append fails.
enum What {
    /// To be sent again.
    DeadLetter { entry: Entry, attempts: u32 },
    /// To be rendered again.
    Update { partition: u32, change: Change },
    /// Nothing: whoever has the partition next folds from the last checkpoint, and publishes from there.
    Released,
}

/// What becomes of what the log's writer holds back for a moment, to send it with what comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lingering {
    /// It is sent at once, and with it what others have appended: little at a time.
    Goes,
    /// It stays for its moment.
    Gathers,
}

impl Outbox {
    pub(crate) fn new(writer: Arc<dyn Writer>) -> Self {
        Self { writer, under_way: VecDeque::new(), failed: Vec::new() }
    }

    /// Hands a dead letter to the log.
    pub(crate) fn send_dead_letter(&mut self, entry: Entry) {
        self.make_room();
        self.attempt(entry, 1);
    }

    /// Hands the update of a change to the log.
    pub(crate) fn send_update(&mut self, entry: Entry, partition: u32, change: Change) {
        self.make_room();
        let appended = self.writer.append(entry);
        self.under_way.push_back(Sent { what: What::Update { partition, change }, appended });
    }

    /// Changes whose updates were not acknowledged, by partition: the caller publishes them anew.
    pub(crate) fn take_failed(&mut self) -> Vec<(u32, Change)> {
        self.settle();
        std::mem::take(&mut self.failed)
    }

    /// Forgets the updates of a partition that was given up; what is on its way may still arrive.
    pub(crate) fn release(&mut self, partition: u32) {
        self.failed.retain(|(of, _)| *of != partition);
        for sent in &mut self.under_way {
            if matches!(sent.what, What::Update { partition: of, .. } if of == partition) {
                sent.what = What::Released;
            }
        }
    }

    /// Waits for the log, at most so long; true once everything is acknowledged. What failed waits in
    /// [`Self::take_failed`].
    pub(crate) fn wait(&mut self, at_most: Duration) -> bool {
        self.wait_until(at_most.min(Duration::from_secs(1)), Lingering::Goes, |outbox| outbox.under_way.is_empty());
        self.is_empty()
    }

    /// Waits for the log's answers until they are enough, a change has failed, or the time is over.
    fn wait_until(&mut self, at_most: Duration, lingering: Lingering, is_enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + at_most;
        let mut has_failed = self.settle();
        if is_enough(self) && !has_failed {
            return;
        }
        loop {
            if lingering == Lingering::Goes {
                // To wait here for all that is queued would be to wait for others too, who append all the time.
                _ = self.writer.flush(Duration::ZERO);
            }
            has_failed |= self.settle();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = is_enough(self) || !self.failed.is_empty() || left.is_zero();
            if is_over && !has_failed {
                return;
            }
            std::thread::sleep(if std::mem::take(&mut has_failed) { PAUSE } else { LOOK }.min(left));
            if is_over {
                return;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.failed.is_empty()
    }

    fn make_room(&mut self) {
        self.settle();
        if self.under_way.len() >= UNDER_WAY_MAX {
            let is_enough = |outbox: &Self| outbox.under_way.len() < UNDER_WAY_MAX;
            self.wait_until(Duration::from_millis(100), Lingering::Gathers, is_enough);
        }
    }

    fn attempt(&mut self, entry: Entry, attempts: u32) {
        let appended = self.writer.append(entry.clone());
        self.under_way.push_back(Sent { what: What::DeadLetter { entry, attempts }, appended });
    }

    /// Forgets what is acknowledged, in order, and takes care of what failed; true where anything did.
    fn settle(&mut self) -> bool {
        let (mut failures, mut last) = (0u64, None);
        for _ in 0..self.under_way.len() {
            let Some(sent) = self.under_way.front_mut() else { break };
            let why = match sent.appended.try_recv() {
                Err(TryRecvError::Empty) => break,
                Ok(Ok(_)) => None,
                Ok(Err(e)) => Some(e),
                Err(TryRecvError::Closed) => Some(AppendError::Unknown("the writer gave no answer".into())),
            };
            let Some(Sent { what, .. }) = self.under_way.pop_front() else { break };
            let Some(why) = why else { continue };
            match what {
                What::DeadLetter { entry, attempts } => self.again(entry, attempts, &why),
                What::Update { partition, change } => self.failed.push((partition, change)),
                What::Released => continue,
            }
            failures += 1;
            last = Some(why);
        }
        if let Some(why) = last {
            tracing::warn!(failures, %why, "updates or dead letters were not acknowledged; they are sent again");
            metrics::counter!("receipts_outbox_repeated_total").increment(failures);
        }
        failures > 0
    }

    fn again(&mut self, mut entry: Entry, attempts: u32, why: &AppendError) {
        // A dead letter is a little larger than its record, which may have been as large as the log takes. Its headers
        // say where the record stands.
        let too_large = matches!(why, AppendError::TooLarge(_));
        if too_large && attempts == ATTEMPTS_WITH_VALUE && entry.value.take().is_some() {
            tracing::error!(%why, "a dead letter goes without its value");
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

    /// Fails so many appends, and keeps what it takes.
    struct Failing {
        left: Mutex<u32>,
        with: AppendError,
        taken: Mutex<Vec<Entry>>,
    }

    impl Writer for Failing {
        fn append(&self, entry: Entry) -> PendingAppend {
            let (told, appended) = tokio::sync::oneshot::channel();
            let mut left = self.left.lock();
            let outcome = if *left > 0 {
                *left -= 1;
                Err(self.with.clone())
            } else {
                self.taken.lock().push(entry);
                Ok(Location { partition: 0, offset: 0 })
            };
            _ = told.send(outcome);
            appended
        }

        fn flush(&self, _timeout: Duration) -> Result<(), AppendError> {
            Ok(())
        }
    }

    /// What the log holds of a dead letter in the end, when it failed so often.
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

    /// INV-DEADLETTER: untouched, however long the log has no room, is not there, or does not answer.
    #[test]
    fn a_dead_letter_keeps_its_value_unless_it_is_too_large_for_the_log() {
        for passing in [AppendError::NotWritten("full".into()), AppendError::Unknown("no answer".into())] {
            assert_eq!(after_failures(passing).value.as_deref(), Some(&b"v"[..]));
        }
        let too_large = after_failures(AppendError::TooLarge("5 MB".into()));
        assert_eq!((too_large.value, too_large.headers.len()), (None, 1));
    }

    /// Answers a moment after it was asked, and always has something of somebody else in its queue.
    #[derive(Default)]
    struct Busy(Mutex<Vec<Duration>>);

    impl Writer for Busy {
        fn append(&self, _: Entry) -> PendingAppend {
            let (told, appended) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                told.send(Ok(Location { partition: 0, offset: 0 }))
            });
            appended
        }

        fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
            self.0.lock().push(timeout);
            Err(AppendError::Unknown("others append".into()))
        }
    }

    /// A checkpoint waits in [`Outbox::wait`], and the fold with it.
    #[test]
    fn it_waits_for_its_own_entries_and_not_for_those_of_others() {
        let writer = Arc::new(Busy::default());
        let mut outbox = Outbox::new(writer.clone());
        outbox.send_dead_letter(Entry::event("k", "v", None));
        assert!(outbox.wait(Duration::from_secs(60)));
        let flushes = writer.0.lock();
        assert!(flushes.iter().all(Duration::is_zero) && !flushes.is_empty(), "{flushes:?}");
    }
}
