//! Tests `receipts serve` with tokens, as an operator uses it: refusals at the start, and answers
//! to strangers. `crates/http` tests the tokens themselves.

use axum::Router;
use axum::routing::get;
use receipts_tests::process::{Answer, Service, errors, run};
use receipts_tests::tokens::{SECRET, token};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

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
    assert!(said.contains("auth.issuer") && said.contains("auth.jwks_url"), "{said}");

    let service = Service::serve(data.path(), &[&secret[..], &ISSUED_FOR_US].concat());
    for path in ["/v1/conversations/g1/messages/m1/receipt", "/v1/updates?conversation_id=g1"] {
        let answer = service.get(path);
        assert_eq!((answer.status, &answer.body["type"]), (401, &"urn:receipts:problem:unauthenticated".into()));
    }
    assert_eq!(service.get("/readyz").status, 200, "health needs no caller");
}

/// An identity provider: it describes itself and publishes the keys of one directory of
/// `receipts token`.
struct Provider {
    url: String,
    keys: Arc<Mutex<PathBuf>>,
    _runtime: Runtime,
}

impl Provider {
    fn with(keys: &Path) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let description = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let keys = Arc::new(Mutex::new(keys.to_owned()));
        let published = Arc::clone(&keys);
        let read = async move || std::fs::read(published.lock().expect("no panic").join("jwks.json")).expect("a set");
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(async move || description.clone()))
            .route("/keys", get(read));
        runtime.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, keys, _runtime: runtime }
    }

    fn rotate(&self, keys: &Path) {
        *self.keys.lock().expect("no panic") = keys.to_owned();
    }
}

/// Signs a token by the key of a directory.
fn signed(keys: &Path, more: &[&str]) -> Value {
    let output = run("receipts", &[&["token", "--json", "--keys", keys.to_str().expect("UTF-8")], more].concat());
    assert!(output.status.success(), "{}", errors(&output));
    serde_json::from_slice(&output.stdout).expect("a JSON line")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn ask(service: &Service, method: &str, path: &str, token: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [("Authorization", format!("Bearer {token}")), ("Content-Type", "application/json".to_owned())];
    service.request(method, path, &headers.each_ref().map(|(name, value)| (*name, value.as_str())), &body)
}

const RECEIPT: &str = "/v1/conversations/g1/messages/m1/receipt";

/// INV-CALLER
#[test]
fn issuer_alone_serves_through_rotations_of_keys() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = |name: &str| dir.path().join(name);
    signed(&keys("k0"), &[]);
    let provider = Provider::with(&keys("k0"));
    let service = Service::serve(&dir.path().join("data"), &["--auth-issuer", &provider.url]);
    let token = |keys: &Path, more: &[&str]| {
        let told = signed(keys, &[&["--auth-issuer", &provider.url], more].concat());
        assert!(text(&told["serve_flags"]).contains(&provider.url), "{told}");
        text(&told["token"]).to_owned()
    };
    let events = json!([
        {"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]},
        {"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
         "sent_at_ms": 1_780_000_000_000_u64, "need_read_receipt": true},
    ]);
    let writer = token(&keys("k0"), &["--scope", "receipts:write"]);
    assert_eq!(ask(&service, "POST", "/v1/events", &writer, &events).status, 202);
    let bob = token(&keys("k0"), &["--subject", "bob", "--scope", "receipts:own"]);
    let read = json!({"type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"]});
    let posted = ask(&service, "POST", "/v1/events", &bob, &read);
    assert_eq!(posted.status, 202, "{posted:?}");
    assert_eq!(ask(&service, "POST", "/v1/events", &bob, &events).status, 403);
    for round in 1..=4 {
        let keys = keys(&format!("k{round}"));
        let alice = token(&keys, &["--subject", "alice"]);
        provider.rotate(&keys);
        // The first request with the new key is answered, not refused.
        let header = format!("Bearer {alice}");
        let position = text(&posted.body["position"]);
        let read =
            service.request("GET", RECEIPT, &[("Authorization", &header), ("Receipts-Min-Position", position)], "");
        assert_eq!((read.status, &read.body["read_count"]), (200, &1.into()), "round {round}");
    }
    let refused = ask(&service, "GET", RECEIPT, &bob, &Value::Null);
    assert_eq!(refused.status, 401, "a withdrawn key: {refused:?}");
}

/// INV-CALLER, INV-SCOPE
#[test]
fn claims_of_other_names_and_shapes_are_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let file = dir.path().join("receipts.toml");
    let settings = format!(
        "[auth]\nsecret_file = {secret:?}\nissuer = \"https://id.example\"\naudience = \"chat\"\n\
         tenant_claim = \"organization\"\ndefault_tenant = \"only\"\nuser_claim = \"https://acme.example/user.id\"\n\
         scope_claims = [\"realm_access.roles\"]\n[auth.scope_map]\n\"chat-admin\" = \"receipts:members\"\n\
         \"chat-system\" = [\"receipts:write\"]\n"
    );
    std::fs::write(&file, settings).expect("written");
    let service = Service::serve(&dir.path().join("data"), &["--config", file.to_str().expect("UTF-8")]);
    let caller = |changes: Value| {
        let mut claims = json!({"iss": "https://id.example", "aud": "chat", "exp": 9_999_999_999_u64, "sub": "x"});
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        token(&claims)
    };
    let of_acme = json!({"acme": {"id": "7"}});
    let writer = caller(json!({"organization": of_acme, "realm_access": {"roles": ["offline", "chat-system"]}}));
    let sent = json!({"type": "message.sent", "conversation_id": "g1", "message_id": "m1", "sender_id": "alice",
        "sent_at_ms": 1_780_000_000_000_u64, "recipients": ["bob"], "need_read_receipt": true});
    let posted = ask(&service, "POST", "/v1/events", &writer, &sent);
    assert_eq!(posted.status, 202, "{posted:?}");
    let position = text(&posted.body["position"]);
    let receipt = |changes: Value| {
        let header = format!("Bearer {}", caller(changes));
        service.request("GET", RECEIPT, &[("Authorization", &header), ("Receipts-Min-Position", position)], "").status
    };
    let alice = "https://acme.example/user.id";
    assert_eq!(receipt(json!({"organization": ["acme"], alice: "alice"})), 200);
    assert_eq!(receipt(json!({"organization": "acme", "realm_access": {"roles": ["chat-admin"]}})), 200);
    assert_eq!(receipt(json!({"organization": "acme", "scope": "receipts:members"})), 403);
    assert_eq!(receipt(json!({alice: "alice"})), 403, "the default tenant has no such message");
    assert_eq!(receipt(json!({"organization": ["acme", "other"], alice: "alice"})), 401);
}

/// INV-REFUSED
#[test]
fn refused_tokens_are_counted_and_told_to_the_operator() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = dir.path().join("keys");
    let good = signed(&keys, &["--subject", "alice"]);
    let flags: Vec<&str> = text(&good["serve_flags"]).split(' ').collect();
    let service = Service::serve(&dir.path().join("data"), &flags);
    let refused = |more: &[&str]| {
        let token = text(&signed(&keys, more)["token"]).to_owned();
        let answer = ask(&service, "GET", RECEIPT, &token, &Value::Null);
        assert_eq!(answer.status, 401, "{more:?}");
        (token, answer)
    };
    assert_eq!(ask(&service, "GET", RECEIPT, text(&good["token"]), &Value::Null).status, 403, "no such message");
    let issuer = ["--subject", "alice", "--auth-issuer", "https://id.example/a\u{1b}[2J"];
    let (token, answer) = refused(&["--subject", "alice", "--auth-audience", "account\u{1b}[2J\n\u{202e}"]);
    assert_eq!(refused(&["--subject", "alice", "--auth-issuer", "https://id.example"]).1, answer, "no more is told");
    refused(&["--subject", "alice-of-wonderland", "--auth-tenant-claim", "organization"]);
    assert!(!run("receipts", &[&["token"], &issuer[..]].concat()).status.success(), "an issuer is a URL");
    assert_eq!(service.get(RECEIPT).status, 401);
    let metrics = service.get("/metrics").body;
    let metrics = text(&metrics);
    for (reason, total) in
        [("audience", 1), ("issuer", 1), ("tenant", 1), ("missing", 1), ("expired", 0), ("unread", 0)]
    {
        let line = format!("receipts_tokens_refused_total{{reason=\"{reason}\"}} {total}");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let said = service.errors();
    for part in
        ["wanted=\"receipts\"", "found=\"account", "found=\"https://id.example\"", "claim=\"tenant\"", "organization"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    let signature = token.rsplit('.').next().expect("a part");
    for part in [token.as_str(), signature, "\u{1b}[2J", "\u{202e}", "alice"] {
        assert!(!said.contains(part), "{part:?} in {said}");
    }
}

#[test]
fn token_command_writes_keys_once_and_names_mistakes() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys = dir.path().join("keys");
    let (first, second) = (signed(&keys, &["--subject", "alice"]), signed(&keys, &["--expires-in", "2h"]));
    let set = std::fs::read_to_string(keys.join("jwks.json")).expect("a set");
    let private = std::fs::read_to_string(keys.join("private.jwk.json")).expect("a key");
    assert!(!set.contains(text(&serde_json::from_str::<Value>(&private).expect("JSON")["d"])));
    assert_eq!((&first["claims"]["sub"], second["claims"].get("sub")), (&"alice".into(), None));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(keys.join("private.jwk.json")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
    for (more, code, part) in [
        (&["--expires-in", "soon"][..], 2, "no time"),
        (&["--subject", ""], 2, "0 bytes"),
        (&["--tenant", "a/b"], 2, "no slash"),
        (&["--keys", "/dev/null/keys"], 1, "--keys"),
    ] {
        let output = run("receipts", &[&["token"], more].concat());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{more:?}: {}", errors(&output));
        assert!(errors(&output).contains(part), "{more:?}: {}", errors(&output));
    }
    let keys = keys.to_str().expect("UTF-8");
    let output = run("receipts", &["token", "--keys", keys, "--scope", "receipts:wirte"]);
    assert!(output.status.success() && errors(&output).contains("receipts:wirte is no scope"), "{}", errors(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim().split('.').count(), 3);
}
