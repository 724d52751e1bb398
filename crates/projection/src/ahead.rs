//! Reads and decodes on a thread of its own while the loop folds what came before. Folds nothing, and decides nothing about
//! partitions: whatever the reader asks is answered on the loop's thread, in its turn behind the records before it. So a
//! revoke still comes after the last record of its partition, and is a barrier.

use crate::batch::{Batch, Rows};
use crate::projector::POLL_WAIT;
use crate::source::{Handed, POLL_RECORDS, Source};
use parking_lot::Mutex;
use receipts_log::{Assignment, Log, OwnedRecord, Peek, ReadError, Reader};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Batches between the two threads: enough that neither waits for the other's longest turn but for a checkpoint's, and few
/// enough that a revoke is soon answered.
const BATCHES_AHEAD: usize = 4;

/// What the reader's thread has for the loop, in order.
enum Message {
    Batch(Batch),
    Assigned(Assigned),
    Revoked {
        partitions: Vec<u32>,
        /// Told once they are released.
        released: Sender<()>,
    },
    /// After [`ReadError::Stop`] nothing comes any more.
    Failed(ReadError),
}

/// A partition is ours: where is it to begin?
struct Assigned {
    partition: u32,
    first_offset: u64,
    end_offset: u64,
    answer: Sender<Answer>,
    /// Records that were asked for.
    records: Receiver<Result<Option<OwnedRecord>, ReadError>>,
}

/// What the loop says to [`Assigned`].
enum Answer {
    /// Wants to look at a record first.
    Look(u64),
    /// Begins at an offset, or cannot.
    Begin(Result<u64, Box<dyn Error + Send + Sync>>),
}

/// What the two threads share beside the messages.
#[derive(Default)]
struct Shared {
    /// How far partitions are durable, for lag tools.
    commits: Mutex<Vec<(u32, u64)>>,
    stop: AtomicBool,
}

/// See the module.
pub(crate) struct Ahead {
    messages: Receiver<Message>,
    /// Batches that are folded: the thread that took their memory gives it back, or uses it again.
    spent: Sender<Batch>,
    assignment: Arc<dyn Assignment>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Begins to read.
    ///
    /// # Errors
    /// Where the log cannot be read, or there is no thread.
    pub(crate) fn start(log: &dyn Log, group: &str, assignment: Arc<dyn Assignment>) -> Result<Self, ReadError> {
        let (to, messages) = sync_channel(BATCHES_AHEAD);
        let (spent, emptied) = channel();
        let reader = log.reader(group, Arc::new(Relay(to.clone())))?;
        let shared = Arc::new(Shared::default());
        let (its, count) = (Arc::clone(&shared), log.partition_count());
        let thread = std::thread::Builder::new()
            .name("log-reader".into())
            .spawn(move || read_on(reader, &to, &emptied, &its, count))
            .map_err(|e| ReadError::Stop(format!("no thread can be started to read the log: {e}")))?;
        Ok(Self { messages, spent, assignment, shared, thread: Some(thread) })
    }
}

impl Source for Ahead {
    fn poll(&mut self, wait: Duration, each: &mut dyn FnMut(Handed<'_>)) -> Result<usize, ReadError> {
        let deadline = Instant::now() + wait;
        loop {
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Message::Batch(batch)) => {
                    let records = batch.hand_over(each);
                    _ = self.spent.send(batch);
                    return Ok(records);
                }
                Ok(Message::Assigned(assigned)) => assigned.answer(&*self.assignment),
                Ok(Message::Revoked { partitions, released }) => {
                    self.assignment.revoked(&partitions);
                    _ = released.send(());
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Ok(0),
                Err(RecvTimeoutError::Disconnected) => {
                    // What went wrong there goes wrong here.
                    if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
                        std::panic::resume_unwind(panic);
                    }
                    return Err(ReadError::Stop("the log is not read any more".into()));
                }
            }
        }
    }

    fn commit(&mut self, partition: u32, next_offset: u64) {
        self.shared.commits.lock().push((partition, next_offset));
    }
}

impl Drop for Ahead {
    /// Takes no partition any more, and gives back what is held: the reader waits for that.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        while let Ok(message) = self.messages.recv() {
            if let Message::Revoked { partitions, released } = message {
                self.assignment.revoked(&partitions);
                _ = released.send(());
            }
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that reads the log panicked; this is a bug: please report it with the log");
        }
    }
}

/// The thread: until it is told to stop, or cannot go on.
fn read_on(
    mut reader: Box<dyn Reader>,
    to: &SyncSender<Message>,
    spent: &Receiver<Batch>,
    shared: &Shared,
    partition_count: u32,
) {
    let mut rows = Rows::default();
    // Nobody listens only where the loop is gone, and then this ends too.
    let send = |rows: &mut Rows| {
        let next = spent.try_recv().map(Batch::emptied).unwrap_or_default();
        _ = to.send(Message::Batch(Batch::decoded(std::mem::replace(rows, next), partition_count)));
    };
    while !shared.stop.load(Ordering::Acquire) {
        for (partition, next_offset) in std::mem::take(&mut *shared.commits.lock()) {
            reader.commit(partition, next_offset);
        }
        let polled = reader.poll(POLL_RECORDS, POLL_WAIT, &mut |polled| {
            rows.push(polled);
            if rows.is_full() {
                send(&mut rows);
            }
        });
        if !rows.is_empty() {
            send(&mut rows);
        }
        if let Err(error) = polled {
            let is_last = matches!(error, ReadError::Stop(_));
            _ = to.send(Message::Failed(error));
            if is_last {
                return;
            }
            std::thread::sleep(POLL_WAIT);
        }
    }
}

/// Asks the loop what the reader asks.
struct Relay(SyncSender<Message>);

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
        _ = self.0.send(Message::Assigned(Assigned { partition, first_offset, end_offset, answer, records }));
        loop {
            match answers.recv() {
                Ok(Answer::Look(offset)) => _ = found.send(log.record(offset)),
                Ok(Answer::Begin(begin)) => return begin,
                Err(_) => return Err("the projector stops".into()),
            }
        }
    }

    fn revoked(&self, partitions: &[u32]) {
        let (released, is_released) = channel();
        _ = self.0.send(Message::Revoked { partitions: partitions.to_vec(), released });
        _ = is_released.recv();
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
        // Where the other thread is gone, so is what it would have answered with.
        _ = self.answer.send(Answer::Look(offset));
        self.records.recv().map_err(|_| ReadError::Stop("the log is not read any more".into()))?
    }
}
