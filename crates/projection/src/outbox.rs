//! What was handed to the log and is not acknowledged yet. Nothing leaves it unacknowledged: a dead letter that failed is
//! sent again as it is; an update that failed goes back to be rendered anew, for its bytes may be older by now than what
//! was published since (INV-UPDATE-LAST).

use crate::updates::Change;
use receipts_log::{AppendError, Appended, Entry, Writer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::error::TryRecvError;

/// Entries on their way before the loop waits for the log.
const UNDER_WAY_MAX: usize = 20_000;
/// Attempts before a dead letter that the log refuses goes without its value.
const ATTEMPTS_WITH_VALUE: u32 = 5;
/// How long to wait before what the log refused is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// The way out for updates and dead letters.
pub(crate) struct Outbox {
    writer: Arc<dyn Writer>,
    under_way: VecDeque<Sent>,
    /// Updates that failed, by partition.
    failed: Vec<(u32, Change)>,
}

struct Sent {
    what: What,
    appended: Appended,
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
        self.settle();
        if self.is_empty() {
            return true;
        }
        if !self.failed.is_empty() || self.writer.flush(at_most.min(Duration::from_secs(1))).is_err() {
            std::thread::sleep(PAUSE.min(at_most));
        }
        self.settle();
        self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.failed.is_empty()
    }

    fn make_room(&mut self) {
        self.settle();
        if self.under_way.len() >= UNDER_WAY_MAX {
            _ = self.writer.flush(Duration::from_millis(100));
            self.settle();
        }
    }

    fn attempt(&mut self, entry: Entry, attempts: u32) {
        let appended = self.writer.append(entry.clone());
        self.under_way.push_back(Sent { what: What::DeadLetter { entry, attempts }, appended });
    }

    /// Forgets what is acknowledged, in order, and takes care of what failed.
    fn settle(&mut self) {
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
    }

    fn again(&mut self, mut entry: Entry, attempts: u32, why: &AppendError) {
        // A dead letter is a little larger than its record, which may have been as large as the log takes. Its headers
        // say where the record stands.
        let refused = matches!(why, AppendError::NotWritten(_));
        if refused && attempts == ATTEMPTS_WITH_VALUE && entry.value.take().is_some() {
            tracing::error!(%why, "a dead letter goes without its value");
            entry.headers.push(("dead-letter-value".into(), Some("left out: the log refused the record".into())));
        }
        self.attempt(entry, attempts + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use receipts_log::{Topic, Written};

    /// Fails so many appends, and keeps what it takes.
    struct Failing {
        left: Mutex<u32>,
        with: AppendError,
        taken: Mutex<Vec<Entry>>,
    }

    impl Writer for Failing {
        fn append(&self, entry: Entry) -> Appended {
            let (told, appended) = tokio::sync::oneshot::channel();
            let mut left = self.left.lock();
            let outcome = if *left > 0 {
                *left -= 1;
                Err(self.with.clone())
            } else {
                self.taken.lock().push(entry);
                Ok(Written { partition: 0, offset: 0 })
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

    /// INV-DEADLETTER: untouched, however long the log has no room or does not answer.
    #[test]
    fn a_dead_letter_keeps_its_value_unless_the_log_refuses_it_for_what_it_is() {
        for passing in [AppendError::NoRoom("full".into()), AppendError::Unknown("no answer".into())] {
            assert_eq!(after_failures(passing).value.as_deref(), Some(&b"v"[..]));
        }
        let refused = after_failures(AppendError::NotWritten("too large".into()));
        assert_eq!((refused.value, refused.headers.len()), (None, 1));
    }
}
