//! The open connections of a listener: a bounded number, of which the one that is idle for the
//! longest is closed for a new one (ADR 0036, INV-CONNECTIONS).
//!
//! It must not close a connection with a request in progress, except when the credential of its
//! stream has expired.

use crate::edge::budget::Share;
use crate::edge::budget::meter::Meter;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// In place of a time: a request is in progress.
const BUSY: u64 = 0;
/// In place of a time: the connection is being closed for a new one.
const CLOSING: u64 = u64::MAX;
/// How long after its credential a stream may take to end by itself. Its connection is closed then.
const GRACE: Duration = Duration::from_secs(1);

/// In the extensions of an answer: when its credential expires. A stream ends then by itself,
/// unless its client does not read; for that case its connection is closed soon after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndsAt(pub(crate) Instant);

/// The open connections of one listener.
pub(crate) struct Connections {
    max: usize,
    began: Instant,
    open: Mutex<Open>,
    /// Notified when a connection ends, or stays open although it was to be closed.
    changed: Notify,
    meter: Meter,
    setting: &'static str,
}

#[derive(Default)]
struct Open {
    by_number: HashMap<u64, Arc<Connection>>,
    /// Connections that were ever open; numbers them.
    count: u64,
    /// Connections that were idle at the last look, the longest idle first: since when, and the
    /// number. A connection that has had a request since is idle since another time.
    idle: VecDeque<(u64, u64)>,
}

/// What the tasks of a connection know of one another.
pub(crate) struct Connection {
    began: Instant,
    /// Since when the connection is idle, in nanoseconds after `began`, or [`BUSY`], or
    /// [`CLOSING`].
    idle_since: AtomicU64,
    /// True while a new connection waits for the end of this one.
    is_asked: AtomicBool,
    /// The time of [`EndsAt`], while such an answer is sent.
    ends_at: Mutex<Option<Instant>>,
    /// Notified when one of both is set, for [`Slot::must_close`].
    told: Notify,
}

impl Connections {
    /// Returns a listener's bookkeeping. `budget` names it in metrics, `setting` in the log.
    pub(crate) fn new(max: usize, budget: &'static str, setting: &'static str) -> Arc<Self> {
        Arc::new(Self {
            max,
            began: Instant::now(),
            open: Mutex::default(),
            changed: Notify::new(),
            meter: Meter::new(budget, max as u64, &[Share::Total]),
            setting,
        })
    }

    /// Makes room for one more connection. Returns `None` if as many are open as may be, and none
    /// of them is idle.
    pub(crate) async fn open(self: &Arc<Self>) -> Option<Slot> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut open = self.open.lock();
                if open.by_number.len() < self.max {
                    return Some(self.slot(&mut open));
                }
                if !self.close_longest_idle(&mut open) {
                    drop(open);
                    self.meter.refused(Share::Total, self.setting);
                    return None;
                }
            }
            changed.await;
        }
    }

    fn slot(self: &Arc<Self>, open: &mut Open) -> Slot {
        let connection = Arc::new(Connection {
            began: self.began,
            idle_since: AtomicU64::new(self.now()),
            is_asked: AtomicBool::new(false),
            ends_at: Mutex::new(None),
            told: Notify::new(),
        });
        let number = open.count;
        open.count += 1;
        open.by_number.insert(number, Arc::clone(&connection));
        self.meter.set_used(open.by_number.len() as u64);
        Slot { connections: Arc::clone(self), number, connection }
    }

    /// Tells the connection that is idle for the longest to close. Returns false if none is idle.
    fn close_longest_idle(&self, open: &mut Open) -> bool {
        loop {
            while let Some((since, number)) = open.idle.pop_front() {
                if let Some(connection) = open.by_number.get(&number)
                    && connection
                        .idle_since
                        .compare_exchange(since, CLOSING, Ordering::Relaxed, Ordering::Relaxed)
                        .is_ok()
                {
                    connection.is_asked.store(true, Ordering::Relaxed);
                    connection.told.notify_one();
                    return true;
                }
            }
            let idle = open.by_number.iter().filter_map(|(number, connection)| {
                let since = connection.idle_since.load(Ordering::Relaxed);
                (since != BUSY && since != CLOSING).then_some((since, *number))
            });
            open.idle = idle.collect();
            if open.idle.is_empty() {
                return false;
            }
            open.idle.make_contiguous().sort_unstable();
        }
    }

    fn now(&self) -> u64 {
        nanoseconds_since(self.began)
    }
}

/// The time as a number that is neither [`BUSY`] nor [`CLOSING`].
fn nanoseconds_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX).clamp(BUSY + 1, CLOSING - 1)
}

/// The place of an open connection; given back when it is dropped.
pub(crate) struct Slot {
    connections: Arc<Connections>,
    number: u64,
    connection: Arc<Connection>,
}

impl Slot {
    /// The connection, for its requests.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Resolves when the connection has to be closed, although neither its client nor the service
    /// ends it. It runs on the task that serves the connection, so no request begins between its
    /// check and the closing.
    pub(crate) async fn must_close(&self) {
        let Connection { idle_since, is_asked, ends_at, told, .. } = &*self.connection;
        loop {
            let at = *ends_at.lock();
            let ended = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = told.notified() => {
                    if idle_since.load(Ordering::Relaxed) == CLOSING {
                        return;
                    }
                    // A request came first, so another connection has to make room.
                    if is_asked.swap(false, Ordering::Relaxed) {
                        self.connections.changed.notify_waiters();
                    }
                }
                () = ended => {
                    if *ends_at.lock() == at {
                        return;
                    }
                }
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.by_number.remove(&self.number);
        self.connections.meter.set_used(open.by_number.len() as u64);
        drop(open);
        self.connections.changed.notify_waiters();
    }
}

impl Connection {
    /// Marks a request as in progress until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InProgress {
        self.idle_since.store(BUSY, Ordering::Relaxed);
        InProgress { connection: Arc::clone(self), ends: false }
    }
}

/// A request in progress on a connection, until its whole answer is given to the connection.
pub(crate) struct InProgress {
    connection: Arc<Connection>,
    ends: bool,
}

impl InProgress {
    /// Has the connection closed soon after a time, if the answer has not ended by then.
    pub(crate) fn end_at(&mut self, EndsAt(at): EndsAt) {
        self.ends = true;
        *self.connection.ends_at.lock() = Some(at + GRACE);
        self.connection.told.notify_one();
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if self.ends {
            *self.connection.ends_at.lock() = None;
        }
        self.connection.idle_since.store(nanoseconds_since(self.connection.began), Ordering::Relaxed);
    }
}
