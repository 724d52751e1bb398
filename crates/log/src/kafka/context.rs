//! Forwards librdkafka's log lines and errors to `tracing` with suitable levels.
//!
//! The reader and the writer decide what a failure means.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Forwards a log line of librdkafka.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        // librdkafka logs an error each time it retries a broker that is down.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Forwards a global error of a client. Callers that wait for a record or an acknowledgement learn
/// of it in another way. librdkafka reports the end of a partition here as well, which is not an
/// error.
pub(super) fn error(error: &KafkaError, reason: &str) {
    if is_end(error) {
        tracing::trace!(target: "librdkafka", "{reason}");
        return;
    }
    tracing::warn!(target: "librdkafka", %error, "{reason}");
}

fn is_end(error: &KafkaError) -> bool {
    matches!(error, KafkaError::PartitionEOF(_)) || error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF)
}

/// The context of clients that only send queries: administration and inspection.
pub(super) struct QueryContext;

impl ClientContext for QueryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, reason: KafkaError, message: &str) {
        error(&reason, message);
    }
}

impl rdkafka::consumer::ConsumerContext for QueryContext {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_no_error() {
        assert!(is_end(&KafkaError::PartitionEOF(3)));
        assert!(is_end(&KafkaError::Global(RDKafkaErrorCode::PartitionEOF)));
        assert!(!is_end(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)));
    }
}
