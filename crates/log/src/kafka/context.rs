//! Where librdkafka's own log lines and errors go: to `tracing`, with the level that they deserve.
//!
//! It decides nothing: what a failure means is said by the reader and the writer.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A line of librdkafka.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        // A broker that is away: librdkafka says it as an error each time it tries again.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// A global error of a client; whoever waits for a record or an acknowledgement is told by other means. That a partition
/// is read to its end comes this way as well, each time, and is no error.
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

/// The context of clients that only ask: administration and inspection.
pub(super) struct Asking;

impl ClientContext for Asking {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, reason: KafkaError, message: &str) {
        error(&reason, message);
    }
}

impl rdkafka::consumer::ConsumerContext for Asking {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_told_from_errors() {
        assert!(is_end(&KafkaError::PartitionEOF(3)));
        assert!(is_end(&KafkaError::Global(RDKafkaErrorCode::PartitionEOF)));
        assert!(!is_end(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)));
    }
}
