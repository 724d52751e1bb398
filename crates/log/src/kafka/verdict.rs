//! Decides which read errors are transient and which stop the reader.
//!
//! It looks only at error codes and queries no broker. Unknown codes are transient, because
//! librdkafka retries by itself and gives up with a code that is known here.

use super::rights::Granter;
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
    /// It concerns nothing that this reader needs.
    Ignore,
}

/// Judges a poll error of `topic`, which is read as a member of `group` if that is given.
pub(super) fn verdict(error: &KafkaError, topic: &str, group: Option<&str>, granter: &Granter) -> Verdict {
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
        Some(code @ (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => Verdict::Stop(format!(
            "Kafka does not let this user read {topic} ({code}): {}",
            granter.topic(topic, &["Describe", "Read"])
        )),
        Some(code @ Code::GroupAuthorizationFailed) => match group {
            Some(group) => Verdict::Stop(format!(
                "Kafka does not let this user be a member of the group {group} ({code}): {}",
                granter.group(group)
            )),
            // librdkafka asks for the coordinator of every consumer's group, also where nothing is
            // read as a member.
            None => Verdict::Ignore,
        },
        // An expired token is replaced as soon as its endpoint answers again.
        Some(Code::SaslAuthenticationFailed | Code::Authentication) if granter.has_tokens() => Verdict::Retry,
        Some(code @ (Code::SaslAuthenticationFailed | Code::Authentication)) => Verdict::Stop(format!(
            "Kafka refuses the credentials of this user ({code}): correct sasl.username and sasl.password, or the client's \
             certificate"
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
    use super::super::settings::KafkaSettings;
    use super::*;

    fn verdict(error: &KafkaError, topic: &str) -> Verdict {
        super::verdict(error, topic, Some("g"), &Granter::new(&KafkaSettings::default()))
    }

    #[test]
    fn missing_rights_are_named_with_their_command() {
        use RDKafkaErrorCode as Code;
        let said = |code| match verdict(&KafkaError::MessageConsumption(code), "t") {
            Verdict::Stop(said) => said,
            other => panic!("{other:?}"),
        };
        assert!(said(Code::TopicAuthorizationFailed).contains("--operation Describe --operation Read --topic t"));
        assert!(said(Code::GroupAuthorizationFailed).contains("--operation Read --group g"));
        let error = KafkaError::MessageConsumption(Code::GroupAuthorizationFailed);
        let granter = Granter::new(&KafkaSettings::default());
        assert_eq!(super::verdict(&error, "t", None, &granter), Verdict::Ignore);
    }

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
