//! Decides which read errors are transient and which stop the reader.
//!
//! It looks only at error codes and queries no broker. Unknown codes are transient, because
//! librdkafka retries by itself and gives up with a code that is known here.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The reaction to a poll error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Transient: poll again.
    Retry,
    /// Going on would lose or invent records; the sentence says what to do.
    Stop(String),
    /// Transient unless the topic was deleted.
    Topic,
    /// Another member has joined under the name of this one.
    Fenced,
}

/// Judges a poll error of `topic`.
pub(super) fn verdict(error: &KafkaError, topic: &str) -> Verdict {
    use RDKafkaErrorCode as Code;
    if error.rdkafka_error_code() == Some(Code::FencedInstanceId) {
        return Verdict::Fenced;
    }
    if let KafkaError::MessageConsumptionFatal(code) = error {
        return Verdict::Stop(format!("the Kafka consumer of {topic} failed for good ({code}): restart the process"));
    }
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Verdict::Stop(format!(
            "the next offset of a partition of {topic} is not in the log any more, because the log was trimmed or created \
             anew during the read: restart the process, which then names the partition and the remedy"
        )),
        Some(
            code @ (Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication),
        ) => Verdict::Stop(format!(
            "Kafka does not let this user read {topic} ({code}): grant Read and Describe on the topic and Read on the \
             group, or correct the credentials"
        )),
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => Verdict::Topic,
        Some(code @ (Code::BadMessage | Code::BadCompression | Code::InvalidMessage)) => Verdict::Stop(format!(
            "a batch of {topic} is damaged ({code}): make another replica the leader of the partition, or restore the topic"
        )),
        Some(Code::Fatal) => {
            Verdict::Stop(format!("the Kafka consumer of {topic} failed for good ({error}): restart the process"))
        }
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_outage_is_transient_but_lost_offset_is_not() {
        use RDKafkaErrorCode as Code;
        let of = |code| verdict(&KafkaError::MessageConsumption(code), "t");
        for code in [Code::BrokerTransportFailure, Code::AllBrokersDown, Code::OperationTimedOut, Code::Resolve] {
            assert_eq!(of(code), Verdict::Retry, "{code}");
        }
        for code in [Code::AutoOffsetReset, Code::OffsetOutOfRange, Code::TopicAuthorizationFailed, Code::BadMessage] {
            assert!(matches!(of(code), Verdict::Stop(_)), "{code}");
        }
        assert_eq!(of(Code::UnknownTopicOrPartition), Verdict::Topic);
        let fatal = |code| verdict(&KafkaError::MessageConsumptionFatal(code), "t");
        assert!(matches!(fatal(Code::UnsupportedVersion), Verdict::Stop(_)));
        assert_eq!(fatal(Code::FencedInstanceId), Verdict::Fenced);
    }
}
