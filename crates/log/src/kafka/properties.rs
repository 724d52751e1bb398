//! Checks the operator's properties of the Kafka client before anything connects, and says which
//! client takes which.
//!
//! It shows no value of a property that may be secret, and reads no file but the head of a key
//! store.

use super::connect_error::ConnectError;
use super::property_names::{COMMON, CONSUMER, PRODUCER};
use super::settings::KafkaSettings;
use super::tokens::Oidc;
use crate::token::TokenRequest;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

/// Properties of the Kafka client by librdkafka's names. Debug output shows no value, because some
/// are passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl From<BTreeMap<String, String>> for Properties {
    fn from(properties: BTreeMap<String, String>) -> Self {
        Self(properties)
    }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Properties {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(properties: I) -> Self {
        Self(properties.into_iter().collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The kinds of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Admin,
    Consumer,
    Producer,
}

/// Tells whether clients of a kind take a property. Those of OIDC are ours: librdkafka is built
/// without an HTTP client.
pub(super) fn goes_to(name: &str, kind: Kind) -> bool {
    match kind {
        _ if is_of_oidc(name) => false,
        Kind::Consumer => !PRODUCER.contains(&name),
        Kind::Producer => !CONSUMER.contains(&name),
        Kind::Admin => !CONSUMER.contains(&name) && !PRODUCER.contains(&name),
    }
}

fn is_of_oidc(name: &str) -> bool {
    name.starts_with("https.ca.") || name.starts_with("sasl.oauthbearer.") && name != "sasl.oauthbearer.config"
}

/// Tells whether the value of a property may be secret.
fn is_secret(name: &str) -> bool {
    ["password", "secret", "passphrase", ".pem", "jaas", "sasl.username", "sasl.oauthbearer.config", "keystore.key"]
        .iter()
        .any(|part| name.contains(part))
}

/// Names of Java's client, and what to set instead.
const JAVA: [(&str, &str); 24] = [
    (
        "ssl.truststore.location",
        "set ssl.ca.location to a PEM file of the CA's certificate (keytool -exportcert -rfc -alias CA -keystore \
         TRUSTSTORE -file ca.pem writes it)",
    ),
    ("ssl.truststore.password", "leave it out: the PEM file of ssl.ca.location needs none"),
    ("ssl.truststore.type", "leave it out: ssl.ca.location is a PEM file"),
    ("ssl.truststore.certificates", "set ssl.ca.pem to the same text, or ssl.ca.location to its file"),
    ("ssl.keystore.type", "leave it out: ssl.keystore.location is a PKCS#12 file, and ssl.key.location a PEM file"),
    ("ssl.keystore.key", "set ssl.key.pem to the same text, or ssl.key.location to its file"),
    (
        "ssl.keystore.certificate.chain",
        "set ssl.certificate.pem to the same text, or ssl.certificate.location to its file",
    ),
    ("ssl.protocol", "leave it out: the system's OpenSSL decides, by MinProtocol in openssl.cnf"),
    ("ssl.enabled.protocols", "leave it out: the system's OpenSSL decides, by MinProtocol in openssl.cnf"),
    (
        "sasl.jaas.config",
        "set sasl.username and sasl.password to the values in it, or for OAUTHBEARER sasl.oauthbearer.client.id and \
         sasl.oauthbearer.client.secret",
    ),
    ("sasl.login.callback.handler.class", "set sasl.oauthbearer.method=oidc"),
    (
        "sasl.client.callback.handler.class",
        "set sasl.oauthbearer.method=oidc; IAM of MSK is not built in: use MSK's SCRAM",
    ),
    ("key.serializer", "leave it out"),
    ("value.serializer", "leave it out"),
    ("key.deserializer", "leave it out"),
    ("value.deserializer", "leave it out"),
    ("buffer.memory", "set queue.buffering.max.kbytes"),
    ("max.request.size", "set message.max.bytes"),
    ("fetch.max.wait.ms", "set fetch.wait.max.ms"),
    ("max.poll.records", "leave it out"),
    ("max.block.ms", "leave it out"),
    ("send.buffer.bytes", "set socket.send.buffer.bytes"),
    ("receive.buffer.bytes", "set socket.receive.buffer.bytes"),
    ("default.api.timeout.ms", "set socket.timeout.ms"),
];

const MECHANISMS: &str = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";

/// Refuses properties that librdkafka does not know or take, and those that contradict one another.
/// Names all mistakes at once.
///
/// # Errors
/// A sentence for each mistake, separated by semicolons.
pub(super) fn check(properties: &Properties) -> Result<(), ConnectError> {
    let mut mistakes: Vec<String> = properties.iter().filter_map(|(name, value)| mistake(name, value)).collect();
    if mistakes.is_empty() {
        mistakes.extend(contradiction(properties));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(ConnectError::Settings(mistakes.join("; "))) }
}

fn mistake(name: &str, value: &str) -> Option<String> {
    if let Some((_, instead)) = JAVA.iter().find(|(java, _)| *java == name) {
        return Some(format!("the property {name} is one of Java's client: {instead}"));
    }
    if name == "ssl.keystore.location" && is_jks(value) {
        return Some(format!(
            "ssl.keystore.location: {value} is a JKS file, and OpenSSL reads PKCS#12: keytool -importkeystore \
             -srckeystore {value} -destkeystore client.p12 -deststoretype PKCS12"
        ));
    }
    if is_of_oidc(name) && COMMON.contains(&name) {
        return None;
    }
    match ClientConfig::new().set(name, value).create_native_config().err()? {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => Some(match nearest(name) {
            Some(near) => format!("the Kafka client has no property {name}; did you mean {near}?"),
            None => format!(
                "the Kafka client has no property {name}; librdkafka's CONFIGURATION.md lists all \
                 (https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md)"
            ),
        }),
        KafkaError::ClientConfig(..) if is_secret(name) => {
            Some(format!("the value of the property {name} is not allowed"))
        }
        KafkaError::ClientConfig(_, why, ..) => Some(format!("the property {name}: {why}")),
        _ => Some(format!("the property {name} cannot be set")),
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let known = COMMON.iter().chain(&CONSUMER).chain(&PRODUCER).copied();
    let near = known.map(|known| (strsim::damerau_levenshtein(name, known), known)).min()?;
    (near.0 <= (name.len() / 4).clamp(1, 4)).then_some(near.1)
}

fn is_jks(path: &str) -> bool {
    let mut head = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    read.is_ok() && head == [0xFE, 0xED, 0xFE, 0xED]
}

/// Finds a contradiction among properties that are right by themselves.
fn contradiction(properties: &Properties) -> Option<String> {
    let protocol = properties.get("security.protocol").map_or("PLAINTEXT".into(), |value| value.to_uppercase());
    let mechanism = mechanism(properties);
    let is_set = |prefix: &str| properties.keys().find(|name| name.starts_with(prefix));
    if !protocol.starts_with("SASL_") {
        let name = is_set("sasl.")?;
        let with_tls =
            if protocol == "SSL" || is_set("ssl.").is_some() { "SASL_SSL" } else { "SASL_SSL or SASL_PLAINTEXT" };
        return Some(format!(
            "the property {name} has no effect with security.protocol={protocol}: set security.protocol={with_tls}"
        ));
    }
    match mechanism {
        None => Some(format!("security.protocol={protocol} needs sasl.mechanisms: {MECHANISMS}")),
        Some("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512") => {
            let missing =
                ["sasl.username", "sasl.password"].into_iter().find(|name| !properties.contains_key(*name))?;
            Some(format!("sasl.mechanisms={} needs {missing}", mechanism.unwrap_or_default()))
        }
        Some("OAUTHBEARER") => oidc(properties).err(),
        Some("GSSAPI") => Some(format!("Kerberos (sasl.mechanisms=GSSAPI) is not built in: use {MECHANISMS}")),
        Some("AWS_MSK_IAM") => {
            Some("IAM of MSK (sasl.mechanisms=AWS_MSK_IAM) is not built in: use MSK's SCRAM-SHA-512".into())
        }
        Some(other) => Some(format!("sasl.mechanisms={other} is not allowed; allowed: {MECHANISMS}")),
    }
}

pub(super) fn mechanism(properties: &Properties) -> Option<&str> {
    properties.get("sasl.mechanisms").or_else(|| properties.get("sasl.mechanism")).map(String::as_str)
}

/// Reads how tokens are fetched; `None` if the mechanism needs none.
fn oidc(properties: &Properties) -> Result<Option<Oidc>, String> {
    if mechanism(properties) != Some("OAUTHBEARER") {
        return Ok(None);
    }
    let value = |name: &str| properties.get(name).filter(|value| !value.is_empty());
    let of_oidc = |name: &str| value(&format!("sasl.oauthbearer.{name}"));
    if of_oidc("method").is_none_or(|method| !method.eq_ignore_ascii_case("oidc")) {
        return Err("sasl.mechanisms=OAUTHBEARER needs sasl.oauthbearer.method=oidc".into());
    }
    if of_oidc("grant.type").is_some_and(|grant| grant != "client_credentials") {
        return Err("sasl.oauthbearer.grant.type must be client_credentials, which is the default".into());
    }
    let unsupported = |name: &&String| {
        name.starts_with("sasl.oauthbearer.assertion.") || name.starts_with("sasl.oauthbearer.metadata.")
    };
    if let Some(name) = properties.keys().find(unsupported) {
        return Err(format!("the property {name} is not built in: tokens are fetched by client credentials"));
    }
    if value("https.ca.pem").is_some() {
        return Err("https.ca.pem is not built in: set https.ca.location to a file with the same text".into());
    }
    let needed = |name: &str, other: &str| {
        let found = of_oidc(name).or_else(|| of_oidc(other));
        found.cloned().ok_or_else(|| format!("sasl.oauthbearer.method=oidc needs sasl.oauthbearer.{name}"))
    };
    let url = needed("token.endpoint.url", "token.endpoint.url")?;
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err("sasl.oauthbearer.token.endpoint.url must begin with https:// or http://".into());
    }
    let request = TokenRequest {
        url,
        client_id: needed("client.id", "client.credentials.client.id")?,
        client_secret: needed("client.secret", "client.credentials.client.secret")?,
        scope: of_oidc("scope").cloned(),
        ca: value("https.ca.location").filter(|place| *place != "probe").map(PathBuf::from),
    };
    let mut extensions = Vec::new();
    for pair in of_oidc("extensions").into_iter().flat_map(|list| list.split(',')) {
        match pair.trim().split_once('=') {
            Some((name, value)) if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                extensions.push((name.to_owned(), value.to_owned()));
            }
            _ => return Err("sasl.oauthbearer.extensions must be NAME=VALUE, several separated by commas".into()),
        }
    }
    Ok(Some(Oidc { request, extensions }))
}

impl KafkaSettings {
    /// Returns how tokens are fetched; `None` if the settings need none.
    pub(super) fn oidc(&self) -> Result<Option<Oidc>, ConnectError> {
        oidc(&self.properties).map_err(ConnectError::Settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(properties: &[(&str, &str)]) -> Properties {
        let owned = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect::<BTreeMap<_, _>>().into()
    }

    fn said(properties: &[(&str, &str)]) -> String {
        check(&of(properties)).expect_err("a mistake").to_string()
    }

    #[test]
    fn names_of_other_clients_are_refused_with_ours() {
        for (name, instead) in [
            ("ssl.truststore.location", "ssl.ca.location"),
            ("sasl.jaas.config", "sasl.username and sasl.password"),
            ("ssl.keystore.key", "ssl.key.pem"),
            ("sasl.login.callback.handler.class", "sasl.oauthbearer.method=oidc"),
        ] {
            let said = said(&[(name, "s3cret")]);
            assert!(said.contains(name) && said.contains(instead) && !said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn unknown_properties_are_refused_with_a_near_name() {
        let said = said(&[("security.protcol", "SSL"), ("lingr.ms", "5"), ("ssl.quantum", "yes")]);
        for part in ["did you mean security.protocol?", "did you mean linger.ms?", "no property ssl.quantum"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }

    #[test]
    fn sentences_hold_no_secret() {
        for name in ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"] {
            let all = of(&[(name, "s3cret"), ("security.protocol", "tls")]);
            assert!(!format!("{all:?}").contains("s3cret"));
            let said = check(&all).expect_err("a mistake").to_string();
            assert!(said.contains("security.protocol") && !said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn sasl_needs_protocol_mechanism_and_credentials() {
        let scram = ("sasl.mechanisms", "SCRAM-SHA-512");
        let (ssl, user) = (("security.protocol", "SASL_SSL"), ("sasl.username", "u"));
        assert!(said(&[scram]).contains("set security.protocol=SASL_SSL"));
        assert!(said(&[ssl]).contains("needs sasl.mechanisms: PLAIN, SCRAM-SHA-256"));
        assert!(said(&[ssl, scram, user]).contains("needs sasl.password"));
        check(&of(&[ssl, scram, user, ("sasl.password", "p")])).expect("complete");
        let mechanism = |name| said(&[ssl, ("sasl.mechanisms", name)]);
        assert!(mechanism("GSSAPI").contains("Kerberos"));
        assert!(mechanism("AWS_MSK_IAM").contains("MSK's SCRAM-SHA-512"));
        assert!(mechanism("SCRAM-SHA-1").contains("allowed: PLAIN"));
        assert!(mechanism("OAUTHBEARER").contains("sasl.oauthbearer.method=oidc"));
    }

    #[test]
    fn oidc_is_read_out_of_librdkafkas_names() {
        let mut all = vec![
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.token.endpoint.url", "https://id.example/token"),
            ("sasl.oauthbearer.client.id", "receipts"),
        ];
        assert!(said(&all).contains("needs sasl.oauthbearer.client.secret"));
        all.extend([
            ("sasl.oauthbearer.client.secret", "s3cret"),
            ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1,identityPoolId=pool-2"),
            ("https.ca.location", "/etc/ca.pem"),
        ]);
        check(&of(&all)).expect("complete");
        let oidc = oidc(&of(&all)).expect("complete").expect("asked for");
        assert_eq!(oidc.extensions[1], ("identityPoolId".to_owned(), "pool-2".to_owned()));
        assert_eq!(oidc.request.ca, Some("/etc/ca.pem".into()));
        assert!(!format!("{:?}", oidc.request).contains("s3cret"));
        let native = |name| goes_to(name, Kind::Consumer);
        assert!(native("sasl.mechanism") && !native("https.ca.location") && !native("sasl.oauthbearer.method"));
    }

    #[test]
    fn every_listed_name_is_known_to_librdkafka() {
        let config = ClientConfig::new().create_native_config().expect("a configuration");
        for name in COMMON.iter().chain(&CONSUMER).chain(&PRODUCER) {
            // A known name without a value is not an error of the name.
            let unknown = matches!(
                ClientConfig::new().set(*name, "\u{1}").create_native_config().err(),
                Some(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))
            );
            assert!(!unknown || config.get(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn each_client_gets_its_own_properties() {
        assert!(!goes_to("group.protocol", Kind::Producer) && !goes_to("linger.ms", Kind::Consumer));
        for name in ["group.protocol", "linger.ms"] {
            assert!(!goes_to(name, Kind::Admin), "{name}");
        }
        for kind in [Kind::Admin, Kind::Consumer, Kind::Producer] {
            assert!(goes_to("ssl.ca.location", kind) && goes_to("sasl.password", kind));
        }
    }
}
