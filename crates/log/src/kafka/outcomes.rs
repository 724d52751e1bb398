//! What became of appends: tells whoever waits, remembers failures for the next flush, and bounds offsets that a retry
//! hid.
//!
//! A batch whose acknowledgement got lost is sent again. Where a broker says that it holds it already, or acknowledges
//! a later one, librdkafka reports the records as delivered and has no offset for them. A partition asked after that
//! report ends behind them. It never asks on the thread that reports, and never makes an offset up.

use super::context::Asking;
use super::inspect::{asker, bounds_of};
use super::settings::KafkaSettings;
use crate::check::Failures;
use crate::port::{AppendError, Location};
use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::base_consumer::BaseConsumer;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long one question to a broker may take; an outcome comes at most this much after its deadline. Less would make
/// slow brokers slower: librdkafka connects anew after a question that timed out.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a question that nobody answered.
const PAUSE: Duration = Duration::from_millis(100);

/// Whom to tell of an append, and until when an answer makes sense.
pub(super) struct Told {
    pub(super) to: oneshot::Sender<Result<Location, AppendError>>,
    pub(super) deadline: Instant,
}

/// A partition in which offsets were hidden since the start.
struct Place {
    topic: String,
    partition: u32,
    hidden_count: u64,
    waiting: Vec<Told>,
}

/// What is asked next.
struct Question {
    place: usize,
    topic: String,
    partition: u32,
    waiting: Vec<Told>,
}

#[derive(Default)]
struct Hidden {
    places: Vec<Place>,
    /// Appends whose offsets are hidden and whose outcomes are not told.
    open: usize,
    closed: bool,
    /// Started by the first hidden offset.
    thread: Option<JoinHandle<()>>,
}

/// The outcomes of one writer.
pub(super) struct Outcomes {
    settings: Arc<KafkaSettings>,
    failures: Failures,
    hidden: Mutex<Hidden>,
    /// Something waits, or all is over: for the thread.
    came: Condvar,
    /// Something was told, for flushers.
    went: Condvar,
}

impl Outcomes {
    pub(super) fn new(settings: Arc<KafkaSettings>) -> Arc<Self> {
        Arc::new(Outcomes {
            settings,
            failures: Failures::default(),
            hidden: Mutex::default(),
            came: Condvar::new(),
            went: Condvar::new(),
        })
    }

    pub(super) fn tell(&self, told: Told, outcome: Result<Location, AppendError>) {
        if let Err(error) = &outcome {
            self.failures.note(error);
        }
        let _nobody_waits = told.to.send(outcome);
    }

    /// Tells of an entry that the log holds, at once or as soon as its offset is bounded.
    pub(super) fn delivered(self: &Arc<Self>, topic: &str, partition: i32, offset: i64, told: Told) {
        let Ok(partition) = u32::try_from(partition) else {
            return self.tell(told, Err(AppendError::Unknown(format!("{topic}: acknowledged without a partition"))));
        };
        let mut hidden = self.hidden.lock();
        let place = hidden.places.iter().position(|place| (&*place.topic, place.partition) == (topic, partition));
        // librdkafka numbers the records of a batch from its first one on, from -1 too where that is hidden. A record
        // stands behind all that were hidden before it in its partition, so an offset below their number is none.
        let least = place.map_or(0, |place| hidden.places[place].hidden_count);
        if let Some(offset) = u64::try_from(offset).ok().filter(|offset| *offset >= least) {
            drop(hidden);
            return self.tell(told, Ok(Location { partition, offset }));
        }
        let place = place.unwrap_or_else(|| {
            hidden.places.push(Place { topic: topic.into(), partition, hidden_count: 0, waiting: Vec::new() });
            hidden.places.len() - 1
        });
        hidden.places[place].hidden_count += 1;
        hidden.places[place].waiting.push(told);
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
        self.came.notify_one();
    }

    /// Waits until no offset is hidden any more, then hands over the worst failure since the last time.
    pub(super) fn flush(&self, deadline: Instant) -> Result<(), AppendError> {
        let mut hidden = self.hidden.lock();
        while hidden.open > 0 {
            if self.went.wait_until(&mut hidden, deadline).timed_out() && hidden.open > 0 {
                let open = hidden.open;
                return Err(AppendError::Unknown(format!(
                    "{open} entries are acknowledged, but not yet with an offset"
                )));
            }
        }
        drop(hidden);
        self.failures.take()
    }

    /// Ends the thread; what still waits is told that its outcome is open.
    pub(super) fn close(&self) {
        let mut hidden = self.hidden.lock();
        hidden.closed = true;
        let thread = hidden.thread.take();
        drop(hidden);
        self.came.notify_all();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that asks for offsets broke off");
        }
    }

    fn run(&self) {
        while self.wait() {
            // It goes with the last question: nobody knows when the next one comes.
            let (mut consumer, mut place) = (None, 0);
            while let Some(question) = self.next_question(place) {
                place = question.place + 1;
                self.answer(&mut consumer, question);
            }
        }
        self.give_up("the log is closed", |_| true);
    }

    /// Returns once something waits: true; or once all is over: false.
    fn wait(&self) -> bool {
        let mut hidden = self.hidden.lock();
        while hidden.open == 0 && !hidden.closed {
            self.came.wait(&mut hidden);
        }
        !hidden.closed
    }

    /// Takes everything that waits for one partition, in turns from `place` on.
    fn next_question(&self, place: usize) -> Option<Question> {
        let mut hidden = self.hidden.lock();
        if hidden.closed {
            return None;
        }
        let count = hidden.places.len();
        let place = (place..place + count).map(|at| at % count).find(|at| !hidden.places[*at].waiting.is_empty())?;
        let Place { topic, partition, waiting, .. } = &mut hidden.places[place];
        Some(Question { place, topic: topic.clone(), partition: *partition, waiting: std::mem::take(waiting) })
    }

    fn answer(&self, consumer: &mut Option<BaseConsumer<Asking>>, question: Question) {
        let Question { place, topic, partition, waiting } = question;
        match self.last_offset(consumer, &topic, partition) {
            Ok(offset) => {
                let entries = waiting.len();
                tracing::debug!(topic, partition, offset, entries, "retries hid offsets; the partition's last stands");
                waiting.into_iter().for_each(|told| self.tell(told, Ok(Location { partition, offset })));
                self.hidden.lock().open -= entries;
                self.went.notify_all();
            }
            Err(cause) => {
                // They were there before whatever has come since.
                self.hidden.lock().places[place].waiting.splice(0..0, waiting);
                let now = Instant::now();
                self.give_up(&cause, |told| told.deadline <= now);
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// The last offset of a partition, records of open transactions included: ours may stand behind them.
    fn last_offset(
        &self,
        consumer: &mut Option<BaseConsumer<Asking>>,
        topic: &str,
        partition: u32,
    ) -> Result<u64, String> {
        if consumer.is_none() {
            let mut config = self.settings.reader();
            config.set("isolation.level", "read_uncommitted");
            *consumer = Some(asker(config).map_err(|error| error.to_string())?);
        }
        let Some(consumer) = consumer else { return Err("there is no consumer".into()) };
        let bounds = bounds_of(consumer, topic, partition, ASK_TIMEOUT).map_err(|error| error.to_string())?;
        bounds.end.checked_sub(1).ok_or_else(|| "it says that it never held a record".into())
    }

    /// Tells those who wait, and who are chosen, that their outcomes stay open.
    fn give_up(&self, cause: &str, is_chosen: impl Fn(&Told) -> bool) {
        let mut chosen = Vec::new();
        for place in &mut self.hidden.lock().places {
            let Place { topic, partition, waiting, .. } = place;
            let sentence = format!("{topic}: acknowledged, but where in partition {partition} is not known: {cause}");
            let late = waiting.extract_if(.., |told| is_chosen(told));
            chosen.extend(late.map(|told| (told, AppendError::Unknown(sentence.clone()))));
        }
        let count = chosen.len();
        chosen.into_iter().for_each(|(told, error)| self.tell(told, Err(error)));
        self.hidden.lock().open -= count;
        self.went.notify_all();
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

    const PATIENCE: Duration = Duration::from_secs(30);
    const DUPLICATE: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
    const TIMED_OUT: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT;
    const TAKEN: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    /// Ends a question at once, where librdkafka asks again after others.
    const FORBIDDEN: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

    /// A broker in this process, whose answers a test decides. It holds 5 entries in the one partition of events.
    struct Fixture(MockCluster<'static, DefaultProducerContext>);

    impl Fixture {
        fn new() -> Self {
            let broker = MockCluster::new(1).unwrap();
            broker.create_topic("receipts.events", 1, 1).unwrap();
            let fixture = Fixture(broker);
            let writer = fixture.writer(PATIENCE, 1);
            for number in 0..5 {
                assert_eq!(told(append(&writer)), Ok(Location { partition: 0, offset: number }));
            }
            fixture
        }

        /// A writer that sends what comes within `linger_ms` as one batch.
        fn writer(&self, delivery_timeout: Duration, linger_ms: u64) -> KafkaWriter {
            let settings = KafkaSettings {
                bootstrap: self.0.bootstrap_servers(),
                delivery_timeout,
                properties: BTreeMap::from([("linger.ms".into(), linger_ms.to_string())]),
                ..KafkaSettings::default()
            };
            KafkaWriter::new(&Arc::new(settings)).unwrap()
        }

        /// The next answers to produce requests.
        fn answers(&self, answers: &[RDKafkaRespErr]) {
            self.0.request_errors(RDKafkaApiKey::Produce, answers);
        }

        /// Leaves so many questions for the end of a partition unanswered; each asks for the first offset as well.
        fn refuses_questions(&self, count: usize) {
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

    fn told(appended: PendingAppend) -> Result<Location, AppendError> {
        appended.blocking_recv().expect("an outcome")
    }

    /// The broker answers such a batch with the offset -1, and librdkafka counts on from it: -1, 0, 1, 2.
    #[test]
    fn a_batch_that_the_broker_holds_already_is_acknowledged_with_the_last_offset_of_its_partition() {
        let fixture = Fixture::new();
        let writer = fixture.writer(PATIENCE, 300);
        fixture.answers(&[DUPLICATE]);
        let appended: Vec<_> = (0..10).map(|_| append(&writer)).collect();
        for appended in appended {
            assert_eq!(told(appended), Ok(Location { partition: 0, offset: 4 }));
        }
        assert_eq!(told(append(&writer)), Ok(Location { partition: 0, offset: 5 }), "the next one has its own again");
        // It is asked anew: an answer from before the entry would not do.
        fixture.answers(&[DUPLICATE]);
        assert_eq!(told(append(&writer)), Ok(Location { partition: 0, offset: 5 }));
        writer.flush(PATIENCE).unwrap();
    }

    #[test]
    fn an_entry_acknowledged_by_a_later_one_has_an_offset_below_the_end() {
        let fixture = Fixture::new();
        let writer = fixture.writer(PATIENCE, 1);
        told(append(&writer)).unwrap();
        // Both are under way when the first one fails.
        fixture.0.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
        fixture.answers(&[TIMED_OUT, TAKEN]);
        let first = append(&writer);
        std::thread::sleep(Duration::from_millis(100));
        let second = append(&writer);
        let second = told(second).unwrap();
        fixture.0.broker_round_trip_time(1, Duration::ZERO).unwrap();
        let first = told(first).unwrap();
        assert!((6..=second.offset).contains(&first.offset), "{first:?} before {second:?}");
    }

    #[test]
    fn a_flush_waits_for_offsets_that_are_asked_for() {
        let fixture = Fixture::new();
        let writer = fixture.writer(PATIENCE, 1);
        fixture.answers(&[DUPLICATE]);
        fixture.refuses_questions(20);
        let mut appended = append(&writer);
        assert!(matches!(writer.flush(2 * PAUSE), Err(AppendError::Unknown(_))), "not before the partition answered");
        writer.flush(PATIENCE).unwrap();
        assert_eq!(appended.try_recv().expect("resolved before the flush returned").unwrap().offset, 4);
    }

    #[test]
    fn where_the_end_of_the_partition_cannot_be_asked_in_time_the_outcome_is_open() {
        let fixture = Fixture::new();
        let writer = fixture.writer(Duration::from_secs(3), 1);
        fixture.answers(&[DUPLICATE]);
        fixture.refuses_questions(1000);
        let error = told(append(&writer)).unwrap_err();
        assert!(matches!(&error, AppendError::Unknown(sentence) if sentence.contains("acknowledged, but")), "{error}");
        assert_eq!(writer.flush(PATIENCE), Err(error));
        assert_eq!(writer.flush(PATIENCE), Ok(()));
    }

    #[test]
    fn a_writer_that_is_dropped_still_tells_of_hidden_offsets() {
        let fixture = Fixture::new();
        let writer = fixture.writer(PATIENCE, 1);
        fixture.answers(&[DUPLICATE]);
        fixture.refuses_questions(2);
        let mut appended = append(&writer);
        drop(writer);
        assert_eq!(appended.try_recv().expect("resolved before the drop returned").unwrap().offset, 4);
    }

    #[test]
    fn what_is_hidden_when_all_is_over_has_an_open_outcome() {
        let outcomes = Outcomes::new(Arc::default());
        outcomes.close();
        let (to, appended) = oneshot::channel();
        outcomes.delivered("t", 0, -1001, Told { to, deadline: Instant::now() + PATIENCE });
        assert!(matches!(told(appended), Err(AppendError::Unknown(_))));
        assert!(outcomes.flush(Instant::now()).is_err());
        assert_eq!(outcomes.flush(Instant::now()), Ok(()));
    }
}
