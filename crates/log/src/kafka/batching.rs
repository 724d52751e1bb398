//! Lets entries wait for one another while others are unacknowledged (Nagle's algorithm), so that
//! under load they share requests, and without load each is sent at once.
//!
//! Knows no producer. It never changes the order of one caller's entries, and none waits longer
//! than [`WAIT_MAX`] while the producer takes entries.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// At this number of unacknowledged entries, further ones wait until fewer are.
const UNACKNOWLEDGED_MAX: usize = 8;
/// The longest time that an entry waits.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// At this number of waiting entries, or of their bytes, all are sent. Callers block until then.
const BATCH_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The waiting entries of one producer, and the number of sent ones that it has not acknowledged.
pub(super) struct Batching<E> {
    waiting: Mutex<Waiting<E>>,
    unacknowledged: AtomicUsize,
    /// Notifies the thread that entries may be due.
    due: Condvar,
    /// Notifies callers that waiting entries were sent.
    sent: Condvar,
}

struct Waiting<E> {
    entries: Vec<E>,
    bytes: usize,
    /// When the first of them began to wait.
    since: Instant,
    /// Entries that began to wait, and that were sent after it, since the start.
    begun_count: u64,
    sent_count: u64,
    /// True if the entries are due in any case.
    is_cut: bool,
    is_closed: bool,
}

impl<E> Waiting<E> {
    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

impl<E> Default for Batching<E> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                entries: Vec::new(),
                bytes: 0,
                since: Instant::now(),
                begun_count: 0,
                sent_count: 0,
                is_cut: false,
                is_closed: false,
            }),
            unacknowledged: AtomicUsize::new(0),
            due: Condvar::new(),
            sent: Condvar::new(),
        }
    }
}

impl<E> Batching<E> {
    /// Returns an entry that the caller is to send now, or lets it wait. Blocks while too many
    /// wait.
    pub(super) fn admit(&self, entry: E, bytes: usize) -> Option<E> {
        let mut waiting = self.waiting.lock();
        while waiting.is_full() {
            self.sent.wait(&mut waiting);
        }
        // Behind waiting entries it waits too, for one of them may come from the same caller.
        if waiting.begun_count == waiting.sent_count && self.unacknowledged.load(Ordering::Acquire) < UNACKNOWLEDGED_MAX
        {
            self.unacknowledged.fetch_add(1, Ordering::AcqRel);
            return Some(entry);
        }
        waiting.entries.push(entry);
        waiting.bytes += bytes;
        waiting.begun_count += 1;
        if waiting.entries.len() == 1 {
            waiting.since = Instant::now();
        }
        if waiting.entries.len() == 1 || waiting.is_full() {
            self.due.notify_one();
        }
        None
    }

    /// Notes that an entry was acknowledged, or has failed.
    pub(super) fn acknowledge(&self) {
        // Under the lock, so that no entry begins to wait by the number of before.
        if self.unacknowledged.fetch_sub(1, Ordering::AcqRel) == UNACKNOWLEDGED_MAX
            && !self.waiting.lock().entries.is_empty()
        {
            self.due.notify_one();
        }
    }

    /// Returns the number of entries without an acknowledgement.
    pub(super) fn open_count(&self) -> usize {
        self.unacknowledged.load(Ordering::Acquire) + self.waiting.lock().entries.len()
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

    /// Sends waiting entries when they are due, until [`Self::close`].
    pub(super) fn run(&self, mut send: impl FnMut(E)) {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.entries.is_empty() {
                if waiting.is_closed {
                    return;
                }
                self.due.wait(&mut waiting);
                continue;
            }
            let due = waiting.since + WAIT_MAX;
            let is_calm = self.unacknowledged.load(Ordering::Acquire) < UNACKNOWLEDGED_MAX;
            if !(is_calm || waiting.is_cut || waiting.is_closed || waiting.is_full() || Instant::now() >= due) {
                self.due.wait_until(&mut waiting, due);
                continue;
            }
            let entries = std::mem::take(&mut waiting.entries);
            (waiting.bytes, waiting.is_cut) = (0, false);
            let count = entries.len();
            self.unacknowledged.fetch_add(count, Ordering::AcqRel);
            MutexGuard::unlocked(&mut waiting, || entries.into_iter().for_each(&mut send));
            waiting.sent_count += count as u64;
            self.sent.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::JoinHandle;

    const LONG: Duration = Duration::from_secs(20);

    struct Fixture {
        batching: Arc<Batching<usize>>,
        sent: Receiver<usize>,
        thread: Option<JoinHandle<()>>,
    }

    impl Fixture {
        fn new() -> Self {
            let batching = Arc::<Batching<usize>>::default();
            let (sender, sent) = channel();
            let running = Arc::clone(&batching);
            let thread = std::thread::spawn(move || running.run(|entry| sender.send(entry).expect("received")));
            Self { batching, sent, thread: Some(thread) }
        }

        /// Has as many entries sent as may be before others wait.
        fn fill(&self) {
            assert!((0..UNACKNOWLEDGED_MAX).all(|entry| self.batching.admit(entry, 1) == Some(entry)));
        }

        fn next(&self) -> usize {
            self.sent.recv_timeout(LONG).expect("sent")
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            self.batching.close();
            self.thread.take().expect("runs").join().expect("no panic");
        }
    }

    #[test]
    fn entries_of_a_calm_log_never_wait() {
        let fixture = Fixture::new();
        for entry in 0..100 {
            assert_eq!(fixture.batching.admit(entry, BATCH_BYTES_MAX), Some(entry));
            fixture.batching.acknowledge();
        }
        assert!(fixture.sent.try_recv().is_err());
    }

    #[test]
    fn waiting_entry_is_sent_after_its_time() {
        let fixture = Fixture::new();
        fixture.fill();
        let began = Instant::now();
        assert_eq!(fixture.batching.admit(100, 1), None);
        assert_eq!(fixture.next(), 100);
        assert!(began.elapsed() >= WAIT_MAX, "nothing was acknowledged");
        assert_eq!(fixture.batching.open_count(), UNACKNOWLEDGED_MAX + 1);
    }

    #[test]
    fn acknowledgement_sends_all_waiting_entries() {
        let fixture = Fixture::new();
        fixture.fill();
        // They wait for long: only an acknowledgement makes it due.
        {
            let mut waiting = fixture.batching.waiting.lock();
            waiting.entries.extend([100, 101]);
            waiting.begun_count += 2;
            waiting.since = Instant::now() + LONG;
        }
        fixture.batching.acknowledge();
        assert_eq!((fixture.next(), fixture.next()), (100, 101));
        assert!(fixture.batching.cut(Instant::now() + LONG));
        assert_eq!(fixture.batching.open_count(), UNACKNOWLEDGED_MAX + 1);
    }

    #[test]
    fn full_batch_is_sent_and_callers_block() {
        let fixture = Fixture::new();
        fixture.fill();
        for entry in 0..100 {
            assert_eq!(fixture.batching.admit(entry, BATCH_BYTES_MAX), None);
            assert!(fixture.batching.waiting.lock().entries.len() <= 1, "the next one blocks");
        }
        assert!((0..100).all(|entry| fixture.next() == entry));
    }

    #[test]
    fn entries_of_a_caller_keep_their_order() {
        const CALLERS: usize = 4;
        const ENTRIES: usize = 5_000;
        let batching = Arc::<Batching<usize>>::default();
        let (sender, sent) = channel();
        let thread = std::thread::spawn({
            let (batching, sender) = (Arc::clone(&batching), sender.clone());
            move || batching.run(|entry| sender.send(entry).expect("received"))
        });
        let callers = (0..CALLERS).map(|caller| {
            let (batching, sender) = (Arc::clone(&batching), sender.clone());
            std::thread::spawn(move || {
                for number in 0..ENTRIES {
                    if let Some(entry) = batching.admit(caller * ENTRIES + number, 1) {
                        sender.send(entry).expect("received");
                    }
                }
            })
        });
        let callers = Vec::from_iter(callers);
        let mut next = [0; CALLERS];
        for _ in 0..CALLERS * ENTRIES {
            let entry = sent.recv_timeout(LONG).expect("sent");
            assert_eq!(entry % ENTRIES, next[entry / ENTRIES], "of caller {}", entry / ENTRIES);
            next[entry / ENTRIES] += 1;
            batching.acknowledge();
        }
        callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
        batching.close();
        thread.join().expect("no panic");
        assert_eq!(batching.open_count(), 0);
    }

    #[test]
    fn closing_sends_the_rest() {
        let fixture = Fixture::new();
        fixture.fill();
        (100..200).for_each(|entry| assert_eq!(fixture.batching.admit(entry, 1), None));
        fixture.batching.close();
        assert!((100..200).all(|entry| fixture.next() == entry));
    }
}
