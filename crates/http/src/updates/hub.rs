//! One follower of the topic of updates a process, and everybody who waits for some of them.
//!
//! Must not wait for a stream: one whose buffer is full is cut off. What an update may show is not decided here.

use super::redact::addressees;
use bytes::Bytes;
use receipts_log::{Inspect, Polled, ReadError, Record, Tail, Topic};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Updates that wait for one stream, at most.
const BUFFER_UPDATES: usize = 256;
/// Records of one poll.
const POLL_RECORDS: usize = 1_024;
/// How long a poll waits for a record: also how late a stop may be noticed.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How long to wait before a log that cannot be read is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// A record of the topic of updates.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// JSON, as it stands in the topic.
    pub(crate) value: Bytes,
}

/// Follows the topic on a thread of its own until it is dropped.
pub(crate) struct Hub {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    log: Arc<dyn Inspect>,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    /// By partition: everything below was handed to the streams. Empty while the topic is not followed.
    next: Vec<u64>,
    /// By addressee.
    streams: HashMap<String, Vec<Registered>>,
    /// Streams ever.
    count: u64,
    closed: bool,
}

struct Registered {
    number: u64,
    to: mpsc::Sender<Arc<Update>>,
}

impl Hub {
    /// Begins to follow the topic at its end. Blocks until that is known.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub(crate) fn start(log: Arc<dyn Inspect>) -> Result<Self, ReadError> {
        let shared = Arc::new(Shared { log, registry: Mutex::default() });
        let tail = shared.follow()?;
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

    /// The log that is followed.
    pub(crate) fn log(&self) -> &Arc<dyn Inspect> {
        &self.shared.log
    }

    /// Registers a stream; `None` where the topic is not followed just now, or never again.
    pub(crate) fn subscribe(&self, addressee: &str) -> Option<Subscription> {
        let mut registry = self.shared.registry();
        if registry.closed || registry.next.is_empty() {
            return None;
        }
        let (to, updates) = mpsc::channel(BUFFER_UPDATES);
        registry.count += 1;
        let number = registry.count;
        registry.streams.entry(addressee.to_owned()).or_default().push(Registered { number, to });
        let next = registry.next.clone();
        drop(registry);
        metrics::gauge!("receipts_streams").increment(1.0);
        Some(Subscription { shared: Arc::clone(&self.shared), addressee: addressee.to_owned(), number, next, updates })
    }

    /// Ends every stream and follows no more; the log is let go before this returns.
    pub(crate) fn close(&self) {
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

/// A stream's place in the registry, given back with the drop.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    addressee: String,
    number: u64,
    /// By partition: every update from here on comes by `updates`.
    pub(crate) next: Vec<u64>,
    /// Ends where the stream was cut off, behind what it was given before.
    pub(crate) updates: mpsc::Receiver<Arc<Update>>,
}

impl Subscription {
    /// By partition: everything below was received. `None` where something waits, or was left out.
    pub(crate) fn received(&self) -> Option<Vec<u64>> {
        let registry = self.shared.registry();
        let is_here = registry.streams.get(&self.addressee)?.iter().any(|stream| stream.number == self.number);
        (is_here && self.updates.is_empty() && !registry.next.is_empty()).then(|| registry.next.clone())
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
        metrics::gauge!("receipts_streams").decrement(1.0);
    }
}

impl Shared {
    /// Whoever panicked with the lock held has left nothing half done that matters: streams end one by one.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to the end of every partition.
    fn follow(&self) -> Result<Box<dyn Tail>, ReadError> {
        let ends = (0..self.log.partition_count()).map(|partition| self.log.bounds(Topic::Updates, partition));
        let next: Vec<u64> = ends.map(|bounds| Ok(bounds?.end)).collect::<Result<_, ReadError>>()?;
        let starts: Vec<(u32, u64)> = (0..).zip(next.iter().copied()).collect();
        let tail = self.log.tail(Topic::Updates, &starts)?;
        self.registry().next = next;
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
                Err(ReadError::Retry(why)) => tracing::warn!(why, "updates cannot be read just now"),
                Err(ReadError::Stop(why)) => {
                    // What comes next is not what comes next in the topic: streams go on from where each of them stands.
                    tracing::error!(why, "updates cannot be followed; all streams end");
                    tail = None;
                    let mut registry = self.registry();
                    registry.next.clear();
                    registry.streams.clear();
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn take(&self, polled: Polled<'_>) {
        let mut registry = self.registry();
        match polled {
            Polled::Records(records) => records.iter().for_each(|record| registry.hand_out(record)),
            Polled::End { partition, next_offset } => registry.advance(partition, next_offset),
        }
    }
}

impl Registry {
    fn advance(&mut self, partition: u32, next_offset: u64) {
        if let Some(next) = self.next.get_mut(partition as usize) {
            *next = next_offset.max(*next);
        }
    }

    /// Gives an update to everybody who waits for it; who cannot take it gets nothing more.
    fn hand_out(&mut self, record: &Record<'_>) {
        self.advance(record.partition, record.offset + 1);
        let Some(value) = record.value.filter(|_| !self.streams.is_empty()) else { return };
        let Some(addressees) = addressees(value) else { return };
        let mut update = None;
        for addressee in addressees {
            let Some(streams) = self.streams.get_mut(&addressee) else { continue };
            let update = update.get_or_insert_with(|| {
                let value = Bytes::copy_from_slice(value);
                Arc::new(Update { partition: record.partition, offset: record.offset, value })
            });
            streams.retain(|stream| {
                let sent = stream.to.try_send(Arc::clone(update));
                if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                    metrics::counter!("receipts_streams_cut_total").increment(1);
                }
                sent.is_ok()
            });
            if streams.is_empty() {
                self.streams.remove(&addressee);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::redact::Interest;
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
    fn an_update_goes_to_its_conversation_and_its_sender_and_to_nobody_else() {
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
        assert_ne!(g2.updates.blocking_recv().unwrap().value, one.value);
        assert!(other.updates.is_empty() && g1.updates.is_empty() && alice.updates.is_empty());
    }

    /// INV-STREAM
    #[test]
    fn a_stream_that_does_not_read_is_cut_off_behind_what_it_was_given_without_a_hole() {
        let bench = bench();
        let (mut slow, mut quick) =
            (bench.subscribe(Interest::Sender("alice".into())), bench.subscribe(Interest::Conversation("g1".into())));
        for _ in 0..3 {
            bench.publish("g1", "alice", BUFFER_UPDATES / 2);
            (0..BUFFER_UPDATES / 2).for_each(|_| _ = quick.updates.blocking_recv().unwrap());
        }
        assert_eq!(slow.received(), None, "what was left out is not called received");
        let mut offsets = Vec::new();
        while let Some(update) = slow.updates.blocking_recv() {
            offsets.push(update.offset);
        }
        assert_eq!(offsets, (0..BUFFER_UPDATES as u64).collect::<Vec<_>>());
        assert!(quick.received().is_some(), "nobody else is");
    }

    #[test]
    fn a_stream_that_goes_leaves_nothing_behind_and_a_hub_that_closes_ends_all() {
        let bench = bench();
        drop(bench.subscribe(Interest::Sender("alice".into())));
        assert!(bench.hub.shared.registry().streams.is_empty());
        let mut stream = bench.subscribe(Interest::Sender("alice".into()));
        bench.hub.close();
        assert!(stream.updates.blocking_recv().is_none());
        assert!(bench.hub.subscribe("salice").is_none());
    }
}
