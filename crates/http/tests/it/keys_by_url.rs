//! Tests keys from a URL: a real server that rotates keys, fails, hangs, and answers with invalid
//! sets.

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use receipts_http::{Authenticate as _, KeySource, Signature, TokenSettings, Tokens};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How the server answers.
#[derive(Clone)]
enum Behavior {
    Answers(StatusCode, Vec<u8>),
    /// Sends the head and never ends.
    Hangs,
    Redirects(String),
}

/// An issuer that publishes its keys.
struct Issuer {
    address: SocketAddr,
    behavior: Arc<Mutex<Behavior>>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

type Shared = (Arc<Mutex<Behavior>>, Arc<AtomicUsize>);

async fn answer(State((behavior, asked)): State<Shared>) -> Response {
    asked.fetch_add(1, Ordering::SeqCst);
    let behavior = behavior.lock().unwrap().clone();
    match behavior {
        Behavior::Answers(status, body) => (status, body).into_response(),
        Behavior::Hangs => {
            Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()).into_response()
        }
        Behavior::Redirects(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
    }
}

impl Issuer {
    async fn at(address: &str, behavior: Behavior) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behavior, asked) = (Arc::new(Mutex::new(behavior)), Arc::new(AtomicUsize::new(0)));
        let router = Router::new().route("/keys", get(answer)).with_state((Arc::clone(&behavior), Arc::clone(&asked)));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, behavior, asked, serving }
    }

    async fn with(keys: &[&Key]) -> Self {
        Self::at("127.0.0.1:0", published(keys)).await
    }

    fn now(&self, behavior: Behavior) {
        *self.behavior.lock().unwrap() = behavior;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn settings(&self) -> TokenSettings {
        let (url, timeout) = (format!("http://{}/keys", self.address), Duration::from_millis(500));
        TokenSettings {
            issuer: "https://id.example".to_owned(),
            audience: "receipts".to_owned(),
            signatures: vec![Signature::EdDsa],
            secret_file: None,
            keys: Some(KeySource::Url { url, timeout }),
            refresh: Duration::from_secs(3_600),
            refresh_pause: Duration::ZERO,
            start_timeout: Duration::ZERO,
            leeway: Duration::ZERO,
            tenant_claim: "tenant".to_owned(),
            service_claim: None,
            strict_scopes: false,
        }
    }

    async fn fails_to_open(&self) -> String {
        Tokens::open(self.settings()).await.err().expect("no keys").to_string()
    }
}

struct Key {
    id: String,
    key: EncodingKey,
}

impl Key {
    fn new(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
        Self { id: id.to_owned(), key: EncodingKey::from_ed_der(pair.as_ref()) }
    }

    fn token(&self) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({"iss": "https://id.example", "aud": "receipts", "exp": get_current_timestamp() + 600,
            "tenant": "default", "sub": "alice"});
        encode(&header, &claims, &self.key).unwrap()
    }
}

fn published(keys: &[&Key]) -> Behavior {
    let public = |key: &&Key| {
        let mut public = Jwk::from_encoding_key(&key.key, Algorithm::EdDSA).unwrap();
        public.common.key_id = Some(key.id.clone());
        public
    };
    let set = JwkSet { keys: keys.iter().map(public).collect() };
    Behavior::Answers(StatusCode::OK, serde_json::to_vec(&set).unwrap())
}

fn is_taken(tokens: &Tokens, token: &str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    tokens.authenticate(&headers).is_ok()
}

/// Waits until a condition holds, at most a minute.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let given_up = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < given_up, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// INV-CALLER
#[tokio::test]
async fn unknown_key_is_fetched_and_withdrawn_key_refused() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let tokens = Tokens::open(issuer.settings()).await.unwrap();
    tokio::spawn(tokens.clone().keep_keys_fresh());
    assert!(is_taken(&tokens, &old.token()) && !is_taken(&tokens, &new.token()));
    issuer.now(published(&[&new]));
    until("the new key", || is_taken(&tokens, &new.token())).await;
    assert!(!is_taken(&tokens, &old.token()));
}

/// INV-CALLER
#[tokio::test]
async fn keys_are_fetched_again_by_schedule() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let settings = TokenSettings { refresh: Duration::from_millis(20), ..issuer.settings() };
    let tokens = Tokens::open(settings).await.unwrap();
    tokio::spawn(tokens.clone().keep_keys_fresh());
    issuer.now(published(&[&new]));
    // No token names a key meanwhile.
    until("three fetches", || issuer.asked() >= 4).await;
    assert!(is_taken(&tokens, &new.token()) && !is_taken(&tokens, &old.token()));
}

/// INV-CALLER
#[tokio::test]
async fn unknown_keys_do_not_cause_a_fetch_each() {
    let (good, unknown) = (Key::new("good"), Key::new("unknown"));
    let issuer = Issuer::with(&[&good]).await;
    let pause = Duration::from_millis(200);
    let tokens = Tokens::open(TokenSettings { refresh_pause: pause, ..issuer.settings() }).await.unwrap();
    tokio::spawn(tokens.clone().keep_keys_fresh());
    let (began, token) = (Instant::now(), unknown.token());
    for _ in 0..5_000 {
        assert!(!is_taken(&tokens, &token));
        tokio::task::yield_now().await;
    }
    until("a fetch", || issuer.asked() > 1).await;
    // One fetch at the start, one per whole pause, and one in progress.
    let most = 2 + began.elapsed().as_millis() / pause.as_millis();
    assert!(issuer.asked() as u128 <= most, "{} fetches, at most {most}", issuer.asked());
    assert!(is_taken(&tokens, &good.token()), "a good token stays accepted");
}

/// INV-CALLER
#[tokio::test]
async fn previous_keys_survive_outages_and_invalid_sets() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let settings = TokenSettings { refresh: Duration::from_millis(10), ..issuer.settings() };
    let tokens = Tokens::open(settings).await.unwrap();
    tokio::spawn(tokens.clone().keep_keys_fresh());
    let ok = |body: &[u8]| Behavior::Answers(StatusCode::OK, body.to_vec());
    let Behavior::Answers(_, set) = published(&[&new]) else { unreachable!() };
    for (what, behavior) in [
        ("an error", Behavior::Answers(StatusCode::INTERNAL_SERVER_ERROR, set.clone())),
        ("no content", Behavior::Answers(StatusCode::NO_CONTENT, Vec::new())),
        ("half a set", ok(&set[..set.len() / 2])),
        ("a page", ok(b"<html>")),
        ("a set without keys", ok(br#"{"keys":[]}"#)),
        ("a set too large", ok(&[&set[..], &[b' '; 600 << 10]].concat())),
        ("no end", Behavior::Hangs),
        ("a redirect", Behavior::Redirects(format!("http://{}/keys", issuer.address))),
    ] {
        issuer.now(behavior);
        let asked = issuer.asked();
        until(what, || issuer.asked() >= asked + 2).await;
        assert!(is_taken(&tokens, &old.token()), "{what}");
        assert!(!is_taken(&tokens, &new.token()), "{what}");
    }
    // The server stops, and another one starts at its address with new keys.
    issuer.serving.abort();
    let _ = issuer.serving.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_taken(&tokens, &old.token()));
    let back = Issuer::at(&issuer.address.to_string(), published(&[&new])).await;
    until("the new keys", || is_taken(&tokens, &new.token())).await;
    assert!(back.asked() >= 1 && !is_taken(&tokens, &old.token()));
}

/// INV-CALLER
#[tokio::test]
async fn start_waits_for_keys_and_reports_failures() {
    let key = Key::new("k");
    let issuer = Issuer::with(&[&key]).await;
    for (behavior, wanted) in [
        (Behavior::Answers(StatusCode::NOT_FOUND, Vec::new()), "the server answered 404"),
        (Behavior::Answers(StatusCode::OK, b"<html>".to_vec()), "not a JWK Set"),
        (Behavior::Answers(StatusCode::OK, vec![b' '; 600 << 10]), "no complete answer of at most 524288 bytes"),
        (Behavior::Hangs, "no complete answer within 500 ms"),
        (Behavior::Redirects("/elsewhere".to_owned()), "the server answered 302"),
    ] {
        issuer.now(behavior);
        let said = issuer.fails_to_open().await;
        assert!(said.contains(wanted) && said.contains(&format!("http://{}/keys: ", issuer.address)), "{said}");
    }
    let patient = TokenSettings { start_timeout: Duration::from_secs(3_600), ..issuer.settings() };
    let opening = tokio::spawn(Tokens::open(patient));
    let asked = issuer.asked();
    until("a second try", || issuer.asked() >= asked + 2).await;
    issuer.now(published(&[&key]));
    assert!(is_taken(&opening.await.unwrap().unwrap(), &key.token()));
    issuer.serving.abort();
    let _ = issuer.serving.await;
}
