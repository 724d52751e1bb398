//! Hands entries on in batches: while the log has not acknowledged one batch, further entries wait
//! (Nagle's algorithm), and then for as many callers as that batch had. So under load they share
//! requests, and without load none waits.
//!
//! Knows no producer. It never changes the order of one caller's entries, and none waits longer
//! than its bound while the producer takes entries.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// At this number of waiting entries, or of their bytes, callers block.
const BATCH_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The waiting entries of one producer.
pub(super) struct Batching<E> {
    waiting: Mutex<Waiting<E>>,
    /// The longest time that an entry waits.
    wait_max: Duration,
    /// Notifies the thread that a batch is due.
    due: Condvar,
    /// Notifies callers that waiting entries were sent.
    sent: Condvar,
}

struct Waiting<E> {
    entries: Vec<E>,
    bytes: usize,
    /// The callers of the waiting entries, and of the batch before.
    calls: usize,
    calls_before: usize,
    /// When the first of the waiting entries began to wait.
    since: Instant,
    /// True if the entries are due in any case.
    is_cut: bool,
    /// Entries that began to wait, and those of them that were sent, since the start.
    begun_count: u64,
    sent_count: u64,
    is_closed: bool,
}

impl<E> Waiting<E> {
    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn must_go(&self) -> bool {
        self.is_cut || self.is_closed || self.is_full()
    }
}

impl<E> Batching<E> {
    pub(super) fn new(wait_max: Duration) -> Self {
        let waiting = Waiting {
            entries: Vec::new(),
            bytes: 0,
            calls: 0,
            calls_before: 0,
            since: Instant::now(),
            is_cut: false,
            begun_count: 0,
            sent_count: 0,
            is_closed: false,
        };
        Self { waiting: Mutex::new(waiting), wait_max, due: Condvar::new(), sent: Condvar::new() }
    }

    /// Queues entries, which are sent in the same batch. Blocks while too many wait.
    pub(super) fn queue(&self, entries: impl IntoIterator<Item = E>, bytes: usize) {
        let mut waiting = self.waiting.lock();
        while waiting.is_full() {
            self.sent.wait(&mut waiting);
        }
        let held = waiting.entries.len();
        waiting.entries.extend(entries);
        waiting.begun_count += (waiting.entries.len() - held) as u64;
        waiting.bytes += bytes;
        waiting.calls += 1;
        if held == 0 {
            waiting.since = Instant::now();
        }
        if held == 0 || waiting.calls == waiting.calls_before || waiting.is_full() {
            self.due.notify_one();
        }
    }

    /// Returns the number of entries that are not sent yet.
    pub(super) fn waiting_count(&self) -> u64 {
        let waiting = self.waiting.lock();
        waiting.begun_count - waiting.sent_count
    }

    /// Has the entries sent that wait now. Returns false if they are not sent by the deadline.
    pub(super) fn cut(&self, deadline: Instant) -> bool {
        let mut waiting = self.waiting.lock();
        let wanted = waiting.begun_count;
        while waiting.sent_count < wanted {
            waiting.is_cut = true;
            self.due.notify_one();
            if self.sent.wait_until(&mut waiting, deadline).timed_out() {
                return waiting.sent_count >= wanted;
            }
        }
        true
    }

    /// Ends [`Self::run`] once everything is sent.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.due.notify_one();
    }

    /// Sends waiting entries, until [`Self::close`]. `acknowledged` has sent entries go out at
    /// once; it waits for their acknowledgement up to a time, and tells whether it came.
    pub(super) fn run(&self, mut send: impl FnMut(E), mut acknowledged: impl FnMut(Duration) -> bool) {
        let mut waiting = self.waiting.lock();
        let mut is_calm = true;
        loop {
            if waiting.entries.is_empty() {
                if waiting.is_closed {
                    return;
                }
                self.due.wait(&mut waiting);
                continue;
            }
            let due = waiting.since + self.wait_max;
            let left = due.saturating_duration_since(Instant::now());
            if !waiting.must_go() && !left.is_zero() {
                if !is_calm {
                    is_calm = MutexGuard::unlocked(&mut waiting, || acknowledged(left));
                    continue;
                }
                if waiting.calls < waiting.calls_before {
                    self.due.wait_until(&mut waiting, due);
                    continue;
                }
            }
            let entries = std::mem::take(&mut waiting.entries);
            (waiting.calls_before, waiting.calls) = (waiting.calls, 0);
            (waiting.bytes, waiting.is_cut) = (0, false);
            let count = entries.len() as u64;
            MutexGuard::unlocked(&mut waiting, || entries.into_iter().for_each(&mut send));
            waiting.sent_count += count;
            self.sent.notify_all();
            is_calm = MutexGuard::unlocked(&mut waiting, || acknowledged(self.wait_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::JoinHandle;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    /// A log that acknowledges a batch when the test says so.
    struct Fixture {
        batching: Arc<Batching<usize>>,
        sent: Receiver<usize>,
        acknowledge: Option<Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Fixture {
        fn new(wait_max: Duration) -> Self {
            let batching = Arc::new(Batching::new(wait_max));
            let (sender, sent) = channel();
            let (acknowledge, acknowledged) = channel();
            let running = Arc::clone(&batching);
            let thread = std::thread::spawn(move || {
                let acknowledged = |timeout| acknowledged.recv_timeout(timeout).is_ok();
                running.run(|entry| sender.send(entry).expect("received"), acknowledged);
            });
            Self { batching, sent, acknowledge: Some(acknowledge), thread: Some(thread) }
        }

        fn queue(&self, entries: std::ops::Range<usize>) {
            self.batching.queue(entries, 1);
        }

        fn next(&self, count: usize) -> Vec<usize> {
            (0..count).map(|_| self.sent.recv_timeout(LONG).expect("sent")).collect()
        }

        fn acknowledge(&self) {
            self.acknowledge.as_ref().expect("runs").send(()).expect("it waits");
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            self.acknowledge = None;
            self.batching.close();
            self.thread.take().expect("runs").join().expect("no panic");
        }
    }

    #[test]
    fn entries_wait_for_the_acknowledgement_before_them() {
        let fixture = Fixture::new(LONG);
        fixture.queue(0..3);
        assert_eq!(fixture.next(3), [0, 1, 2], "without load none waits");
        fixture.queue(3..4);
        fixture.queue(4..6);
        assert!(fixture.sent.recv_timeout(Duration::from_millis(50)).is_err(), "nothing is acknowledged");
        assert_eq!(fixture.batching.waiting_count(), 3);
        assert!(!fixture.batching.cut(Instant::now()));
        fixture.acknowledge();
        assert_eq!(fixture.next(3), [3, 4, 5]);
        assert!(fixture.batching.cut(Instant::now() + LONG));
        assert_eq!(fixture.batching.waiting_count(), 0);
    }

    #[test]
    fn batch_waits_for_as_many_callers_as_before() {
        let fixture = Fixture::new(LONG);
        fixture.queue(0..1);
        assert_eq!(fixture.next(1), [0]);
        (1..4).for_each(|entry| fixture.queue(entry..entry + 1));
        fixture.acknowledge();
        assert_eq!(fixture.next(3), [1, 2, 3]);
        fixture.acknowledge();
        fixture.queue(4..6);
        fixture.queue(6..7);
        assert!(fixture.sent.recv_timeout(Duration::from_millis(50)).is_err(), "two callers of three");
        fixture.queue(7..8);
        assert_eq!(fixture.next(4), [4, 5, 6, 7]);
        fixture.acknowledge();
        fixture.queue(8..9);
        assert!(fixture.batching.cut(Instant::now() + LONG));
        assert_eq!(fixture.next(1), [8]);
    }

    /// Neither an acknowledgement nor other callers come.
    #[test]
    fn waiting_entry_is_sent_after_its_time() {
        let wait_max = Duration::from_millis(30);
        let fixture = Fixture::new(wait_max);
        fixture.queue(0..1);
        fixture.queue(1..2);
        assert_eq!(fixture.next(2), [0, 1]);
        let began = Instant::now();
        fixture.queue(2..3);
        assert_eq!(fixture.next(1), [2]);
        assert!(began.elapsed() >= wait_max, "nothing was acknowledged");
    }

    #[test]
    fn callers_block_while_too_much_waits() {
        let fixture = Fixture::new(LONG);
        fixture.queue(0..1);
        assert_eq!(fixture.next(1), [0]);
        fixture.batching.queue([1], BATCH_BYTES_MAX);
        let batching = Arc::clone(&fixture.batching);
        let caller = std::thread::spawn(move || batching.queue([2], 1));
        assert!(fixture.sent.recv_timeout(Duration::from_millis(50)).is_err());
        assert_eq!(fixture.batching.waiting_count(), 1, "the caller blocks");
        fixture.acknowledge();
        fixture.acknowledge();
        assert_eq!(fixture.next(2), [1, 2]);
        caller.join().expect("no panic");
    }

    #[test]
    fn entries_of_a_caller_keep_their_order() {
        const CALLERS: usize = 4;
        const ENTRIES: usize = 5_000;
        let batching = Arc::new(Batching::new(Duration::from_millis(5)));
        let (sender, sent) = channel();
        let thread = std::thread::spawn({
            let batching = Arc::clone(&batching);
            move || batching.run(|entry| sender.send(entry).expect("received"), |_| true)
        });
        let callers = (0..CALLERS).map(|caller| {
            let batching = Arc::clone(&batching);
            std::thread::spawn(move || {
                (0..ENTRIES).for_each(|number| batching.queue([caller * ENTRIES + number], 1));
            })
        });
        let callers = Vec::from_iter(callers);
        let mut next = [0; CALLERS];
        for _ in 0..CALLERS * ENTRIES {
            let entry = sent.recv_timeout(LONG).expect("sent");
            assert_eq!(entry % ENTRIES, next[entry / ENTRIES], "of caller {}", entry / ENTRIES);
            next[entry / ENTRIES] += 1;
        }
        callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
        batching.close();
        thread.join().expect("no panic");
        assert_eq!(batching.waiting_count(), 0);
    }

    #[test]
    fn closing_sends_the_rest() {
        let fixture = Fixture::new(LONG);
        fixture.queue(0..1);
        assert_eq!(fixture.next(1), [0]);
        fixture.queue(1..100);
        fixture.batching.close();
        fixture.acknowledge();
        assert_eq!(fixture.next(99), Vec::from_iter(1..100));
    }
}
