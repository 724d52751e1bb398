//! Rebalances of a consumer group: queues them for the reader, and gives the answers to the group.
//!
//! It opens and releases no state: the reader does that before it answers.

use super::brokers::Brokers;
use super::transactions::Transactions;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A rebalance that is not answered yet.
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke {
        partitions: TopicPartitionList,
        /// True if the member has lost its place in the group, so that the group did not ask for
        /// the partitions.
        lost: bool,
    },
}

/// Queues rebalances for the reader; answers them itself only while the consumer closes.
pub(super) struct RebalanceContext {
    brokers: Arc<Brokers>,
    transactions: Transactions,
    open: Mutex<VecDeque<Rebalance>>,
    any: AtomicBool,
    closing: AtomicBool,
}

impl RebalanceContext {
    pub(super) fn new(brokers: Arc<Brokers>, transactions: Transactions) -> Self {
        Self {
            brokers,
            transactions,
            open: Mutex::default(),
            any: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// Answers all rebalances from now on by itself, and those that wait.
    pub(super) fn close(consumer: &BaseConsumer<Self>) {
        let context = consumer.context();
        context.closing.store(true, Ordering::Release);
        while let Some(rebalance) = context.take() {
            let answered = match &rebalance {
                Rebalance::Assign(partitions) => take(consumer, partitions),
                Rebalance::Revoke { partitions, .. } => give_back(consumer, partitions),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance failed while the reader closes");
            }
        }
    }

    /// Returns the oldest rebalance that is not answered.
    pub(super) fn take(&self) -> Option<Rebalance> {
        let mut open = self.open.lock();
        let change = open.pop_front();
        self.any.store(!open.is_empty(), Ordering::Release);
        change
    }

    /// Tells whether a rebalance waits for its answer.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }
}

impl ClientContext for RebalanceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.brokers.log(level, facility, message);
    }

    fn error(&self, reason: KafkaError, message: &str) {
        self.brokers.error(&reason, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.transactions.observe(&statistics);
    }
}

impl ConsumerContext for RebalanceContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let answered = if assign { take(consumer, partitions) } else { give_back(consumer, partitions) };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance failed while the reader closes");
            }
            return;
        }
        let partitions = partitions.clone();
        let rebalance = match assign {
            true => Rebalance::Assign(partitions),
            false => Rebalance::Revoke { partitions, lost: consumer.assignment_lost() },
        };
        self.open.lock().push_back(rebalance);
        self.any.store(true, Ordering::Release);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "an advisory commit failed");
        }
    }
}

/// Accepts an assignment and starts to fetch. An empty list also answers the group.
pub(super) fn take(consumer: &BaseConsumer<RebalanceContext>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
        _ => consumer.assign(partitions),
    }
}

/// Accepts a revocation and stops fetching.
pub(super) fn give_back(consumer: &BaseConsumer<RebalanceContext>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        _ => consumer.unassign(),
    }
}
