//! Why the Kafka log does not start, and what to change.
//!
//! It asks nothing: [`super::connect`] finds the cause.

use super::settings::KafkaSettings;
use crate::port::ReadError;
use rdkafka::error::KafkaError;

/// How a sentence about rejected settings begins.
pub(super) const WRONG_SETTINGS: &str = "the Kafka settings are wrong";

/// Why the Kafka log does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings contradict one another, or librdkafka rejects them.
    #[error("the Kafka settings are wrong: {0}")]
    Settings(String),
    /// No broker answered.
    #[error(
        "no Kafka broker answered at {bootstrap} within {waited_s} s ({cause}): check --kafka-bootstrap and that the \
         brokers run"
    )]
    Unreachable {
        /// The bootstrap brokers.
        bootstrap: String,
        /// The waiting time, seconds.
        waited_s: u64,
        /// The error of the last attempt.
        cause: String,
    },
    /// Every broker fails for a cause that only another setting ends.
    #[error("no broker at {bootstrap} can be used: {cause}")]
    Unusable {
        /// The bootstrap brokers.
        bootstrap: String,
        /// The brokers, each with its cause and what to change.
        cause: String,
    },
    /// The user may neither see nor create a topic.
    #[error(
        "the topic {topic} is missing, or this user may not describe it, and may not create it ({code}). If it exists: \
         {describe}; otherwise: {create}"
    )]
    Denied {
        /// The topic.
        topic: String,
        /// The cluster's error.
        code: String,
        /// The command that lets the user describe it.
        describe: String,
        /// The command that lets the user create it.
        create: String,
    },
    /// A topic is missing, and it may not or cannot be created.
    #[error("the topic {topic} is missing{cause}: create it with {advice}")]
    Missing {
        /// The topic.
        topic: String,
        /// Why it was not created; begins with a comma if there is a reason.
        cause: String,
        /// The properties with which to create it.
        advice: String,
    },
    /// The event topic is compacted, so Kafka deletes events.
    #[error(
        "the topic {0} is compacted, so Kafka deletes events and receipts would be wrong. Set cleanup.policy=delete; if \
         events are deleted already, fill a new topic from their source"
    )]
    Compacted(String),
    /// The event topic takes records of any future time.
    #[error(
        "the topic {topic} takes records dated more than an hour ahead, and one such record makes all messages of its \
         partition expire: run `{command}`{note}, or set log.accept_unbounded_time=true to accept that"
    )]
    UnboundedTime {
        /// The topic.
        topic: String,
        /// The command that bounds it.
        command: String,
        /// What to know about the command; begins with a space if there is anything.
        note: String,
    },
    /// The topic has not the partitions that the store, the updates or the records began with.
    #[error("{0}")]
    PartitionCount(String),
    /// The store was folded from a topic of another cluster.
    #[error("this is the Kafka cluster {held}, and the store was folded from one of the cluster {bound}")]
    OtherCluster {
        /// The cluster that answers.
        held: String,
        /// The cluster of the store.
        bound: String,
    },
    /// The topic was made anew, or deleted, since the store was folded from it.
    #[error("{0}")]
    OtherTopic(String),
    /// The topics have different partition counts. An update must be in the partition of its
    /// events, because positions in the two topics are compared by partition.
    #[error(
        "the topic {topic} has {held} partitions and the event topic has {events}, but updates resume at positions of \
         events, so both need the same number: name another topic with --log-updates-topic, or remove this one so that \
         it is created again"
    )]
    Partitions {
        /// The topic of updates.
        topic: String,
        /// The partitions that it has.
        held: u32,
        /// The partitions of the event topic.
        events: u32,
    },
    /// There is no token to authenticate with.
    #[error("no token for SASL OAUTHBEARER: {0}")]
    Token(String),
    /// The cluster refuses a request.
    #[error("Kafka at {bootstrap} refuses to {what}: {cause}")]
    Refused {
        /// The bootstrap brokers.
        bootstrap: String,
        /// The request.
        what: &'static str,
        /// The cluster's error.
        cause: String,
    },
}

impl ConnectError {
    /// Converts the error of a reader that librdkafka rejects, and says once what is wrong.
    pub(super) fn rejected(error: &ReadError) -> Self {
        let sentence = error.to_string();
        let cause = sentence.strip_prefix(WRONG_SETTINGS).and_then(|rest| rest.strip_prefix(": "));
        Self::Settings(cause.unwrap_or(&sentence).to_owned())
    }
}

/// The cluster refuses a request.
pub(super) fn refused(settings: &KafkaSettings, what: &'static str, error: &KafkaError) -> ConnectError {
    ConnectError::Refused { bootstrap: settings.bootstrap.clone(), what, cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_settings_are_told_once() {
        let cause = "`max.poll.interval.ms` must be >= `session.timeout.ms`";
        for sentence in [cause.to_owned(), format!("{WRONG_SETTINGS}: {cause}")] {
            let told = ConnectError::rejected(&ReadError::Stop(sentence)).to_string();
            assert_eq!(told, format!("{WRONG_SETTINGS}: {cause}"));
        }
    }
}
