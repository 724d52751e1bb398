//! Reads and decodes on a thread of its own while loops fold what came before, each in a lane of its own. Folds nothing, and
//! decides nothing about partitions: whatever the reader asks is answered on the thread of the partition's loop, in its turn
//! behind the records before it. So a revoke still comes after the last record of its partition, and is a barrier.

use crate::batch::{Batch, Rows};
use crate::projector::POLL_WAIT;
use crate::source::{Handed, POLL_RECORDS, Source};
use parking_lot::Mutex;
use receipts_log::{Assignment, Log, OwnedRecord, Peek, ReadError, Reader};
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Batches that wait in a lane: enough that neither thread waits for the other's longest turn but for a checkpoint's, and that
/// the other lanes have work while the log hands over one partition; few enough that a revoke is soon answered.
const BATCHES_AHEAD: usize = 4;

/// The partitions of one of several loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane {
    number: usize,
    count: usize,
}

impl Lane {
    /// The only one.
    pub(crate) const ALL: Self = Self { number: 0, count: 1 };

    /// Lanes that share all partitions out.
    pub(crate) fn several(count: usize) -> impl Iterator<Item = Self> {
        (0..count).map(move |number| Self { number, count })
    }

    /// Whether a partition is one of its own.
    pub(crate) fn has(self, partition: u32) -> bool {
        lane_of(partition, self.count) == self.number
    }
}

fn lane_of(partition: u32, count: usize) -> usize {
    partition as usize % count
}

/// What the reader's thread has for a loop, in order.
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

/// What a loop says to [`Assigned`].
enum Answer {
    /// Wants to look at a record first.
    Look(u64),
    /// Begins at an offset, or cannot.
    Begin(Result<u64, Box<dyn Error + Send + Sync>>),
}

/// What the threads share beside the messages.
#[derive(Default)]
struct Shared {
    /// How far partitions are durable, for lag tools.
    commits: Mutex<Vec<(u32, u64)>>,
    ended: AtomicBool,
}

impl Shared {
    /// Whether a loop has, and with it all are to.
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// The thread that reads.
struct Thread(Mutex<Option<JoinHandle<()>>>);

/// The end of a lane at which a loop stands. See the module.
pub(crate) struct Ahead {
    messages: Receiver<Message>,
    /// Batches that are folded: the thread that took their memory gives it back, or uses it again.
    spent: Sender<Batch>,
    assignment: Arc<dyn Assignment>,
    partition_count: u32,
    shared: Arc<Shared>,
    /// Goes last: whoever waits for it must not be what it waits for.
    thread: Arc<Thread>,
}

impl Ahead {
    /// Begins to read, with a lane for each of the assignments.
    ///
    /// # Errors
    /// Where the log cannot be read, or there is no thread.
    pub(crate) fn start(
        log: &dyn Log,
        group: &str,
        assignments: Vec<Arc<dyn Assignment>>,
    ) -> Result<Vec<Self>, ReadError> {
        let lanes = (0..assignments.len()).map(|_| sync_channel(BATCHES_AHEAD));
        let (to, lanes): (Vec<_>, Vec<_>) = lanes.unzip();
        let (spent, emptied) = channel();
        let reader = log.reader(group, Arc::new(Relay(to.clone())))?;
        let (shared, count) = (Arc::<Shared>::default(), log.partition_count());
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-reader".into())
            .spawn(move || read_on(reader, &to, &emptied, &its, count))
            .map_err(|e| ReadError::Stop(format!("no thread can be started to read the log: {e}")))?;
        let thread = Arc::new(Thread(Mutex::new(Some(thread))));
        let lane = |(messages, assignment)| Self {
            messages,
            spent: spent.clone(),
            assignment,
            partition_count: count,
            shared: Arc::clone(&shared),
            thread: Arc::clone(&thread),
        };
        Ok(lanes.into_iter().zip(assignments).map(lane).collect())
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
                // Where another loop has ended, that is why; this one is about to be told.
                Ok(Message::Failed(_)) | Err(RecvTimeoutError::Disconnected) if self.shared.has_ended() => {
                    return Ok(0);
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Ok(0),
                Err(RecvTimeoutError::Disconnected) => {
                    // What went wrong there goes wrong here.
                    let thread = self.thread.0.lock().take();
                    if let Some(Err(panic)) = thread.map(JoinHandle::join) {
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
    /// The end of one lane is that of all: its partitions would be read on and lost.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Otherwise its loop was closed, and holds none any more.
        if std::thread::panicking() {
            self.assignment.revoked(&(0..self.partition_count).collect::<Vec<_>>());
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.0.get_mut().take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that reads the log panicked; this is a bug: please report it with the log");
        }
    }
}

/// The thread: until it is told to stop, or cannot go on.
fn read_on(
    mut reader: Box<dyn Reader>,
    to: &[SyncSender<Message>],
    spent: &Receiver<Batch>,
    shared: &Shared,
    partition_count: u32,
) {
    let mut lanes: Vec<Rows> = to.iter().map(|_| Rows::default()).collect();
    // Nobody listens only where the loops are gone, and then this ends too.
    let send = |lane: usize, rows: &mut Rows| {
        let next = spent.try_recv().map(Batch::emptied).unwrap_or_default();
        _ = to[lane].send(Message::Batch(Batch::decoded(std::mem::replace(rows, next), partition_count)));
    };
    while !shared.has_ended() {
        for (partition, next_offset) in std::mem::take(&mut *shared.commits.lock()) {
            reader.commit(partition, next_offset);
        }
        let polled = reader.poll(POLL_RECORDS, POLL_WAIT, &mut |polled| {
            let lane = lane_of(polled.partition(), to.len());
            let rows = &mut lanes[lane];
            rows.push(polled);
            if rows.is_full() {
                send(lane, rows);
            }
        });
        for (lane, rows) in lanes.iter_mut().enumerate() {
            if !rows.is_empty() {
                send(lane, rows);
            }
        }
        if let Err(error) = polled {
            let is_last = matches!(error, ReadError::Stop(_));
            // What passes one loop says for all; why it was the last, whichever ends first has to know.
            for to in &to[..if is_last { to.len() } else { 1 }] {
                _ = to.send(Message::Failed(error.clone()));
            }
            if is_last {
                return;
            }
            std::thread::sleep(POLL_WAIT);
        }
    }
}

/// Asks the loops what the reader asks.
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
        let to = &self.0[lane_of(partition, self.0.len())];
        _ = to.send(Message::Assigned(Assigned { partition, first_offset, end_offset, answer, records }));
        loop {
            match answers.recv() {
                Ok(Answer::Look(offset)) => _ = found.send(log.record(offset)),
                Ok(Answer::Begin(begin)) => return begin,
                Err(_) => return Err("the projector stops".into()),
            }
        }
    }

    /// Waits for all lanes at once; each releases its own.
    fn revoked(&self, partitions: &[u32]) {
        let lanes: BTreeSet<_> = partitions.iter().map(|partition| lane_of(*partition, self.0.len())).collect();
        let (released, is_released) = channel();
        for lane in lanes {
            _ = self.0[lane].send(Message::Revoked { partitions: partitions.to_vec(), released: released.clone() });
        }
        drop(released);
        // Each lets its end go, whether it says so or is gone.
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
        // Where the other thread is gone, so is what it would have answered with.
        _ = self.answer.send(Answer::Look(offset));
        self.records.recv().map_err(|_| ReadError::Stop("the log is not read any more".into()))?
    }
}
