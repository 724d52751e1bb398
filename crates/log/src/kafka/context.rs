//! The context of clients that only send queries: administration and inspection.
//!
//! It decides nothing: [`Brokers`] takes librdkafka's lines and errors.

use super::brokers::Brokers;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use std::sync::Arc;

/// See the file's description.
pub(super) struct QueryContext(pub(super) Arc<Brokers>);

impl ClientContext for QueryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, reason: KafkaError, message: &str) {
        self.0.error(&reason, message);
    }
}

impl rdkafka::consumer::ConsumerContext for QueryContext {}
