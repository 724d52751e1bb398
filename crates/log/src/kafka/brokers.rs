//! Collapses librdkafka's lines and errors: notes which brokers cannot be reached and why, and logs
//! an outage once when it begins and once when it ends.
//!
//! It asks no broker, and does not decide whether Kafka as a whole is away: the watch does.

use super::causes::{Cause, Lasts, failure};
use super::native::Clients;
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use receipts_metrics::log_lines::LogLimit;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A broker that fails for this long, while others answer, is reported.
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// A broker without a failure for this long is reached again: clients try again every 2 s at least.
const BACK_AFTER: Duration = Duration::from_secs(6);
/// A start gives up on causes that only a setting can end after this time: a second attempt has
/// failed by then.
const GIVE_UP_AFTER: Duration = Duration::from_secs(4);

/// What all clients of one log know about its brokers.
#[derive(Default)]
pub(super) struct Brokers {
    notes: Mutex<Notes>,
    clients: Arc<Clients>,
}

#[derive(Default)]
struct Notes {
    /// Failures since the broker was last reached, by address.
    failures: BTreeMap<String, Failure>,
    /// The outage that was logged and is not over.
    outage: Option<Outage>,
    /// The lines of each cause: a facility, or an error.
    logged: BTreeMap<String, LogLimit>,
    /// Why there is no new token to authenticate with.
    token: Option<String>,
}

struct Failure {
    cause: Cause,
    first: Instant,
    last: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outage {
    since: Instant,
    /// True if no broker answered.
    whole: bool,
}

/// A line for the operator.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// No broker answers.
    Away(String),
    /// Some brokers do not.
    Partly(String),
    /// All answer again after this time.
    Back(Duration),
}

impl Brokers {
    /// Takes a log line of librdkafka.
    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Commits serve lag tools only, and a member that has just left its group cannot make one.
        let is_ignored = facility == "CONFWARN" && message.contains("property and will be ignored by this")
            || message.contains("Offset commit (manual) failed");
        let now = Instant::now();
        let is_quiet = self.note(message, now) || is_ignored || matches!(level, RDKafkaLogLevel::Debug);
        // No count: a consequence of an outage that is reported anyway, or a repetition.
        let Some(count) = (if is_quiet { None } else { self.news(facility, now) }) else {
            tracing::debug!(target: "librdkafka", facility, "{message}");
            return;
        };
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, count, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, count, "{message}");
            }
            _ => tracing::info!(target: "librdkafka", facility, count, "{message}"),
        }
    }

    /// Takes a global error of a client. Callers that wait for a record or an acknowledgement learn
    /// of it in another way. librdkafka reports the end of a partition here as well, which is not
    /// an error.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        let now = Instant::now();
        if is_end(error) {
            tracing::trace!(target: "librdkafka", "{reason}");
        } else if self.note(reason, now) || is_contact(error) || is_right(error) {
            tracing::debug!(target: "librdkafka", %error, "{reason}");
        } else if let Some(count) = self.news(&error.to_string(), now) {
            tracing::warn!(target: "librdkafka", %error, count, "{reason}");
        } else {
            tracing::debug!(target: "librdkafka", %error, "{reason}");
        }
    }

    /// Notes a broker's failure; returns false if the text tells of none.
    fn note(&self, message: &str, now: Instant) -> bool {
        let Some((address, cause)) = failure(message) else { return false };
        let mut notes = self.notes.lock();
        let failure =
            notes.failures.entry(address).or_insert_with(|| Failure { cause: cause.clone(), first: now, last: now });
        failure.last = now;
        // A closed connection says nothing but that it failed. After one that was closed before the
        // first answer librdkafka asks in another way, and the port closes later.
        let says_nothing = !cause.may_speak_tls && cause.lasts == Lasts::Unknown;
        let closes_later = failure.cause.may_speak_tls && cause.lasts == Lasts::UntilChanged;
        if !(says_nothing || closes_later) {
            failure.cause = cause;
        }
        true
    }

    /// Returns the number of lines of a cause that the line stands for; `None` if one was logged a
    /// moment ago, and while brokers fail.
    fn news(&self, cause: &str, now: Instant) -> Option<u64> {
        let mut notes = self.notes.lock();
        let fails = notes.failures.values().any(|failure| now.duration_since(failure.last) < BACK_AFTER);
        if fails || notes.outage.is_some() {
            return None;
        }
        notes.logged.entry(cause.to_owned()).or_default().count(now)
    }

    /// Names the brokers that fail, each with its cause, and why there is no new token; `None` if
    /// nothing fails.
    pub(super) fn failing(&self) -> Option<String> {
        let notes = self.notes.lock();
        let brokers = (!notes.failures.is_empty()).then(|| notes.list(|_| true));
        let token = notes.token.as_ref().map(|cause| format!("no new token: {cause}"));
        let all: Vec<String> = token.into_iter().chain(brokers).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Returns [`Brokers::failing`] if no broker is left whose cause may end by itself, for some
    /// seconds now. With it, whether a certificate is not accepted.
    pub(super) fn unusable(&self) -> Option<(String, bool)> {
        let notes = self.notes.lock();
        let mut failures = notes.failures.values();
        let now = Instant::now();
        let is_for_good = failures.len() > 0
            && failures.all(|failure| {
                failure.cause.lasts == Lasts::UntilChanged && now.duration_since(failure.first) >= GIVE_UP_AFTER
            });
        let certificate = notes.failures.values().any(|failure| failure.cause.is_certificate);
        is_for_good.then(|| (notes.list(|_| true), certificate))
    }

    /// Returns a broker that closes connections without TLS before its first answer, if none fails
    /// in another way.
    pub(super) fn closing(&self) -> Option<String> {
        let notes = self.notes.lock();
        let all = notes.failures.values().all(|failure| failure.cause.may_speak_tls);
        notes.failures.keys().next().filter(|_| all).cloned()
    }

    /// The clients that get tokens.
    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Notes why no new token could be fetched, or that one was. Logs each cause once.
    pub(super) fn note_token(&self, cause: Option<String>) {
        let mut notes = self.notes.lock();
        match (&cause, &notes.token) {
            (Some(cause), noted) if noted.as_ref() != Some(cause) => tracing::warn!(
                cause,
                "the token for Kafka cannot be renewed; connections fail once the last one has expired"
            ),
            (None, Some(_)) => tracing::info!("the token for Kafka is renewed again"),
            _ => {}
        }
        notes.token = cause;
    }

    /// Logs the beginning and the end of an outage. `heard` tells whether a broker has just
    /// answered; `away_since` when the last one did, if Kafka counts as away.
    pub(super) fn report(&self, heard: bool, away_since: Option<Instant>) {
        match self.notes.lock().news(Instant::now(), heard, away_since) {
            None => {}
            Some(News::Away(brokers)) => tracing::warn!(
                brokers,
                "Kafka cannot be reached; until it is back, writes fail and reads are answered from the held state"
            ),
            Some(News::Partly(brokers)) => {
                tracing::warn!(brokers, "some brokers of Kafka cannot be reached; the others answer");
            }
            Some(News::Back(away)) => {
                tracing::info!(away_s = away.as_secs(), "all brokers of Kafka can be reached again");
            }
        }
    }
}

impl Notes {
    fn list(&self, is_listed: impl Fn(&Failure) -> bool) -> String {
        let mut list = String::new();
        for (address, failure) in self.failures.iter().filter(|(_, failure)| is_listed(failure)) {
            let separator = if list.is_empty() { "" } else { ", " };
            _ = write!(list, "{separator}{address} ({})", failure.cause.text);
        }
        list
    }

    fn news(&mut self, now: Instant, heard: bool, away_since: Option<Instant>) -> Option<News> {
        if let Some(since) = away_since {
            if self.outage.is_some_and(|outage| outage.whole) {
                return None;
            }
            self.outage = Some(Outage { since, whole: true });
            let list = self.list(|_| true);
            return Some(News::Away(if list.is_empty() { "no answer in time".into() } else { list }));
        }
        if !heard {
            return None;
        }
        if self.outage.is_some_and(|outage| outage.whole) {
            self.failures.clear();
        }
        self.failures.retain(|_, failure| now.duration_since(failure.last) < BACK_AFTER);
        match self.outage {
            Some(outage) if self.failures.is_empty() => {
                self.outage = None;
                Some(News::Back(now.duration_since(outage.since)))
            }
            Some(_) => None,
            None => {
                let is_long = |failure: &Failure| failure.last.duration_since(failure.first) >= REPORT_AFTER;
                let since =
                    self.failures.values().filter(|failure| is_long(failure)).map(|failure| failure.first).min()?;
                self.outage = Some(Outage { since, whole: false });
                Some(News::Partly(self.list(is_long)))
            }
        }
    }
}

fn is_end(error: &KafkaError) -> bool {
    matches!(error, KafkaError::PartitionEOF(_)) || error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF)
}

/// Tells whether an error is about a missing right: its caller learns of it, with the command that
/// grants it, unless the client does not need the right.
fn is_right(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed)
    )
}

/// Tells whether an error says no more than that brokers do not answer.
pub(super) fn is_contact(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection \
                           refused (after 0ms in state CONNECT, 1 identical error(s) suppressed)";

    #[test]
    fn the_end_of_a_partition_is_no_error() {
        assert!(is_end(&KafkaError::PartitionEOF(3)));
        assert!(is_end(&KafkaError::Global(RDKafkaErrorCode::PartitionEOF)));
        assert!(!is_end(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)));
    }

    #[test]
    fn outage_is_two_lines_however_often_brokers_fail() {
        let brokers = Brokers::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut lines = Vec::new();
        for second in 0..60 {
            (0..20).for_each(|_| assert!(brokers.note(REFUSED, at(second))));
            assert_eq!(brokers.news("SESSTMOUT", at(second)), None, "a consequence of the outage");
            let away = (second >= 4).then_some(start);
            lines.extend(brokers.notes.lock().news(at(second), false, away));
        }
        lines.extend(brokers.notes.lock().news(at(60), true, None));
        let named = "127.0.0.1:9092 (it refuses the connection)".to_owned();
        assert_eq!(lines, [News::Away(named), News::Back(Duration::from_secs(60))]);
    }

    #[test]
    fn only_causes_that_last_end_a_start() {
        let wrong = "sasl_ssl://a:9093/bootstrap: SASL authentication error: Authentication failed (after 1ms in state AUTH_REQ)";
        let brokers = Brokers::default();
        let begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        brokers.note(wrong, begun);
        let (said, certificate) = brokers.unusable().unwrap();
        assert!(said.contains("a:9093") && said.contains("sasl.password") && !certificate, "{said}");
        brokers.note(REFUSED, begun);
        assert_eq!(brokers.unusable(), None, "the other broker may come");
    }

    #[test]
    fn port_that_may_speak_tls_stays_suspect() {
        let brokers = Brokers::default();
        let now = Instant::now();
        brokers.note("a:1/bootstrap: Disconnected (after 44ms in state APIVERSION_QUERY)", now);
        assert_eq!(brokers.closing().as_deref(), Some("a:1"));
        brokers.note("a:1/bootstrap: Disconnected (after 3ms in state UP)", now);
        assert_eq!(brokers.closing().as_deref(), Some("a:1"), "asked in another way");
        brokers.note(REFUSED, now);
        assert_eq!(brokers.closing(), None, "the other broker may come");
    }

    #[test]
    fn one_broker_of_many_is_reported_while_others_answer() {
        let brokers = Brokers::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut lines = Vec::new();
        for second in 0..30 {
            if second < 10 {
                brokers.note(REFUSED, at(second));
            }
            lines.extend(brokers.notes.lock().news(at(second), true, None));
        }
        assert!(matches!(&lines[..], [News::Partly(_), News::Back(_)]), "{lines:?}");
    }

    #[test]
    fn other_lines_are_logged_once_a_minute() {
        let brokers = Brokers::default();
        let now = Instant::now();
        assert_eq!(brokers.news("MAXPOLL", now), Some(1));
        assert_eq!(brokers.news("MAXPOLL", now + Duration::from_secs(59)), None);
        assert_eq!(brokers.news("MAXPOLL", now + Duration::from_secs(60)), Some(2));
        assert_eq!(brokers.news("OTHER", now), Some(1));
    }
}
