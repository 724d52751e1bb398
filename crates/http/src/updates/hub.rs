//! Follows the topic of updates once per process and delivers each update to the streams that
//! subscribed to it.
//!
//! It must not wait for a stream: it cuts off a stream whose buffer is full. It does not decide
//! what a stream may show.

use super::update::{Parsed, Update, UpdateTrace};
use bytes::Bytes;
use receipts_log::{Inspect, Polled, ReadError, Record, Tail, Topic};
use receipts_metrics::catalogue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// The most updates that wait for one stream.
const BUFFER_UPDATES: usize = 256;
/// The most records of one poll.
const POLL_RECORDS: usize = 1_024;
/// How long a poll waits for a record. A stop is noticed within this time.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// The pause before a log that cannot be read is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the topic on a thread of its own until it is dropped.
pub(super) struct Hub {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    log: Arc<dyn Inspect>,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    /// By partition: every update below this offset was delivered. Empty while the topic is not
    /// followed.
    next_offsets: Vec<u64>,
    /// By addressee.
    streams: HashMap<String, Vec<Registered>>,
    /// Streams that were ever registered; numbers them.
    count: u64,
    closed: bool,
}

struct Registered {
    number: u64,
    sender: mpsc::Sender<Arc<Update>>,
}

impl Hub {
    /// Begins to follow the topic at its end. Blocks until the log has returned the end.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(super) fn start(log: Arc<dyn Inspect>) -> Result<Self, ReadError> {
        let shared = Arc::new(Shared { log, registry: Mutex::default() });
        let tail = shared.follow()?;
        catalogue::STREAMS.get().set(0.0);
        catalogue::STREAMS_CUT.get().increment(0);
        let run = {
            let shared = Arc::clone(&shared);
            move || shared.run(tail)
        };
        let thread = std::thread::Builder::new()
            .name("updates".into())
            .spawn(run)
            .map_err(|error| ReadError::Stop(format!("cannot start the thread that follows the updates: {error}")))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The log that the hub follows.
    pub(super) fn log(&self) -> &Arc<dyn Inspect> {
        &self.shared.log
    }

    /// Registers a stream. Returns `None` while the topic is not followed, and after a close.
    pub(super) fn subscribe(&self, addressee: &str) -> Option<Subscription> {
        let mut registry = self.shared.registry();
        if registry.closed || registry.next_offsets.is_empty() {
            return None;
        }
        let (sender, updates) = mpsc::channel(BUFFER_UPDATES);
        registry.count += 1;
        let number = registry.count;
        registry.streams.entry(addressee.to_owned()).or_default().push(Registered { number, sender });
        let live_from = registry.next_offsets.clone();
        drop(registry);
        catalogue::STREAMS.get().increment(1.0);
        Some(Subscription {
            shared: Arc::clone(&self.shared),
            addressee: addressee.to_owned(),
            number,
            live_from,
            updates,
        })
    }

    /// Ends every stream and stops following. Returns after the thread has released the log.
    pub(super) fn close(&self) {
        {
            let mut registry = self.shared.registry();
            registry.closed = true;
            registry.streams.clear();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that follows the updates panicked");
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

/// The registration of a stream. It ends when it is dropped.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    addressee: String,
    number: u64,
    /// By partition: every update from this offset on arrives in `updates`.
    pub(super) live_from: Vec<u64>,
    /// Ends if the stream was cut off, after the updates that were delivered before.
    pub(super) updates: mpsc::Receiver<Arc<Update>>,
}

impl Subscription {
    /// Returns the next offset by partition: the stream has received every update below it. Returns
    /// `None` if updates wait in the buffer, or if the stream was cut off.
    pub(super) fn received(&self) -> Option<Vec<u64>> {
        let registry = self.shared.registry();
        let is_registered = registry.streams.get(&self.addressee)?.iter().any(|stream| stream.number == self.number);
        let is_complete = is_registered && self.updates.is_empty() && !registry.next_offsets.is_empty();
        is_complete.then(|| registry.next_offsets.clone())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut registry = self.shared.registry();
        if let Some(streams) = registry.streams.get_mut(&self.addressee) {
            streams.retain(|stream| stream.number != self.number);
            if streams.is_empty() {
                registry.streams.remove(&self.addressee);
            }
        }
        catalogue::STREAMS.get().decrement(1.0);
    }
}

impl Shared {
    /// Locks the registry. A panic under the lock leaves no half-done work that matters, because
    /// streams end one by one.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to the end of every partition.
    fn follow(&self) -> Result<Box<dyn Tail>, ReadError> {
        let ends = (0..self.log.partition_count()).map(|partition| self.log.bounds(Topic::Updates, partition));
        let next_offsets: Vec<u64> = ends.map(|bounds| Ok(bounds?.end)).collect::<Result<_, ReadError>>()?;
        let starts: Vec<(u32, u64)> = (0..).zip(next_offsets.iter().copied()).collect();
        let tail = self.log.tail(Topic::Updates, &starts)?;
        self.registry().next_offsets = next_offsets;
        Ok(tail)
    }

    fn run(&self, tail: Box<dyn Tail>) {
        let mut tail = Some(tail);
        while !self.registry().closed {
            let read = match &mut tail {
                Some(tail) => tail.poll(POLL_RECORDS, POLL_WAIT, &mut |polled| self.take(polled)).map(|_| ()),
                None => self.follow().map(|followed| tail = Some(followed)),
            };
            match read {
                Ok(()) => continue,
                Err(ReadError::Retry(why)) => tracing::warn!(why, "updates cannot be read; retrying"),
                Err(ReadError::Stop(why)) => {
                    // After a restart the hub begins at the new end, so updates between are
                    // missing. Each stream has to resume from its own position.
                    tracing::error!(why, "updates cannot be followed; all streams end and have to resume");
                    tail = None;
                    let mut registry = self.registry();
                    registry.next_offsets.clear();
                    registry.streams.clear();
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn take(&self, polled: Polled<'_>) {
        let mut registry = self.registry();
        match polled {
            Polled::Records(records) => records.iter().for_each(|record| registry.deliver(record)),
            Polled::End { partition, next_offset } => registry.advance(partition, next_offset),
        }
    }
}

impl Registry {
    fn advance(&mut self, partition: u32, next_offset: u64) {
        if let Some(next) = self.next_offsets.get_mut(partition as usize) {
            *next = next_offset.max(*next);
        }
    }

    /// Parses an update once and delivers it to every stream that receives it. A stream whose
    /// buffer is full receives nothing more.
    fn deliver(&mut self, record: &Record<'_>) {
        self.advance(record.partition, record.offset + 1);
        let Some(value) = record.value.filter(|_| !self.streams.is_empty()) else { return };
        let Some(parsed) = Parsed::parse(value) else { return };
        let addressees = parsed.addressees();
        if !addressees.iter().flatten().any(|addressee| self.streams.contains_key(addressee)) {
            return;
        }
        let json = Bytes::copy_from_slice(value);
        let mut update = parsed.into_update(record.partition, record.offset, json);
        update.trace = UpdateTrace::of(record);
        let update = Arc::new(update);
        for addressee in addressees.iter().flatten() {
            let Some(streams) = self.streams.get_mut(addressee) else { continue };
            streams.retain(|stream| {
                let sent = stream.sender.try_send(Arc::clone(&update));
                if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                    catalogue::STREAMS_CUT.get().increment(1);
                }
                sent.is_ok()
            });
            if streams.is_empty() {
                self.streams.remove(addressee);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::update::Interest;
    use super::*;
    use receipts_log::embedded::EmbeddedLog;
    use receipts_log::{Entry, Log as _};
    use std::num::NonZeroU32;

    struct Bench {
        hub: Hub,
        log: Arc<EmbeddedLog>,
        _dir: tempfile::TempDir,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(dir.path(), NonZeroU32::new(2)).unwrap());
        let hub = Hub::start(Arc::clone(&log) as _).unwrap();
        Bench { hub, log, _dir: dir }
    }

    impl Bench {
        fn publish(&self, conversation_id: &str, sender_id: &str, count: usize) {
            let value = serde_json::json!({"type": "receipt.updated", "tenant": "t", "conversation_id": conversation_id,
                "message_id": "m", "sender_id": sender_id, "newly_read": []});
            let key = receipts_event::key("t", conversation_id);
            let entry = Entry { topic: Topic::Updates, ..Entry::event(key, value.to_string(), None) };
            let appended: Vec<_> = (0..count).map(|_| self.log.writer().append(entry.clone())).collect();
            appended.into_iter().for_each(|appended| _ = appended.blocking_recv().unwrap().unwrap());
        }

        fn subscribe(&self, interest: Interest) -> Subscription {
            self.hub.subscribe(&interest.addressee("t")).unwrap()
        }
    }

    /// INV-STREAM
    #[test]
    fn update_reaches_only_its_conversation_and_its_sender() {
        let bench = bench();
        let mut streams = [
            Interest::Conversation("g1".to_owned()),
            Interest::Sender("alice".to_owned()),
            Interest::Conversation("g2".to_owned()),
            Interest::Sender("g1".to_owned()),
        ]
        .map(|interest| bench.subscribe(interest));
        bench.publish("g1", "alice", 1);
        bench.publish("g2", "bob", 1);
        let [g1, alice, g2, other] = &mut streams;
        let one = g1.updates.blocking_recv().unwrap();
        assert_eq!(one.offset, alice.updates.blocking_recv().unwrap().offset);
        assert_ne!(g2.updates.blocking_recv().unwrap().json, one.json);
        assert!(other.updates.is_empty() && g1.updates.is_empty() && alice.updates.is_empty());
    }

    /// INV-STREAM
    #[test]
    fn slow_stream_is_cut_off_without_a_gap() {
        let bench = bench();
        let (mut slow, mut quick) =
            (bench.subscribe(Interest::Sender("alice".into())), bench.subscribe(Interest::Conversation("g1".into())));
        for _ in 0..3 {
            bench.publish("g1", "alice", BUFFER_UPDATES / 2);
            (0..BUFFER_UPDATES / 2).for_each(|_| _ = quick.updates.blocking_recv().unwrap());
        }
        assert_eq!(slow.received(), None, "a cut stream has not received everything");
        let mut offsets = Vec::new();
        while let Some(update) = slow.updates.blocking_recv() {
            offsets.push(update.offset);
        }
        assert_eq!(offsets, (0..BUFFER_UPDATES as u64).collect::<Vec<_>>());
        assert!(quick.received().is_some(), "the other stream has received everything");
    }

    #[test]
    fn closed_streams_leave_nothing_and_closed_hub_ends_all() {
        let bench = bench();
        drop(bench.subscribe(Interest::Sender("alice".into())));
        assert!(bench.hub.shared.registry().streams.is_empty());
        let mut stream = bench.subscribe(Interest::Sender("alice".into()));
        bench.hub.close();
        assert!(stream.updates.blocking_recv().is_none());
        assert!(bench.hub.subscribe("salice").is_none());
    }
}
