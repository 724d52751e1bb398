//! The open connections of a listener: a bounded number, of which the one that is idle for the
//! longest is closed for a new one (ADR 0036, INV-CONNECTIONS), and the times after which an idle
//! one or one with half a head is closed (INV-HEAD).
//!
//! It must not close a connection with a request in progress, except when its client reads nothing
//! of the answer, or when the credential of its stream has expired.

use crate::edge::alarm::Alarm;
use crate::edge::budget::Share;
use crate::edge::budget::meter::Meter;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The least time between two searches for a connection whose client reads nothing. A search looks
/// at all connections.
const SEARCH_PAUSE: Duration = Duration::from_millis(10);
/// How long after its credential a stream may take to end by itself. It is cut then.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// In the extensions of an answer: when its credential expires. A stream ends then by itself,
/// unless its client does not read; for that case it is cut soon after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndsAt(pub(crate) Instant);

/// In the extensions of a request: the listener has no room for it; the setting that decides that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoRoom(pub(crate) &'static str);

/// How long a connection may stay open without a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// From the first byte of a head to its last; for the first head, from the beginning of the
    /// connection.
    pub(crate) head: Duration,
    /// From the end of an answer to the first byte of the next head.
    pub(crate) keep_alive: Duration,
}

/// The open connections of one listener.
pub(crate) struct Connections {
    max: usize,
    times: Times,
    open: Mutex<Open>,
    /// Notified when a connection ends, or stays open although it was to be closed.
    changed: Notify,
    further: Mutex<Further>,
    meter: Meter,
    setting: &'static str,
}

#[derive(Default)]
struct Open {
    by_number: HashMap<u64, Arc<Connection>>,
    /// Connections that were ever open; numbers them.
    count: u64,
    /// Connections that were idle at the last look, in the order in which they give way. A
    /// connection that has had a request since is idle since another time.
    idle: VecDeque<Idle>,
}

/// An idle connection. Of HTTP/2, the one with the most waiting requests beyond its first one gives
/// way before all others: such a connection is a flood, or its client reads nothing. Then the one
/// that is idle for the longest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Idle {
    further_waiting: Reverse<usize>,
    since: Instant,
    number: u64,
}

/// The requests in progress beyond the first one of each connection, which only HTTP/2 has. There
/// may be as many of them as connections, so that few connections cannot hold what many may not.
#[derive(Default)]
struct Further {
    requests: usize,
    searched: Option<Instant>,
}

/// What the tasks of a connection know of one another.
pub(crate) struct Connection {
    state: Mutex<State>,
    /// Notified when another task than that of the connection has changed the state.
    told: Notify,
    connections: Weak<Connections>,
}

struct State {
    /// Requests in progress.
    requests: usize,
    /// Those of them that are not worked on: they have not begun, or their client does not read the
    /// answer. Known of HTTP/2 only.
    waiting: usize,
    /// Since when no other request is in progress, or the beginning of the connection.
    idle_since: Instant,
    /// The first byte of a head that is not complete yet, or the beginning of the connection.
    head_since: Option<Instant>,
    is_http2: bool,
    /// True if a new connection needs the place of this idle one, and once it is closed. A request
    /// of HTTP/1 that comes first wins.
    is_closing: bool,
    /// True while a new connection waits for the end of this one.
    is_asked: bool,
    /// The time of [`EndsAt`], while such an answer is sent over HTTP/1.
    ends_at: Option<Instant>,
}

/// Why a connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was idle for as long as it may be. It may end in good order.
    Idle,
    /// Another connection needs its place, its head is late, or its credential has expired.
    AtOnce,
}

impl Connections {
    /// Returns a listener's bookkeeping. `budget` names it in metrics, `setting` in the log.
    pub(crate) fn new(max: usize, times: Times, budget: &'static str, setting: &'static str) -> Arc<Self> {
        let meter = Meter::new(budget, max as u64, &[Share::Total]);
        let (open, further) = (Mutex::default(), Mutex::default());
        Arc::new(Self { max, times, open, changed: Notify::new(), further, meter, setting })
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
                if !close_first_idle(&mut open) {
                    drop(open);
                    self.meter.refused(Share::Total, self.setting);
                    return None;
                }
            }
            changed.await;
        }
    }

    fn slot(self: &Arc<Self>, open: &mut Open) -> Slot {
        let now = Instant::now();
        let connection = Arc::new(Connection {
            state: Mutex::new(State {
                requests: 0,
                waiting: 0,
                idle_since: now,
                head_since: Some(now),
                is_http2: false,
                is_closing: false,
                is_asked: false,
                ends_at: None,
            }),
            told: Notify::new(),
            connections: Arc::downgrade(self),
        });
        let number = open.count;
        open.count += 1;
        open.by_number.insert(number, Arc::clone(&connection));
        self.meter.set_used(open.by_number.len() as u64);
        Slot { connections: Arc::clone(self), number, connection }
    }

    /// Takes the place of one more request on a connection that has one. Returns false if there is
    /// none: then the connection that only waits, and that for the longest, gives its places back.
    fn take_further(&self) -> bool {
        let now = Instant::now();
        let mut further = self.further.lock();
        if further.requests < self.max {
            further.requests += 1;
            return true;
        }
        let is_soon = further.searched.is_some_and(|searched| now < searched + SEARCH_PAUSE);
        if !is_soon {
            further.searched = Some(now);
        }
        drop(further);
        self.meter.refused(Share::Total, self.setting);
        if !is_soon {
            let open = self.open.lock();
            let waiting_since = |connection: &&Arc<Connection>| {
                let state = connection.state.lock();
                state.idle_since().filter(|_| state.waiting > 0)
            };
            let waiting =
                open.by_number.values().filter_map(|connection| Some((waiting_since(&connection)?, connection)));
            if let Some((_, connection)) = waiting.min_by_key(|(since, _)| *since) {
                connection.state.lock().is_closing = true;
                connection.told.notify_one();
            }
        }
        false
    }
}

/// Tells the first idle connection to close. Returns false if none is idle.
fn close_first_idle(open: &mut Open) -> bool {
    loop {
        while let Some(Idle { since, number, .. }) = open.idle.pop_front() {
            let Some(connection) = open.by_number.get(&number) else { continue };
            let mut state = connection.state.lock();
            if state.idle_since() == Some(since) {
                (state.is_closing, state.is_asked) = (true, true);
                connection.told.notify_one();
                return true;
            }
        }
        let idle = open.by_number.iter().filter_map(|(number, connection)| {
            let state = connection.state.lock();
            let further_waiting = Reverse(state.waiting.saturating_sub(1));
            Some(Idle { further_waiting, since: state.idle_since()?, number: *number })
        });
        open.idle = idle.collect();
        if open.idle.is_empty() {
            return false;
        }
        open.idle.make_contiguous().sort_unstable();
    }
}

impl State {
    /// Since when the connection is idle, or none of its requests is worked on; `None` if it is
    /// not, or is being closed already.
    fn idle_since(&self) -> Option<Instant> {
        (self.requests == self.waiting && !self.is_closing).then_some(self.idle_since)
    }

    /// Returns when the connection has to be closed as it is now, and why.
    fn due(&self, times: Times) -> Option<(Instant, Why)> {
        match self.head_since {
            _ if self.requests > 0 => Some((self.ends_at?, Why::AtOnce)),
            Some(since) => Some((since + times.head, Why::AtOnce)),
            None => Some((self.idle_since + times.keep_alive, Why::Idle)),
        }
    }
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
    /// ends it. It runs on the task that serves the connection, and is polled after it, so no
    /// request begins between its check and the closing.
    pub(crate) async fn must_close(&self) -> Why {
        let Connection { state, told, .. } = &*self.connection;
        let mut notified = pin!(told.notified());
        let mut alarm = Alarm::default();
        poll_fn(|context| {
            while notified.as_mut().poll(context).is_ready() {
                notified.set(told.notified());
            }
            let due = {
                let mut state = state.lock();
                if state.is_closing {
                    return Poll::Ready(Why::AtOnce);
                }
                // A request came first, so another connection has to make room.
                if std::mem::take(&mut state.is_asked) {
                    self.connections.changed.notify_waiters();
                }
                state.due(self.connections.times)
            };
            let Some((at, why)) = due else { return Poll::Pending };
            alarm.poll(at, context).map(|()| why)
        })
        .await
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.state.lock().is_closing = true;
        let mut open = self.connections.open.lock();
        open.by_number.remove(&self.number);
        self.connections.meter.set_used(open.by_number.len() as u64);
        drop(open);
        self.connections.changed.notify_waiters();
    }
}

impl Connection {
    /// Notes that bytes have arrived. The first ones on an idle connection begin a head, except
    /// with HTTP/2, which has other frames and bounds its heads by pings.
    ///
    /// A head that came together with the end of the request before is not seen: such a connection
    /// counts as idle.
    pub(crate) fn received(&self) {
        let mut state = self.state.lock();
        if state.requests == 0 && state.head_since.is_none() && !state.is_http2 {
            state.head_since = Some(Instant::now());
        }
    }

    /// Marks a request as in progress until the guard is dropped. Without room for it, the guard
    /// comes with the reason to refuse it. A request of HTTP/2 waits until [`InProgress::start`].
    pub(crate) fn begin(self: &Arc<Self>, is_http2: bool) -> (InProgress, Option<NoRoom>) {
        let is_further = {
            let mut state = self.state.lock();
            if state.requests == 0 {
                state.idle_since = Instant::now();
            }
            state.requests += 1;
            state.waiting += usize::from(is_http2);
            (state.head_since, state.is_http2) = (None, is_http2);
            // Otherwise a flood of streams would keep its connection from being closed.
            state.is_closing &= is_http2;
            state.requests > 1
        };
        let connections = self.connections.upgrade().filter(|_| is_further);
        let holds_place = connections.as_ref().is_some_and(|connections| connections.take_further());
        let no_room = connections.filter(|_| !holds_place).map(|connections| NoRoom(connections.setting));
        (InProgress { connection: Arc::clone(self), holds_place, is_waiting: is_http2, ends: false }, no_room)
    }
}

/// A request in progress on a connection, until its whole answer is given to the connection.
pub(crate) struct InProgress {
    connection: Arc<Connection>,
    /// True if it holds one of the places beyond the first of each connection.
    holds_place: bool,
    is_waiting: bool,
    ends: bool,
}

impl InProgress {
    /// Has the connection closed soon after a time, if the answer has not ended by then.
    pub(crate) fn end_at(&mut self, EndsAt(at): EndsAt) {
        self.ends = true;
        self.connection.state.lock().ends_at = Some(at + GRACE);
        self.connection.told.notify_one();
    }

    /// Begins a request of HTTP/2. Returns false if its connection is closed already, so that
    /// nobody would get the answer.
    pub(crate) fn start(&mut self) -> bool {
        self.set_waiting(false);
        !self.connection.state.lock().is_closing
    }

    /// Notes whether only the client keeps the answer from going on. A connection of which that
    /// holds for all requests may be closed for a new one.
    pub(crate) fn set_waiting(&mut self, is_waiting: bool) {
        if self.is_waiting != is_waiting {
            self.is_waiting = is_waiting;
            let mut state = self.connection.state.lock();
            state.waiting = if is_waiting { state.waiting + 1 } else { state.waiting - 1 };
            if state.waiting == state.requests {
                state.idle_since = Instant::now();
            }
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if self.holds_place
            && let Some(connections) = self.connection.connections.upgrade()
        {
            connections.further.lock().requests -= 1;
        }
        let mut state = self.connection.state.lock();
        if self.ends {
            state.ends_at = None;
        }
        state.requests -= 1;
        state.waiting -= usize::from(self.is_waiting);
        if state.requests == state.waiting {
            state.idle_since = Instant::now();
            // Answers of HTTP/2 end on tasks of their own.
            if state.is_http2 {
                self.connection.told.notify_one();
            }
        }
    }
}
