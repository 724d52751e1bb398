//! Tests keys from a URL: a real server that rotates keys, fails, hangs, and answers with invalid
//! sets.

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use receipts_http::{Authenticate as _, ClaimSettings, Code, KeySource, Signature, TokenSettings, Tokens};
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
    /// What it says about itself.
    description: Arc<Mutex<String>>,
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
        let description = Arc::new(Mutex::new(String::new()));
        let described = Arc::clone(&description);
        let router = Router::new()
            .route("/keys", get(answer))
            .with_state((Arc::clone(&behavior), Arc::clone(&asked)))
            .route("/.well-known/openid-configuration", get(async move || described.lock().unwrap().clone()));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, behavior, asked, description, serving }
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
            claims: ClaimSettings::default(),
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
        self.token_of("https://id.example")
    }

    fn token_of(&self, issuer: &str) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({"iss": issuer, "aud": "receipts", "exp": get_current_timestamp() + 600,
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

async fn ask(tokens: &Tokens, token: &str) -> Result<(), Code> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    tokens.authenticate(&headers).await.map(|_| ()).map_err(|problem| problem.code())
}

async fn is_taken(tokens: &Tokens, token: &str) -> bool {
    ask(tokens, token).await.is_ok()
}

/// Waits until a condition holds, at most a minute.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let given_up = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
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
    assert!(is_taken(&tokens, &old.token()).await && !is_taken(&tokens, &new.token()).await);
    issuer.now(published(&[&new]));
    // Without a refusal: clients take it for the end of a session.
    let (asked, token) = (issuer.asked(), new.token());
    let callers = (0..50).map(|_| is_taken(&tokens, &token));
    assert!(join_all(callers).await.into_iter().all(|is_taken| is_taken));
    assert!(issuer.asked() <= asked + 2, "callers share a fetch: {} instead of 1", issuer.asked() - asked);
    assert_eq!(ask(&tokens, &old.token()).await, Err(Code::Unauthenticated));
}

/// INV-CALLER
#[tokio::test]
async fn token_waits_in_vain_if_keys_cannot_be_fetched() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let tokens = Tokens::open(issuer.settings()).await.unwrap();
    tokio::spawn(tokens.clone().keep_keys_fresh());
    for behavior in [Behavior::Answers(StatusCode::BAD_GATEWAY, Vec::new()), Behavior::Hangs] {
        issuer.now(behavior);
        assert_eq!(ask(&tokens, &new.token()).await, Err(Code::Unavailable));
        assert!(is_taken(&tokens, &old.token()).await);
    }
    issuer.now(published(&[&new]));
    assert_eq!(ask(&tokens, &new.token()).await, Ok(()));
}

/// INV-CALLER
#[tokio::test]
async fn issuer_describes_where_its_keys_are() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let url = format!("http://{}", issuer.address);
    let keys = KeySource::Issuer { issuer: url.clone(), timeout: Duration::from_millis(500) };
    let settings = TokenSettings { issuer: url.clone(), keys: Some(keys), ..issuer.settings() };
    let describe = |issuer_named: &str, keys: &str| {
        let text = json!({"issuer": issuer_named, "jwks_uri": keys, "authorization_endpoint": "x"}).to_string();
        *issuer.description.lock().unwrap() = text;
    };
    for (named, keys, wanted) in [
        ("http://127.0.0.1", "/keys", "and auth.issuer is"),
        (&*url, "ftp://x/keys", "must begin with https://"),
        (&*url, &format!("{url}/nothing"), "nothing\": the server answered 404"),
    ] {
        describe(named, keys);
        let said = Tokens::open(settings.clone()).await.err().expect("no keys").to_string();
        assert!(said.contains(wanted) && said.contains("/.well-known/openid-configuration"), "{said}");
    }
    describe(&url, &format!("{url}/keys"));
    let tokens = Tokens::open(settings).await.unwrap();
    tokio::spawn(tokens.clone().keep_keys_fresh());
    assert_eq!(ask(&tokens, &old.token_of(&url)).await, Ok(()));
    assert_eq!(ask(&tokens, &old.token()).await, Err(Code::Unauthenticated), "another issuer's");
    issuer.now(published(&[&new]));
    assert_eq!(ask(&tokens, &new.token_of(&url)).await, Ok(()));
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
    until("three fetches", async || issuer.asked() >= 4).await;
    assert!(is_taken(&tokens, &new.token()).await && !is_taken(&tokens, &old.token()).await);
}

/// INV-CALLER
#[tokio::test]
async fn unknown_keys_do_not_cause_a_fetch_each() {
    let (good, unknown) = (Key::new("good"), Key::new("unknown"));
    let issuer = Issuer::with(&[&good]).await;
    let pause = Duration::from_millis(200);
    let tokens = Tokens::open(TokenSettings { refresh_pause: pause, ..issuer.settings() }).await.unwrap();
    tokio::spawn(tokens.clone().keep_keys_fresh());
    let (began, token, good) = (Instant::now(), unknown.token(), good.token());
    let mut flood: FuturesUnordered<_> = (0..2_000).map(|_| ask(&tokens, &token)).collect();
    while let Some(answer) = flood.next().await {
        assert!(matches!(answer, Err(Code::Unauthenticated | Code::Unavailable)), "{answer:?}");
        // A token with a known key does not wait meanwhile.
        assert_eq!(ask(&tokens, &good).now_or_never(), Some(Ok(())));
    }
    assert!(issuer.asked() > 1);
    // One fetch at the start, a few at once, one per whole pause, and one in progress.
    let most = 7 + began.elapsed().as_millis() / pause.as_millis();
    assert!(issuer.asked() as u128 <= most, "{} fetches, at most {most}", issuer.asked());
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
        until(what, async || issuer.asked() >= asked + 2).await;
        assert!(is_taken(&tokens, &old.token()).await, "{what}");
        assert!(!is_taken(&tokens, &new.token()).await, "{what}");
    }
    // The server stops, and another one starts at its address with new keys.
    issuer.serving.abort();
    let _ = issuer.serving.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_taken(&tokens, &old.token()).await);
    let back = Issuer::at(&issuer.address.to_string(), published(&[&new])).await;
    until("the new keys", async || is_taken(&tokens, &new.token()).await).await;
    assert!(back.asked() >= 1 && !is_taken(&tokens, &old.token()).await);
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
    until("a second try", async || issuer.asked() >= asked + 2).await;
    issuer.now(published(&[&key]));
    assert!(is_taken(&opening.await.unwrap().unwrap(), &key.token()).await);
    issuer.serving.abort();
    let _ = issuer.serving.await;
}
