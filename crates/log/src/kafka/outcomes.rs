//! The outcomes of appends: informs the callers, keeps failures for the next flush, and finds upper
//! bounds for offsets that a retry hid.
//!
//! If the acknowledgement of a batch is lost, librdkafka sends the batch again. If the broker
//! already holds the batch or acknowledges a later one, librdkafka reports the records as delivered
//! without their offsets. The end of the partition, queried after that report, lies beyond those
//! records. This code never queries on the thread that reports deliveries, and it never invents an
//! offset.

use super::brokers::Brokers;
use super::inspect::{QueryConsumer, bounds_of, query_consumer};
use super::settings::KafkaSettings;
use crate::check::Failures;
use crate::port::{AppendError, Location};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The time limit of one query to a broker; an outcome is at most this late after its deadline. A
/// shorter limit would slow down slow brokers, because librdkafka reconnects after a query that
/// timed out.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a failed query.
const PAUSE: Duration = Duration::from_millis(100);

/// An append that waits for its outcome, and the deadline for it.
pub(super) struct Waiter {
    pub(super) sender: oneshot::Sender<Result<Location, AppendError>>,
    pub(super) deadline: Instant,
}

/// A partition with hidden offsets since the start.
struct HiddenPartition {
    topic: String,
    partition: u32,
    hidden_count: u64,
    waiters: Vec<Waiter>,
}

/// The next query: the end of one partition, for all its waiters.
struct Query {
    index: usize,
    topic: String,
    partition: u32,
    waiters: Vec<Waiter>,
}

#[derive(Default)]
struct Hidden {
    partitions: Vec<HiddenPartition>,
    /// The number of appends with a hidden offset and no outcome yet.
    open: usize,
    closed: bool,
    /// Started with the first hidden offset.
    thread: Option<JoinHandle<()>>,
}

/// The outcomes of one writer.
pub(super) struct Outcomes {
    settings: Arc<KafkaSettings>,
    brokers: Arc<Brokers>,
    failures: Failures,
    hidden: Mutex<Hidden>,
    /// Notifies the thread that there is a waiter or that the log closes.
    work: Condvar,
    /// Notifies flushers that outcomes were sent.
    resolved: Condvar,
}

impl Outcomes {
    pub(super) fn new(settings: Arc<KafkaSettings>, brokers: Arc<Brokers>) -> Arc<Self> {
        Arc::new(Outcomes {
            settings,
            brokers,
            failures: Failures::default(),
            hidden: Mutex::default(),
            work: Condvar::new(),
            resolved: Condvar::new(),
        })
    }

    pub(super) fn resolve(&self, waiter: Waiter, outcome: Result<Location, AppendError>) {
        if let Err(error) = &outcome {
            self.failures.note(error);
        }
        let _receiver_may_be_dropped = waiter.sender.send(outcome);
    }

    /// Reports an entry that the log holds: at once, or as soon as there is a bound for its offset.
    pub(super) fn delivered(self: &Arc<Self>, topic: &str, partition: i32, offset: i64, waiter: Waiter) {
        let Ok(partition) = u32::try_from(partition) else {
            let error = AppendError::Unknown(format!("{topic}: acknowledged without a partition"));
            return self.resolve(waiter, Err(error));
        };
        let mut hidden = self.hidden.lock();
        let index = hidden.partitions.iter().position(|other| (&*other.topic, other.partition) == (topic, partition));
        // librdkafka numbers the records of a batch from its first offset, and from -1 if that is
        // hidden. A record comes after all earlier hidden records of its partition, so an offset
        // below their number is invalid.
        let least = index.map_or(0, |index| hidden.partitions[index].hidden_count);
        if let Some(offset) = u64::try_from(offset).ok().filter(|offset| *offset >= least) {
            drop(hidden);
            return self.resolve(waiter, Ok(Location { partition, offset }));
        }
        let index = index.unwrap_or_else(|| {
            hidden.partitions.push(HiddenPartition {
                topic: topic.into(),
                partition,
                hidden_count: 0,
                waiters: Vec::new(),
            });
            hidden.partitions.len() - 1
        });
        hidden.partitions[index].hidden_count += 1;
        hidden.partitions[index].waiters.push(waiter);
        hidden.open += 1;
        if hidden.closed {
            drop(hidden);
            return self.give_up("the log is closed", |_| true);
        }
        if hidden.thread.is_none() {
            let all = self.clone();
            match std::thread::Builder::new().name("log-offsets".into()).spawn(move || all.run()) {
                Ok(thread) => hidden.thread = Some(thread),
                Err(error) => {
                    drop(hidden);
                    return self.give_up(&format!("no thread can be started: {error}"), |_| true);
                }
            }
        }
        drop(hidden);
        self.work.notify_one();
    }

    /// Waits until no offset is hidden, then returns the worst failure since the last flush.
    pub(super) fn flush(&self, deadline: Instant) -> Result<(), AppendError> {
        let mut hidden = self.hidden.lock();
        while hidden.open > 0 {
            if self.resolved.wait_until(&mut hidden, deadline).timed_out() && hidden.open > 0 {
                let open = hidden.open;
                return Err(AppendError::Unknown(format!(
                    "{open} entries are acknowledged, but not yet with an offset"
                )));
            }
        }
        drop(hidden);
        self.failures.take()
    }

    /// Forgets failures that were told to their callers.
    pub(super) fn forget_failures(&self) {
        _ = self.failures.take();
    }

    /// Ends the thread. Remaining waiters get an unknown outcome.
    pub(super) fn close(&self) {
        let mut hidden = self.hidden.lock();
        hidden.closed = true;
        let thread = hidden.thread.take();
        drop(hidden);
        self.work.notify_all();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that queries offsets panicked");
        }
    }

    fn run(&self) {
        while self.wait() {
            // The consumer is dropped after the last query, because the next query may be far away.
            let (mut consumer, mut start) = (None, 0);
            while let Some(query) = self.next_query(start) {
                start = query.index + 1;
                self.run_query(&mut consumer, query);
            }
        }
        self.give_up("the log is closed", |_| true);
    }

    /// Waits for work. Returns false if the log closes.
    fn wait(&self) -> bool {
        let mut hidden = self.hidden.lock();
        while hidden.open == 0 && !hidden.closed {
            self.work.wait(&mut hidden);
        }
        !hidden.closed
    }

    /// Takes all waiters of one partition. Looks at the partitions in turn, beginning at index
    /// `start`.
    fn next_query(&self, start: usize) -> Option<Query> {
        let mut hidden = self.hidden.lock();
        if hidden.closed {
            return None;
        }
        let count = hidden.partitions.len();
        let index =
            (start..start + count).map(|at| at % count).find(|at| !hidden.partitions[*at].waiters.is_empty())?;
        let HiddenPartition { topic, partition, waiters, .. } = &mut hidden.partitions[index];
        Some(Query { index, topic: topic.clone(), partition: *partition, waiters: std::mem::take(waiters) })
    }

    fn run_query(&self, consumer: &mut Option<QueryConsumer>, query: Query) {
        let Query { index, topic, partition, waiters } = query;
        match self.last_offset(consumer, &topic, partition) {
            Ok(offset) => {
                let entries = waiters.len();
                tracing::debug!(
                    topic,
                    partition,
                    offset,
                    entries,
                    "retries hid offsets; using the partition's last one"
                );
                waiters.into_iter().for_each(|waiter| self.resolve(waiter, Ok(Location { partition, offset })));
                self.hidden.lock().open -= entries;
                self.resolved.notify_all();
            }
            Err(cause) => {
                // These waiters stay ahead of those that came later.
                self.hidden.lock().partitions[index].waiters.splice(0..0, waiters);
                let now = Instant::now();
                self.give_up(&cause, |waiter| waiter.deadline <= now);
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Returns the last offset of a partition. Records of open transactions count, because our
    /// record may come after them.
    fn last_offset(&self, consumer: &mut Option<QueryConsumer>, topic: &str, partition: u32) -> Result<u64, String> {
        if consumer.is_none() {
            let mut config = self.settings.reader();
            config.set("isolation.level", "read_uncommitted");
            *consumer = Some(query_consumer(config, &self.brokers).map_err(|error| error.to_string())?);
        }
        let Some(consumer) = consumer else { return Err("there is no consumer".into()) };
        let bounds = bounds_of(consumer, topic, partition, QUERY_TIMEOUT).map_err(|error| error.to_string())?;
        bounds.end.checked_sub(1).ok_or_else(|| "the broker reports an empty partition".into())
    }

    /// Gives the chosen waiters an unknown outcome.
    fn give_up(&self, cause: &str, is_chosen: impl Fn(&Waiter) -> bool) {
        let mut chosen = Vec::new();
        for hidden in &mut self.hidden.lock().partitions {
            let HiddenPartition { topic, partition, waiters, .. } = hidden;
            let sentence =
                format!("{topic}: acknowledged, but the offset in partition {partition} is unknown: {cause}");
            let late = waiters.extract_if(.., |waiter| is_chosen(waiter));
            chosen.extend(late.map(|waiter| (waiter, AppendError::Unknown(sentence.clone()))));
        }
        let count = chosen.len();
        chosen.into_iter().for_each(|(waiter, error)| self.resolve(waiter, Err(error)));
        self.hidden.lock().open -= count;
        self.resolved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::KafkaWriter;
    use super::*;
    use crate::port::{Entry, PendingAppend, Topic, Writer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use std::collections::BTreeMap;

    const TIME_LIMIT: Duration = Duration::from_secs(30);
    const DUPLICATE: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
    const TIMED_OUT: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT;
    const TAKEN: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    /// Ends a query at once, while librdkafka retries after other errors.
    const FORBIDDEN: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

    /// A mock broker in this process with answers chosen by the test. It holds 5 events in one
    /// partition.
    struct Fixture(MockCluster<'static, DefaultProducerContext>);

    impl Fixture {
        fn new() -> Self {
            let broker = MockCluster::new(1).unwrap();
            broker.create_topic("receipts.events", 1, 1).unwrap();
            let fixture = Fixture(broker);
            let writer = fixture.writer(TIME_LIMIT, 1);
            for number in 0..5 {
                assert_eq!(outcome(append(&writer)), Ok(Location { partition: 0, offset: number }));
            }
            fixture
        }

        /// Returns a writer that batches entries for `linger_ms`.
        fn writer(&self, delivery_timeout: Duration, linger_ms: u64) -> KafkaWriter {
            let settings = KafkaSettings {
                bootstrap: self.0.bootstrap_servers(),
                delivery_timeout,
                properties: BTreeMap::from([("linger.ms".into(), linger_ms.to_string())]).into(),
                ..KafkaSettings::default()
            };
            KafkaWriter::new(&Arc::new(settings), &Arc::default(), Arc::default()).unwrap()
        }

        /// Sets the next answers to produce requests.
        fn answers(&self, answers: &[RDKafkaRespErr]) {
            self.0.request_errors(RDKafkaApiKey::Produce, answers);
        }

        /// Rejects the next `count` queries for the end of a partition. Each query takes two
        /// requests.
        fn refuses_queries(&self, count: usize) {
            self.0.request_errors(RDKafkaApiKey::ListOffsets, &vec![FORBIDDEN; 2 * count]);
        }
    }

    fn append(writer: &KafkaWriter) -> PendingAppend {
        writer.append(Entry {
            topic: Topic::Events,
            partition: Some(0),
            key: None,
            value: Some("v".into()),
            headers: Vec::new(),
            timestamp_ms: None,
        })
    }

    fn outcome(appended: PendingAppend) -> Result<Location, AppendError> {
        appended.blocking_recv().expect("an outcome")
    }

    /// The broker answers this batch with offset -1, and librdkafka counts on from it: -1, 0, 1, 2.
    #[test]
    fn duplicate_batch_gets_the_last_offset_of_its_partition() {
        let fixture = Fixture::new();
        let writer = fixture.writer(TIME_LIMIT, 300);
        fixture.answers(&[DUPLICATE]);
        let appended: Vec<_> = (0..10).map(|_| append(&writer)).collect();
        for appended in appended {
            assert_eq!(outcome(appended), Ok(Location { partition: 0, offset: 4 }));
        }
        assert_eq!(
            outcome(append(&writer)),
            Ok(Location { partition: 0, offset: 5 }),
            "the next one has its own offset"
        );
        // The end is queried again: an end from before the entry would be wrong.
        fixture.answers(&[DUPLICATE]);
        assert_eq!(outcome(append(&writer)), Ok(Location { partition: 0, offset: 5 }));
        writer.flush(TIME_LIMIT).unwrap();
    }

    #[test]
    fn entry_acknowledged_by_a_later_one_is_below_end() {
        let fixture = Fixture::new();
        let writer = fixture.writer(TIME_LIMIT, 1);
        outcome(append(&writer)).unwrap();
        // Both are in flight when the first one fails.
        fixture.0.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
        fixture.answers(&[TIMED_OUT, TAKEN]);
        let first = append(&writer);
        std::thread::sleep(Duration::from_millis(100));
        let second = append(&writer);
        let second = outcome(second).unwrap();
        fixture.0.broker_round_trip_time(1, Duration::ZERO).unwrap();
        let first = outcome(first).unwrap();
        assert!((6..=second.offset).contains(&first.offset), "{first:?} before {second:?}");
    }

    #[test]
    fn a_flush_waits_for_hidden_offsets() {
        let fixture = Fixture::new();
        let writer = fixture.writer(TIME_LIMIT, 1);
        fixture.answers(&[DUPLICATE]);
        fixture.refuses_queries(20);
        let mut appended = append(&writer);
        assert!(matches!(writer.flush(2 * PAUSE), Err(AppendError::Unknown(_))), "not before the partition answered");
        writer.flush(TIME_LIMIT).unwrap();
        assert_eq!(appended.try_recv().expect("resolved before the flush returned").unwrap().offset, 4);
    }

    #[test]
    fn the_outcome_is_unknown_without_an_end_in_time() {
        let fixture = Fixture::new();
        let writer = fixture.writer(Duration::from_secs(3), 1);
        fixture.answers(&[DUPLICATE]);
        fixture.refuses_queries(1000);
        let error = outcome(append(&writer)).unwrap_err();
        assert!(matches!(&error, AppendError::Unknown(sentence) if sentence.contains("acknowledged, but")), "{error}");
        assert_eq!(writer.flush(TIME_LIMIT), Err(error));
        assert_eq!(writer.flush(TIME_LIMIT), Ok(()));
    }

    #[test]
    fn a_dropped_writer_still_resolves_hidden_offsets() {
        let fixture = Fixture::new();
        let writer = fixture.writer(TIME_LIMIT, 1);
        fixture.answers(&[DUPLICATE]);
        fixture.refuses_queries(2);
        let mut appended = append(&writer);
        drop(writer);
        assert_eq!(appended.try_recv().expect("resolved before the drop returned").unwrap().offset, 4);
    }

    #[test]
    fn hidden_offsets_have_an_unknown_outcome_after_close() {
        let outcomes = Outcomes::new(Arc::default(), Arc::default());
        outcomes.close();
        let (sender, appended) = oneshot::channel();
        outcomes.delivered("t", 0, -1001, Waiter { sender, deadline: Instant::now() + TIME_LIMIT });
        assert!(matches!(outcome(appended), Err(AppendError::Unknown(_))));
        assert!(outcomes.flush(Instant::now()).is_err());
        assert_eq!(outcomes.flush(Instant::now()), Ok(()));
    }
}
