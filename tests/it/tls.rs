//! Tests TLS of a process as an operator meets it: its files, its ready line, a certificate that is
//! renewed, and one that cannot be used.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use receipts_tests::eventually;
use receipts_tests::process::{Service, errors, request, run};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes a new certificate and its key into a folder; returns the certificate.
fn renew(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let [certificate_file, key_file] = files(folder);
    std::fs::write(certificate_file, cert.pem()).expect("written");
    std::fs::write(key_file, signing_key.serialize_pem()).expect("written");
    cert.der().clone()
}

fn files(folder: &Path) -> [PathBuf; 2] {
    ["tls.crt", "tls.key"].map(|name| folder.join(name))
}

/// Asks for `/livez` over TLS; returns the certificate of the service and its answer.
fn ask(address: &str, trusted: &[&CertificateDer<'static>]) -> (CertificateDer<'static>, String) {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).expect("it listens"));
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a handshake");
    let mut answer = [0; 512];
    let count = stream.read(&mut answer).expect("an answer");
    let shown = stream.conn.peer_certificates().expect("a certificate")[0].clone().into_owned();
    (shown, String::from_utf8_lossy(&answer[..count]).into_owned())
}

#[test]
fn renewed_certificate_is_served_without_a_restart() {
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let first = renew(folder.path());
    let [certificate, key] = files(folder.path());
    let more = [
        "--http-tls-certificate-file",
        certificate.to_str().expect("UTF-8"),
        "--http-tls-key-file",
        key.to_str().expect("UTF-8"),
        "--http-admin-listen",
        "127.0.0.1:0",
    ];
    let service = Service::serve(data.path(), &more);
    assert!(service.url.starts_with("https://"), "{}", service.url);
    let (shown, answer) = ask(&service.address, &[&first]);
    assert!(shown == first && answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let second = renew(folder.path());
    let shown = || ask(&service.address, &[&first, &second]).0;
    eventually("the renewed certificate is served", shown, |shown| *shown == second);
    std::fs::write(&key, "no key").expect("written");
    let admin = service.admin.clone().expect("the ready line names it");
    let metrics = || request(&admin, "GET", "/metrics", &[], "").expect("the operators' listener speaks no TLS").body;
    eventually("the bad pair is refused", metrics, |page| {
        page.as_str().is_some_and(|page| page.contains("receipts_tls_pair_refused 1"))
    });
    assert!(shown() == second, "the former pair stays");
    assert!(service.errors().contains("http.tls_key_file"), "{}", service.errors());
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn unusable_files_end_the_start_with_exit_code_2() {
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    _ = renew(folder.path());
    let [certificate, key] = files(folder.path()).map(|file| file.to_str().expect("UTF-8").to_owned());
    let absent = folder.path().join("absent").to_str().expect("UTF-8").to_owned();
    for (flags, said) in [
        (vec!["--http-tls-certificate-file", &certificate], "http.tls_key_file"),
        (vec!["--http-tls-key-file", &key], "http.tls_certificate_file"),
        (vec!["--http-tls-certificate-file", &certificate, "--http-tls-key-file", &absent], "cannot be read"),
        (vec!["--http-tls-certificate-file", &key, "--http-tls-key-file", &key], "holds no certificate"),
    ] {
        let data = data.path().to_str().expect("UTF-8");
        let output =
            run("receipts", &[&["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data], &flags[..]].concat());
        let errors = errors(&output);
        assert!(output.status.code() == Some(2) && errors.contains(said), "{flags:?}: {errors}");
    }
}
