//! Appends to Kafka through one idempotent producer with its own polling thread. [`Batching`]
//! decides when an entry is sent. A producer's batches fit the largest record that the topics take,
//! so it is replaced when that changes. An entry that is larger is refused, with all entries of the
//! same call.
//!
//! It never reports "not written" for a record that may have reached a broker.

use super::batching::Batching;
use super::brokers::Brokers;
use super::connect_error::ConnectError;
use super::native::Registered;
use super::outcomes::{Outcomes, QUERY_TIMEOUT, Waiter};
use super::rights::Granter;
use super::settings::{BATCH_HEADER_BYTES, KafkaSettings};
use super::sizes::{Compression, Sizes};
use crate::port::{AppendError, Entry, PendingAppend, Writer};
use bytes::Bytes;
use parking_lot::RwLock;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The longest time that entries wait for one another.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// The pause of `append` between attempts on a full queue.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Receives delivery reports on the producer's thread.
struct Deliveries {
    outcomes: Arc<Outcomes>,
    brokers: Arc<Brokers>,
    sizes: Arc<Sizes>,
    granter: Granter,
    /// True once the brokers have refused to let this producer write idempotently. librdkafka then
    /// drops the queue without a reason.
    may_not_write: AtomicBool,
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
        if message.contains("Cluster authorization failed") {
            self.may_not_write.store(true, Ordering::Release);
        }
        self.brokers.error(&reason, message);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Waiter>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Box<Waiter>) {
        match result {
            Ok(message) => {
                self.outcomes.delivered(message.topic(), message.partition(), message.offset(), *waiter);
            }
            Err((error, message)) => {
                let refused = KafkaError::MessageProduction(RDKafkaErrorCode::ClusterAuthorizationFailed);
                let is_dropped =
                    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::Fatal));
                let error = if is_dropped && self.may_not_write.load(Ordering::Acquire) { &refused } else { error };
                let why = match failure(error, message.topic(), &self.granter) {
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
        let most = self.sizes.least();
        most < usize::MAX && bytes + BATCH_HEADER_BYTES <= most
    }
}

/// Distinguishes certain failures from unknown outcomes.
fn failure(error: &KafkaError, topic: &str, granter: &Granter) -> AppendError {
    use RDKafkaErrorCode as Code;
    let sentence = format!("{topic}: {error}");
    match error.rdkafka_error_code() {
        Some(code @ Code::TopicAuthorizationFailed) => AppendError::NotWritten(format!(
            "{topic}: this user may not write to the topic ({code}): {}",
            granter.topic(topic, &["Write"])
        )),
        Some(code @ Code::ClusterAuthorizationFailed) => AppendError::NotWritten(format!(
            "{topic}: this user may not write idempotently ({code}): {}; with brokers older than Kafka 2.8 also: {}",
            granter.topic(topic, &["Write"]),
            granter.idempotent_write()
        )),
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
    /// Made for the first caller that asks for a writer: even an idle producer asks for the right
    /// to write.
    producer: RwLock<Option<Made>>,
    granter: Granter,
    batching: Batching<Append>,
    /// True if the operator has set `linger.ms`: then librdkafka alone makes batches.
    lingers: bool,
    outcomes: Arc<Outcomes>,
    brokers: Arc<Brokers>,
    settings: Arc<KafkaSettings>,
    sizes: Arc<Sizes>,
    compression: Compression,
}

/// A producer, and the largest batch that the topics took when it was made.
struct Made {
    producer: Registered<ThreadedProducer<Deliveries>>,
    message_bytes: usize,
}

impl KafkaWriter {
    /// Makes a writer to topics that take batches of these sizes, which may change.
    pub(super) fn new(
        settings: &Arc<KafkaSettings>,
        brokers: &Arc<Brokers>,
        sizes: Arc<Sizes>,
    ) -> Result<Self, ConnectError> {
        let outcomes = Outcomes::new(settings.clone(), brokers.clone());
        let batching = Batching::new(if settings.sets_linger() { Duration::ZERO } else { WAIT_MAX });
        let lingers = settings.sets_linger();
        let granter = Granter::new(settings);
        let compression = settings.compression();
        let (settings, brokers, producer) = (settings.clone(), brokers.clone(), RwLock::default());
        let sending =
            Arc::new(Sending { producer, granter, batching, lingers, outcomes, brokers, settings, sizes, compression });
        let thread = std::thread::Builder::new().name("log-sender".into()).spawn({
            let sending = sending.clone();
            move || {
                sending.batching.run(|append| sending.send(append), |timeout| sending.await_acknowledgement(timeout))
            }
        });
        let thread = thread.map_err(|error| ConnectError::Settings(format!("no thread can be started: {error}")))?;
        Ok(KafkaWriter { sending, thread: Some(thread) })
    }

    /// Makes the producer, unless it exists. The first append reports a failure.
    pub(super) fn start(&self) {
        _ = self.sending.follow_size();
    }
}

impl Sending {
    fn made(&self, message_bytes: usize) -> Result<Made, KafkaError> {
        let deliveries = Deliveries {
            outcomes: self.outcomes.clone(),
            brokers: self.brokers.clone(),
            sizes: self.sizes.clone(),
            granter: self.granter.clone(),
            may_not_write: AtomicBool::new(false),
        };
        let producer = ThreadedProducer::from_config_and_context(&self.settings.writer(message_bytes), deliveries)?;
        Ok(Made { producer: Registered::new(producer, self.brokers.clients()), message_bytes })
    }

    /// Makes the producer, or replaces it if the topics take batches of another size than when it
    /// was made. The old one sends its queue first, so the order within a partition stays.
    ///
    /// # Errors
    /// Why there is no producer.
    fn follow_size(&self) -> Result<(), String> {
        let message_bytes = self.sizes.least();
        let is_current = |made: &Option<Made>| made.as_ref().is_some_and(|made| made.message_bytes == message_bytes);
        if is_current(&self.producer.read()) {
            return Ok(());
        }
        let mut current = self.producer.write();
        if is_current(&current) {
            return Ok(());
        }
        if let Some(old) = &*current {
            // A record that is still open after that time gets its outcome when the producer is
            // dropped.
            _ = old.producer.flush(self.settings.delivery_timeout);
        }
        match (self.made(message_bytes), &mut *current) {
            (Ok(new), current) => *current = Some(new),
            (Err(error), None) => return Err(format!("the Kafka settings are wrong: {error}")),
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "no producer with other batches can be made; the present one goes on");
                old.message_bytes = message_bytes;
            }
        }
        Ok(())
    }

    /// Refuses entries if one of them can never fit: then none of them is written.
    fn refuse_too_large(&self, appends: Vec<Append>) -> Option<Vec<Append>> {
        let exceeded = |append: &Append| self.sizes.exceeded(&append.entry, self.compression);
        if !appends.iter().any(|append| exceeded(append).is_some()) {
            return Some(appends);
        }
        for append in appends {
            let topic = self.settings.topic(append.entry.topic);
            let why = match exceeded(&append) {
                Some(most) => AppendError::TooLarge(format!(
                    "{topic}: the record is larger than the {most} bytes of the topic's max.message.bytes"
                )),
                None => AppendError::NotWritten(format!("{topic}: a record of the same request is too large")),
            };
            self.outcomes.resolve(append.waiter, Err(why));
        }
        None
    }

    /// Has the queue sent at once, and returns when all of it is acknowledged, or when the time is
    /// over. Returns false then.
    fn await_acknowledgement(&self, timeout: Duration) -> bool {
        match &*self.producer.read() {
            Some(made) if !self.lingers => made.producer.flush_for(timeout),
            _ => true,
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
        if let Err(why) = self.follow_size() {
            let why = AppendError::NotWritten(format!("{topic}: {why}"));
            return self.outcomes.resolve(*record.delivery_opaque, Err(why));
        }
        loop {
            let made = self.producer.read();
            let producer = &made.as_ref().expect("it was made above").producer;
            match producer.send(record) {
                Ok(()) => return,
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) && Instant::now() < deadline =>
                {
                    record = back;
                    drop(made);
                    std::thread::sleep(FULL_PAUSE);
                }
                Err((error, back)) => {
                    // The record never entered the queue, so it is certainly not written.
                    let why = match (producer.client().fatal_error(), failure(&error, topic, &self.granter)) {
                        (Some((RDKafkaErrorCode::ClusterAuthorizationFailed, _)), _) => failure(
                            &KafkaError::MessageProduction(RDKafkaErrorCode::ClusterAuthorizationFailed),
                            topic,
                            &self.granter,
                        ),
                        (Some((code, reason)), _) => AppendError::NotWritten(format!(
                            "{topic}: the producer failed for good ({code}: {reason}): restart the process"
                        )),
                        (None, AppendError::Unknown(sentence)) => AppendError::NotWritten(sentence),
                        (None, why) => why,
                    };
                    return self.outcomes.resolve(*back.delivery_opaque, Err(why));
                }
            }
        }
    }
}

impl Writer for KafkaWriter {
    fn append(&self, entry: Entry) -> PendingAppend {
        self.append_all(vec![entry]).pop().expect("one")
    }

    fn append_all(&self, entries: Vec<Entry>) -> Vec<PendingAppend> {
        let deadline = Instant::now() + self.sending.settings.delivery_timeout;
        let bytes = entries.iter().filter_map(|entry| entry.value.as_ref()).map(Bytes::len).sum();
        let (appends, pending): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .map(|entry| {
                let (sender, appended) = oneshot::channel();
                (Append { entry, waiter: Waiter { sender, deadline } }, appended)
            })
            .unzip();
        if let Some(appends) = self.sending.refuse_too_large(appends) {
            self.sending.batching.queue(appends, bytes);
        }
        pending
    }

    fn flush(&self, timeout: Duration) -> Result<(), AppendError> {
        let Sending { producer, batching, outcomes, .. } = &*self.sending;
        let deadline = Instant::now() + timeout;
        let is_sent = batching.cut(deadline);
        let left = deadline.saturating_duration_since(Instant::now());
        // Without a producer nothing is on its way.
        let flushed = producer.read().as_ref().map_or(Ok(()), |made| made.producer.flush(left));
        let why = match flushed {
            Ok(()) if is_sent => return outcomes.flush(deadline),
            Ok(()) => "they are not sent yet".to_owned(),
            Err(error) => error.to_string(),
        };
        let queued = producer.read().as_ref().map_or(0, |made| made.producer.in_flight_count().max(0) as u64);
        let (open, timeout_ms) = (batching.waiting_count() + queued, timeout.as_millis());
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
        let granter = Granter::new(&KafkaSettings::default());
        let judged = |code| failure(&KafkaError::MessageProduction(code), "t", &granter);
        let refused = judged(Code::TopicAuthorizationFailed);
        assert!(refused.cause().contains("--operation Write --topic t") && !refused.may_have_happened(), "{refused}");
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
