//! Tests `receipts serve` with tokens, as an operator uses it: refusals at the start, and answers
//! to strangers. `crates/http` tests the tokens themselves.

use receipts_tests::process::{Service, errors, run};
use std::path::Path;

const ISSUED_FOR_US: [&str; 4] = ["--auth-issuer", "https://id.example", "--auth-audience", "receipts"];

/// Starts a service that must refuse to start, and returns its message.
fn refused(binary: &str, data_dir: &Path, more: &[&str]) -> String {
    let data_dir = data_dir.to_str().expect("UTF-8");
    let command: &[&str] = if binary == "receipts" { &["serve"] } else { &[] };
    let output = run(binary, &[command, &["--data-dir", data_dir], more].concat());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{}", errors(&output));
    errors(&output)
}

/// INV-CALLER
#[test]
fn public_address_is_refused_without_tokens() {
    let data = tempfile::tempdir().expect("a folder");
    for binary in ["receipts", "receipts-ingest"] {
        let said = refused(binary, data.path(), &["--http-listen", "0.0.0.0:0", "--kafka-bootstrap", "127.0.0.1:1"]);
        assert!(
            said.contains("--http-listen") && said.contains("auth.jwks_file") && said.contains("--auth-jwks-file"),
            "{said}"
        );
        let missing = ["--kafka-bootstrap", "127.0.0.1:1", "--auth-secret-file", "/no/such/file"];
        let said = refused(binary, data.path(), &[&missing[..], &ISSUED_FOR_US].concat());
        assert!(said.contains("/no/such/file") && said.contains("auth.secret_file"), "{said}");
    }
    let secret = data.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("written");
    let secret = ["--auth-secret-file", secret.to_str().expect("UTF-8")];
    let said = refused("receipts", data.path(), &secret);
    assert!(said.contains("auth.issuer") && said.contains("auth.audience"), "{said}");

    let service = Service::serve(data.path(), &[&secret[..], &ISSUED_FOR_US].concat());
    for path in ["/v1/conversations/g1/messages/m1/receipt", "/v1/updates?conversation_id=g1"] {
        let answer = service.get(path);
        assert_eq!((answer.status, &answer.body["type"]), (401, &"urn:receipts:problem:unauthenticated".into()));
    }
    assert_eq!(service.get("/readyz").status, 200, "health needs no caller");
}
