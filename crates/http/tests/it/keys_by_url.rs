//! Keys of tokens from a URL: a true server that rotates, fails, hangs, and answers with what is no set.

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

/// What the server does when it is asked.
#[derive(Clone)]
enum Does {
    Answers(StatusCode, Vec<u8>),
    /// Sends its head and no end.
    Hangs,
    Redirects(String),
}

/// An issuer that publishes its keys.
struct Issuer {
    address: SocketAddr,
    does: Arc<Mutex<Does>>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

type Shared = (Arc<Mutex<Does>>, Arc<AtomicUsize>);

async fn answer(State((does, asked)): State<Shared>) -> Response {
    asked.fetch_add(1, Ordering::SeqCst);
    let does = does.lock().unwrap().clone();
    match does {
        Does::Answers(status, body) => (status, body).into_response(),
        Does::Hangs => {
            Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()).into_response()
        }
        Does::Redirects(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
    }
}

impl Issuer {
    async fn at(address: &str, does: Does) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (does, asked) = (Arc::new(Mutex::new(does)), Arc::new(AtomicUsize::new(0)));
        let router = Router::new().route("/keys", get(answer)).with_state((Arc::clone(&does), Arc::clone(&asked)));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, does, asked, serving }
    }

    async fn with(keys: &[&Key]) -> Self {
        Self::at("127.0.0.1:0", published(keys)).await
    }

    fn now(&self, does: Does) {
        *self.does.lock().unwrap() = does;
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

fn published(keys: &[&Key]) -> Does {
    let public = |key: &&Key| {
        let mut public = Jwk::from_encoding_key(&key.key, Algorithm::EdDSA).unwrap();
        public.common.key_id = Some(key.id.clone());
        public
    };
    let set = JwkSet { keys: keys.iter().map(public).collect() };
    Does::Answers(StatusCode::OK, serde_json::to_vec(&set).unwrap())
}

fn is_taken(tokens: &Tokens, token: &str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    tokens.authenticate(&headers).is_ok()
}

/// Waits for what is to come without a bound of its own; the test's harness has one.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let given_up = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < given_up, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// INV-CALLER
#[tokio::test]
async fn a_new_key_is_fetched_once_a_token_names_it_and_one_taken_back_is_refused() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let tokens = Tokens::open(issuer.settings()).await.unwrap();
    tokio::spawn(tokens.clone().upkeep());
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
    tokio::spawn(tokens.clone().upkeep());
    issuer.now(published(&[&new]));
    // Nobody names a key meanwhile.
    until("three fetches", || issuer.asked() >= 4).await;
    assert!(is_taken(&tokens, &new.token()) && !is_taken(&tokens, &old.token()));
}

/// INV-CALLER
#[tokio::test]
async fn however_many_tokens_name_unknown_keys_there_is_no_fetch_for_each() {
    let (good, unknown) = (Key::new("good"), Key::new("unknown"));
    let issuer = Issuer::with(&[&good]).await;
    let pause = Duration::from_millis(200);
    let tokens = Tokens::open(TokenSettings { refresh_pause: pause, ..issuer.settings() }).await.unwrap();
    tokio::spawn(tokens.clone().upkeep());
    let (began, token) = (Instant::now(), unknown.token());
    for _ in 0..5_000 {
        assert!(!is_taken(&tokens, &token));
        tokio::task::yield_now().await;
    }
    until("a fetch", || issuer.asked() > 1).await;
    // One at the start, and one for each whole pause; the one that is under way was counted by the server already.
    let most = 2 + began.elapsed().as_millis() / pause.as_millis();
    assert!(issuer.asked() as u128 <= most, "{} fetches, at most {most}", issuer.asked());
    assert!(is_taken(&tokens, &good.token()), "who has a good token notices nothing");
}

/// INV-CALLER
#[tokio::test]
async fn the_keys_of_before_stay_through_an_outage_and_whatever_else_is_no_set() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let settings = TokenSettings { refresh: Duration::from_millis(10), ..issuer.settings() };
    let tokens = Tokens::open(settings).await.unwrap();
    tokio::spawn(tokens.clone().upkeep());
    let ok = |body: &[u8]| Does::Answers(StatusCode::OK, body.to_vec());
    let Does::Answers(_, set) = published(&[&new]) else { unreachable!() };
    for (what, does) in [
        ("an error", Does::Answers(StatusCode::INTERNAL_SERVER_ERROR, set.clone())),
        ("no content", Does::Answers(StatusCode::NO_CONTENT, Vec::new())),
        ("half a set", ok(&set[..set.len() / 2])),
        ("a page", ok(b"<html>")),
        ("a set without keys", ok(br#"{"keys":[]}"#)),
        ("a set too large", ok(&[&set[..], &[b' '; 600 << 10]].concat())),
        ("no end", Does::Hangs),
        ("a redirect", Does::Redirects(format!("http://{}/keys", issuer.address))),
    ] {
        issuer.now(does);
        let asked = issuer.asked();
        until(what, || issuer.asked() >= asked + 2).await;
        assert!(is_taken(&tokens, &old.token()), "{what}");
        assert!(!is_taken(&tokens, &new.token()), "{what}");
    }
    // Nobody is there at all, and then somebody is again, with new keys.
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
async fn a_start_waits_for_the_keys_and_says_what_is_wrong_with_them_when_they_do_not_come() {
    let key = Key::new("k");
    let issuer = Issuer::with(&[&key]).await;
    for (does, wanted) in [
        (Does::Answers(StatusCode::NOT_FOUND, Vec::new()), "it answered 404"),
        (Does::Answers(StatusCode::OK, b"<html>".to_vec()), "no JWK Set"),
        (Does::Answers(StatusCode::OK, vec![b' '; 600 << 10]), "no whole set of at most 524288 bytes"),
        (Does::Hangs, "no whole answer within 500 ms"),
        (Does::Redirects("/elsewhere".to_owned()), "it answered 302"),
    ] {
        issuer.now(does);
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
