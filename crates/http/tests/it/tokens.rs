//! Tests callers by their tokens: accepted signatures, refused tokens, changing keys, and the
//! answers.

use crate::common::{App, Setup};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{FutureExt as _, StreamExt as _};
use jsonwebtoken::crypto::sign;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use receipts_fold::view::Status;
use receipts_http::{
    Authenticate as _, Caller, ClaimSettings, Code, KeySource, Scope, Signature, TokenSettings, Tokens,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt as _;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ONE: &str = "/v1/conversations/g1/messages/m1/receipt";

/// A key of an issuer, with its id.
struct Issued {
    algorithm: Algorithm,
    id: &'static str,
    key: EncodingKey,
}

impl Issued {
    fn rsa(id: &'static str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        // PKCS #1, which follows 26 bytes of an RSA header in PKCS #8.
        let key = EncodingKey::from_rsa_der(&pair.as_der().unwrap().as_ref()[26..]);
        Self { algorithm: Algorithm::RS256, id, key }
    }

    fn ec(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { algorithm: Algorithm::ES256, id, key }
    }

    fn ec_384(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { algorithm: Algorithm::ES384, id, key }
    }

    fn ed(id: &'static str) -> Self {
        let key = EncodingKey::from_ed_der(Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref());
        Self { algorithm: Algorithm::EdDSA, id, key }
    }

    fn secret() -> Self {
        Self { algorithm: Algorithm::HS256, id: "secret", key: EncodingKey::from_secret(SECRET.as_bytes()) }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }

    fn public(&self) -> Jwk {
        let mut key = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        key.common.key_id = Some(self.id.to_owned());
        key
    }
}

fn set(keys: &[&Issued]) -> Vec<u8> {
    let set = JwkSet { keys: keys.iter().map(|key| key.public()).collect() };
    serde_json::to_vec(&set).unwrap()
}

fn publish(path: &Path, keys: &[&Issued]) {
    std::fs::write(path, set(keys)).unwrap();
}

/// Accepted claims with changes; null removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"iss": "https://id.example", "aud": ["receipts", "other"], "exp": get_current_timestamp() + 600,
        "tenant": "default", "sub": "alice"});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

struct Bench {
    dir: tempfile::TempDir,
    settings: TokenSettings,
}

impl Bench {
    fn new(public: &[&Issued]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (secret_file, jwks_file) = (dir.path().join("secret"), dir.path().join("keys.json"));
        std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
        publish(&jwks_file, public);
        let settings = TokenSettings {
            issuer: "https://id.example".to_owned(),
            audience: "receipts".to_owned(),
            signatures: vec![
                Signature::Hs256,
                Signature::Rs256,
                Signature::Ps256,
                Signature::Es256,
                Signature::Es384,
                Signature::EdDsa,
            ],
            secret_file: Some(secret_file),
            keys: Some(KeySource::File(jwks_file)),
            refresh: Duration::from_secs(3_600),
            refresh_pause: Duration::from_millis(100),
            start_timeout: Duration::ZERO,
            leeway: Duration::from_secs(5),
            claims: ClaimSettings::default(),
        };
        Self { dir, settings }
    }

    async fn tokens(&self) -> Tokens {
        Tokens::open(self.settings.clone()).await.unwrap()
    }
}

async fn later(tokens: &Tokens, token: &str) -> Result<Caller, Code> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    tokens.authenticate(&headers).await.map_err(|problem| problem.code())
}

/// As [`later`], but the token must not wait for a key.
fn ask(tokens: &Tokens, token: &str) -> Result<Caller, Code> {
    later(tokens, token).now_or_never().expect("the answer of a known key comes at once")
}

/// INV-CALLER
#[tokio::test]
async fn token_of_each_kind_names_the_caller() {
    let keys = [
        Issued::rsa("r"),
        Issued { algorithm: Algorithm::PS256, ..Issued::rsa("p") },
        Issued::ec("e"),
        Issued::ec_384("f"),
        Issued::ed("d"),
        Issued::secret(),
    ];
    let public: Vec<&Issued> = keys[..5].iter().collect();
    let bench = Bench::new(&public);
    let tokens = bench.tokens().await;
    for key in &keys {
        let user = ask(&tokens, &key.sign(&claims(json!({"tenant": "acme"})))).unwrap();
        assert_eq!((user.tenant.as_str(), user.user.as_deref()), ("acme", Some("alice")), "{:?}", key.algorithm);
        assert!(!user.scopes.has(Scope::Members) && !user.scopes.has(Scope::Write) && user.expires.is_some());
    }
}

/// INV-CALLER
#[tokio::test]
async fn token_without_sub_is_a_service_with_its_scopes() {
    let mut bench = Bench::new(&[&Issued::ed("d")]);
    let scopes = |tokens: &Tokens, changes: Value| {
        let caller = ask(tokens, &Issued::secret().sign(&claims(changes))).unwrap();
        (caller.user, caller.scopes.has(Scope::Members), caller.scopes.has(Scope::Write))
    };
    let all = |tokens: &Tokens, scope: &str| {
        let caller = ask(tokens, &Issued::secret().sign(&claims(json!({"scope": scope})))).unwrap();
        Scope::ALL.map(|scope| caller.scopes.has(scope))
    };
    let tokens = bench.tokens().await;
    assert_eq!(scopes(&tokens, json!({"sub": null})), (None, false, false));
    assert_eq!(scopes(&tokens, json!({"sub": null, "scope": "openid receipts:members"})), (None, true, false));
    assert_eq!(scopes(&tokens, json!({"sub": null, "scopes": ["receipts:write"]})), (None, false, true));
    let admin = json!({"scp": ["receipts:members", 7]});
    assert_eq!(scopes(&tokens, admin), (Some("alice".to_owned()), true, false));
    // Own, members, write, policy, erase.
    assert_eq!(all(&tokens, "receipts:write"), [true, false, true, true, true]);
    assert_eq!(all(&tokens, "receipts:own receipts:erase"), [true, false, false, false, true]);
    bench.settings.claims.strict_scopes = true;
    assert_eq!(all(&bench.tokens().await, "receipts:write"), [false, false, true, false, false]);
    bench.settings.claims.service_claim = Some("client_id".to_owned());
    let tokens = bench.tokens().await;
    assert_eq!(scopes(&tokens, json!({"client_id": "crm"})).0, None);
    assert_eq!(scopes(&tokens, json!({"client_id": false})).0.as_deref(), Some("alice"));
}

#[tokio::test]
async fn services_are_told_apart_by_token_claims() {
    let mut bench = Bench::new(&[&Issued::ed("d")]);
    bench.settings.claims.service_claim = Some("robot".to_owned());
    let tokens = bench.tokens().await;
    let service = |changes: Value| ask(&tokens, &Issued::secret().sign(&claims(changes))).unwrap().service;
    for (changes, wanted) in [
        (json!({"sub": null}), None),
        (json!({"sub": null, "client_id": "crm", "azp": "other"}), Some("crm")),
        (json!({"sub": null, "azp": "crm"}), Some("crm")),
        (json!({"robot": "crm", "client_id": "other"}), Some("crm")),
        (json!({"robot": true}), Some("alice")),
        (json!({"client_id": "app"}), None),
    ] {
        assert_eq!(service(changes.clone()).as_deref(), wanted, "{changes}");
    }
}

/// INV-CALLER
#[tokio::test]
async fn unacceptable_tokens_are_refused() {
    let (rsa, stranger) = (Issued::rsa("r"), Issued::rsa("r"));
    let mut bench = Bench::new(&[&rsa, &Issued::ec("e")]);
    let tokens = bench.tokens().await;
    let now = get_current_timestamp();
    for (what, changes) in [
        ("expired", json!({"exp": now - 6})),
        ("without an end", json!({"exp": null})),
        ("not yet", json!({"nbf": now + 30})),
        ("of another issuer", json!({"iss": "https://evil.example"})),
        ("without an issuer", json!({"iss": null})),
        ("for another audience", json!({"aud": "other"})),
        ("without an audience", json!({"aud": null})),
        ("without a tenant", json!({"tenant": null})),
        ("of a tenant with a slash", json!({"tenant": "a/b"})),
        ("of several issuers", json!({"iss": ["https://id.example"]})),
        ("for an audience that is no text", json!({"aud": ["receipts", 7]})),
        ("of several tenants", json!({"tenant": ["default", "acme"]})),
        ("with a text for its end", json!({"exp": (now + 600).to_string()})),
        ("with a text for its begin", json!({"nbf": "0"})),
        ("with an empty sub", json!({"sub": ""})),
        ("with a number for a sub", json!({"sub": 7})),
    ] {
        assert_eq!(ask(&tokens, &rsa.sign(&claims(changes))), Err(Code::Unauthenticated), "{what}");
    }
    ask(&tokens, &rsa.sign(&claims(json!({"exp": now - 2, "nbf": now + 2})))).expect("within the leeway");
    assert_eq!(
        ask(&tokens, &stranger.sign(&claims(json!({})))),
        Err(Code::Unauthenticated),
        "the key of another issuer"
    );
    // HS256 with the public key as its secret, an attack that old libraries accepted.
    let public = serde_json::to_vec(&rsa.public()).unwrap();
    let forged = Issued { algorithm: Algorithm::HS256, id: "r", key: EncodingKey::from_secret(&public) };
    assert_eq!(ask(&tokens, &forged.sign(&claims(json!({})))), Err(Code::Unauthenticated));
    // A second value of a claim, which another reader could believe.
    let twins = |name: &str| {
        let claims = claims(json!({})).to_string().replacen('{', &format!("{{{name:?}:\"x\","), 1);
        let head = json!({"alg": "HS256"}).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let signature = sign(signed.as_bytes(), &Issued::secret().key, Algorithm::HS256).unwrap();
        format!("{signed}.{signature}")
    };
    ask(&tokens, &twins("other")).expect("one of each claim");
    for name in ["tenant", "sub", "iss", "exp"] {
        assert_eq!(ask(&tokens, &twins(name)), Err(Code::Unauthenticated), "two of {name}");
    }
    // The algorithm "none", a cut token, and a text that is not a token.
    let good = rsa.sign(&claims(json!({})));
    let (_, rest) = good.split_once('.').unwrap();
    let (payload, _) = rest.split_once('.').unwrap();
    for token in [format!("eyJhbGciOiJub25lIn0.{payload}."), good[..good.len() - 4].to_owned(), "x".to_owned()] {
        assert_eq!(ask(&tokens, &token), Err(Code::Unauthenticated), "{token}");
    }
    bench.settings.signatures = vec![Signature::Es256];
    assert_eq!(ask(&bench.tokens().await, &good), Err(Code::Unauthenticated), "RS256 is not on the list");
}

/// INV-CALLER
#[tokio::test]
async fn newer_name_of_eddsa_is_accepted() {
    let key = Issued::ed("d");
    let tokens = Bench::new(&[&key]).tokens().await;
    let payload = URL_SAFE_NO_PAD.encode(claims(json!({})).to_string());
    let token = |name: &str| {
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": name, "kid": "d"}).to_string());
        let signed = format!("{head}.{payload}");
        format!("{signed}.{}", sign(signed.as_bytes(), &key.key, Algorithm::EdDSA).unwrap())
    };
    for name in ["EdDSA", "Ed25519"] {
        assert_eq!(ask(&tokens, &token(name)).unwrap().user.as_deref(), Some("alice"), "{name}");
    }
    for name in ["ed25519", "Ed448", "ES256"] {
        assert_eq!(ask(&tokens, &token(name)), Err(Code::Unauthenticated), "{name}");
    }
}

/// INV-CALLER
#[tokio::test]
async fn keys_change_at_runtime_and_survive_unreadable_files() {
    let (old, new) = (Issued::ec("old"), Issued::ed("new"));
    let bench = Bench::new(&[&old]);
    let file = bench.dir.path().join("keys.json");
    let tokens = bench.tokens().await;
    tokio::spawn(tokens.clone().keep_keys_fresh());
    publish(&file, &[&new]);
    let (of_old, of_new) = (old.sign(&claims(json!({}))), new.sign(&claims(json!({}))));
    later(&tokens, &of_new).await.expect("it waits for its key");
    assert_eq!(later(&tokens, &of_old).await, Err(Code::Unauthenticated), "a withdrawn key is refused");
    std::fs::write(&file, "{").unwrap();
    assert_eq!(later(&tokens, &of_old).await, Err(Code::Unavailable), "nobody knows whether it is good");
    ask(&tokens, &of_new).expect("the previous keys stay");
}

#[tokio::test]
async fn unusable_keys_are_refused_at_start() {
    let bench = Bench::new(&[&Issued::ed("d")]);
    std::fs::write(bench.dir.path().join("secret"), "short").unwrap();
    assert!(Tokens::open(bench.settings.clone()).await.err().unwrap().to_string().contains("at least 32"));
    std::fs::write(bench.dir.path().join("secret"), SECRET).unwrap();
    std::fs::write(bench.dir.path().join("keys.json"), r#"{"keys":[]}"#).unwrap();
    assert!(Tokens::open(bench.settings.clone()).await.err().unwrap().to_string().contains("no public key"));
}

/// An edge that accepts tokens.
async fn app(bench: &Bench) -> App {
    App::with(Setup { authenticate: Arc::new(bench.tokens().await), ..Setup::default() })
}

/// INV-CALLER, INV-STRANGER
#[tokio::test]
async fn bad_token_is_401_and_missing_permission_403() {
    let app = app(&Bench::new(&[&Issued::ed("d")])).await;
    app.table.put("g1", "m1", "alice", 1, Status::Ok);
    let bearer = |changes: Value| format!("Bearer {}", Issued::secret().sign(&claims(changes)));
    let missing = app.get(ONE, &[]).await;
    missing.is_problem(401, "unauthenticated", &[]);
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    for path in [ONE, "/v1/conversations/g1/messages/nothing/receipt", "/v1/updates?sender_id=alice"] {
        let refused = app.get(path, &[("authorization", "Bearer x")]).await;
        refused.is_problem(401, "unauthenticated", &[]);
        assert_eq!(refused.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    app.get(ONE, &[("authorization", "Basic YTpi")]).await.is_problem(401, "unauthenticated", &[]);
    let alice = bearer(json!({}));
    assert_eq!(app.get(ONE, &[("authorization", &alice)]).await.status, 200);
    let named = app.get(ONE, &[("authorization", &alice), ("receipts-caller", "bob")]).await;
    named.is_problem(400, "invalid", &["/Receipts-Caller"]);
    let bob = bearer(json!({"sub": "bob"}));
    let (there, not_there) =
        (app.get(ONE, &[("authorization", &bob)]).await, "/v1/conversations/g1/messages/no/receipt");
    there.is_problem(403, "forbidden", &[]);
    assert_eq!(app.get(not_there, &[("authorization", &bob)]).await.json, there.json, "the answers do not differ");
    let event = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["bob"]});
    app.post("/v1/events", &[("authorization", &bob)], event.clone()).await.is_problem(403, "forbidden", &[""]);
    let writer = bearer(json!({"sub": null, "scope": "receipts:write"}));
    assert_eq!(app.post("/v1/events", &[("authorization", &writer)], event).await.status, 202);
    app.get(ONE, &[("authorization", &writer)]).await.is_problem(403, "forbidden", &[]);
    assert_eq!(app.get("/livez", &[]).await.status, 200);
}

/// INV-CALLER
#[tokio::test(flavor = "multi_thread")]
async fn stream_ends_when_the_token_expires() {
    let mut bench = Bench::new(&[&Issued::ed("d")]);
    bench.settings.leeway = Duration::ZERO;
    let app = app(&bench).await;
    let token = Issued::secret().sign(&claims(json!({"exp": get_current_timestamp() + 2})));
    let request = Request::get("/v1/updates?sender_id=alice")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"));
    let response = app.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().into_data_stream();
    tokio::time::timeout(Duration::from_secs(10), body.collect::<Vec<_>>()).await.expect("the stream ends");
}
