//! Reads the causes of broken connections out of librdkafka's texts, and says which setting to
//! change.
//!
//! It keeps nothing. A text that tells of no connection is not a failure.

/// A connection that is closed within this time was never used: as librdkafka, which means to give
/// the same advice, but never does in 2.12.
const JUST_CONNECTED_MS: u32 = 2_000;

/// Why a connection to a broker fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) text: String,
    pub(super) lasts: Lasts,
    /// True if the client does not accept the broker's certificate. librdkafka does not say why.
    pub(super) is_certificate: bool,
    /// True if the broker closes a connection without TLS before its first answer.
    pub(super) may_speak_tls: bool,
}

/// What is wrong with a port that shows a certificate to a client without TLS.
pub(super) const SPEAKS_TLS: &str = "this port speaks TLS: set security.protocol to SSL or SASL_SSL, or name the port \
                                     without TLS in kafka.bootstrap";

/// How long a cause lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasts {
    /// The text says only that a connection was closed.
    Unknown,
    /// It may end by itself, for instance with the start of a broker.
    AWhile,
    /// Until somebody changes a setting, here or at the broker.
    UntilChanged,
}

impl Cause {
    fn new(text: impl Into<String>, lasts: Lasts) -> Self {
        Self { text: text.into(), lasts, is_certificate: false, may_speak_tls: false }
    }
}

/// Reads a broker's address and the cause of its failure from a text of librdkafka such as
/// `[thrd:a:9092/1]: a:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms
/// in state CONNECT)`.
pub(super) fn failure(message: &str) -> Option<(String, Cause)> {
    let message = match message.strip_prefix("[thrd:") {
        Some(rest) => rest.split_once("]: ")?.1,
        None => message,
    };
    let message = message.strip_prefix("GroupCoordinator: ").unwrap_or(message);
    let (broker, text) = message.split_once(": ")?;
    let (protocol, broker) = broker.split_once("://").unwrap_or(("plaintext", broker));
    let address = broker.split_once('/').map_or(broker, |(address, _)| address);
    let (host, port) = address.rsplit_once(':')?;
    if host.is_empty() || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (text, state) = text.split_once(" (after ").unwrap_or((text, ""));
    let text = text.trim();
    Some((address.to_owned(), closed(text, state, protocol).or_else(|| cause(text))?))
}

/// A broker that has just been connected to is a port of another protocol if it closes the
/// connection before its first answer, or after it: librdkafka says so only in its state.
fn closed(text: &str, state: &str, protocol: &str) -> Option<Cause> {
    if !text.starts_with("Disconnected") {
        return None;
    }
    let after_ms: u32 = state.split_once("ms in state ")?.0.parse().ok()?;
    if state.contains("in state APIVERSION_QUERY") && !protocol.ends_with("ssl") {
        let cause = Cause::new("it closes each connection before its first answer", Lasts::Unknown);
        return Some(Cause { may_speak_tls: true, ..cause });
    }
    let is_sasl_missing =
        state.contains("in state UP") && after_ms < JUST_CONNECTED_MS && !protocol.starts_with("sasl");
    let with_tls = if protocol == "ssl" { "SASL_SSL" } else { "SASL_PLAINTEXT, or SASL_SSL with TLS" };
    is_sasl_missing.then(|| {
        let said = format!(
            "it closes each connection after its first answer, so this port may authenticate by SASL: set \
             security.protocol={with_tls}, and sasl.mechanisms"
        );
        Cause::new(said, Lasts::UntilChanged)
    })
}

fn cause(text: &str) -> Option<Cause> {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let a_while = |said: &str| Cause::new(said, Lasts::AWhile);
    let cause = if has(&["failed to resolve"]) {
        a_while("its name cannot be resolved")
    } else if has(&["connection refused"]) {
        a_while("it refuses the connection")
    } else if has(&["sasl", "authentication"]) {
        sasl(text, &lower)
    } else if let Some(cause) = tls(text, &lower) {
        cause
    } else if has(&["timed out", "timeout"]) {
        a_while("no answer in time")
    } else if has(&["no route to host", "network is unreachable"]) {
        a_while("there is no route to it")
    } else if has(&[
        "disconnected",
        "connection reset",
        "broken pipe",
        "connection closed",
        "receive failed",
        "send failed",
    ]) {
        Cause::new("the connection was closed", Lasts::Unknown)
    } else if has(&["connect to", "connection setup"]) {
        a_while(text)
    } else {
        return None;
    };
    Some(cause)
}

fn sasl(text: &str, lower: &str) -> Cause {
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let offered = text.split_once("supported mechanisms:").map(|(_, offered)| offered.trim());
    let said = match offered {
        Some("") => {
            "this port does not authenticate by SASL: set security.protocol to SSL or PLAINTEXT, or name the port \
                     with SASL in kafka.bootstrap"
                .to_owned()
        }
        Some(offered) => format!("it does not offer the mechanism of sasl.mechanisms, but {offered}: set one of these"),
        None if has(&["oauthbearer", "invalid_token"]) => format!(
            "it refuses the token ({text}): check sasl.oauthbearer.scope, and the issuer and the audience that the broker \
             expects"
        ),
        None if has(&["authentication failed", "authentication error", "invalid credentials"]) => {
            format!("it refuses the credentials ({text}): check sasl.username, sasl.password and sasl.mechanisms")
        }
        None => return Cause::new(format!("authentication fails: {text}"), Lasts::AWhile),
    };
    Cause::new(said, Lasts::UntilChanged)
}

fn tls(text: &str, lower: &str) -> Option<Cause> {
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let certificate = has(&["certificate verify failed", "failed to verify broker certificate"]);
    let said = if certificate {
        "its certificate is not accepted: ssl.ca.location must hold the certificate of the CA that signed it, and the host \
         by which it is reached must be one of its names"
            .to_owned()
    } else if has(&["alert"]) {
        let alert = text.rsplit_once("SSL routines::").map_or(text, |(_, alert)| alert);
        format!(
            "it does not accept this client's certificate ({alert}): set ssl.certificate.location and ssl.key.location to a \
             certificate that its trust store knows and that has not expired"
        )
    } else if has(&["ssl", "certificate", "tls"])
        && has(&["unexpected eof", "wrong version", "record layer", "packet length", "plaintext", "unexpected message"])
    {
        "this port does not speak TLS: set security.protocol to PLAINTEXT or SASL_PLAINTEXT, or name the port with TLS in \
         kafka.bootstrap"
            .to_owned()
    } else if has(&["ssl", "certificate", "tls"]) && !has(&["closed by peer"]) {
        return Some(Cause::new(format!("TLS fails: {text}"), Lasts::AWhile));
    } else {
        return None;
    };
    Some(Cause { is_certificate: certificate, ..Cause::new(said, Lasts::UntilChanged) })
}

/// Says which check of OpenSSL a broker's certificate fails (`X509_V_ERR_…`), and what to change.
pub(super) fn certificate_check(code: i32) -> String {
    match code {
        9 => "the certificate is not valid yet: compare the clocks".into(),
        10 => "the certificate has expired: renew it at the broker".into(),
        18 => "the certificate is self-signed: set ssl.ca.location to a PEM file of it".into(),
        2 | 19 | 20 | 21 => {
            "the CA that signed the certificate is unknown here: set ssl.ca.location to a PEM file of the CA's certificate"
                .into()
        }
        23 => "the certificate is revoked".into(),
        62 | 64 => "the certificate is for another host: name the brokers in kafka.bootstrap, and in their \
                    advertised.listeners, as the certificate does"
            .into(),
        other => format!("the certificate fails OpenSSL's check {other} (openssl verify explains it)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_of_failures_are_told_apart() {
        use Lasts::{AWhile, Unknown, UntilChanged};
        // Texts of librdkafka 2.12 with OpenSSL 3.0 and Kafka 4.4.
        let cases = [
            (
                "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after \
                 0ms in state CONNECT, 1 identical error(s) suppressed)",
                "127.0.0.1:9092",
                AWhile,
                "it refuses the connection",
            ),
            (
                "nohost:9092/bootstrap: Failed to resolve 'nohost:9092': Name or service not known (after 3ms in state \
                 CONNECT)",
                "nohost:9092",
                AWhile,
                "its name cannot be resolved",
            ),
            (
                "[thrd:GroupCoordinator]: GroupCoordinator: b:9093: Connection setup timed out in state CONNECT (after \
                 30029ms in state CONNECT)",
                "b:9093",
                AWhile,
                "no answer in time",
            ),
            (
                "ssl://a:9094/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                 certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA \
                 certificates are installed (install ca-certificates package) (after 5ms in state SSL_HANDSHAKE)",
                "a:9094",
                UntilChanged,
                "ssl.ca.location",
            ),
            (
                "ssl://a:1/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert \
                 number 42 (after 18ms in state APIVERSION_QUERY)",
                "a:1",
                UntilChanged,
                "ssl.key.location",
            ),
            (
                "ssl://a:1/bootstrap: SSL handshake failed: error:0A000126:SSL routines::unexpected eof while reading (after \
                 168ms in state SSL_HANDSHAKE)",
                "a:1",
                UntilChanged,
                "does not speak TLS",
            ),
            (
                "a:1/bootstrap: Disconnected (after 44ms in state APIVERSION_QUERY)",
                "a:1",
                Unknown,
                "before its first answer",
            ),
            (
                "a:1/bootstrap: Disconnected (after 3ms in state UP)",
                "a:1",
                UntilChanged,
                "set security.protocol=SASL_PLAINTEXT, or SASL_SSL",
            ),
            (
                "sasl_ssl://a:1/bootstrap: SASL authentication error: Authentication failed during authentication due to \
                 invalid credentials with SASL mechanism SCRAM-SHA-256 (after 927ms in state AUTH_REQ)",
                "a:1",
                UntilChanged,
                "check sasl.username, sasl.password",
            ),
            (
                "sasl_ssl://a:1/bootstrap: SASL OAUTHBEARER mechanism handshake failed: Broker: Unsupported SASL mechanism: \
                 broker's supported mechanisms: PLAIN,SCRAM-SHA-512 (after 304ms in state AUTH_HANDSHAKE)",
                "a:1",
                UntilChanged,
                "but PLAIN,SCRAM-SHA-512",
            ),
            (
                "sasl_plaintext://a:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Request not valid in current \
                 SASL state: broker's supported mechanisms:  (after 59ms in state AUTH_HANDSHAKE)",
                "a:1",
                UntilChanged,
                "this port does not authenticate",
            ),
            (
                "[::1]:9092/2: Disconnected (after 60000ms in state UP)",
                "[::1]:9092",
                Unknown,
                "the connection was closed",
            ),
            (
                "ssl://a:1/bootstrap: Disconnected: SSL connection closed by peer (after 9ms in state UP)",
                "a:1",
                UntilChanged,
                "set security.protocol=SASL_SSL, and",
            ),
            (
                "sasl_ssl://a:1/bootstrap: Disconnected: SSL connection closed by peer (after 9ms in state UP)",
                "a:1",
                Unknown,
                "the connection was closed",
            ),
        ];
        for (message, address, lasts, part) in cases {
            let (found, cause) = failure(message).unwrap_or_else(|| panic!("{message}"));
            assert_eq!((&*found, cause.lasts), (address, lasts), "{message}");
            assert!(cause.text.contains(part), "{}: {message}", cause.text);
            assert_eq!(cause.is_certificate, part == "ssl.ca.location");
            assert_eq!(cause.may_speak_tls, part == "before its first answer");
        }
        for other in ["3/3 brokers are down", "Consumer group session timed out (in join-state steady) after 10000 ms"]
        {
            assert_eq!(failure(other), None);
        }
    }
}
