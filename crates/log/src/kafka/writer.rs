//! Appends to Kafka through one idempotent producer with its own polling thread. [`Batching`] decides
//! when an entry is sent. A producer's batches fit the largest record that the topics take, so it is
//! replaced when that changes.
//!
//! It never reports "not written" for a record that may have reached a broker.

use super::batching::Batching;
use super::brokers::Brokers;
use super::connect::ConnectError;
use super::outcomes::{Outcomes, QUERY_TIMEOUT, Waiter};
use super::settings::{BATCH_HEADER_BYTES, KafkaSettings};
use crate::port::{AppendError, Entry, PendingAppend, Writer};
use bytes::Bytes;
use parking_lot::RwLock;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The pause of `append` between attempts on a full queue.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Receives delivery reports on the producer's thread.
struct Deliveries {
    outcomes: Arc<Outcomes>,
    brokers: Arc<Brokers>,
    /// The largest batch that the topics take.
    message_bytes: Arc<AtomicUsize>,
    batching: Arc<Batching<Append>>,
}

/// An entry, and its caller.
struct Append {
    entry: Entry,
    waiter: Waiter,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.brokers.log(level, facility, message);
    }

    fn error(&self, reason: KafkaError, message: &str) {
        self.brokers.error(&reason, message);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Waiter>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Box<Waiter>) {
        self.batching.acknowledge();
        match result {
            Ok(message) => {
                self.outcomes.delivered(message.topic(), message.partition(), message.offset(), *waiter);
            }
            Err((error, message)) => {
                let why = match failure(error, message.topic()) {
                    // The batch was too large, not the record: the next batch has another size.
                    AppendError::TooLarge(why) if self.fits(message) => AppendError::NotWritten(why),
                    why => why,
                };
                self.outcomes.resolve(*waiter, Err(why));
            }
        }
    }
}

impl Deliveries {
    /// Tells whether the topics take a record on its own, as far as is known.
    fn fits(&self, message: &impl Message) -> bool {
        let headers = message.headers().map_or(0, |headers| {
            headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
        });
        let bytes = message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len) + headers;
        let most = self.message_bytes.load(Ordering::Acquire);
        most < usize::MAX && bytes + BATCH_HEADER_BYTES <= most
    }
}

/// Distinguishes certain failures from unknown outcomes.
fn failure(error: &KafkaError, topic: &str) -> AppendError {
    use RDKafkaErrorCode as Code;
    let sentence = format!("{topic}: {error}");
    match error.rdkafka_error_code() {
        // A broker decides these by the record alone, so it refused every earlier attempt as well.
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => AppendError::TooLarge(sentence),
        Some(Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidMessage | Code::InvalidTopic)
        // librdkafka refused the record, or dropped it before sending.
        | Some(Code::QueueFull | Code::PurgeQueue | Code::UnknownTopic | Code::UnknownPartition | Code::InvalidArgument) => {
            AppendError::NotWritten(sentence)
        }
        _ => AppendError::Unknown(sentence),
    }
}

/// The one writer of a Kafka log. Its drop waits for queued entries.
pub(super) struct KafkaWriter {
    sending: Arc<Sending>,
    /// Sends waiting entries.
    thread: Option<JoinHandle<()>>,
}

/// The producer, and what is on its way to it.
struct Sending {
    producer: RwLock<Made<ThreadedProducer<Deliveries>>>,
    batching: Arc<Batching<Append>>,
    outcomes: Arc<Outcomes>,
    brokers: Arc<Brokers>,
    settings: Arc<KafkaSettings>,
    message_bytes: Arc<AtomicUsize>,
}

/// A producer, and the largest batch that the topics took when it was made.
struct Made<P> {
    producer: P,
    message_bytes: usize,
}

impl KafkaWriter {
    /// Makes a writer to topics that take batches of `message_bytes`, which may change.
    pub(super) fn new(
        settings: &Arc<KafkaSettings>,
        brokers: &Arc<Brokers>,
        message_bytes: Arc<AtomicUsize>,
    ) -> Result<Self, ConnectError> {
        let outcomes = Outcomes::new(settings.clone(), brokers.clone());
        let batching = Arc::default();
        let producer = producer(settings, brokers, &outcomes, &message_bytes, &batching)?;
        let (settings, brokers) = (settings.clone(), brokers.clone());
        let producer = RwLock::new(producer);
        let sending = Arc::new(Sending { producer, batching, outcomes, brokers, settings, message_bytes });
        let thread = std::thread::Builder::new().name("log-sender".into()).spawn({
            let sending = sending.clone();
            move || sending.batching.run(|append| sending.send(append))
        });
        let thread = thread.map_err(|error| ConnectError::Settings(format!("no thread can be started: {error}")))?;
        Ok(KafkaWriter { sending, thread: Some(thread) })
    }
}

fn producer(
    settings: &KafkaSettings,
    brokers: &Arc<Brokers>,
    outcomes: &Arc<Outcomes>,
    message_bytes: &Arc<AtomicUsize>,
    batching: &Arc<Batching<Append>>,
) -> Result<Made<ThreadedProducer<Deliveries>>, ConnectError> {
    let deliveries = Deliveries {
        outcomes: outcomes.clone(),
        brokers: brokers.clone(),
        message_bytes: message_bytes.clone(),
        batching: batching.clone(),
    };
    let message_bytes = message_bytes.load(Ordering::Acquire);
    let producer = ThreadedProducer::from_config_and_context(&settings.writer(message_bytes), deliveries)
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    Ok(Made { producer, message_bytes })
}

impl Sending {
    /// Replaces the producer if the topics take batches of another size than when it was made. The
    /// old one sends its queue first, so the order within a partition stays.
    fn follow_size(&self) {
        let message_bytes = self.message_bytes.load(Ordering::Acquire);
        if self.producer.read().message_bytes == message_bytes {
            return;
        }
        let mut current = self.producer.write();
        if current.message_bytes == message_bytes {
            return;
        }
        // A record that is still open after that time gets its outcome when the producer is dropped.
        _ = current.producer.flush(self.settings.delivery_timeout);
        match producer(&self.settings, &self.brokers, &self.outcomes, &self.message_bytes, &self.batching) {
            Ok(new) => *current = new,
            Err(error) => {
                tracing::warn!(%error, "no producer with other batches can be made; the present one goes on");
                current.message_bytes = message_bytes;
            }
        }
    }

    /// Queues an entry at the producer. Blocks while its queue is full.
    fn send(&self, append: Append) {
        let Append { entry, waiter } = append;
        let (deadline, topic) = (waiter.deadline, self.settings.topic(entry.topic));
        let headers = (!entry.headers.is_empty()).then(|| {
            let all = OwnedHeaders::new_with_capacity(entry.headers.len());
            entry.headers.iter().fold(all, |all, (key, value)| all.insert(Header { key, value: value.as_deref() }))
        });
        let mut record = BaseRecord {
            topic,
            partition: entry.partition.map(|partition| i32::try_from(partition).unwrap_or(i32::MAX)),
            payload: entry.value.as_deref(),
            key: entry.key.as_deref(),
            timestamp: entry.timestamp_ms.map(|time| i64::try_from(time).unwrap_or(i64::MAX)),
            headers,
            delivery_opaque: Box::new(waiter),
        };
        self.follow_size();
        loop {
            let sent = self.producer.read().producer.send(record);
            match sent {
                Ok(()) => return,
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) && Instant::now() < deadline =>
                {
                    record = back;
                    std::thread::sleep(FULL_PAUSE);
                }
                Err((error, back)) => {
                    // The record never entered the queue, so it is certainly not written.
                    let why = match (self.producer.read().producer.client().fatal_error(), failure(&error, topic)) {
                        (Some((code, reason)), _) => AppendError::NotWritten(format!(
                            "{topic}: the producer failed for good ({code}: {reason}): restart the process"
                        )),
                        (None, AppendError::Unknown(sentence)) => AppendError::NotWritten(sentence),
                        (None, why) => why,
                    };
                    self.batching.acknowledge();
                    return self.outcomes.resolve(*back.delivery_opaque, Err(why));
                }
            }
        }
    }
}

impl Writer for KafkaWriter {
    fn append(&self, entry: Entry) -> PendingAppend {
        let (sender, appended) = oneshot::channel();
        let deadline = Instant::now() + self.sending.settings.delivery_timeout;
        let bytes = entry.value.as_ref().map_or(0, Bytes::len);
        let append = Append { entry, waiter: Waiter { sender, deadline } };
        if let Some(append) = self.sending.batching.admit(append, bytes) {
            self.sending.send(append);
        }
        appended
    }

    fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
        let Sending { producer, batching, outcomes, .. } = &*self.sending;
        let deadline = Instant::now() + timeout;
        let is_sent = batching.cut(deadline);
        let flushed = producer.read().producer.flush(deadline.saturating_duration_since(Instant::now()));
        let why = match flushed {
            Ok(()) if is_sent => return outcomes.flush(deadline),
            Ok(()) => "they are not sent yet".to_owned(),
            Err(error) => error.to_string(),
        };
        let (open, timeout_ms) = (batching.open_count(), timeout.as_millis());
        Err(AppendError::Unknown(format!("{open} entries are not acknowledged after {timeout_ms} ms: {why}")))
    }
}

impl Drop for KafkaWriter {
    /// Flushes first, because a dropped producer purges its queue. Appends that failed earlier have
    /// told their callers, and say nothing about those that are still under way.
    fn drop(&mut self) {
        self.sending.outcomes.forget_failures();
        if let Err(error) = self.flush(self.sending.settings.delivery_timeout + QUERY_TIMEOUT + Duration::from_secs(1))
        {
            tracing::warn!(
                worst = %error,
                "the Kafka log closes; since the last flush, perhaps long ago, at least one append failed, and its \
                 caller was told so"
            );
        }
        self.sending.batching.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that sends waiting entries panicked");
        }
        self.sending.outcomes.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certain_refusals_count_as_not_written() {
        use RDKafkaErrorCode as Code;
        let judged = |code| failure(&KafkaError::MessageProduction(code), "t");
        assert!(matches!(judged(Code::MessageSizeTooLarge), AppendError::TooLarge(_)));
        for code in [Code::QueueFull, Code::InvalidRecord, Code::UnknownPartition, Code::PurgeQueue] {
            assert!(matches!(judged(code), AppendError::NotWritten(_)), "{code}");
        }
        for code in
            [Code::MessageTimedOut, Code::PurgeInflight, Code::RequestTimedOut, Code::NotEnoughReplicasAfterAppend]
        {
            assert!(matches!(judged(code), AppendError::Unknown(_)), "{code}");
        }
    }
}
