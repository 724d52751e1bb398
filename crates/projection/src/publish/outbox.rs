//! Appends that the log has not acknowledged yet, by partition. None is dropped without an
//! acknowledgement: a refused dead letter is sent again; a failed update goes back to be rendered
//! again, because its bytes may be older than an update published since (INV-UPDATE-LAST). Renders
//! nothing itself.

use super::dead_letter::Letter;
use super::window::Change;
use receipts_log::{AppendError, Entry, PendingAppend, Writer};
use receipts_metrics::catalogue;
use receipts_metrics::log_lines::LogLimit;
use receipts_traces::Span;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;
use tokio_util::sync::CancellationToken;

/// At this number of unacknowledged entries the worker waits, up to 100 ms, before it appends
/// another.
const UNSENT_MAX: usize = 20_000;
/// The same for the bytes of unacknowledged dead letters.
const UNSENT_BYTES_MAX: usize = 32 << 20;
/// Refusals for size before a dead letter loses its value; each further one takes the next part. A
/// log may refuse a whole batch for one large entry.
const SIZE_REFUSALS_WHOLE: u32 = 5;
/// How long a refused append waits for its second attempt. Each further wait is twice as long, up
/// to [`Outbox::retry_max`].
const RETRY_MIN: Duration = Duration::from_millis(10);
/// The pause between two checks for acknowledgements. Short compared with the time of an
/// acknowledgement.
const REAP_WAIT: Duration = Duration::from_micros(500);
/// The longest wait of one call, so that the caller notices a stop.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Updates and dead letters on their way to the log.
pub(crate) struct Outbox {
    writer: Arc<dyn Writer>,
    queues: BTreeMap<u32, Queue>,
    /// Unacknowledged entries of all queues, except failed updates.
    unsent: usize,
    /// Bytes of the unacknowledged dead letters.
    unsent_bytes: usize,
    /// The longest wait before a refused append is tried again.
    retry_max: Duration,
    /// Failed updates are rendered again one by one for all partitions: they have no attempts of
    /// their own.
    update_retry: Retry,
    stop: CancellationToken,
    refusals: LogLimit,
    shortened: LogLimit,
}

/// The unacknowledged entries of one partition.
#[derive(Default)]
struct Queue {
    /// In the order of their appends.
    in_flight: VecDeque<Sent>,
    /// Dead letters that the log refused, until their next attempt.
    refused: Vec<(Instant, Resend)>,
    /// Changes whose updates failed.
    failed: Vec<Change>,
}

struct Sent {
    on_failure: OnFailure,
    appended: PendingAppend,
    /// Ends with the acknowledgement.
    span: Option<Span>,
}

/// The action after a failed append.
enum OnFailure {
    Resend(Resend),
    /// Render the update again.
    Render(Change),
}

/// A dead letter that is sent until the log has it.
struct Resend {
    letter: Letter,
    retry: Retry,
    size_refusals: u32,
}

/// The waits between attempts.
#[derive(Default)]
struct Retry {
    attempts: u32,
    at: Option<Instant>,
}

impl Retry {
    /// Notes a failure; returns the time of the next attempt.
    fn failed(&mut self, now: Instant, longest: Duration) -> Instant {
        let wait = RETRY_MIN.saturating_mul(1 << self.attempts.min(16)).min(longest);
        self.attempts += 1;
        *self.at.insert(now + wait)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

/// Whether a wait lets the log's writer hold entries back to fill a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Linger {
    /// Makes it send them at once, with the entries of other senders, in small batches.
    Cut,
    /// Lets it hold them until the batch is full or its time is over.
    Keep,
}

/// The unacknowledged entries of partitions, for messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsent {
    pub(crate) dead_letters: usize,
    pub(crate) updates: usize,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.refused.is_empty() && self.failed.is_empty()
    }

    fn has_refused(&self) -> bool {
        let is_retry = |sent: &Sent| matches!(&sent.on_failure, OnFailure::Resend(resend) if resend.retry.attempts > 0);
        !self.refused.is_empty() || !self.failed.is_empty() || self.in_flight.iter().any(is_retry)
    }

    fn unsent(&self) -> Unsent {
        let in_flight = self.in_flight.iter().filter(|sent| matches!(sent.on_failure, OnFailure::Resend(_))).count();
        Unsent {
            dead_letters: in_flight + self.refused.len(),
            updates: self.in_flight.len() - in_flight + self.failed.len(),
        }
    }
}

impl Outbox {
    pub(crate) fn new(writer: Arc<dyn Writer>, retry_max: Duration, stop: CancellationToken) -> Self {
        catalogue::OUTBOX_REPEATED.get().increment(0);
        catalogue::DEAD_LETTERS_UNSENT.get().increment(0.0);
        Self {
            writer,
            queues: BTreeMap::new(),
            unsent: 0,
            unsent_bytes: 0,
            retry_max,
            update_retry: Retry::default(),
            stop,
            refusals: LogLimit::default(),
            shortened: LogLimit::default(),
        }
    }

    /// Appends a dead letter to the log.
    pub(crate) fn send_dead_letter(&mut self, partition: u32, letter: Letter) {
        self.make_room();
        catalogue::DEAD_LETTERS_UNSENT.get().increment(1.0);
        self.unsent += 1;
        self.unsent_bytes += letter.bytes();
        self.attempt(partition, Resend { letter, retry: Retry::default(), size_refusals: 0 });
    }

    /// Appends the update of a change to the log. Its span ends with the acknowledgement.
    pub(crate) fn send_update(&mut self, entry: Entry, partition: u32, change: Change, span: Option<Span>) {
        self.make_room();
        self.unsent += 1;
        let appended = self.writer.append(entry);
        let sent = Sent { on_failure: OnFailure::Render(change), appended, span };
        self.queues.entry(partition).or_default().in_flight.push_back(sent);
    }

    /// Takes the changes whose updates failed, by partition, once their wait is over. The caller
    /// publishes them again.
    pub(crate) fn take_failed(&mut self) -> Vec<(u32, Change)> {
        self.reap();
        if !self.update_retry.is_due(Instant::now()) {
            return Vec::new();
        }
        let taken = self.queues.iter_mut().flat_map(|(partition, queue)| {
            std::mem::take(&mut queue.failed).into_iter().map(move |change| (*partition, change))
        });
        taken.collect()
    }

    /// Drops the entries of a released partition: its next owner folds and sends them again from
    /// the last checkpoint. Those in flight may still be written.
    pub(crate) fn release(&mut self, partition: u32) {
        let Some(queue) = self.queues.remove(&partition) else { return };
        for sent in queue.in_flight {
            self.forget(&sent.on_failure);
        }
        for (_, resend) in queue.refused {
            self.forget(&OnFailure::Resend(resend));
        }
    }

    /// Stops counting an entry.
    fn forget(&mut self, entry: &OnFailure) {
        self.unsent -= 1;
        if let OnFailure::Resend(resend) = entry {
            self.unsent_bytes -= resend.letter.bytes();
            catalogue::DEAD_LETTERS_UNSENT.get().decrement(1.0);
        }
    }

    /// Tells whether the log has acknowledged everything of a partition.
    pub(crate) fn is_acknowledged(&self, partition: u32) -> bool {
        self.queues.get(&partition).is_none_or(Queue::is_empty)
    }

    /// Tells whether the log has refused an append of a partition, and has not acknowledged it
    /// since.
    pub(crate) fn has_refused(&self, partition: u32) -> bool {
        self.queues.get(&partition).is_some_and(Queue::has_refused)
    }

    /// Counts the unacknowledged entries of partitions.
    pub(crate) fn unsent(&self, partitions: &[u32]) -> Unsent {
        let queues = partitions.iter().filter_map(|partition| self.queues.get(partition));
        queues.map(Queue::unsent).fold(Unsent::default(), |all, one| Unsent {
            dead_letters: all.dead_letters + one.dead_letters,
            updates: all.updates + one.updates,
        })
    }

    /// Waits for the log, at most this long and at most 100 ms. Returns true if everything of the
    /// partitions is acknowledged. Failed updates are left to [`Self::take_failed`].
    pub(crate) fn wait(&mut self, partitions: &[u32], at_most: Duration) -> bool {
        let is_done = |outbox: &Self| partitions.iter().all(|partition| outbox.is_acknowledged(*partition));
        let is_enough = |outbox: &Self| is_done(outbox) || outbox.has_due_failure();
        self.wait_until(at_most.min(WAIT_MAX), Linger::Cut, is_enough);
        is_done(self)
    }

    fn has_due_failure(&self) -> bool {
        self.update_retry.is_due(Instant::now()) && self.queues.values().any(|queue| !queue.failed.is_empty())
    }

    /// Waits for acknowledgements until `is_enough` or the time is over.
    fn wait_until(&mut self, at_most: Duration, linger: Linger, is_enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + at_most;
        loop {
            self.reap();
            if is_enough(self) {
                return;
            }
            if linger == Linger::Cut {
                // A longer flush would also wait for other senders, which append all the time.
                _ = self.writer.flush(Duration::ZERO);
                self.reap();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if is_enough(self) || left.is_zero() {
                return;
            }
            std::thread::sleep(REAP_WAIT.min(left));
        }
    }

    fn make_room(&mut self) {
        let has_room = |outbox: &Self| outbox.unsent < UNSENT_MAX && outbox.unsent_bytes < UNSENT_BYTES_MAX;
        if !has_room(self) && !self.stop.is_cancelled() {
            self.wait_until(WAIT_MAX, Linger::Keep, has_room);
        }
    }

    fn attempt(&mut self, partition: u32, resend: Resend) {
        let appended = self.writer.append(resend.letter.entry());
        let sent = Sent { on_failure: OnFailure::Resend(resend), appended, span: None };
        self.queues.entry(partition).or_default().in_flight.push_back(sent);
    }

    /// Removes acknowledged entries, in order within each partition, handles failed ones, and sends
    /// dead letters again whose wait is over.
    fn reap(&mut self) {
        let now = Instant::now();
        let (mut failures, mut last, mut due) = (0u64, None, Vec::new());
        let (mut updates_failed, mut updates_acknowledged, mut done) = (false, false, Vec::new());
        for (&partition, queue) in &mut self.queues {
            while let Some(sent) = queue.in_flight.front_mut() {
                let why = match sent.appended.try_recv() {
                    Err(TryRecvError::Empty) => break,
                    Ok(Ok(_)) => None,
                    Ok(Err(e)) => Some(e),
                    Err(TryRecvError::Closed) => Some(AppendError::Unknown("the writer gave no answer".into())),
                };
                let Some(Sent { on_failure, span, .. }) = queue.in_flight.pop_front() else { break };
                if let (Some(why), Some(mut span)) = (&why, span) {
                    span.fail(if why.may_have_happened() { "unknown" } else { "not_written" });
                }
                match (why, on_failure) {
                    (None, on_failure) => {
                        updates_acknowledged |= matches!(on_failure, OnFailure::Render(_));
                        done.push(on_failure);
                    }
                    (Some(why), OnFailure::Resend(mut resend)) => {
                        let before = resend.letter.bytes();
                        if resend.refused(&why) && self.shortened.count(now).is_some() {
                            tracing::warn!(
                                partition,
                                offset = resend.letter.offset(),
                                left_out = resend.letter.left_out(),
                                %why,
                                "a dead letter is too large for its topic, and a part of it is left out: raise the topic's \
                                 max.message.bytes"
                            );
                        }
                        self.unsent_bytes = self.unsent_bytes + resend.letter.bytes() - before;
                        let at = resend.retry.failed(now, self.retry_max);
                        queue.refused.push((at, resend));
                        (failures, last) = (failures + 1, Some((partition, why)));
                    }
                    (Some(why), OnFailure::Render(change)) => {
                        self.unsent -= 1;
                        queue.failed.push(change);
                        updates_failed = true;
                        (failures, last) = (failures + 1, Some((partition, why)));
                    }
                }
            }
            due.extend(queue.refused.extract_if(.., |(at, _)| *at <= now).map(|(_, resend)| (partition, resend)));
        }
        done.iter().for_each(|entry| self.forget(entry));
        if updates_failed {
            self.update_retry.failed(now, self.retry_max);
        } else if updates_acknowledged {
            self.update_retry = Retry::default();
        }
        if let Some((partition, why)) = last {
            catalogue::OUTBOX_REPEATED.get().increment(failures);
            if let Some(failures) = self.refusals.count_of(now, failures) {
                tracing::warn!(
                    partition,
                    failures,
                    %why,
                    "the log did not acknowledge updates or dead letters; they are sent again, and their partitions are \
                     not checkpointed before"
                );
            }
        }
        due.into_iter().for_each(|(partition, resend)| self.attempt(partition, resend));
    }
}

impl Resend {
    /// Notes a refusal. Returns true if a part was left out because of it: a dead letter is larger
    /// than its record, which may have had the maximum size.
    fn refused(&mut self, why: &AppendError) -> bool {
        if !matches!(why, AppendError::TooLarge(_)) {
            return false;
        }
        self.size_refusals += 1;
        let shrinks = self.size_refusals >= SIZE_REFUSALS_WHOLE && self.letter.shrink();
        if shrinks {
            self.retry = Retry::default();
        }
        shrinks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::dead_letter::DeadRecord;
    use crate::publish::window::Readers;
    use parking_lot::Mutex;
    use receipts_event::Reason;
    use receipts_log::{Location, Topic};

    const RETRY_MAX: Duration = Duration::from_millis(1);

    fn letter() -> Letter {
        let headers = vec![("trace".into(), Some(b"t1"[..].into()))];
        let detail = "x".repeat(10_000);
        DeadRecord::of(7, Reason::InvalidJson, detail, Some(b"k"), Some(b"v"), headers)
            .into_letter(3, "receipts.events")
    }

    /// Takes entries of at most `bytes`, and fails the first appends with another error.
    struct Judge {
        left: Mutex<u32>,
        with: AppendError,
        taken: Mutex<Vec<Entry>>,
    }

    impl Writer for Judge {
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

    /// Returns the dead letter that the log holds after a number of failures.
    fn after_failures(failures: u32, with: AppendError) -> Entry {
        let writer = Arc::new(Judge { left: Mutex::new(failures), with, taken: Mutex::default() });
        let mut outbox = Outbox::new(writer.clone(), RETRY_MAX, CancellationToken::new());
        outbox.send_dead_letter(3, letter());
        while !outbox.wait(&[3], Duration::from_millis(1)) {}
        assert_eq!((outbox.unsent, outbox.unsent_bytes), (0, 0));
        let taken = writer.taken.lock();
        assert_eq!(taken.len(), 1);
        taken[0].clone()
    }

    fn header(entry: &Entry, name: &str) -> Option<String> {
        let found = entry.headers.iter().find(|(header, _)| header == name)?;
        found.1.as_ref().map(|value| String::from_utf8(value.to_vec()).expect("text"))
    }

    /// INV-DEADLETTER: it is untouched, however long the log is full, absent or silent.
    #[test]
    fn only_a_too_large_dead_letter_loses_a_part() {
        for transient in [AppendError::NotWritten("full".into()), AppendError::Unknown("no answer".into())] {
            let entry = after_failures(20, transient);
            assert_eq!((entry.value.as_deref(), entry.key.as_deref()), (Some(&b"v"[..]), Some(&b"k"[..])));
            assert_eq!(header(&entry, "trace").as_deref(), Some("t1"));
        }
        let too_large = || AppendError::TooLarge("5 MB".into());
        assert_eq!(after_failures(4, too_large()).value.as_deref(), Some(&b"v"[..]));
        let without_value = after_failures(5, too_large());
        assert_eq!((without_value.value.as_deref(), without_value.key.as_deref()), (None, Some(&b"k"[..])));
        assert_eq!(header(&without_value, "trace").as_deref(), Some("t1"));
        assert_eq!(header(&without_value, "dead-letter-left-out").as_deref(), Some("value"));
        for refusals in [6, 20] {
            let least = after_failures(refusals, too_large());
            assert_eq!((least.topic, &least.value, &least.key), (Topic::DeadLetters, &None, &None));
            assert_eq!(header(&least, "trace"), None);
            assert_eq!(header(&least, "dead-letter-left-out").as_deref(), Some("value, headers, key, detail"));
            assert_eq!(header(&least, "dead-letter-reason").as_deref(), Some("invalid-json"));
            assert_eq!(header(&least, "dead-letter-partition").as_deref(), Some("3"));
            assert_eq!(header(&least, "dead-letter-offset").as_deref(), Some("7"));
            assert!(header(&least, "dead-letter-detail").is_some_and(|detail| detail.len() <= 4_096));
        }
    }

    #[test]
    fn waits_between_attempts_double_up_to_the_longest() {
        let (now, longest) = (Instant::now(), Duration::from_secs(1));
        let mut retry = Retry::default();
        let waits: Vec<u128> = (0..40).map(|_| (retry.failed(now, longest) - now).as_millis()).collect();
        assert_eq!(waits[..8], [10, 20, 40, 80, 160, 320, 640, 1_000]);
        assert!(waits[8..].iter().all(|wait| *wait == 1_000));
    }

    /// Acknowledges updates at once, and refuses every dead letter.
    #[derive(Default)]
    struct Refusing(Mutex<u32>);

    impl Writer for Refusing {
        fn append(&self, entry: Entry) -> PendingAppend {
            let (outcome, appended) = tokio::sync::oneshot::channel();
            _ = outcome.send(if entry.topic == Topic::DeadLetters {
                *self.0.lock() += 1;
                Err(AppendError::NotWritten("refused".into()))
            } else {
                Ok(Location { partition: 0, offset: 0 })
            });
            appended
        }

        fn flush(&self, _: Duration) -> Result<(), AppendError> {
            Ok(())
        }
    }

    #[test]
    fn refused_letter_holds_up_its_own_partition_only() {
        let writer = Arc::new(Refusing::default());
        let mut outbox = Outbox::new(writer.clone(), Duration::from_secs(3_600), CancellationToken::new());
        outbox.send_dead_letter(0, letter());
        outbox.send_update(Entry::event("k", "v", None), 1, Change::Message(1, Readers::new(Instant::now())), None);
        assert!(outbox.wait(&[1], Duration::from_secs(1)));
        assert!(!outbox.wait(&[0, 1], Duration::ZERO));
        assert!(outbox.has_refused(0) && !outbox.has_refused(1));
        assert_eq!(outbox.unsent(&[0, 1]), Unsent { dead_letters: 1, updates: 0 });
        for _ in 0..1_000 {
            outbox.take_failed();
        }
        assert!(*writer.0.lock() < 10, "it is not tried again all the time");
        outbox.release(0);
        assert!(outbox.is_acknowledged(0));
        assert_eq!((outbox.unsent, outbox.unsent_bytes), (0, 0));
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
        let mut outbox = Outbox::new(writer.clone(), RETRY_MAX, CancellationToken::new());
        outbox.send_dead_letter(0, letter());
        while !outbox.wait(&[0], Duration::from_secs(60)) {}
        let flushes = writer.0.lock();
        assert!(flushes.iter().all(Duration::is_zero) && !flushes.is_empty(), "{flushes:?}");
    }
}
