//! Tests TLS through a real listener: the protocols that it offers, files that change, and clients
//! that do not end their handshake.

use crate::common::App;
use crate::common::wire::{Listening, get_request, http2, read_some, read_to_end, until};
use axum::http::Version;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use receipts_http::{ConnectionBounds, Tls};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for `localhost` with its key, PEM, and as clients see it.
struct Pair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

fn pair() -> Pair {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Pair { certificate: cert.pem(), key: signing_key.serialize_pem(), der: cert.der().clone() }
}

/// A folder with the two files.
struct Files(TempDir);

impl Files {
    fn of(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(&pair.certificate, &pair.key);
        files
    }

    fn paths(&self) -> [PathBuf; 2] {
        ["tls.crt", "tls.key"].map(|name| self.0.path().join(name))
    }

    fn write(&self, certificate: &str, key: &str) {
        let [certificate_file, key_file] = self.paths();
        std::fs::write(certificate_file, certificate).unwrap();
        std::fs::write(key_file, key).unwrap();
    }

    fn open(&self) -> Result<Tls, String> {
        let [certificate, key] = self.paths();
        Tls::open(&certificate, &key).map_err(|bad| bad.to_string())
    }
}

/// Connects as a client that trusts these certificates and offers these protocols.
async fn connect(http: &Listening, trusted: &[&Pair], offered: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        roots.add(pair.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, http.connect().await).await
}

async fn served(tls: Tls, bounds: ConnectionBounds) -> Listening {
    Listening::secured(App::new().router.clone(), bounds, Some(tls)).await
}

/// Returns the certificate that a new connection is shown.
async fn shown(http: &Listening, trusted: &[&Pair]) -> CertificateDer<'static> {
    let stream = connect(http, trusted, &[]).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

#[tokio::test]
async fn client_chooses_the_protocol() {
    let pair = pair();
    let http = served(Files::of(&pair).open().unwrap(), ConnectionBounds::default()).await;
    for (offered, chosen) in [
        (["h2", "http/1.1"].as_slice(), Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut stream = connect(&http, &[&pair], offered).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        if chosen == Some("h2") {
            let answer = http2(stream).await.send_request(get_request("/livez")).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
        } else {
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
    }
    assert!(connect(&http, &[&pair], &["smtp"]).await.is_err(), "no protocol in common");
    let plain = http.get("/livez", "").await;
    assert!(!read_to_end(&mut { plain }).await.contains("HTTP/1.1"), "it speaks TLS alone");
}

#[tokio::test]
async fn changed_pair_is_served_unless_it_is_bad() {
    let (first, second, third) = (pair(), pair(), pair());
    let all = [&first, &second, &third];
    let files = Files::of(&first);
    let tls = files.open().unwrap();
    let http = served(tls.clone(), ConnectionBounds::default()).await;
    assert_eq!(shown(&http, &all).await, first.der);
    for (certificate, key) in [
        (second.certificate.as_str(), first.key.as_str()),
        (&second.certificate, "no key"),
        ("", &second.key),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &second.key),
    ] {
        files.write(certificate, key);
        for _ in 0..3 {
            tls.look();
            assert_eq!(shown(&http, &all).await, first.der, "the former pair stays");
        }
    }
    std::fs::remove_file(&files.paths()[1]).unwrap();
    tls.look();
    assert_eq!(shown(&http, &all).await, first.der);
    files.write(&second.certificate, &second.key);
    tls.look();
    assert_eq!(shown(&http, &all).await, second.der);
    // Only one file is replaced at the first look.
    files.write(&third.certificate, &second.key);
    tls.look();
    assert_eq!(shown(&http, &all).await, second.der);
    files.write(&third.certificate, &third.key);
    tls.look();
    assert_eq!(shown(&http, &all).await, third.der);
    files.write(&first.certificate, &second.key);
    tls.look();
    files.write(&third.certificate, &third.key);
    tls.look();
    assert_eq!(shown(&http, &all).await, third.der, "the served pair came back");
}

/// Kubernetes mounts a secret as links into a folder, which is itself a link that is replaced.
#[cfg(unix)]
#[tokio::test]
async fn replaced_link_is_a_change() {
    use std::os::unix::fs::symlink;
    let (first, second) = (pair(), pair());
    let (old, new, mount) = (Files::of(&first), Files::of(&second), tempfile::tempdir().unwrap());
    let at = |name: &str| mount.path().join(name);
    symlink(old.0.path(), at("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let tls = Tls::open(&at("tls.crt"), &at("tls.key")).unwrap();
    let http = served(tls.clone(), ConnectionBounds::default()).await;
    symlink(new.0.path(), at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    tls.look();
    assert_eq!(shown(&http, &[&first, &second]).await, second.der);
}

#[test]
fn unusable_files_are_named() {
    let (one, other) = (pair(), pair());
    let files = Files::of(&one);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (certificate, key, setting, said) in [
        (one.certificate.as_str(), other.key.as_str(), "http.tls_key_file", "is not the key of the certificate"),
        (&one.certificate, encrypted, "http.tls_key_file", "an encrypted one cannot be used"),
        (&one.certificate, "", "http.tls_key_file", "holds no private key"),
        ("", &one.key, "http.tls_certificate_file", "holds no certificate"),
        (&one.key, &one.certificate, "http.tls_certificate_file", "holds no certificate"),
    ] {
        files.write(certificate, key);
        let bad = files.open().err().expect("a bad pair");
        assert!(bad.starts_with(setting) && bad.contains(said) && bad.contains("/tls."), "{bad}");
    }
    std::fs::remove_file(&files.paths()[0]).unwrap();
    let bad = files.open().err().expect("no file");
    assert!(bad.starts_with("http.tls_certificate_file: ") && bad.contains("cannot be read"), "{bad}");
}

/// INV-CONNECTIONS, INV-HEAD
#[tokio::test]
async fn unfinished_handshakes_hold_nobody_back() {
    let pair = pair();
    let bounds = ConnectionBounds { connections_max: 4, ..ConnectionBounds::default() };
    let http = served(Files::of(&pair).open().unwrap(), bounds).await;
    let mut silent = Vec::new();
    for number in 0..20 {
        // The beginning of a record of a handshake.
        silent.push(http.send(if number % 2 == 0 { "" } else { "\x16\x03\x01" }).await);
        let mut stream = connect(&http, &[&pair], &["http/1.1"]).await.expect("a handshake");
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200 "), "client {number}");
    }
    let bounds = ConnectionBounds { head_timeout: Duration::from_millis(100), ..ConnectionBounds::default() };
    let http = served(Files::of(&pair).open().unwrap(), bounds).await;
    for begun in ["", "\x16\x03\x01"] {
        assert_eq!(read_to_end(&mut http.send(begun).await).await, "", "closed after the head timeout");
    }
    // A whole handshake gives the first head no more time.
    until("a client without a request is closed", async || match connect(&http, &[&pair], &["http/1.1"]).await {
        Ok(mut stream) => stream.read_u8().await.is_err(),
        Err(_) => false,
    })
    .await;
}
