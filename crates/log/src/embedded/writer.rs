//! Durable appends to the embedded log, grouped: one thread takes what is queued, commits it as one synced
//! transaction, and acknowledges.
//!
//! It never acknowledges before the commit is on the disk. What the disk has no room for it refuses untried, and goes on
//! when there is room; after a commit of open outcome it takes nothing more.

use super::file::{File, Held, with_rows};
use super::{ENTRY_BYTES_MAX, row};
use crate::check::Failures;
use crate::port::{AppendError, Entry, Location, PendingAppend, Topic, Writer};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// The most that one transaction takes.
const BATCH_ENTRIES_MAX: usize = 16_384;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// The most that is queued before `append` blocks.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// How long `append` blocks on a full queue.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a full disk is waited for before what came is refused: also how seldom whoever tries again is.
const ROOM_WAIT: Duration = Duration::from_millis(100);
/// What an entry weighs in the queue beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 256;

type Outcome = Result<Location, AppendError>;

/// An entry with its partition decided, and whom to tell.
struct Waiting {
    entry: Entry,
    partition: u32,
    bytes: usize,
    told: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Entries taken and not yet acknowledged.
    committing: usize,
    closed: bool,
    /// Why nothing more is taken.
    broken: Option<String>,
}

struct Shared {
    file: Arc<File>,
    queue: Mutex<Queue>,
    /// Something came, for the thread.
    came: Condvar,
    /// Something was taken or acknowledged, for appenders and flushers.
    went: Condvar,
    failures: Failures,
}

/// The one writer of an embedded log. Its drop commits what is queued.
pub(super) struct EmbeddedWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedWriter {
    pub(super) fn start(file: Arc<File>) -> Self {
        let shared = Arc::new(Shared {
            file,
            queue: Mutex::default(),
            came: Condvar::new(),
            went: Condvar::new(),
            failures: Failures::default(),
        });
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn({
                let shared = shared.clone();
                move || shared.run()
            })
            .expect("the system can start one more thread");
        EmbeddedWriter { shared, thread: Some(thread) }
    }

    /// Decides the partition and queues, or says why not.
    fn queue(
        &self,
        entry: Entry,
        told: oneshot::Sender<Outcome>,
    ) -> Result<(), (oneshot::Sender<Outcome>, AppendError)> {
        let count = self.shared.file.partition_count();
        let partition = match (entry.partition, &entry.key) {
            (Some(partition), _) if partition >= count => {
                let why = format!("the log has {count} partitions, no number {partition}");
                return Err((told, AppendError::NotWritten(why)));
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => receipts_event::partition_of(key, count),
            (None, None) => 0,
        };
        let headers = entry.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |v| v.len()));
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        let bytes = length(&entry.key) + length(&entry.value) + headers.sum::<usize>();
        if bytes > ENTRY_BYTES_MAX {
            let why = format!("an entry of {bytes} bytes; the log takes up to {ENTRY_BYTES_MAX}");
            return Err((told, AppendError::TooLarge(why)));
        }
        let bytes = bytes + ENTRY_OVERHEAD_BYTES;
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        let mut queue = self.shared.queue.lock();
        loop {
            if let Some(broken) = &queue.broken {
                return Err((told, AppendError::NotWritten(broken.clone())));
            }
            if queue.waiting_bytes + bytes <= QUEUE_BYTES_MAX || queue.waiting.is_empty() {
                break;
            }
            if self.shared.went.wait_until(&mut queue, deadline).timed_out() {
                let why = format!("the queue was full for {} s", DELIVERY_TIMEOUT.as_secs());
                return Err((told, AppendError::NotWritten(why)));
            }
        }
        queue.waiting_bytes += bytes;
        queue.waiting.push_back(Waiting { entry, partition, bytes, told });
        drop(queue);
        self.shared.came.notify_one();
        Ok(())
    }
}

impl Writer for EmbeddedWriter {
    fn append(&self, entry: Entry) -> PendingAppend {
        let (told, appended) = oneshot::channel();
        if let Err((told, why)) = self.queue(entry, told) {
            self.shared.tell(told, Err(why));
        }
        appended
    }

    fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
        let deadline = Instant::now() + timeout;
        let mut queue = self.shared.queue.lock();
        while !queue.waiting.is_empty() || queue.committing > 0 {
            if self.shared.went.wait_until(&mut queue, deadline).timed_out() {
                let open = queue.waiting.len() + queue.committing;
                return Err(AppendError::Unknown(format!(
                    "{open} entries are not acknowledged after {} ms",
                    timeout.as_millis()
                )));
            }
        }
        drop(queue);
        self.shared.failures.take()
    }
}

impl Drop for EmbeddedWriter {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.came.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer thread of the embedded log panicked");
        }
    }
}

impl Shared {
    /// The writer thread: until closed and empty.
    fn run(&self) {
        let mut batch = Vec::new();
        let mut is_full = false;
        while let Some(bytes) = self.take(&mut batch) {
            if let Err(sentence) = self.await_room(bytes) {
                if !std::mem::replace(&mut is_full, true) {
                    tracing::error!(entries = batch.len(), "{sentence}");
                }
                self.refuse(&mut batch, &sentence);
                continue;
            }
            if std::mem::take(&mut is_full) {
                tracing::info!("the disk of the embedded log has room again");
            }
            let outcome = self.commit(&batch);
            let broken = outcome.as_ref().err().map(|error| format!("the log failed before: {error}"));
            match outcome {
                Ok(written) => {
                    for (waiting, written) in batch.drain(..).zip(written) {
                        self.tell(waiting.told, Ok(written));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, entries = batch.len(), "the embedded log cannot append: restart when the disk is well");
                    for waiting in batch.drain(..) {
                        self.tell(waiting.told, Err(error.clone()));
                    }
                }
            }
            let mut queue = self.queue.lock();
            queue.committing = 0;
            if broken.is_some() {
                // What is queued was never tried: it certainly did not happen.
                queue.broken.clone_from(&broken);
                let left = std::mem::take(&mut queue.waiting);
                queue.waiting_bytes = 0;
                drop(queue);
                for waiting in left {
                    self.tell(waiting.told, Err(AppendError::NotWritten(broken.clone().unwrap_or_default())));
                }
            } else {
                drop(queue);
            }
            self.went.notify_all();
        }
    }

    fn await_room(&self, bytes: usize) -> Result<(), String> {
        self.file.has_room(bytes).or_else(|_| {
            std::thread::sleep(ROOM_WAIT);
            self.file.has_room(bytes)
        })
    }

    /// Refuses a batch and what is queued behind it: of a body whose first events are refused nothing is to be written.
    fn refuse(&self, batch: &mut Vec<Waiting>, sentence: &str) {
        let mut queue = self.queue.lock();
        batch.extend(queue.waiting.drain(..));
        queue.waiting_bytes = 0;
        drop(queue);
        for waiting in batch.drain(..) {
            self.tell(waiting.told, Err(AppendError::NotWritten(sentence.to_owned())));
        }
        // Only now: who flushes is to hear of it.
        self.queue.lock().committing = 0;
        self.went.notify_all();
    }

    /// Waits for entries and takes one transaction's worth, of so many bytes; `None` when there will be none.
    fn take(&self, batch: &mut Vec<Waiting>) -> Option<usize> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            self.came.wait(&mut queue);
        }
        let mut bytes = 0;
        while batch.len() < BATCH_ENTRIES_MAX
            && let Some(next) = queue.waiting.front()
            && (batch.is_empty() || bytes + next.bytes <= BATCH_BYTES_MAX)
        {
            bytes += next.bytes;
            batch.extend(queue.waiting.pop_front());
        }
        queue.waiting_bytes -= bytes;
        queue.committing = batch.len();
        drop(queue);
        self.went.notify_all();
        Some(bytes)
    }

    /// Writes a batch in one synced transaction; where each entry went, in the order of the batch.
    fn commit(&self, batch: &[Waiting]) -> Result<Vec<Location>, AppendError> {
        let not_written = |error: redb::Error| AppendError::NotWritten(error.to_string());
        let mut places: BTreeMap<(usize, u32), (Topic, Vec<usize>)> = BTreeMap::new();
        for (at, waiting) in batch.iter().enumerate() {
            let topic = waiting.entry.topic;
            places.entry((topic.index(), waiting.partition)).or_insert((topic, Vec::new())).1.push(at);
        }
        let now_ms = now_ms();
        let mut written = vec![Location { partition: 0, offset: 0 }; batch.len()];
        let mut ends = Vec::with_capacity(places.len());
        let mut bytes = Vec::new();
        let write = self.file.database().begin_write().map_err(|error| not_written(error.into()))?;
        for (&(_, partition), (topic, entries)) in &places {
            let mut held = self.file.held(*topic, partition);
            with_rows(&write, *topic, partition, |table| {
                for &at in entries {
                    let entry = &batch[at].entry;
                    let asked = entry.timestamp_ms.filter(|&time| time != 0).unwrap_or(now_ms);
                    held.last_timestamp_ms = held.last_timestamp_ms.max(asked);
                    row::encode(entry, held.last_timestamp_ms, &mut bytes);
                    table.insert(held.next, bytes.as_slice())?;
                    written[at] = Location { partition, offset: held.next };
                    held.next += 1;
                }
                Ok(())
            })
            .map_err(not_written)?;
            ends.push((*topic, partition, Held { ..held }));
        }
        // From here on the bytes may reach the disk whatever the answer.
        write.commit().map_err(|error| AppendError::Unknown(error.to_string()))?;
        self.file.grow(&ends);
        Ok(written)
    }

    /// Tells whoever waits, if anybody still does.
    fn tell(&self, told: oneshot::Sender<Outcome>, outcome: Outcome) {
        if let Err(error) = &outcome {
            self.failures.note(error);
        }
        let _nobody_waits = told.send(outcome);
    }
}

/// The time of an append, Unix milliseconds. The log is where records get their time, so it reads a clock.
fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the log stamps records with the time of their append")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
