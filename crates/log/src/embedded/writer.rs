//! Durable appends to the embedded log: one thread commits the queued entries as one synced
//! transaction and acknowledges them.
//!
//! It never acknowledges before the commit is on the disk. It refuses entries without trying if the
//! disk has no space for them, and continues when there is space. After a failed commit it takes no
//! more entries.

use super::file::{File, with_rows};
use super::{ENTRY_BYTES_MAX, row};
use crate::check::Failures;
use crate::port::{AppendError, Entry, Location, PendingAppend, Topic, Writer};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// The maximum number of entries of one transaction, and the maximum of their bytes.
const BATCH_ENTRIES_MAX: usize = 16_384;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// The maximum size of the queue; a full queue blocks `append`.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// The maximum time that `append` blocks on a full queue.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the writer waits for space on a full disk before it refuses entries. The wait also
/// slows down callers that retry.
const SPACE_WAIT: Duration = Duration::from_millis(100);
/// The size of an entry in the queue in addition to its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 256;

type Outcome = Result<Location, AppendError>;

/// A queued entry with its partition, its size, and the sender of its outcome.
struct QueuedEntry {
    entry: Entry,
    partition: u32,
    bytes: usize,
    sender: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<QueuedEntry>,
    bytes: usize,
    /// Entries taken and not yet acknowledged.
    committing: usize,
    closed: bool,
    /// Why no more entries are taken.
    broken: Option<String>,
}

struct Shared {
    file: Arc<File>,
    queue: Mutex<Queue>,
    /// Notifies the thread that the queue has entries or is closed.
    filled: Condvar,
    /// Notifies appenders and flushers that entries were taken or acknowledged.
    drained: Condvar,
    failures: Failures,
}

/// The one writer of an embedded log. Its drop commits all queued entries.
pub(super) struct EmbeddedWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedWriter {
    pub(super) fn start(file: Arc<File>) -> Self {
        let shared = Arc::new(Shared {
            file,
            queue: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
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

    /// Decides the partition and queues the entry, or returns the sender with the error.
    fn queue(
        &self,
        entry: Entry,
        sender: oneshot::Sender<Outcome>,
    ) -> Result<(), (oneshot::Sender<Outcome>, AppendError)> {
        let count = self.shared.file.partition_count();
        let partition = match (entry.partition, &entry.key) {
            (Some(partition), _) if partition >= count => {
                let why = format!("the log has {count} partitions, but the entry names partition {partition}");
                return Err((sender, AppendError::NotWritten(why)));
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => receipts_event::partition_of(key, count),
            (None, None) => 0,
        };
        let headers = entry.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |v| v.len()));
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        let bytes = length(&entry.key) + length(&entry.value) + headers.sum::<usize>();
        if bytes > ENTRY_BYTES_MAX {
            let why = format!("the entry has {bytes} bytes, but the log takes up to {ENTRY_BYTES_MAX}");
            return Err((sender, AppendError::TooLarge(why)));
        }
        let bytes = bytes + ENTRY_OVERHEAD_BYTES;
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        let mut queue = self.shared.queue.lock();
        loop {
            if let Some(broken) = &queue.broken {
                return Err((sender, AppendError::NotWritten(broken.clone())));
            }
            if queue.bytes + bytes <= QUEUE_BYTES_MAX || queue.entries.is_empty() {
                break;
            }
            if self.shared.drained.wait_until(&mut queue, deadline).timed_out() {
                let why = format!("the queue was full for {} s", DELIVERY_TIMEOUT.as_secs());
                return Err((sender, AppendError::NotWritten(why)));
            }
        }
        queue.bytes += bytes;
        queue.entries.push_back(QueuedEntry { entry, partition, bytes, sender });
        drop(queue);
        self.shared.filled.notify_one();
        Ok(())
    }
}

impl Writer for EmbeddedWriter {
    fn append(&self, entry: Entry) -> PendingAppend {
        let (sender, appended) = oneshot::channel();
        if let Err((sender, why)) = self.queue(entry, sender) {
            self.shared.resolve(sender, Err(why));
        }
        appended
    }

    fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
        let deadline = Instant::now() + timeout;
        let mut queue = self.shared.queue.lock();
        while !queue.entries.is_empty() || queue.committing > 0 {
            if self.shared.drained.wait_until(&mut queue, deadline).timed_out() {
                let open = queue.entries.len() + queue.committing;
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
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer thread of the embedded log panicked");
        }
    }
}

impl Shared {
    /// Runs the writer thread until the queue is closed and empty.
    fn run(&self) {
        let mut batch = Vec::new();
        let mut is_full = false;
        while let Some(bytes) = self.take(&mut batch) {
            if let Err(sentence) = self.await_space(bytes) {
                if !std::mem::replace(&mut is_full, true) {
                    tracing::error!(entries = batch.len(), "{sentence}");
                }
                self.refuse(&mut batch, &sentence);
                continue;
            }
            if std::mem::take(&mut is_full) {
                tracing::info!("the disk of the embedded log has space again");
            }
            let outcome = self.commit(&batch);
            let broken = outcome.as_ref().err().map(|error| format!("an earlier append failed: {error}"));
            match outcome {
                Ok(written) => {
                    for (queued, location) in batch.drain(..).zip(written) {
                        self.resolve(queued.sender, Ok(location));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, entries = batch.len(), "the embedded log cannot append: mend the disk and restart");
                    for queued in batch.drain(..) {
                        self.resolve(queued.sender, Err(error.clone()));
                    }
                }
            }
            let mut queue = self.queue.lock();
            queue.committing = 0;
            if broken.is_some() {
                // Queued entries were never tried, so they are certainly not written.
                queue.broken.clone_from(&broken);
                let untried = std::mem::take(&mut queue.entries);
                queue.bytes = 0;
                drop(queue);
                for queued in untried {
                    self.resolve(queued.sender, Err(AppendError::NotWritten(broken.clone().unwrap_or_default())));
                }
            } else {
                drop(queue);
            }
            self.drained.notify_all();
        }
    }

    fn await_space(&self, bytes: usize) -> Result<(), String> {
        self.file.check_space(bytes).or_else(|_| {
            std::thread::sleep(SPACE_WAIT);
            self.file.check_space(bytes)
        })
    }

    /// Refuses a batch and all queued entries after it. Otherwise the first events of a request
    /// body could be refused and later ones written.
    fn refuse(&self, batch: &mut Vec<QueuedEntry>, sentence: &str) {
        let mut queue = self.queue.lock();
        batch.extend(queue.entries.drain(..));
        queue.bytes = 0;
        drop(queue);
        for queued in batch.drain(..) {
            self.resolve(queued.sender, Err(AppendError::NotWritten(sentence.to_owned())));
        }
        // Flushers wake up after the failures are stored, so that they see them.
        self.queue.lock().committing = 0;
        self.drained.notify_all();
    }

    /// Waits for entries and takes one batch. Returns its size in bytes, or `None` if the queue is
    /// closed and empty.
    fn take(&self, batch: &mut Vec<QueuedEntry>) -> Option<usize> {
        let mut queue = self.queue.lock();
        while queue.entries.is_empty() {
            if queue.closed {
                return None;
            }
            self.filled.wait(&mut queue);
        }
        let mut bytes = 0;
        while batch.len() < BATCH_ENTRIES_MAX
            && let Some(next) = queue.entries.front()
            && (batch.is_empty() || bytes + next.bytes <= BATCH_BYTES_MAX)
        {
            bytes += next.bytes;
            batch.extend(queue.entries.pop_front());
        }
        queue.bytes -= bytes;
        queue.committing = batch.len();
        drop(queue);
        self.drained.notify_all();
        Some(bytes)
    }

    /// Writes a batch in one synced transaction. Returns the locations in the order of the batch.
    fn commit(&self, batch: &[QueuedEntry]) -> Result<Vec<Location>, AppendError> {
        let not_written = |error: redb::Error| AppendError::NotWritten(error.to_string());
        let mut by_partition: BTreeMap<(usize, u32), (Topic, Vec<usize>)> = BTreeMap::new();
        for (at, queued) in batch.iter().enumerate() {
            let topic = queued.entry.topic;
            by_partition.entry((topic.index(), queued.partition)).or_insert((topic, Vec::new())).1.push(at);
        }
        let now_ms = now_ms();
        let mut written = vec![Location { partition: 0, offset: 0 }; batch.len()];
        let mut ends = Vec::with_capacity(by_partition.len());
        let mut bytes = Vec::new();
        let write = self.file.database().begin_write().map_err(|error| not_written(error.into()))?;
        for (&(_, partition), (topic, entries)) in &by_partition {
            let mut end = self.file.bounds_for_append(*topic, partition);
            with_rows(&write, *topic, partition, |table| {
                for &at in entries {
                    let entry = &batch[at].entry;
                    let asked = entry.timestamp_ms.filter(|&time| time != 0).unwrap_or(now_ms);
                    end.last_timestamp_ms = end.last_timestamp_ms.max(asked);
                    row::encode(entry, end.last_timestamp_ms, &mut bytes);
                    table.insert(end.next, bytes.as_slice())?;
                    written[at] = Location { partition, offset: end.next };
                    end.next += 1;
                }
                Ok(())
            })
            .map_err(not_written)?;
            ends.push((*topic, partition, end));
        }
        // From here on the bytes may be on the disk even if the commit fails.
        write.commit().map_err(|error| AppendError::Unknown(error.to_string()))?;
        self.file.grow(&ends);
        Ok(written)
    }

    /// Stores a failure for the next flush, and sends the outcome if the caller still waits for it.
    fn resolve(&self, sender: oneshot::Sender<Outcome>, outcome: Outcome) {
        if let Err(error) = &outcome {
            self.failures.note(error);
        }
        let _receiver_may_be_dropped = sender.send(outcome);
    }
}

/// Returns the time of an append, Unix milliseconds. The log sets record times, so it reads a
/// clock.
fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the log stamps records with the time of their append")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
