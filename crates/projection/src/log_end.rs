//! Asks the log for the ends of partitions, once for all reads that wait for the answer. Decides
//! nothing about a read.

use parking_lot::Mutex;
use receipts_log::{Ends, ReadError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The least time between the beginnings of two questions.
const INTERVAL: Duration = Duration::from_millis(50);

/// The ends of the log's partitions. One question at a time is under way, on a thread that may
/// block.
pub(crate) struct LogEnd {
    log: Arc<dyn Ends>,
    questions: Mutex<Questions>,
    /// The number of the last question that was answered, or failed.
    answered: watch::Sender<u64>,
}

#[derive(Default)]
struct Questions {
    /// Questions that have begun.
    begun: u64,
    /// The partitions of the next question.
    partitions: BTreeSet<u32>,
    /// True while a task asks.
    is_asking: bool,
    /// When the last question began.
    last: Option<Instant>,
    /// The last known ends. A partition whose question failed has none.
    ends: BTreeMap<u32, u64>,
}

impl LogEnd {
    pub(crate) fn new(log: Arc<dyn Ends>) -> Arc<Self> {
        Arc::new(Self { log, questions: Mutex::default(), answered: watch::channel(0).0 })
    }

    /// Returns the ends of partitions by a question that begins after this call, so that every
    /// append that was acknowledged before it counts. A partition that the log cannot be asked for
    /// is left out.
    pub(crate) async fn ask(self: &Arc<Self>, partitions: impl Iterator<Item = u32>) -> BTreeMap<u32, u64> {
        let mut answered = self.answered.subscribe();
        let number = {
            let mut questions = self.questions.lock();
            questions.partitions.extend(partitions);
            if !std::mem::replace(&mut questions.is_asking, true) {
                tokio::spawn(Arc::clone(self).run());
            }
            questions.begun + 1
        };
        // Fails only if `self` is dropped.
        _ = answered.wait_for(|answered| *answered >= number).await;
        self.questions.lock().ends.clone()
    }

    /// See [`Ends::confirm_topic`].
    pub(crate) fn confirm_topic(&self) -> Result<(), ReadError> {
        self.log.confirm_topic()
    }

    /// Asks until no read waits for a question.
    async fn run(self: Arc<Self>) {
        loop {
            let pause = {
                let mut questions = self.questions.lock();
                if questions.partitions.is_empty() {
                    questions.is_asking = false;
                    return;
                }
                questions.last.map_or(Duration::ZERO, |last| INTERVAL.saturating_sub(last.elapsed()))
            };
            tokio::time::sleep(pause).await;
            let (number, partitions) = {
                let mut questions = self.questions.lock();
                questions.begun += 1;
                questions.last = Some(Instant::now());
                (questions.begun, Vec::from_iter(std::mem::take(&mut questions.partitions)))
            };
            let log = Arc::clone(&self.log);
            let asked = partitions.clone();
            let ends = tokio::task::spawn_blocking(move || log.ends(&asked)).await;
            let mut questions = self.questions.lock();
            match ends {
                Ok(Ok(ends)) => questions.ends.extend(partitions.into_iter().zip(ends)),
                // The reads wait until their time is over.
                Ok(Err(_)) | Err(_) => partitions.iter().for_each(|partition| _ = questions.ends.remove(partition)),
            }
            drop(questions);
            self.answered.send_replace(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A log that grows at each question, and counts them.
    #[derive(Default)]
    struct Growing {
        questions: AtomicU64,
        end: AtomicU64,
        is_away: bool,
    }

    impl Ends for Growing {
        fn ends(&self, partitions: &[u32]) -> Result<Vec<u64>, ReadError> {
            self.questions.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            if self.is_away {
                return Err(ReadError::Retry("away".into()));
            }
            Ok(partitions.iter().map(|partition| self.end.load(Ordering::SeqCst) + u64::from(*partition)).collect())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_question_serves_all_waiting_reads() {
        let log = Arc::new(Growing::default());
        let end = LogEnd::new(Arc::clone(&log) as _);
        let reads = (0..200).map(|read| {
            let end = Arc::clone(&end);
            tokio::spawn(async move { end.ask([read % 4].into_iter()).await })
        });
        for read in Vec::from_iter(reads) {
            assert!(!read.await.unwrap().is_empty());
        }
        assert!(log.questions.load(Ordering::SeqCst) < 100, "far fewer questions than reads");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn answer_is_never_older_than_its_read() {
        let log = Arc::new(Growing::default());
        let end = LogEnd::new(Arc::clone(&log) as _);
        let reads = (0..100).map(|_| {
            let (end, log) = (Arc::clone(&end), Arc::clone(&log));
            tokio::spawn(async move {
                let acknowledged = log.end.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(end.ask([0].into_iter()).await[&0] >= acknowledged);
            })
        });
        for read in Vec::from_iter(reads) {
            read.await.unwrap();
        }
    }

    #[tokio::test]
    async fn log_that_is_away_has_no_end() {
        let end = LogEnd::new(Arc::new(Growing { is_away: true, ..Growing::default() }));
        assert!(end.ask([0].into_iter()).await.is_empty());
    }
}
