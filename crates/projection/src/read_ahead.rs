//! Reads and decodes the log on one thread, while each worker folds earlier records on its own.
//! Folds nothing and decides nothing about partitions. Assignments and revokes go to the worker
//! through the same queue as the records, and the reader waits for its reply. So a revoke still
//! comes after the last record of its partition, and is a barrier (INV-HANDOVER).

use crate::batch::{Batch, Rows};
use crate::shard::shard_of;
use crate::source::{POLL_RECORDS, Source, SourceItem};
use crate::worker::POLL_WAIT;
use parking_lot::Mutex;
use receipts_event::Decoder;
use receipts_log::{Assignment, Log, OwnedRecord, Peek, ReadError, Reader};
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Batches that may wait for one worker. Enough that neither thread waits for the longest step of
/// the other, except a checkpoint, and that other workers stay busy while the log delivers one
/// partition. Few enough that a revoke is answered soon.
const BATCHES_AHEAD: usize = 4;

/// A message from the reader's thread to a worker, in order.
enum Message {
    Batch(Batch),
    Assigned(Assigned),
    Revoked {
        partitions: Vec<u32>,
        /// True if their states are kept, see [`Assignment::lost`].
        lost: bool,
        /// The worker drops it, or sends on it, once the partitions are released.
        released: Sender<()>,
    },
    /// After [`ReadError::Stop`] there are no more messages.
    Failed(ReadError),
}

/// A partition was assigned; the worker answers at which offset it begins.
struct Assigned {
    partition: u32,
    first_offset: u64,
    end_offset: u64,
    answer: Sender<Answer>,
    /// Replies to [`Answer::Peek`].
    records: Receiver<Result<Option<OwnedRecord>, ReadError>>,
}

/// A worker's answer to [`Assigned`].
enum Answer {
    /// Asks for the record at an offset first.
    Peek(u64),
    /// Begins at an offset, or cannot begin.
    Begin(Result<u64, Box<dyn Error + Send + Sync>>),
}

/// The state that the threads share, in addition to the messages.
#[derive(Default)]
struct Shared {
    /// Durable offsets to commit to the log.
    commits: Mutex<Vec<(u32, u64)>>,
    ended: AtomicBool,
}

impl Shared {
    /// True once any worker has stopped; all others must then stop too.
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// The reader's thread. Dropping it waits for the thread.
struct ReaderThread(Mutex<Option<JoinHandle<()>>>);

/// One worker's end of the channel from the reader's thread.
pub(crate) struct ReadAhead {
    messages: Receiver<Message>,
    /// Returns folded batches, so that the thread that allocated their memory reuses or frees it.
    spent: Sender<Batch>,
    assignment: Arc<dyn Assignment>,
    partition_count: u32,
    shared: Arc<Shared>,
    /// Must stay the last field: dropping it waits for the thread, which may wait for the others.
    thread: Arc<ReaderThread>,
}

impl ReadAhead {
    /// Starts to read; returns a source per assignment. Sets `failed` before any worker learns that
    /// the log cannot be read any further.
    ///
    /// # Errors
    /// If the log cannot be read, or the thread cannot be started.
    pub(crate) fn start(
        log: &dyn Log,
        group: &str,
        assignments: Vec<Arc<dyn Assignment>>,
        decoder: Decoder,
        failed: &Arc<AtomicBool>,
    ) -> Result<Vec<Self>, ReadError> {
        let channels = (0..assignments.len()).map(|_| sync_channel(BATCHES_AHEAD));
        let (workers, messages): (Vec<_>, Vec<_>) = channels.unzip();
        let (spent, returned) = channel();
        let reader = log.reader(group, Arc::new(Relay(workers.clone())))?;
        let (shared, partition_count) = (Arc::<Shared>::default(), decoder.partition_count);
        let (thread_shared, failed) = (Arc::clone(&shared), Arc::clone(failed));
        let thread = std::thread::Builder::new()
            .name("log-reader".into())
            .spawn(move || read_on(reader, &workers, &returned, &thread_shared, &failed, decoder))
            .map_err(|e| ReadError::Stop(format!("the thread that reads the log cannot be started: {e}")))?;
        let thread = Arc::new(ReaderThread(Mutex::new(Some(thread))));
        let source = |(messages, assignment)| Self {
            messages,
            spent: spent.clone(),
            assignment,
            partition_count,
            shared: Arc::clone(&shared),
            thread: Arc::clone(&thread),
        };
        Ok(messages.into_iter().zip(assignments).map(source).collect())
    }
}

impl Source for ReadAhead {
    fn poll(&mut self, wait: Duration, each: &mut dyn FnMut(SourceItem<'_>)) -> Result<usize, ReadError> {
        let deadline = Instant::now() + wait;
        loop {
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Message::Batch(batch)) => {
                    let records = batch.for_each(each);
                    _ = self.spent.send(batch);
                    return Ok(records);
                }
                Ok(Message::Assigned(assigned)) => assigned.answer(&*self.assignment),
                Ok(Message::Revoked { partitions, lost, released }) => {
                    if lost {
                        self.assignment.lost(&partitions);
                    } else {
                        self.assignment.revoked(&partitions);
                    }
                    _ = released.send(());
                }
                // The end of another worker caused this. The projector stops this worker soon.
                Ok(Message::Failed(_)) | Err(RecvTimeoutError::Disconnected) if self.shared.has_ended() => {
                    return Ok(0);
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Ok(0),
                Err(RecvTimeoutError::Disconnected) => {
                    // A panic of the reader's thread becomes a panic of this worker.
                    let thread = self.thread.0.lock().take();
                    if let Some(Err(panic)) = thread.map(JoinHandle::join) {
                        std::panic::resume_unwind(panic);
                    }
                    return Err(ReadError::Stop("the thread that reads the log has ended".into()));
                }
            }
        }
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        self.shared.commits.lock().push((partition, next_offset));
    }
}

impl Drop for ReadAhead {
    /// Ends the reader's thread, and so all workers. Otherwise the records of this shard would be
    /// read and lost.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Without a panic the worker was closed and has released its partitions.
        if std::thread::panicking() {
            self.assignment.revoked(&(0..self.partition_count).collect::<Vec<_>>());
        }
    }
}

impl Drop for ReaderThread {
    fn drop(&mut self) {
        if self.0.get_mut().take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that reads the log panicked; this is a bug: please report it with the log");
        }
    }
}

/// Runs on the reader's thread until a worker ends or the log cannot be read any further.
fn read_on(
    mut reader: Box<dyn Reader>,
    workers: &[SyncSender<Message>],
    returned: &Receiver<Batch>,
    shared: &Shared,
    failed: &AtomicBool,
    decoder: Decoder,
) {
    let mut pending: Vec<Rows> = workers.iter().map(|_| Rows::default()).collect();
    // A send fails only after the workers have ended, and then this thread ends too.
    let send = |shard: usize, rows: &mut Rows| {
        let next = returned.try_recv().map(Batch::into_empty_rows).unwrap_or_default();
        _ = workers[shard].send(Message::Batch(Batch::decode(std::mem::replace(rows, next), decoder)));
    };
    while !shared.has_ended() {
        for (partition, next_offset) in std::mem::take(&mut *shared.commits.lock()) {
            reader.commit(partition, next_offset);
        }
        let polled = reader.poll(POLL_RECORDS, POLL_WAIT, &mut |polled| {
            let shard = shard_of(polled.partition(), workers.len());
            let rows = &mut pending[shard];
            rows.push(polled);
            if rows.is_full() {
                send(shard, rows);
            }
        });
        for (shard, rows) in pending.iter_mut().enumerate() {
            if !rows.is_empty() {
                send(shard, rows);
            }
        }
        if let Err(error) = polled {
            let is_fatal = matches!(error, ReadError::Stop(_));
            if is_fatal {
                failed.store(true, Ordering::Release);
            }
            // A transient error goes to one worker, which logs it. A fatal one goes to every
            // worker, so that the worker that exits first can report the cause.
            for worker in &workers[..if is_fatal { workers.len() } else { 1 }] {
                _ = worker.send(Message::Failed(error.clone()));
            }
            if is_fatal {
                return;
            }
            std::thread::sleep(POLL_WAIT);
        }
    }
}

/// Passes the reader's assignments and revocations to the workers.
struct Relay(Vec<SyncSender<Message>>);

impl Assignment for Relay {
    fn assigned(
        &self,
        partition: u32,
        first_offset: u64,
        end_offset: u64,
        log: &dyn Peek,
    ) -> Result<u64, Box<dyn Error + Send + Sync>> {
        let (answer, answers) = channel();
        let (found, records) = channel();
        let worker = &self.0[shard_of(partition, self.0.len())];
        _ = worker.send(Message::Assigned(Assigned { partition, first_offset, end_offset, answer, records }));
        loop {
            match answers.recv() {
                Ok(Answer::Peek(offset)) => _ = found.send(log.record(offset)),
                Ok(Answer::Begin(begin)) => return begin,
                Err(_) => return Err("the projector stops".into()),
            }
        }
    }

    fn revoked(&self, partitions: &[u32]) {
        self.take_away(partitions, false);
    }

    fn lost(&self, partitions: &[u32]) {
        self.take_away(partitions, true);
    }
}

impl Relay {
    /// Waits for all affected workers at once; each releases or keeps the partitions of its shard.
    fn take_away(&self, partitions: &[u32], lost: bool) {
        let shards: BTreeSet<_> = partitions.iter().map(|partition| shard_of(*partition, self.0.len())).collect();
        let (released, is_released) = channel();
        for shard in shards {
            let (partitions, released) = (partitions.to_vec(), released.clone());
            _ = self.0[shard].send(Message::Revoked { partitions, lost, released });
        }
        drop(released);
        // Each worker drops its sender, after releasing its partitions or because it has exited.
        while is_released.recv().is_ok() {}
    }
}

impl Assigned {
    fn answer(self, assignment: &dyn Assignment) {
        let Self { partition, first_offset, end_offset, .. } = self;
        let begin = assignment.assigned(partition, first_offset, end_offset, &self);
        _ = self.answer.send(Answer::Begin(begin));
    }
}

impl Peek for Assigned {
    fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError> {
        // If the reader's thread has ended, the send fails and so does the reply.
        _ = self.answer.send(Answer::Peek(offset));
        self.records.recv().map_err(|_| ReadError::Stop("the thread that reads the log has ended".into()))?
    }
}
