//! Which errors of a read are passing and which end it.
//!
//! It looks at error codes only; it asks no broker. An unknown code is passing: librdkafka tries again by itself, and
//! what it gives up it says with a code that is known here.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What to do about an error of a poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Passing; poll again.
    Retry,
    /// Going on would lose or invent something; the sentence says what to do.
    Stop(String),
    /// Passing, unless the topic is gone.
    Topic,
}

/// Judges an error of a poll of `topic`.
pub(super) fn verdict(error: &KafkaError, topic: &str) -> Verdict {
    use RDKafkaErrorCode as Code;
    if let KafkaError::MessageConsumptionFatal(code) = error {
        return Verdict::Stop(format!("the Kafka consumer of {topic} is beyond repair ({code}): restart the process"));
    }
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Verdict::Stop(format!(
            "the next offset of a partition of {topic} is not in the log any more: it was trimmed or created anew \
             while it was read. Start again: the start says which, and what to do"
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
            "a batch of {topic} is damaged ({code}): let another replica lead the partition, or restore the topic"
        )),
        Some(Code::Fatal) => {
            Verdict::Stop(format!("the Kafka consumer of {topic} is beyond repair ({error}): restart the process"))
        }
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_away_is_passing_and_a_lost_offset_is_not() {
        use RDKafkaErrorCode as Code;
        let of = |code| verdict(&KafkaError::MessageConsumption(code), "t");
        for code in [Code::BrokerTransportFailure, Code::AllBrokersDown, Code::OperationTimedOut, Code::Resolve] {
            assert_eq!(of(code), Verdict::Retry, "{code}");
        }
        for code in [Code::AutoOffsetReset, Code::OffsetOutOfRange, Code::TopicAuthorizationFailed, Code::BadMessage] {
            assert!(matches!(of(code), Verdict::Stop(_)), "{code}");
        }
        assert_eq!(of(Code::UnknownTopicOrPartition), Verdict::Topic);
        let fatal = verdict(&KafkaError::MessageConsumptionFatal(Code::FencedInstanceId), "t");
        assert!(matches!(fatal, Verdict::Stop(_)));
    }
}
