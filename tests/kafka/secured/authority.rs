//! A certificate authority of the tests' own, and a broker that has its certificates: TLS with
//! client certificates, SASL with PLAIN, SCRAM and OAUTHBEARER, and an authorizer.
//!
//! It grants no right.

use super::endpoint::{Endpoint, ISSUER};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use receipts_log::testing::{Broker, BrokerError, enabled};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// The password of a client's encrypted key.
pub(super) const KEY_PASSWORD: &str = "k3y-s3cret";
/// The password of every SASL user.
pub(super) const PASSWORD: &str = "s4sl-s3cret";
/// The users of SCRAM, with both mechanisms.
const SCRAM: [&str; 2] = ["scram-a", "scram-b"];
/// The number of users of PLAIN: `plain-0` and so on.
const PLAIN: usize = 12;

/// A broker, its authority and its token endpoint.
pub(super) struct Secured {
    pub(super) broker: Broker,
    pub(super) endpoint: Endpoint,
    folder: TempDir,
}

/// The broker that these tests share; `None` where `RECEIPTS_TEST_KAFKA=off`.
pub(super) fn secured() -> Option<&'static Secured> {
    static SHARED: OnceLock<Result<Secured, BrokerError>> = OnceLock::new();
    // A failure is kept too, because another attempt would fail in the same way.
    enabled().then(|| match SHARED.get_or_init(start) {
        Ok(secured) => secured,
        Err(error) => panic!("{error}"),
    })
}

fn start() -> Result<Secured, BrokerError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let ca = authority("receipts test CA");
    let other = authority("another CA");
    fs::write(path.join("ca.pem"), &ca.1).expect("written");
    fs::write(path.join("other-ca.pem"), &other.1).expect("written");
    for (name, expires) in [("broker", 2_100), ("expired", 2_001)] {
        let (key, certificate) = certificate(&ca.0, name, &["localhost"], expires);
        fs::write(path.join(format!("{name}.pem")), key.serialize_pem() + &certificate).expect("written");
        if name == "broker" {
            fs::write(path.join("broker.crt"), certificate).expect("written");
            fs::write(path.join("broker.key"), key.serialize_pem()).expect("written");
        }
    }
    let (key, certificate) = certificate(&ca.0, "tls-user", &["tls-user"], 2_100);
    fs::write(path.join("client.crt"), certificate).expect("written");
    fs::write(path.join("client.key"), key.serialize_pem()).expect("written");
    encrypt(&path.join("client.key"), &path.join("client-encrypted.key"));

    let endpoint = Endpoint::start(&path.join("broker.crt"), &path.join("broker.key"), None);
    fs::write(path.join("jwks.json"), endpoint.jwks()).expect("written");
    let scram = SCRAM
        .iter()
        .flat_map(|user| ["256", "512"].map(|bits| format!("SCRAM-SHA-{bits}=[name={user},password={PASSWORD}]\n")));
    fs::write(path.join("scram"), scram.collect::<String>()).expect("written");
    fs::write(path.join("server.properties"), properties(path)).expect("written");
    let broker = Broker::start_secured(path)?;
    Ok(Secured { broker, endpoint, folder })
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("signed").pem();
    (Issuer::new(params, key), pem)
}

/// Returns a key, and a certificate for it that is valid until a year.
fn certificate(ca: &Issuer<'static, KeyPair>, name: &str, hosts: &[&str], expires: i32) -> (KeyPair, String) {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2_000, 1, 1);
    params.not_after = date_time_ymd(expires, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let pem = params.signed_by(&key, ca).expect("signed").pem();
    (key, pem)
}

fn encrypt(key: &Path, to: &Path) {
    let openssl = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", &format!("pass:{KEY_PASSWORD}")])
        .arg("-in")
        .arg(key)
        .arg("-out")
        .arg(to)
        .status();
    assert!(
        openssl.is_ok_and(|status| status.success()),
        "the program openssl is missing: install it (Debian: apt-get install openssl)"
    );
}

fn properties(folder: &Path) -> String {
    let folder = folder.display();
    let module = |name: &str| format!("org.apache.kafka.common.security.{name}LoginModule required");
    let mut text = format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={folder}/broker.pem\nssl.truststore.type=PEM\n\
         ssl.truststore.location={folder}/ca.pem\nlistener.name.ssl.ssl.client.auth=required\n\
         listener.name.expired.ssl.keystore.type=PEM\nlistener.name.expired.ssl.keystore.location={folder}/expired.pem\n\
         ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
         listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN\n\
         sasl.oauthbearer.jwks.endpoint.url=file://{folder}/jwks.json\nsasl.oauthbearer.expected.audience=kafka\n\
         sasl.oauthbearer.expected.issuer={ISSUER}\n\
         connections.max.reauth.ms=3600000\n"
    );
    let mut plain = module("plain.Plain");
    for user in 0..PLAIN {
        _ = write!(plain, " user_plain-{user}=\"{PASSWORD}\"");
    }
    for (listener, mechanism, jaas) in [
        ("sasl_ssl", "plain", &plain),
        ("sasl_plaintext", "plain", &plain),
        ("sasl_ssl", "scram-sha-256", &module("scram.Scram")),
        ("sasl_ssl", "scram-sha-512", &module("scram.Scram")),
        ("sasl_ssl", "oauthbearer", &module("oauthbearer.OAuthBearer")),
    ] {
        _ = writeln!(text, "listener.name.{listener}.{mechanism}.sasl.jaas.config={jaas};");
    }
    text += "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class=\
             org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler\n";
    text
}

impl Secured {
    /// Starts another token endpoint, whose tokens the broker accepts too.
    pub(super) fn another_endpoint(&self) -> Endpoint {
        let [certificate, key] = ["broker.crt", "broker.key"].map(|name| self.folder.path().join(name));
        Endpoint::start(&certificate, &key, Some(&self.endpoint))
    }

    /// Returns the path of a file of the authority.
    pub(super) fn file(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    /// The port with TLS and client certificates.
    pub(super) fn tls(&self) -> String {
        self.at("localhost", 2)
    }

    /// The port with TLS and SASL.
    pub(super) fn sasl(&self) -> String {
        self.at("localhost", 3)
    }

    /// A listener by the offset of its port.
    pub(super) fn at(&self, host: &str, offset: u16) -> String {
        format!("{host}:{}", self.broker.port(offset))
    }

    /// Properties of a client that trusts the authority.
    pub(super) fn trusting(&self, protocol: &str) -> Vec<(&'static str, String)> {
        vec![
            ("security.protocol", protocol.to_owned()),
            ("ssl.ca.location", self.file("ca.pem")),
            ("broker.address.family", "v4".to_owned()),
        ]
    }

    /// Properties of a user with a password.
    pub(super) fn user(&self, mechanism: &str, name: &str) -> Vec<(&'static str, String)> {
        let mut properties = self.trusting("SASL_SSL");
        properties.push(("sasl.mechanisms", mechanism.to_owned()));
        properties.push(("sasl.username", name.to_owned()));
        properties.push(("sasl.password", PASSWORD.to_owned()));
        properties
    }

    /// Properties of a client with tokens.
    pub(super) fn tokens(&self, url: &str) -> Vec<(&'static str, String)> {
        let mut properties = self.trusting("SASL_SSL");
        properties.extend([
            ("sasl.mechanisms", "OAUTHBEARER".to_owned()),
            ("sasl.oauthbearer.method", "oidc".to_owned()),
            ("sasl.oauthbearer.token.endpoint.url", url.to_owned()),
            ("sasl.oauthbearer.client.id", super::endpoint::CLIENT.to_owned()),
            ("sasl.oauthbearer.client.secret", super::endpoint::SECRET.to_owned()),
            ("https.ca.location", self.file("ca.pem")),
        ]);
        properties
    }
}
